from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from shared import wire
from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.training import SCHEDULES, Schedule
from shared.update import Update
from shared.wire import Member, Training

Value = str | int | float | bool | bytes | list[int]

MEMBER = Member(platform="Reef & Söhne 礁", weight=2.5, backbone="b" * 64, task="next-item")
TRAINING = Training(
    round=2, rounds=9, epochs=1, batch=64, learning_rate=0.003, schedule="cosine", seed=7
)
ADAPTER = Adapter(
    {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([0.5], np.float32)},
    backbone="b" * 64,
    task="next-item",
    version=4,
)
UPDATE = Update(ADAPTER.tensors, base=ADAPTER.digest, weight=3.0)

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


def with_field(content: RecordDict, name: str, value: Value | None) -> RecordDict:
    """The same body with one field of its request changed, or left out."""
    fields = dict(content.config_records[wire.REQUEST])
    del fields[name]
    if value is not None:
        fields[name] = value
    changed = dict(content.items())
    changed[wire.REQUEST] = ConfigRecord(fields)
    return RecordDict(changed)


def with_array(
    data: bytes, shape: tuple[int, ...], *, dtype: str = "float32", stype: str = wire.RAW
) -> RecordDict:
    content = wire.update_reply(UPDATE)
    content[wire.UPDATE] = ArrayRecord({"a": Array(dtype, shape, stype, data)})
    return content


def refused(content: RecordDict) -> str:
    with pytest.raises(ReplyError) as caught:
        wire.read_update(content)
    said = str(caught.value)
    assert "\n" not in said
    return said


@given(tensors)
def test_tensors_arrive_as_they_left(sent: dict[str, NDArray[np.float32]]) -> None:
    got = wire.unpack(RecordDict({"x": wire.pack(sent)}), "x")
    assert got.keys() == sent.keys()
    for name, tensor in sent.items():
        assert got[name].dtype == np.float32
        assert got[name].shape == tensor.shape
        assert got[name].tobytes() == tensor.tobytes()  # bit for bit, NaN included


def test_a_tensor_travels_by_its_meaning_not_its_memory() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    columns, steps = np.asfortranarray(matrix), matrix[:, ::2]
    sent = {"columns": columns, "steps": steps, "big-endian": matrix.astype(">f4")}
    got = wire.unpack(RecordDict({"x": wire.pack(sent)}), "x")
    for name, tensor in sent.items():
        np.testing.assert_array_equal(got[name], tensor)


def test_one_body_is_one_sequence_of_bytes_whatever_the_order_of_names() -> None:
    backwards = dict(reversed(list(ADAPTER.tensors.items())))
    assert list(wire.pack(ADAPTER.tensors)) == list(wire.pack(backwards)) == ["a", "b"]


def test_reading_copies_nothing_and_cannot_be_written_through() -> None:
    content = wire.update_reply(UPDATE)
    data = content.array_records[wire.UPDATE]["b"].data
    tensor = wire.unpack(content, wire.UPDATE)["b"]
    assert np.shares_memory(tensor, np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        tensor[0, 0] = 1


def test_nothing_is_pickled() -> None:
    (array,) = wire.pack({"x": np.array([1.0], np.float32)}).values()
    assert array.data == b"\0\0\x80?"  # 1.0, little-endian
    assert (array.dtype, array.stype, tuple(array.shape)) == ("float32", "raw.little-endian", (1,))


def test_a_member_arrives_as_it_left() -> None:
    assert wire.read_member(wire.hello_reply(MEMBER)) == MEMBER


def test_a_request_to_train_arrives_as_it_left() -> None:
    adapter, training = wire.read_request(wire.request(ADAPTER, TRAINING))
    assert (adapter.digest, adapter.version) == (ADAPTER.digest, 4)
    assert (adapter.backbone, adapter.task) == (ADAPTER.backbone, ADAPTER.task)
    assert training == TRAINING


@given(st.integers(0, 2**63 - 1))
def test_a_whole_number_is_not_rounded_on_its_way(seed: int) -> None:
    _, training = wire.read_request(wire.request(ADAPTER, replace(TRAINING, seed=seed)))
    assert training is not None
    assert training.seed == seed


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_can_be_asked_for(schedule: Schedule) -> None:
    asked = replace(TRAINING, schedule=schedule)
    assert wire.read_request(wire.request(ADAPTER, asked))[1] == asked


@pytest.mark.parametrize("schedule", ["Cosine", "warmup", "", None, 1])
def test_a_schedule_nobody_knows_is_refused(schedule: Value | None) -> None:
    with pytest.raises(ReplyError, match="schedule"):
        wire.read_request(with_field(wire.request(ADAPTER, TRAINING), "schedule", schedule))


def test_a_request_to_evaluate_asks_for_no_training() -> None:
    adapter, training = wire.read_request(wire.request(ADAPTER))
    assert adapter.digest == ADAPTER.digest
    assert training is None


def test_an_update_arrives_as_it_left() -> None:
    got = wire.read_update(wire.update_reply(UPDATE))
    assert (got.base, got.weight) == (ADAPTER.digest, 3.0)
    assert {name: tensor.tolist() for name, tensor in got.delta.items()} == {
        name: tensor.tolist() for name, tensor in UPDATE.delta.items()
    }


@pytest.mark.parametrize("metrics", [{}, {"ndcg@10": 0.25, "hr@10": 1.0}])
def test_metrics_arrive_as_they_left(metrics: dict[str, float]) -> None:
    assert wire.read_metrics(wire.metrics_reply(metrics)) == metrics


def test_a_metric_of_another_name_is_refused_and_not_repeated() -> None:
    with pytest.raises(ReplyError) as caught:
        wire.read_metrics(wire.metrics_reply({"shopper 7 bought a ring": 1.0}))
    assert "ring" not in str(caught.value)


def test_a_body_is_as_large_as_its_tensors() -> None:
    assert wire.size(wire.nothing()) == 0
    assert wire.size(wire.request(ADAPTER, TRAINING)) == 4 * 7
    assert wire.size(wire.update_reply(UPDATE)) == 4 * 7


@pytest.mark.parametrize("lost", [wire.UPDATE, wire.REQUEST])
def test_a_reply_without_its_records_is_refused(lost: str) -> None:
    content = wire.update_reply(UPDATE)
    del content[lost]
    assert f"no {lost!r} record" in refused(content)


def test_a_record_of_another_kind_does_not_pass_for_it() -> None:
    content = RecordDict({wire.UPDATE: MetricRecord(), wire.REQUEST: ConfigRecord()})
    assert "is not" in refused(with_field(wire.update_reply(UPDATE), "base", None))
    refused(content)


@pytest.mark.parametrize(
    ("dtype", "stype"),
    [("float64", wire.RAW), ("int32", wire.RAW), ("", wire.RAW), ("float32", "numpy.ndarray")],
)
def test_an_array_in_another_encoding_is_refused(dtype: str, stype: str) -> None:
    assert "not float32" in refused(with_array(b"\0" * 8, (2,), dtype=dtype, stype=stype))


@pytest.mark.parametrize("size", [0, 1, 23, 25, 28, 48])
def test_an_array_of_more_or_fewer_bytes_than_its_shape_is_refused(size: int) -> None:
    assert f"has {size} bytes" in refused(with_array(b"\0" * size, (2, 3)))


@pytest.mark.parametrize("shape", [(-1,), (-1, -1), (2, -3), (-2, -3, 1), (-2, 0)])
def test_a_negative_size_is_refused(shape: tuple[int, ...]) -> None:
    refused(with_array(b"\0" * 4 * abs(math.prod(shape)), shape))


@pytest.mark.parametrize("shape", [(1,) * 65, (0, 2**62, 2**62), (2**63, 0)])
def test_a_shape_that_no_array_can_have_is_refused(shape: tuple[int, ...]) -> None:
    refused(with_array(b"" if 0 in shape else b"\0" * 4, shape))


HUGE = pytest.param(10**400, id="huge")  # more than a float holds
NOT_A_NUMBER: list[Value | None] = [None, "1", True, b"1", [1], *map(float, ("nan", "inf", "-inf"))]


@pytest.mark.parametrize("weight", [*NOT_A_NUMBER, HUGE])
def test_a_weight_that_is_no_number_is_refused(weight: Value | None) -> None:
    assert "'weight' is not a finite number" in refused(
        with_field(wire.update_reply(UPDATE), "weight", weight)
    )
    with pytest.raises(ReplyError, match="'weight' is not a finite number"):
        wire.read_member(with_field(wire.hello_reply(MEMBER), "weight", weight))


@pytest.mark.parametrize("weight", [0, 0.0, -1.0, 1001, 1e300])
def test_a_member_whose_weight_is_out_of_bounds_is_refused(weight: float) -> None:
    with pytest.raises(ReplyError, match="weight"):
        wire.read_member(with_field(wire.hello_reply(MEMBER), "weight", weight))


NOT_A_NAME: list[Value | None] = [None, "", "x" * 65, "two\nlines", "a\x1b[31m", "\u202ex", 3, b"x"]


@pytest.mark.parametrize("field", ["platform", "backbone", "task"])
@pytest.mark.parametrize("value", NOT_A_NAME)
def test_a_name_that_is_empty_long_or_unprintable_is_refused(
    field: str, value: Value | None
) -> None:
    content = with_field(wire.hello_reply(MEMBER), field, value)
    with pytest.raises(ReplyError, match=f"field '{field}' is not a text of 1 to 64") as caught:
        wire.read_member(content)
    assert str(caught.value).isprintable()


def test_a_name_may_be_as_long_as_allowed() -> None:
    member = replace(MEMBER, platform="礁" * wire.MAX_NAME)
    assert wire.read_member(wire.hello_reply(member)) == member


@pytest.mark.parametrize("field", asdict(TRAINING))
def test_a_request_that_lacks_a_field_is_refused_or_asks_for_no_training(field: str) -> None:
    content = with_field(wire.request(ADAPTER, TRAINING), field, None)
    if field == "round":
        assert wire.read_request(content)[1] is None
    else:
        with pytest.raises(ReplyError, match=f"'{field}'"):
            wire.read_request(content)


@pytest.mark.parametrize("field", ["version", "round", "rounds", "epochs", "batch", "seed"])
def test_half_a_round_is_refused(field: str) -> None:
    with pytest.raises(ReplyError, match=f"'{field}' is not a whole number"):
        wire.read_request(with_field(wire.request(ADAPTER, TRAINING), field, 1.5))


@pytest.mark.parametrize("field", ["backbone", "task", "digest"])
def test_an_adapter_that_is_not_the_one_of_its_digest_is_refused(field: str) -> None:
    with pytest.raises(ReplyError, match="not that of its digest"):
        wire.read_request(with_field(wire.request(ADAPTER), field, "other"))


def test_an_adapter_that_changed_on_its_way_is_refused() -> None:
    content = wire.request(ADAPTER)
    content[wire.ADAPTER] = wire.pack({**ADAPTER.tensors, "a": np.zeros(1, np.float32)})
    with pytest.raises(ReplyError, match="not that of its digest"):
        wire.read_request(content)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), HUGE, [0.5]])
def test_a_metric_that_is_no_finite_number_is_refused(value: float | list[float]) -> None:
    content = RecordDict({wire.METRICS: MetricRecord({"hr@10": value})})
    with pytest.raises(ReplyError, match="metric 'hr@10' is not a finite number"):
        wire.read_metrics(content)
