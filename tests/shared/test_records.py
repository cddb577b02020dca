from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from shared import records
from shared.errors import ReplyError

Value = str | int | float | bool | bytes | list[int]

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)

names = st.text(st.characters(codec="utf-8"), max_size=8)
tensors = st.dictionaries(
    names,
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
        elements=st.floats(width=32),
    ),
    max_size=4,
)


def body(
    data: bytes,
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    stype: str = records.RAW,
    name: str = "a",
) -> RecordDict:
    """A body with one array in it, whatever it holds."""
    return RecordDict({"x": ArrayRecord({name: Array(dtype, shape, stype, data)})})


def refused(content: RecordDict, key: str = "x") -> str:
    with pytest.raises(ReplyError) as caught:
        records.unpack(content, key)
    said = str(caught.value)
    assert "\n" not in said
    return said


@given(tensors)
def test_tensors_arrive_as_they_left(sent: dict[str, NDArray[np.float32]]) -> None:
    got = records.unpack(RecordDict({"x": records.pack(sent)}), "x")
    assert got.keys() == sent.keys()
    for name, tensor in sent.items():
        assert got[name].dtype == np.float32
        assert got[name].shape == tensor.shape
        assert got[name].tobytes() == tensor.tobytes()  # bit for bit, NaN included


def test_a_tensor_travels_by_its_meaning_not_its_memory() -> None:
    columns, steps = np.asfortranarray(MATRIX), MATRIX[:, ::2]
    sent = {"columns": columns, "steps": steps, "big-endian": MATRIX.astype(">f4")}
    got = records.unpack(RecordDict({"x": records.pack(sent)}), "x")
    for name, tensor in sent.items():
        np.testing.assert_array_equal(got[name], tensor)


def test_one_body_is_one_sequence_of_bytes_whatever_the_order_of_names() -> None:
    forwards, backwards = {"a": MATRIX, "b": MATRIX}, {"b": MATRIX, "a": MATRIX}
    assert list(records.pack(forwards)) == list(records.pack(backwards)) == ["a", "b"]


def test_reading_copies_nothing_and_cannot_be_written_through() -> None:
    content = RecordDict({"x": records.pack({"b": MATRIX})})
    data = content.array_records["x"]["b"].data
    tensor = records.unpack(content, "x")["b"]
    assert np.shares_memory(tensor, np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        tensor[0, 0] = 1


def test_nothing_is_pickled() -> None:
    (array,) = records.pack({"x": np.array([1.0], np.float32)}).values()
    assert array.data == b"\0\0\x80?"  # 1.0, little-endian
    assert (array.dtype, array.stype, tuple(array.shape)) == ("float32", "raw.little-endian", (1,))


def test_a_body_is_as_large_as_its_tensors() -> None:
    content = RecordDict({"x": records.pack({"a": MATRIX}), "y": records.pack({"b": MATRIX[0]})})
    content["fields"] = ConfigRecord({"long": "words " * 99})
    assert records.size(content) == 4 * (6 + 3)
    assert records.size(RecordDict()) == 0


@pytest.mark.parametrize(
    ("dtype", "stype"),
    [
        ("float64", records.RAW),
        ("int32", records.RAW),
        ("", records.RAW),
        ("float32", "numpy.ndarray"),
    ],
)
def test_an_array_in_another_encoding_is_refused(dtype: str, stype: str) -> None:
    assert "not float32" in refused(body(b"\0" * 8, (2,), dtype=dtype, stype=stype))


@pytest.mark.parametrize("size", [0, 1, 23, 25, 28, 48])
def test_an_array_of_more_or_fewer_bytes_than_its_shape_is_refused(size: int) -> None:
    assert f"has {size} bytes" in refused(body(b"\0" * size, (2, 3)))


@pytest.mark.parametrize("shape", [(-1,), (-1, -1), (2, -3), (-2, -3, 1), (-2, 0)])
def test_a_negative_size_is_refused(shape: tuple[int, ...]) -> None:
    refused(body(b"\0" * 4 * abs(math.prod(shape)), shape))


@pytest.mark.parametrize("shape", [(1,) * 65, (0, 2**62, 2**62), (2**63, 0)])
def test_a_shape_that_no_array_can_have_is_refused(shape: tuple[int, ...]) -> None:
    refused(body(b"" if 0 in shape else b"\0" * 4, shape))


def test_a_tensor_whose_name_is_too_long_is_refused_and_not_repeated() -> None:
    name = "w" * records.MAX_TENSOR_NAME
    assert list(records.unpack(body(b"\0" * 4, (1,), name=name), "x")) == [name]
    said = refused(body(b"\0" * 4, (1,), name=name + "w"))
    assert said.startswith("a tensor's name has 129 characters; ")
    assert name not in said


def test_a_record_that_is_missing_or_of_another_kind_is_refused() -> None:
    assert refused(RecordDict()).startswith("no 'x' record; ")
    assert refused(RecordDict({"x": MetricRecord()})).startswith("no 'x' record; ")
    for odd in (RecordDict(), RecordDict({records.REQUEST: MetricRecord()})):
        with pytest.raises(ReplyError, match="no 'request' record; "):
            records.config(odd)


HUGE = pytest.param(10**400, id="huge")  # more than a float holds
NOT_A_NUMBER = ["1", True, b"1", [1], *map(float, ("nan", "inf", "-inf"))]


@pytest.mark.parametrize("value", [*NOT_A_NUMBER, HUGE])
def test_a_field_that_is_no_finite_number_is_refused(value: Value) -> None:
    with pytest.raises(ReplyError, match="field 'n' is not a finite number"):
        records.number(ConfigRecord({"n": value}), "n")
    with pytest.raises(ReplyError, match="field 'm' is not a finite number"):
        records.number(ConfigRecord({"n": value}), "m")


@pytest.mark.parametrize("value", [*NOT_A_NUMBER, 1.0])
def test_a_field_that_is_no_whole_number_is_refused(value: Value) -> None:
    with pytest.raises(ReplyError, match="field 'n' is not a whole number"):
        records.whole(ConfigRecord({"n": value}), "n")


NOT_A_TEXT: list[Value] = ["", "x" * 65, "two\nlines", "a\x1b[31m", "\u202ex", 3, True, b"x", [1]]


@pytest.mark.parametrize("value", NOT_A_TEXT)
def test_a_field_that_is_empty_long_or_unprintable_is_refused(value: Value) -> None:
    with pytest.raises(ReplyError, match="field 't' is not a text of 1 to 64") as caught:
        records.text(ConfigRecord({"t": value}), "t")
    assert str(caught.value).isprintable()


def test_a_field_in_order_is_read_as_it_is() -> None:
    fields = ConfigRecord({"t": "礁" * records.MAX_NAME, "n": 3, "f": -0.5})
    assert records.text(fields, "t") == "礁" * 64
    assert (records.number(fields, "n"), records.whole(fields, "n")) == (3.0, 3)
    assert records.number(fields, "f") == -0.5


@pytest.mark.parametrize(
    ("name", "array", "why"),
    [
        ("\ud800", Array("float32", (1,), "raw.little-endian", b"\0" * 4), "is not Unicode"),
        ("w", Array("f" * 5_000, (1,), "raw.little-endian", b"\0" * 4), "tensor 'w' is f{20} in"),
        ("w", Array("float32", (2**31,) * 9, "raw.little-endian", b""), "has 9 axes"),
    ],
)
def test_a_tensor_that_no_line_can_name_or_no_memory_hold_is_refused(
    name: str, array: Array, why: str
) -> None:
    content = RecordDict({"update": ArrayRecord({name: array})})
    with pytest.raises(ReplyError, match=why) as fault:
        records.unpack(content, "update")
    assert len(str(fault.value)) < 500
