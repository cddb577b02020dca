"""A safetensors file, or a message, of very many tensors is refused before it is parsed."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from shared.adapter import load_adapter
from shared.backbone import load_backbone
from shared.errors import AdapterError, AtollError, BackboneError, PairsError, ReplyError
from shared.pairs import load_pairs
from shared.records import RAW, unpack
from shared.tensor_files import LARGEST_HEADER, MOST_TENSORS, check_header

READERS: list[tuple[Callable[[Path], object], type[AtollError]]] = [
    (load_adapter, AdapterError),
    (load_backbone, BackboneError),
    (load_pairs, PairsError),
]


def many(path: Path, count: int) -> Path:
    """A file of so many empty tensors."""
    one = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(b'"%d":%s' % (number, one) for number in range(count)) + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many(tmp_path_factory.mktemp("many") / "m.safetensors", 1_000_000)


@pytest.mark.parametrize(("read", "error"), READERS)
def test_a_million_tensors_are_refused_without_reading_their_header(
    read: Callable[[Path], object], error: type[AtollError], million: Path
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=r"a header of [\d,]{10} bytes") as caught:
        read(million)
    assert "\n" not in str(caught.value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000  # kilobytes; the header alone has 60 MB


@pytest.mark.parametrize(("read", "error"), READERS)
def test_more_tensors_than_any_file_of_ours_holds_are_refused(
    read: Callable[[Path], object], error: type[AtollError], tmp_path: Path
) -> None:
    path = many(tmp_path / "m.safetensors", MOST_TENSORS + 1)
    assert path.stat().st_size < LARGEST_HEADER
    with pytest.raises(error, match=f"{MOST_TENSORS + 1:,} tensors"):
        read(path)


@pytest.mark.parametrize("raw", [b"", b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"atensor"])
def test_a_header_that_lies_of_its_length_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    for read, error in READERS:
        with pytest.raises(error) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_as_many_as_are_allowed_pass(tmp_path: Path) -> None:
    check_header(many(tmp_path / "m.safetensors", MOST_TENSORS))


def test_a_message_of_too_many_tensors_is_refused() -> None:
    empty = Array("float32", (0,), RAW, b"")
    record = ArrayRecord({str(number): empty for number in range(MOST_TENSORS + 1)})
    with pytest.raises(ReplyError, match=f"'update' holds {MOST_TENSORS + 1} tensors"):
        unpack(RecordDict({"update": record}), "update")
