from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from clients.egress import metrics_bytes, passed, refusal
from shared import records, wire
from shared.adapter import Adapter
from shared.errors import (
    BudgetError,
    DataError,
    HoursError,
    LedgerError,
    PlanError,
    ReplyError,
)
from shared.plan import Plan
from shared.records import Content
from shared.tables.config import EventTable, ItemTable, PlatformConfig
from shared.tables.policy import Policy
from shared.update import MAX_NORM, BoundedUpdate, Receipt, to_bytes
from shared.wire import Refusal

PLAN = Plan(
    clip=1.0,
    noise_multiplier=2.0,
    sampling_rate=0.5,
    steps=2,
    expected_batch=10.0,
    epsilon=4.0,
    delta=1e-6,
    shoppers_at_least=1000,
    update_norm=5.0,
)
HERE = Path("/shop")
POLICY = Policy(PLAN, "shop", HERE / "shop.ledger", HERE / "shop.head", HERE / "shop.key")
CONFIG = PlatformConfig(
    name="shop",
    weight=2.0,
    events=EventTable(HERE / "e.csv", "csv", {}),
    items=ItemTable(HERE / "i.csv", "csv", {}),
    share_metrics=True,
    policy=POLICY,
)
OPEN = replace(CONFIG, policy=replace(POLICY, plan=None))
DIGEST = "0123456789abcdef" * 4  # of the platform's backbone
START = Adapter({"w": np.zeros(2, np.float32)}, backbone=DIGEST, task="next-item")
UPDATE = BoundedUpdate(
    {"w": np.array([3, 4], np.float32)}, base=START.digest, weight=2.0, bound=5.0, noise="secure"
)
RECEIPT = Receipt(2, "ab" * 32)
METRICS = {wire.NDCG: 0.25, wire.HIT_RATE: 0.5}
MEMBER = wire.Member("shop", 2.0, DIGEST, "next-item")
GOOD = {
    wire.HELLO: wire.hello_reply(MEMBER),
    wire.TRAIN: wire.update_reply(UPDATE, RECEIPT),
    wire.EVALUATE: wire.metrics_reply(METRICS),
}
FIELDS = {
    wire.HELLO: {"platform", "weight", "backbone", "task", "rounds_left"},
    wire.TRAIN: {"base", "weight", "bound", "noise", "receipt"},
    wire.EVALUATE: set[str](),
}
SECRET = "shopper-4711"


def through(kind: str, content: Content, config: PlatformConfig = CONFIG) -> Content:
    payload = {wire.TRAIN: to_bytes(UPDATE), wire.EVALUATE: metrics_bytes(METRICS)}.get(kind)
    paid = None if payload is None else (payload, RECEIPT)
    return passed(kind, content, config, "secure", member=MEMBER, adapter=START, paid=paid)


def stopped(kind: str, content: Content, config: PlatformConfig = CONFIG) -> str:
    with pytest.raises(ReplyError) as caught:
        through(kind, content, config)
    return str(caught.value)


def copy(content: Content) -> Content:
    """Records of its own, so that a change stays here."""
    made = RecordDict()
    for name, record in content.items():
        made[name] = type(record)(dict(record))  # type: ignore[arg-type]
    return made


# Random replies ------------------------------------------------------------------------------

word = st.sampled_from(
    (
        *(SECRET, "update", "request", "metrics", "receipts", "adapter", "base", "weight", "bound"),
        *("noise", "receipt", "platform", "task", "ndcg@10", "hr@10", "loss", "num-examples"),
    )
)
value = (
    st.sampled_from([SECRET, DIGEST, "shop", "secure", "simulated", "none", f"9 {'cd' * 32}"])
    | st.floats()
    | st.integers(-5, 5)
    | st.booleans()
    | st.lists(st.just(SECRET), min_size=1, max_size=2)
    | st.just(SECRET.encode())
)


@st.composite
def arrays(draw: st.DrawFn) -> ArrayRecord:
    made = {}
    for name in draw(st.lists(word, max_size=3, unique=True)):
        kind, encoding = draw(
            st.sampled_from([("float32", records.RAW), ("float64", "numpy.ndarray"), ("S", SECRET)])
        )
        data = draw(
            st.sampled_from([bytes(8), SECRET.encode(), np.full(2, np.nan, "f4").tobytes()])
        )
        made[name] = Array(kind, (len(data) // 4,), encoding, data)
    return ArrayRecord(made)


configs = st.builds(ConfigRecord, st.dictionaries(word, value, max_size=4))
numbers = st.floats() | st.integers(0, 9)
metrics = st.builds(MetricRecord, st.dictionaries(word, numbers, max_size=4))


@st.composite
def replies(draw: st.DrawFn) -> tuple[str, Content]:
    """A good reply with records and fields beside its own, or in their place; or rubbish."""
    kind = draw(st.sampled_from(list(GOOD)))
    made = copy(GOOD[kind]) if draw(st.integers(0, 3)) else RecordDict()
    for name in draw(st.lists(word, max_size=3)):
        made[name] = draw(arrays() | configs | metrics)
    for record in made.config_records.values():
        for name in draw(st.lists(word, max_size=2)):
            record[name] = draw(value)
    for tensors in made.array_records.values():
        tensors.update(draw(arrays()))
    return kind, made


def check(kind: str, told: Content, config: PlatformConfig) -> None:
    """Only allow-listed records and fields, of their type and in their range."""
    if kind == wire.EVALUATE:
        assert list(told) == [wire.METRICS]
        shown = told.metric_records[wire.METRICS]
        assert set(shown) <= {wire.NDCG, wire.HIT_RATE}
        assert all(isinstance(it, float) and 0 <= it <= 1 for it in shown.values())
        return
    fields = told.config_records[records.REQUEST]
    assert set(fields) == FIELDS[kind]
    assert fields["weight"] == config.weight
    if kind == wire.HELLO:
        assert list(told) == [records.REQUEST]
        assert fields["platform"] == config.name
        return
    assert set(told) == {records.REQUEST, wire.UPDATE}
    assert fields["noise"] == "secure"
    assert wire.read_receipt(told) is not None
    arrays = told.array_records[wire.UPDATE]
    assert all((it.dtype, it.stype) == ("float32", records.RAW) for it in arrays.values())
    every = [np.frombuffer(it.data, "<f4").astype(float) for it in arrays.values()]
    assert math.hypot(*np.concatenate([np.zeros(0), *every])) <= PLAN.update_norm


@given(replies())
def test_whatever_is_in_a_reply_nothing_passes_but_the_fields_that_may(
    reply: tuple[str, Content],
) -> None:
    kind, content = reply
    try:
        told = through(kind, content)
    except ReplyError as fault:
        assert "\n" not in str(fault)  # noqa: PT017
    else:
        check(kind, told, CONFIG)
        assert SECRET not in repr(dict(told.items()))
        assert told is not content  # built anew


@pytest.mark.parametrize("kind", list(GOOD))
def test_a_good_reply_passes_as_it_is_without_what_hangs_on_it(kind: str) -> None:
    more = copy(GOOD[kind])
    more["extra"] = ConfigRecord({"who": SECRET})
    more["debug"] = MetricRecord({"num-examples": 4711})
    more["state"] = ArrayRecord({"rows": Array("float32", (2,), records.RAW, bytes(8))})
    for record in more.config_records.values():
        record["num-examples"] = 4711
    assert through(kind, more) == GOOD[kind]


@pytest.mark.parametrize("kind", ["query", "train.again", "", SECRET])
def test_a_reply_to_anything_else_is_stopped(kind: str) -> None:
    assert "would send a reply to " in stopped(kind, GOOD[wire.HELLO])


def test_without_a_privacy_section_nothing_but_hello_leaves() -> None:
    bare = replace(CONFIG, policy=None)
    assert through(wire.HELLO, GOOD[wire.HELLO], bare) == GOOD[wire.HELLO]
    for kind in (wire.TRAIN, wire.EVALUATE):
        assert "anything, without a [privacy] section" in stopped(kind, GOOD[kind], bare)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"noise": "none"}, "another protection"),
        ({"noise": "simulated"}, "another protection"),
        ({"weight": 1.0}, "another weight"),
        ({"bound": 5.1}, "another bound"),
        ({"bound": MAX_NORM}, "another bound"),
        ({"bound": 4.9}, "more than its bound"),
        ({"bound": -5.0}, "more than its bound"),
        ({"base": SECRET}, "starts from"),
        ({"delta": {SECRET: np.zeros(2, np.float32)}}, "tensors of other names"),
        ({"delta": {"w": np.zeros(3, np.float32)}}, "has shape"),
        ({"delta": {"w": np.array([3, 4.001], np.float32)}}, "more than its bound"),
        ({"delta": {"w": np.array([np.nan, 0], np.float32)}}, "not finite"),
        ({"delta": {"w": np.array([3e38, 3e38], np.float32)}}, "not finite"),
    ],
)
def test_an_update_of_another_plan_is_stopped(changed: dict[str, Any], told: str) -> None:
    spoilt = replace(UPDATE, **changed)
    assert told in stopped(wire.TRAIN, wire.update_reply(spoilt, RECEIPT))


def test_a_bound_is_the_plan_s_own_and_no_number_of_its_rows() -> None:
    short = replace(UPDATE, delta={"w": np.array([0.1, 0], np.float32)}, bound=0.4711)
    assert "bound" in stopped(wire.TRAIN, wire.update_reply(short, RECEIPT))


@pytest.mark.parametrize("name", ["platform", "backbone", "task"])
def test_a_member_says_nothing_of_itself_but_what_it_is(name: str) -> None:
    spoilt = copy(GOOD[wire.HELLO])
    spoilt.config_records[records.REQUEST][name] = SECRET
    assert "not its own" in stopped(wire.HELLO, spoilt)


def test_an_update_that_nobody_asked_for_is_stopped() -> None:
    with pytest.raises(ReplyError, match="nobody asked for"):
        passed(wire.TRAIN, GOOD[wire.TRAIN], CONFIG, "secure", member=MEMBER)


def test_an_update_without_a_receipt_or_with_one_nobody_keeps_is_stopped() -> None:
    assert "another protection" in stopped(wire.TRAIN, wire.update_reply(UPDATE))
    unkept = wire.update_reply(replace(UPDATE, noise="none", bound=MAX_NORM), RECEIPT)
    assert "another protection" in stopped(wire.TRAIN, unkept, OPEN)


def test_what_the_ledger_has_not_released_is_stopped() -> None:
    other = replace(UPDATE, delta={"w": UPDATE.delta["w"] * np.float32(0.5)})
    assert "not released" in stopped(wire.TRAIN, wire.update_reply(other, RECEIPT))
    newer = Receipt(RECEIPT.count + 2, RECEIPT.head)
    assert "not released" in stopped(wire.TRAIN, wire.update_reply(UPDATE, newer))
    raw = {wire.NDCG: 0.123456789, wire.HIT_RATE: 1 / 3}
    assert "not released" in stopped(wire.EVALUATE, wire.metrics_reply(raw))
    for kind in (wire.TRAIN, wire.EVALUATE):
        with pytest.raises(ReplyError, match="not released"):
            passed(kind, GOOD[kind], CONFIG, "secure", member=MEMBER, adapter=START)


def test_metrics_are_withheld_unless_the_platform_s_file_shares_them() -> None:
    shy = replace(CONFIG, share_metrics=False)
    assert "withholds" in stopped(wire.EVALUATE, GOOD[wire.EVALUATE], shy)
    assert through(wire.EVALUATE, wire.metrics_reply({}), shy) == wire.metrics_reply({})


@pytest.mark.parametrize("bad", [1.0001, -0.1, 4711.0, math.nan, math.inf])
def test_metrics_out_of_range_are_stopped(bad: float) -> None:
    stopped(wire.EVALUATE, wire.metrics_reply({wire.NDCG: bad}))


# Refusals, time and noise --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        (BudgetError("x", todo="y"), 101),
        (PlanError("x", todo="y"), 102),
        (LedgerError("x", todo="y"), 103),
        (HoursError("x", todo="y"), 104),
        (DataError("x", todo="y"), 2),
        (ReplyError("x", todo="y"), 2),
        (KeyError(SECRET), 2),
        (MemoryError(), 2),
    ],
)
def test_all_that_leaves_of_a_fault_is_one_of_six_numbers(fault: Exception, number: int) -> None:
    assert refusal(fault) == number
    assert {int(it) for it in Refusal} == {2, 101, 102, 103, 104, 105}
