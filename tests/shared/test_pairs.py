from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from shared import pairs as module
from shared.adapter import Adapter, save_adapter
from shared.errors import PairsError
from shared.pairs import Pairs, load_pairs, met, near, nearest_for, save_pairs
from shared.words import words_of

ITEMS = ("cup", "ink", "lamp", "pen", "salt")
EDGE = [(0, 1), (0, 3), (1, 2), (3, 4)]  # places of ITEMS


def made(*places: tuple[int, int], directed: bool = False) -> Pairs:
    """These pairs of ITEMS, each nearer than the one before."""
    left, right = np.array(places, np.int32).reshape(-1, 2).T
    nearness = np.linspace(0.125, 0.875, len(places), dtype=np.float32)
    return Pairs(ITEMS, left.copy(), right.copy(), nearness, directed)


PAIRS = made(*EDGE)


def names(count: int) -> list[str]:
    return [f"item-{place:04}" for place in range(count)]


def unit(count: int, *, seed: int, width: int = 4) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def places(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def nearest(vectors: NDArray[np.float32], count: int) -> set[tuple[int, int]]:
    """The same, one item after another."""
    likeness = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    found = set()
    for one in range(len(vectors)):
        others = [other for other in range(len(vectors)) if other != one]
        for other in sorted(others, key=lambda it: -likeness[one, it])[:count]:
            found.add((min(one, other), max(one, other)))
    return found


def refused(path: Path) -> str:
    with pytest.raises(PairsError) as caught:
        load_pairs(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


@given(size=st.integers(2, 12), count=st.integers(1, 14), seed=st.integers(0, 1000))
def test_each_item_is_paired_with_its_nearest_in_rising_order_and_once(
    size: int, count: int, seed: int
) -> None:
    vectors = unit(size, seed=seed)
    pairs = near(names(size), vectors, count=count)
    assert places(pairs) == sorted(nearest(vectors, count))
    assert (pairs.items, pairs.directed) == (tuple(names(size)), False)


@pytest.mark.parametrize(
    ("shoppers", "items", "nearest"),
    [
        (1, 2, 40),
        (22_363, 12_101, 40),  # Amazon Beauty, on whose validation part 40 was chosen
        (30_000, 3_000, 182),
        (100_000, 3_000, 606),
        (300_000, 3_000, 1000),
    ],
)
def test_a_large_federation_lists_about_ten_pairs_a_shopper(
    shoppers: int, items: int, nearest: int
) -> None:
    assert nearest_for(shoppers, items) == nearest
    assert nearest_for(shoppers * 2, items) >= nearest


def test_the_nearer_half_of_many_items_is_found_as_well() -> None:
    vectors = unit(600, seed=5)
    assert places(near(names(600), vectors, count=300)) == sorted(nearest(vectors, 300))


def test_nearness_is_the_cosine_of_a_pair_s_texts() -> None:
    vectors = unit(9, seed=1)
    pairs = near(names(9), vectors, count=3)
    cosine = [float(vectors[one] @ vectors[other]) for one, other in places(pairs)]
    assert pairs.nearness.tolist() == pytest.approx(cosine, abs=1e-6)
    kinds = [column.dtype.name for column in (pairs.left, pairs.right, pairs.nearness)]
    assert kinds == ["int32", "int32", "float32"]


def test_a_block_of_items_at_a_time_finds_what_all_at_once_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = near(names(11), unit(11, seed=2), count=2)
    monkeypatch.setattr(module, "BLOCK", 4)
    assert near(names(11), unit(11, seed=2), count=2).digest == whole.digest


def test_where_there_are_fewer_items_than_asked_for_every_pair_is_in() -> None:
    assert len(near(names(5), unit(5, seed=3))) == 10


def test_items_of_one_text_are_not_paired_with_themselves() -> None:
    same = np.ones((3, 1), np.float32)
    assert places(near(names(3), same, count=2)) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_items_make_no_pairs(count: int) -> None:
    with pytest.raises(PairsError, match=r"^fewer than two items make no pair; give a list"):
        near(names(count), unit(count, seed=0))


def test_pairs_that_were_met_are_rising_unique_and_directed() -> None:
    keys = [left * len(ITEMS) + right for left, right in EDGE]
    pairs = met(ITEMS, np.array([*keys[::-1], keys[2]], np.int64))
    assert places(pairs) == EDGE
    assert (pairs.items, pairs.directed) == (ITEMS, True)
    assert pairs.nearness.tolist() == [0.0] * len(EDGE)
    assert pairs.keys.tolist() == keys


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=8))
def test_a_pair_is_found_in_either_order_and_nothing_else_is(asked: list[tuple[int, int]]) -> None:
    one, other = np.array(asked, np.int64).reshape(-1, 2).T
    wanted = [EDGE.index(pair) if (pair := (min(it), max(it))) in EDGE else -1 for it in asked]
    assert PAIRS.find(one, other).tolist() == wanted
    assert PAIRS.find(other, one).tolist() == wanted


def test_in_an_empty_list_no_pair_is_found() -> None:
    assert made().find(np.array([0, -1, 3]), np.array([1, 2, 3])).tolist() == [-1, -1, -1]
    assert made().find(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_the_digest_is_of_every_column_and_of_the_direction() -> None:
    others = [
        replace(PAIRS, items=("bell", *ITEMS[1:])),
        replace(PAIRS, left=PAIRS.left[::-1].copy()),
        replace(PAIRS, right=PAIRS.right[::-1].copy()),
        replace(PAIRS, nearness=PAIRS.nearness[::-1].copy()),
        replace(PAIRS, directed=True),
        made(*EDGE[:-1]),
    ]
    assert len({PAIRS.digest, *(it.digest for it in others)}) == 1 + len(others)
    assert made(*EDGE).digest == PAIRS.digest


@pytest.mark.parametrize(
    "pairs",
    [
        PAIRS,
        made(*EDGE, directed=True),
        made(),
        replace(PAIRS, items=('"a"', "b\n", "tea", "ü", "礁")),
        near(names(30), unit(30, seed=4)),
    ],
)
def test_a_file_of_pairs_loads_as_it_was_saved(pairs: Pairs, tmp_path: Path) -> None:
    save_pairs(pairs, tmp_path / "pairs.safetensors")
    again = load_pairs(tmp_path / "pairs.safetensors")
    assert (again.items, again.directed) == (pairs.items, pairs.directed)
    assert places(again) == places(pairs)
    assert again.nearness.tolist() == pairs.nearness.tolist()
    assert again.digest == pairs.digest


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nix").endswith("no such file of pairs; check the path")


@pytest.mark.parametrize(
    "content", [b"", b"item\titem\n", b"\xff" * 64, b"\x02" + bytes(7) + b"{}"]
)
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pairs.safetensors"
    path.write_bytes(content)
    assert "no readable file of pairs (" in refused(path)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_adapter(Adapter({"left": np.zeros(1, np.float32)}, backbone="b", task="t"), path)
    assert "no readable file of pairs (of another format); fetch it anew" in refused(path)
    save_file({"left": PAIRS.left}, path)
    assert "of another format" in refused(path)


def test_a_flipped_bit_or_a_cut_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.safetensors"
    save_pairs(PAIRS, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(len(whole)):
        edited = bytearray(whole)
        edited[place] ^= 1 << rng.integers(8)
        path.write_bytes(edited)
        refused(path)
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert "no readable file of pairs" in refused(path)


def test_contents_that_are_not_those_of_the_digest_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.safetensors"
    save_pairs(PAIRS, path)
    honest = path.read_bytes()
    edited = honest.replace(PAIRS.nearness.tobytes(), PAIRS.nearness[::-1].tobytes())
    assert edited != honest
    path.write_bytes(edited)
    assert "(its contents are not those of its digest)" in refused(path)


UNSOUND: dict[str, Callable[[Pairs], Pairs]] = {
    "a column as a number": lambda it: replace(it, left=np.full((), 0, np.int32)),
    "left is right": lambda it: made((0, 1), (2, 2)),
    "left above right": lambda it: made((0, 1), (3, 2)),
    "left below the first item": lambda it: made((-1, 1), (0, 1)),
    "right beyond the last item": lambda it: made((0, 1), (3, 5)),
    "pairs not in rising order": lambda it: made((0, 3), (0, 1)),
    "a pair twice": lambda it: made((0, 1), (0, 1)),
    "items not sorted": lambda it: replace(it, items=it.items[::-1]),
    "an item twice": lambda it: replace(it, items=("cup", "cup", *it.items[2:])),
    "an item that is no text": lambda it: replace(it, items=(1, 2, 3, 4, 5)),  # type: ignore[arg-type]
    "nearness that is no number": lambda it: replace(it, nearness=it.nearness * np.float32(np.nan)),
    "infinite nearness": lambda it: replace(it, nearness=it.nearness * np.float32(np.inf)),
    "nearness of too few": lambda it: replace(it, nearness=it.nearness[:-1]),
    "too few on the left": lambda it: replace(it, left=it.left[:-1]),
    "a column as a matrix": lambda it: replace(it, left=it.left.reshape(-1, 1)),
    "places of another type": lambda it: replace(it, left=wide(it.left), right=wide(it.right)),
    "nearness of another type": lambda it: replace(it, nearness=it.nearness.astype(np.float64)),
}


def wide(column: NDArray[Any]) -> NDArray[Any]:
    return column.astype(np.int64)


@pytest.mark.parametrize("spoil", UNSOUND.values(), ids=UNSOUND.keys())
def test_pairs_that_are_none_are_refused_although_their_digest_is_right(
    spoil: Callable[[Pairs], Pairs], tmp_path: Path
) -> None:
    path = tmp_path / "pairs.safetensors"
    save_pairs(spoil(PAIRS), path)
    assert refused(path).endswith("holds pairs that are none; fetch it anew from the coordinator")


def test_words_add_to_how_near_two_items_are() -> None:
    vectors = unit(3, seed=0)
    vectors[2] = vectors[1]  # by meaning the last two are one
    words = words_of(["acme lipstick", "acme cream", "zeta cream"])
    alone, both = near(names(3), vectors, count=1), near(names(3), vectors, words, count=1)
    cosines = (words @ words.T).toarray()
    for place, (left, right) in enumerate(zip(both.left, both.right, strict=True)):
        expected = float(vectors[left] @ vectors[right]) + cosines[left, right]
        assert both.nearness[place] == pytest.approx(expected, abs=1e-6)
    assert both.nearness.max() > alone.nearness.max()
