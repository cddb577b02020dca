from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from shared import asking, records
from shared.adapter import Adapter
from shared.asking import Training
from shared.errors import ReplyError
from shared.training import SCHEDULES, Schedule

Value = str | int | float | bool | bytes | list[int]

TRAINING = Training(
    round=2,
    rounds=9,
    epochs=1,
    batch=64,
    learning_rate=0.003,
    schedule="cosine",
    seed=7,
    clip=0.5,
    noise_multiplier=1.25,
    steps=16,
    cohort=5,
    proximal=0.125,
)
ADAPTER = Adapter(
    {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([0.5], np.float32)},
    backbone="b" * 64,
    task="next-item",
    version=4,
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


def test_a_request_to_train_arrives_as_it_left() -> None:
    adapter, training = asking.read_request(asking.request(ADAPTER, TRAINING))
    assert (adapter.digest, adapter.version) == (ADAPTER.digest, 4)
    assert (adapter.backbone, adapter.task) == (ADAPTER.backbone, ADAPTER.task)
    assert training == TRAINING


@given(st.integers(0, 2**63 - 1))
def test_a_whole_number_is_not_rounded_on_its_way(seed: int) -> None:
    _, training = asking.read_request(asking.request(ADAPTER, replace(TRAINING, seed=seed)))
    assert training is not None
    assert training.seed == seed


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_can_be_asked_for(schedule: Schedule) -> None:
    asked = replace(TRAINING, schedule=schedule)
    assert asking.read_request(asking.request(ADAPTER, asked))[1] == asked


@pytest.mark.parametrize("schedule", ["Cosine", "warmup", "", None, 1])
def test_a_schedule_nobody_knows_is_refused(schedule: Value | None) -> None:
    with pytest.raises(ReplyError, match="schedule"):
        asking.read_request(with_field(asking.request(ADAPTER, TRAINING), "schedule", schedule))


def test_a_request_to_evaluate_asks_for_no_training() -> None:
    adapter, training = asking.read_request(asking.request(ADAPTER))
    assert adapter.digest == ADAPTER.digest
    assert training is None


@pytest.mark.parametrize("field", asdict(TRAINING))
def test_a_request_that_lacks_a_field_is_refused_or_asks_for_no_training(field: str) -> None:
    content = with_field(asking.request(ADAPTER, TRAINING), field, None)
    if field == "round":
        assert asking.read_request(content)[1] is None
    else:
        with pytest.raises(ReplyError, match=f"'{field}'"):
            asking.read_request(content)


@pytest.mark.parametrize(
    "field", ["version", "round", "rounds", "epochs", "batch", "seed", "steps", "cohort"]
)
def test_half_a_round_is_refused(field: str) -> None:
    with pytest.raises(ReplyError, match=f"'{field}' is not a whole number"):
        asking.read_request(with_field(asking.request(ADAPTER, TRAINING), field, 1.5))


@pytest.mark.parametrize("field", ["backbone", "task", "digest"])
def test_an_adapter_that_is_not_the_one_of_its_digest_is_refused(field: str) -> None:
    with pytest.raises(ReplyError, match="not that of its digest"):
        asking.read_request(with_field(asking.request(ADAPTER), field, "other"))


def test_an_adapter_that_changed_on_its_way_is_refused() -> None:
    content = asking.request(ADAPTER)
    content[asking.ADAPTER] = records.pack({**ADAPTER.tensors, "a": np.zeros(1, np.float32)})
    with pytest.raises(ReplyError, match="not that of its digest"):
        asking.read_request(content)


@pytest.mark.parametrize("training", [TRAINING, None])
def test_a_signature_arrives_as_it_left_and_nothing_else_changes_by_it(
    training: Training | None,
) -> None:
    content = asking.request(ADAPTER, training, signature="ab" * 64)
    assert asking.read_signature(content) == "ab" * 64
    adapter, asked = asking.read_request(content)
    assert (adapter.digest, asked) == (ADAPTER.digest, training)


def test_a_request_without_a_signature_has_an_empty_one() -> None:
    content = asking.request(ADAPTER)
    assert asking.read_signature(content) == ""
    assert asking.read_signature(with_field(content, "signature", None)) == ""


@pytest.mark.parametrize("value", [1, True, b"ab", [1, 2]])
def test_a_signature_of_another_type_is_refused(value: Value) -> None:
    with pytest.raises(ReplyError, match="'signature' is not a text"):
        asking.read_signature(with_field(asking.request(ADAPTER), "signature", value))
