from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.text import whiten


def spread(items: int, width: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Vectors far from white: each axis has a width of its own, axes lean on each other."""
    rng = np.random.default_rng(seed)
    drawn, mixed = rng.normal(size=(items, width)), rng.normal(size=(width, width))
    return np.asarray(drawn @ mixed + 3, np.float32)


def cosines(table: NDArray[np.float32]) -> NDArray[np.float32]:
    return table @ table.T


def test_whitened_vectors_have_unit_length_and_lean_nowhere() -> None:
    raw = spread(4000, 6)
    white = whiten(raw)
    assert white.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(white, axis=1), 1, atol=1e-5)
    assert np.abs(white.mean(0)).max() < 0.05
    np.testing.assert_allclose(white.T @ white / 4000 * 6, np.eye(6), atol=0.1)
    assert np.abs(np.corrcoef(raw.T) - np.eye(6)).max() > 0.5  # which it was far from


def test_whitening_undoes_any_stretch_shear_and_shift() -> None:
    raw = spread(500, 6)
    other = np.eye(6) + 0.3 * np.random.default_rng(1).normal(size=(6, 6))
    moved = np.asarray(raw @ other * 7 - 2, np.float32)
    np.testing.assert_allclose(cosines(whiten(moved)), cosines(whiten(raw)), atol=1e-3)


def test_whitening_turns_axes_no_more_than_it_must() -> None:
    raw = np.random.default_rng(0).normal(size=(2000, 4)) * [1, 2, 3, 4]
    white = whiten(raw.astype(np.float32))
    lean = [float(np.corrcoef(white[:, axis], raw[:, axis])[0, 1]) for axis in range(4)]
    assert min(lean) > 0.9


@pytest.mark.parametrize("items", [2, 3, 8, 20, 127, 128])
def test_fewer_items_than_dimensions_need_still_give_unit_vectors(items: int) -> None:
    white = whiten(spread(items, 32))
    np.testing.assert_allclose(np.linalg.norm(white, axis=1), 1, atol=1e-5)


def test_two_items_by_hand_stand_opposite() -> None:
    white = whiten(np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(white, [[half, -half, 0, 0], [-half, half, 0, 0]], atol=1e-6)


def test_a_small_catalogue_is_whitened_halfway_by_hand() -> None:
    # Variances 16/3 and 4/3, mean 10/3. 4 items where 8 are enough: shrunk halfway to it, 13/3 and
    # 7/3. Whitened all the way, x and y would be equal.
    white = whiten(np.array([[2, 1], [2, -1], [-2, 1], [-2, -1]], np.float32))
    x, y = 2 / np.sqrt(13 / 3), 1 / np.sqrt(7 / 3)
    np.testing.assert_allclose(white[0], np.array([x, y]) / np.hypot(x, y), atol=1e-6)


def test_a_dimension_nobody_uses_stays_empty() -> None:
    raw = spread(100, 5)
    raw[:, 2] = 0.25
    white = whiten(raw)
    assert np.abs(white[:, 2]).max() < 1e-3
    np.testing.assert_allclose(np.linalg.norm(white, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("items", [1, 2, 3, 7])
def test_one_text_alone_says_nothing(items: int) -> None:
    raw = np.repeat(spread(1, 8), items, axis=0)
    assert not whiten(raw).any()


def test_rounding_noise_between_equal_texts_is_no_difference() -> None:
    # What one text comes to in batches of two sizes differs by 1e-7.
    rng = np.random.default_rng(0)
    one = rng.normal(size=384) / np.sqrt(384)
    raw = one + 1e-7 * rng.uniform(-1, 1, size=(150, 384))
    assert not whiten(raw.astype(np.float32)).any()


def test_no_items_are_an_empty_table() -> None:
    assert whiten(np.zeros((0, 8), np.float32)).shape == (0, 8)
