from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from shared import asking, records, wire
from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.update import PROTECTIONS, BoundedUpdate, Protection
from shared.wire import Member

Value = str | int | float | bool | bytes | list[int]

MEMBER = Member(platform="Reef & Söhne 礁", weight=2.5, backbone="b" * 64, task="next-item")
ADAPTER = Adapter(
    {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([0.5], np.float32)},
    backbone="b" * 64,
    task="next-item",
    version=4,
)
UPDATE = BoundedUpdate(
    ADAPTER.tensors, base=ADAPTER.digest, weight=3.0, bound=100.5, noise="simulated"
)


def with_field(content: RecordDict, name: str, value: Value | None) -> RecordDict:
    """The same body with one field of its request changed, or left out."""
    fields = dict(content.config_records[records.REQUEST])
    del fields[name]
    if value is not None:
        fields[name] = value
    changed = dict(content.items())
    changed[records.REQUEST] = ConfigRecord(fields)
    return RecordDict(changed)


def refused(content: RecordDict) -> str:
    with pytest.raises(ReplyError) as caught:
        wire.read_update(content)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("task", ["next-item", "co-visitation"])
def test_a_hello_names_the_task_it_is_for(task: str) -> None:
    assert wire.read_hello(wire.hello(task)) == task


def test_a_member_arrives_as_it_left() -> None:
    assert wire.read_member(wire.hello_reply(MEMBER)) == MEMBER


def test_an_update_arrives_as_it_left() -> None:
    got = wire.read_update(wire.update_reply(UPDATE))
    assert isinstance(got, BoundedUpdate)
    assert (got.base, got.weight) == (ADAPTER.digest, 3.0)
    assert (got.bound, got.noise) == (100.5, "simulated")
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
    assert records.size(RecordDict()) == 0
    assert records.size(asking.request(ADAPTER)) == 4 * 7
    assert records.size(wire.update_reply(UPDATE)) == 4 * 7


@pytest.mark.parametrize("lost", [wire.UPDATE, records.REQUEST])
def test_a_reply_without_its_records_is_refused(lost: str) -> None:
    content = wire.update_reply(UPDATE)
    del content[lost]
    assert f"no {lost!r} record" in refused(content)


def test_a_record_of_another_kind_does_not_pass_for_it() -> None:
    content = RecordDict({wire.UPDATE: MetricRecord(), records.REQUEST: ConfigRecord()})
    assert "is not" in refused(with_field(wire.update_reply(UPDATE), "base", None))
    refused(content)


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


@pytest.mark.parametrize("task", NOT_A_NAME)
def test_a_hello_that_names_no_task_is_refused(task: Value | None) -> None:
    with pytest.raises(ReplyError, match="field 'task' is not a text of 1 to 64") as caught:
        wire.read_hello(with_field(wire.hello("next-item"), "task", task))
    assert str(caught.value).isprintable()


def test_an_empty_hello_is_refused() -> None:
    with pytest.raises(ReplyError, match=f"no '{records.REQUEST}' record"):
        wire.read_hello(RecordDict())


def test_a_name_may_be_as_long_as_allowed() -> None:
    member = replace(MEMBER, platform="礁" * records.MAX_NAME)
    assert wire.read_member(wire.hello_reply(member)) == member


@pytest.mark.parametrize("value", [float("nan"), float("inf"), HUGE, [0.5]])
def test_a_metric_that_is_no_finite_number_is_refused(value: float | list[float]) -> None:
    content = RecordDict({wire.METRICS: MetricRecord({"hr@10": value})})
    with pytest.raises(ReplyError, match="metric 'hr@10' is not a finite number"):
        wire.read_metrics(content)


@pytest.mark.parametrize("noise", PROTECTIONS)
def test_an_update_says_how_it_was_protected(noise: Protection) -> None:
    assert wire.read_update(wire.update_reply(replace(UPDATE, noise=noise))).noise == noise


@pytest.mark.parametrize("noise", [None, "", "some", "Secure", "secure ", True, 1])
def test_a_protection_nobody_knows_is_refused(noise: Value | None) -> None:
    assert "noise" in refused(with_field(wire.update_reply(UPDATE), "noise", noise))


@pytest.mark.parametrize("bound", [*NOT_A_NUMBER, HUGE])
def test_a_bound_that_is_no_number_is_refused(bound: Value | None) -> None:
    said = refused(with_field(wire.update_reply(UPDATE), "bound", bound))
    assert "'bound' is not a finite number" in said
