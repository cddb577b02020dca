"""Files that are meant for others can be read by others, and what cannot be read says why."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from shared.adapter import Adapter, load_adapter, save_adapter
from shared.backbone import BackboneSpec, load_backbone, new_backbone, save_backbone
from shared.errors import AtollError
from shared.files import replacing, umask
from shared.pairs import Pairs, load_pairs, save_pairs

NOBODY = 65_534  # a user that owns nothing


def write_adapter(path: Path) -> None:
    save_adapter(Adapter({"slot": np.zeros((2, 2), np.float32)}, "b", "t"), path)


def write_pairs(path: Path) -> None:
    one = np.array([0], np.int32)
    save_pairs(Pairs(("a", "b"), one, one + 1, np.zeros(1, np.float32)), path)


def write_backbone(path: Path) -> None:
    spec = BackboneSpec(encoder="0" * 64, text_width=8, width=8, heads=2, rank=2)
    save_backbone(new_backbone(spec, seed=0), path)


WRITERS = {"adapter": write_adapter, "pairs": write_pairs, "backbone": write_backbone}
READERS: dict[str, Callable[[Path], object]] = {
    "adapter": load_adapter,
    "pairs": load_pairs,
    "backbone": load_backbone,
}


@contextmanager
def masked(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_whoever_the_umask_lets_may_read_it(kind: str, mask: int, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with masked(mask):
        WRITERS[kind](path)
        assert umask() == mask
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_what_was_trained_on_bare_rows_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with masked(0o000):
        adapter = Adapter({"slot": np.zeros((2, 2), np.float32)}, "b", "t")
        save_adapter(adapter, path, private=True)
        with replacing(tmp_path / "key", private=True) as part:
            part.write_text("x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@contextmanager
def another_user() -> Iterator[None]:
    """Root reads everything, so look as somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_may_not_be_read_says_so_and_is_not_to_be_fetched_again(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.safetensors"
    WRITERS[kind](path)
    path.chmod(0o000)
    with another_user(), pytest.raises(AtollError) as caught:
        READERS[kind](path)
    assert "cannot be read (Permission denied); mend its rights" in str(caught.value)
    with pytest.raises(AtollError, match="no such"):
        READERS[kind](tmp_path / "other.safetensors")
