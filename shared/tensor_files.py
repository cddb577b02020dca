"""What is looked at in a file of tensors before the safetensors library reads it.

A header is JSON of which the library makes an object a tensor: a million empty ones in 60 MB take
seconds and gigabytes. Ours have a few dozen.
"""

from __future__ import annotations

from pathlib import Path

LARGEST_HEADER = 2**20  # bytes; ours have some thousands
MOST_TENSORS = 4096  # in one file or message; an Adapter has some ten


def check_header(path: Path) -> None:
    """Refuse a file with more tensors than any of ours, before its header is parsed.

    Raises:
        OSError: it cannot be read.
        ValueError: its header is too long, or names too many tensors.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"a header of {length:,} bytes, more than {LARGEST_HEADER:,}")
        count = file.read(length).count(b'"data_offsets"')
    if count > MOST_TENSORS:
        raise ValueError(f"{count:,} tensors, more than {MOST_TENSORS:,}")


def reason(fault: BaseException) -> str:
    """Why a file cannot be read, in one short line: of the library's words the first."""
    lines = str(fault).splitlines()
    return lines[0][:200] if lines and lines[0] else type(fault).__name__
