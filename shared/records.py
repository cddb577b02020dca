"""Flower's records, read with suspicion: tensors and typed fields, or a ReplyError that says why.

Tensors travel as raw little-endian float32 with their names and shapes: nothing is pickled, and
reading copies nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from shared.adapter import Tensors
from shared.errors import ReplyError
from shared.tensor_files import MOST_TENSORS

RAW = "raw.little-endian"
REQUEST = "request"  # the record of fields in either direction
SAME_VERSION = "check that both sides run the same version"
LARGEST = sys.float_info.max  # compared with, an int beyond it is refused and does not raise
MAX_NAME = 64  # characters of a platform's name
MAX_TENSOR_NAME = 128
MAX_AXES = 8  # of a tensor; their product is computed, which takes long for many

T = TypeVar("T", bound=str)

Content = RecordDict  # the body of a message; whoever need not know Flower names it so


def pack(tensors: Tensors) -> ArrayRecord:
    """Named float32 tensors → raw arrays."""
    arrays = {}
    for name in sorted(tensors):
        # Not ascontiguousarray, which makes a scalar a vector.
        tensor = np.asarray(tensors[name], "<f4", order="C")
        shape = tuple(int(size) for size in tensor.shape)
        arrays[name] = Array("float32", shape, RAW, tensor.tobytes())
    return ArrayRecord(arrays)


def unpack(content: Content, key: str) -> dict[str, NDArray[np.float32]]:
    """Raw arrays → named tensors over the same memory, read-only.

    Raises:
        ReplyError: no such record, too many tensors, another encoding, or a length that is not
            that of its shape.
    """
    record = content.array_records.get(key)
    if record is None:
        raise ReplyError(f"no {key!r} record", todo=SAME_VERSION)
    if len(record) > MOST_TENSORS:
        raise ReplyError(f"{key!r} holds {len(record)} tensors", todo=SAME_VERSION)
    tensors = {}
    for name, array in record.items():
        if len(name) > MAX_TENSOR_NAME:
            raise ReplyError(f"a tensor's name has {len(name)} characters", todo=SAME_VERSION)
        if any("\ud800" <= mark <= "\udfff" for mark in name):  # which cannot be hashed
            raise ReplyError(f"a tensor's name {name!r} is not Unicode", todo=SAME_VERSION)
        shape = tuple(array.shape)
        if len(shape) > MAX_AXES:
            raise ReplyError(f"tensor {name!r} has {len(shape)} axes", todo=SAME_VERSION)
        if array.stype != RAW or array.dtype != "float32" or any(size < 0 for size in shape):
            raise ReplyError(
                f"tensor {name!r} is {array.dtype[:20]} in {array.stype[:20]!r}, not float32"
                f" in {RAW!r}",
                todo=SAME_VERSION,
            )
        if len(array.data) != 4 * math.prod(shape):
            raise ReplyError(
                f"tensor {name!r} of shape {shape} has {len(array.data)} bytes",
                todo=SAME_VERSION,
            )
        try:
            tensors[name] = np.frombuffer(array.data, "<f4").reshape(shape)
        except ValueError as fault:  # more axes, or a longer one, than numpy has
            raise ReplyError(f"tensor {name!r} has no possible shape", todo=SAME_VERSION) from fault
    return tensors


def size(content: Content) -> int:
    """Bytes of the tensors in a message."""
    records = content.array_records.values()
    return sum(len(array.data) for record in records for array in record.values())


def config(content: Content) -> ConfigRecord:
    """The record of fields. Raises: ReplyError if there is none."""
    record = content.config_records.get(REQUEST)
    if record is None:
        raise ReplyError(f"no {REQUEST!r} record", todo=SAME_VERSION)
    return record


def text(fields: ConfigRecord, name: str) -> str:
    """A field of 1 to MAX_NAME printable characters. Raises: ReplyError."""
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ReplyError(
            f"field {name!r} is not a text of 1 to {MAX_NAME} characters",
            todo=SAME_VERSION,
        )
    return value


def number(fields: ConfigRecord, name: str) -> float:
    """A finite number. Raises: ReplyError."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ReplyError(f"field {name!r} is not a finite number", todo=SAME_VERSION)
    return float(value)


def whole(fields: ConfigRecord, name: str) -> int:
    """A whole number. Raises: ReplyError."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ReplyError(f"field {name!r} is not a whole number", todo=SAME_VERSION)
    return value


def choice(fields: ConfigRecord, name: str, known: Sequence[T]) -> T:
    """A field that is one of the known words. Raises: ReplyError."""
    value = text(fields, name)
    for word in known:
        if value == word:
            return word
    raise ReplyError(f"{name} {value!r} is none of {', '.join(known)}", todo=SAME_VERSION)
