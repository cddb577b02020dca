"""Random numbers nobody outside can foretell: ChaCha20 under a key from the operating system.

    key ─ChaCha20(stream, step)→ 64-bit words → uniforms, normals, or Laplace's

Streams are numbered, so what one step draws does not shift what another draws. A key made from a
seed is for simulation: it says so of itself, and everything made with it is stamped.

The attack on noise drawn in floating point (Mironov, CCS 2012; arXiv 2112.05307) reads a noised
value's last bits, which only some inputs can produce. Two answers stand here. A normal is the sum
of four halved (arXiv 2107.10138), which takes the search out of reach. And `on_grid` rounds the sum
it protects and the noise to one grid: then sum + round(noise) = round(sum + noise) exactly, every
grid value is possible for every input, and rounding after the mechanism gives nothing away.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from shared.accounting import Mechanism
from shared.update import Noise

FINENESS = 24  # bits below the smaller of clip and noise; √d·2^-24 is what rounding adds to a clip
HALVES = 4  # normals that are summed, then halved
BLOCK = 2**16  # Laplace numbers that are drawn at a time


class Stream(IntEnum):
    """What a draw is for; no two uses share a word."""

    SAMPLE = 1
    NOISE = 2
    METRICS = 3
    SUMS = 4


@dataclass(frozen=True)
class Randomness:
    """A key and where it came from.

    Attributes:
        key: 32 bytes.
        noise: "secure", or "simulated" where a seed made the key.
    """

    key: bytes
    noise: Noise

    def __repr__(self) -> str:
        return f"Randomness({self.noise})"  # never the key

    def words(self, stream: Stream, number: int, count: int) -> NDArray[np.uint64]:
        """[count] uniform 64-bit words of one stream and number; at most 2^35 of them."""
        # OpenSSL's nonce: a block counter of 32 bits, here from 0, then 96 bits.
        nonce = bytes(4) + int(stream).to_bytes(4, "little") + number.to_bytes(8, "little")
        cipher = Cipher(algorithms.ChaCha20(self.key, nonce), mode=None)
        return np.frombuffer(cipher.encryptor().update(bytes(8 * count)), "<u8")

    def uniforms(self, stream: Stream, number: int, count: int) -> NDArray[np.float64]:
        """[count] in (0, 1), on the odd multiples of 2^-53."""
        return _open_unit(self.words(stream, number, count))

    def normals(self, stream: Stream, number: int, count: int) -> NDArray[np.float64]:
        """[count] standard normals: Box and Muller's in double precision, four summed and halved.

        The tail ends at 8.6 standard deviations before summing, which leaves out less than 2^-53 of
        the mass of a number.
        """
        pairs = _open_unit(self.words(stream, number, HALVES * count)).reshape(2, -1)
        radius = np.sqrt(-2 * np.log(pairs[0]))
        angle = 2 * math.pi * pairs[1]
        every = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return np.asarray(every.reshape(HALVES, count).sum(0) / math.sqrt(HALVES))

    def laplaces(self, stream: Stream, number: int, count: int) -> NDArray[np.float64]:
        """[count] of the Laplace distribution of scale 1, as sums of two products of normals.

        X1·X2 + X3·X4, the determinant of a matrix of normals (Kotz, Kozubowski & Podgórski, The
        Laplace Distribution and Generalizations, 2001, 2.2), in which eight logarithms and angles
        meet, so that no last bit of one of them is left to be read. In blocks, each a draw of its
        own, numbered number·2^32 and on: a number takes 128 bytes of words.
        """
        found = np.empty(count)
        for block, start in enumerate(range(0, count, BLOCK)):
            part = found[start : start + BLOCK]
            drawn = self.normals(stream, (number << 32) + block, 4 * len(part))
            one, other, third, fourth = drawn.reshape(4, -1)
            part[:] = one * other + third * fourth
        return found

    def on_grid(
        self,
        total: NDArray[np.float64],
        *,
        sensitivity: float,
        multiplier: float,
        number: int,
        stream: Stream = Stream.NOISE,
        mechanism: Mechanism = "gaussian",
    ) -> NDArray[np.float64]:
        """A sum with noise of standard deviation, or Laplace's scale, multiplier·sensitivity.

        Guarantee: for sums that differ by at most sensitivity·(1 - √d·2^-24) in L2 norm, this is
        the Gaussian mechanism, post-processed; for sums that differ in k numbers, by at most
        sensitivity·(1 - k·2^-24) in L1 norm, it is the Laplace mechanism, post-processed.

        | total | gives |
        | --- | --- |
        | empty | empty |
        | zero | noise |
        | not finite | a ValueError: the caller clips first |

        Args:
            total: [d] sum.
            sensitivity: largest change of the sum by one shopper, L2 or L1.
            multiplier: σ, or b.
            number: of the draw; never used twice in one stream under one key.
            stream: what the noise is for.
            mechanism: whose noise it is.
        """
        if not np.isfinite(total).all():
            raise ValueError("a sum that is not finite was not clipped")
        grid = grid_of(sensitivity, multiplier)
        draw = self.normals if mechanism == "gaussian" else self.laplaces
        noise = draw(stream, number, total.size).reshape(total.shape)
        # Whole numbers below 2^53, so that their sum is exact.
        steps = np.rint(total / grid) + np.rint(noise * (multiplier * sensitivity / grid))
        return np.asarray(steps * grid)


def grid_of(sensitivity: float, multiplier: float) -> float:
    """The grid's step: a power of two, 2^-24 of the sensitivity or of the noise, or less."""
    return 2.0 ** (math.floor(math.log2(sensitivity * min(1.0, multiplier))) - FINENESS)


def secure() -> Randomness:
    """Randomness for real shoppers."""
    return Randomness(os.urandom(32), "secure")


def simulated(*seed: int | str) -> Randomness:
    """Randomness that anyone who knows the seed can repeat, so that protects nobody."""
    words = "\x1f".join(f"{type(word).__name__}:{word}" for word in seed)
    return Randomness(hashlib.sha256(words.encode()).digest(), "simulated")


def _open_unit(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    # 52 bits and a half: with one bit more the largest would round to 1.
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
