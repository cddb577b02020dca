from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2, kstest

from clients.randomness import (
    Randomness,
    Stream,
    secure,
    simulated,
)

HERE = simulated("test")
MANY = 200_000


def quarter_round(s: list[int], a: int, b: int, c: int, d: int) -> None:
    """RFC 8439, 2.1."""
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & 0xFFFFFFFF
        s[z] ^= s[x]
        s[z] = ((s[z] << turn) | (s[z] >> (32 - turn))) & 0xFFFFFFFF


def block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """RFC 8439, 2.3: 64 bytes of key stream, written out once more and slowly."""
    words = b"expand 32-byte k" + key + counter.to_bytes(4, "little") + nonce
    start = [int.from_bytes(words[at : at + 4], "little") for at in range(0, 64, 4)]
    state = list(start)
    columns = [(i, i + 4, i + 8, i + 12) for i in range(4)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for _ in range(10):
        for four in columns + diagonals:
            quarter_round(state, *four)
    mixed = [(one + other) & 0xFFFFFFFF for one, other in zip(state, start, strict=True)]
    return b"".join(word.to_bytes(4, "little") for word in mixed)


def test_the_reference_here_is_that_of_rfc_8439() -> None:
    key, nonce = bytes(range(32)), bytes.fromhex("000000090000004a00000000")
    assert block(key, 1, nonce).hex() == (  # 2.3.2
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


@given(
    st.binary(min_size=32, max_size=32),
    st.sampled_from(list(Stream)),
    st.integers(0, 2**64 - 1),
    st.integers(0, 20),
)
def test_words_are_chacha20_s_with_stream_and_number_for_a_nonce(
    key: bytes, stream: Stream, number: int, count: int
) -> None:
    nonce = int(stream).to_bytes(4, "little") + number.to_bytes(8, "little")
    expected = b"".join(block(key, counter, nonce) for counter in range(3))[: 8 * count]
    assert Randomness(key, "secure").words(stream, number, count).tobytes() == expected


def test_streams_and_numbers_never_share_a_word() -> None:
    drawn = [HERE.words(stream, number, 2000) for stream in Stream for number in (0, 1, 2, 2**32)]
    every = np.concatenate(drawn)
    assert len(np.unique(every)) == len(every)
    assert len(set(map(int, Stream))) == len(Stream)


def test_a_longer_draw_begins_with_the_shorter_and_others_do_not_shift_it() -> None:
    few = HERE.words(Stream.SAMPLE, 3, 10)
    HERE.words(Stream.SAMPLE, 2, 999)
    assert np.array_equal(HERE.words(Stream.SAMPLE, 3, 1000)[:10], few)


@dataclass(frozen=True)
class Given(Randomness):
    """Randomness whose every word is told beforehand."""

    word: int = 0

    def words(self, stream: Stream, number: int, count: int) -> NDArray[np.uint64]:
        return np.full(count, self.word, np.uint64)


@pytest.mark.parametrize("word", [0, 1, 2**11, 2**63 - 1, 2**63, 2**64 - 2**11, 2**64 - 1])
def test_a_uniform_is_never_zero_nor_one_and_a_normal_always_finite(word: int) -> None:
    extreme = Given(bytes(32), "simulated", word)
    (uniform,) = extreme.uniforms(Stream.SAMPLE, 0, 1)
    assert 0 < uniform < 1
    assert math.isfinite(extreme.normals(Stream.NOISE, 0, 1)[0])


@pytest.mark.parametrize("word", [0, 2**12, 2**62, 2**63 - 1, 2**63 + 2**12])
def test_uniforms_lie_alike_on_either_side_of_one_half(word: int) -> None:
    def uniform(word: int) -> float:
        return float(Given(bytes(32), "simulated", word).uniforms(Stream.SAMPLE, 0, 1)[0])

    larger = max(uniform(word), uniform(2**64 - 1 - word))
    assert 1 - larger == min(uniform(word), uniform(2**64 - 1 - word))  # nothing is rounded


def test_uniforms_are_uniform() -> None:
    drawn = HERE.uniforms(Stream.SAMPLE, 0, MANY)
    assert kstest(drawn, "uniform").pvalue > 0.01
    assert drawn.mean() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / MANY))
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    assert chi2.sf(((counts - MANY / 100) ** 2 / (MANY / 100)).sum(), 99) > 0.01


def test_normals_are_normal_in_bulk_in_moments_and_in_the_tails() -> None:
    drawn = HERE.normals(Stream.NOISE, 0, MANY)
    assert kstest(drawn, "norm").pvalue > 0.01
    # Moment by moment within four standard errors: var(z^k) is E z^2k - (E z^k)^2.
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert (drawn**power).mean() == pytest.approx(moment, abs=4 * math.sqrt(spread / MANY))
    for beyond, chance in ((2, 0.0455003), (3, 0.0026998), (4, 6.33425e-5)):
        expected = MANY * chance
        assert abs((abs(drawn) > beyond).sum() - expected) < 4 * math.sqrt(expected)
    assert abs(drawn).max() < 6.5


def test_a_normal_is_the_sum_of_four_halved_so_that_no_last_bit_of_one_is_left() -> None:
    one, other = HERE.uniforms(Stream.NOISE, 5, 4 * 7).reshape(2, -1)
    radius, angle = np.sqrt(-2 * np.log(one)), 2 * np.pi * other
    four = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).reshape(4, 7)
    np.testing.assert_allclose(HERE.normals(Stream.NOISE, 5, 7), four.sum(0) / 2, rtol=1e-12)


@pytest.mark.parametrize("apart", [1, 2, MANY // 4, MANY // 2])
def test_normals_do_not_depend_on_one_another(apart: int) -> None:
    # Four are summed, of two pairs each: none may come back in another place.
    drawn = HERE.normals(Stream.NOISE, 1, MANY)
    for one in (drawn, drawn**2 - 1, np.abs(drawn) - math.sqrt(2 / math.pi)):
        pairs = one[:-apart] * one[apart:]
        assert abs(pairs.mean()) < 4 * pairs.std() / math.sqrt(len(pairs))


def test_laplaces_are_laplace_s_in_bulk_in_moments_and_in_the_tails() -> None:
    drawn = HERE.laplaces(Stream.SUMS, 0, MANY)
    assert kstest(drawn, "laplace").pvalue > 0.01
    # E z^k is k! for even k; var(z^k) is E z^2k - (E z^k)^2.
    for power, moment, spread in ((1, 0, 2), (2, 2, 20), (3, 0, 720), (4, 24, 39744)):
        assert (drawn**power).mean() == pytest.approx(moment, abs=4 * math.sqrt(spread / MANY))
    for beyond in (1, 3, 6, 8):
        expected = MANY * math.exp(-beyond)
        assert abs((abs(drawn) > beyond).sum() - expected) < 4 * math.sqrt(expected)
    assert 8 < abs(drawn).max() < 25


@pytest.mark.parametrize("apart", [1, 2, MANY // 4, MANY // 2])
def test_laplaces_do_not_depend_on_one_another(apart: int) -> None:
    drawn = HERE.laplaces(Stream.SUMS, 1, MANY)
    for one in (drawn, np.sign(drawn), np.abs(drawn) - 1):
        pairs = one[:-apart] * one[apart:]
        assert abs(pairs.mean()) < 4 * pairs.std() / math.sqrt(len(pairs))


def test_normals_of_different_numbers_are_different() -> None:
    one, other = (HERE.normals(Stream.NOISE, number, 1000) for number in (0, 1))
    assert not np.intersect1d(one, other).size
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.12


# Keys ----------------------------------------------------------------------------------------


def test_secure_randomness_never_repeats_and_says_so() -> None:
    drawn = [secure() for _ in range(100)]
    assert {it.noise for it in drawn} == {"secure"}
    assert {len(it.key) for it in drawn} == {32}
    assert len({it.words(Stream.NOISE, 0, 1)[0] for it in drawn}) == 100


def test_simulated_randomness_repeats_and_says_so() -> None:
    assert simulated(1, "a") == simulated(1, "a")
    assert simulated(1, "a").noise == "simulated"


@pytest.mark.parametrize(
    ("one", "other"), [((1,), ("1",)), ((1, 2), (12,)), (("ab", "c"), ("a", "bc")), ((), ("",))]
)
def test_different_seeds_are_different_keys(
    one: tuple[int | str, ...], other: tuple[int | str, ...]
) -> None:
    assert simulated(*one).key != simulated(*other).key


def test_a_key_is_never_shown() -> None:
    for held in (secure(), HERE):
        shown = f"{held!r} {held} {[held]}"
        assert held.noise in shown
        assert held.key.hex() not in shown
        assert repr(held.key) not in shown
