from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp

from clients.app import app, check_fit, how, resident, shuffle
from clients.platform import Platform, open_platform
from shared import asking, records, wire
from shared.adapter import Adapter
from shared.errors import AdapterError, AtollError, ConfigError
from shared.tables.config import load_platform
from shared.training import SCHEDULES, Schedule
from shared.update import MAX_NORM, check_update
from simulations.harness import Config, run_in_process

TRAINING = asking.Training(
    round=1, rounds=2, epochs=1, batch=4, learning_rate=0.05, schedule="cosine", seed=0
)


def ask(path: Path, *questions: tuple[str, RecordDict], **config: str) -> list[Message]:
    """What the app of the platform at `path` answers to real Messages, one after another."""
    probe, found = ServerApp(), list[Message]()

    @probe.main()
    def main(grid: Grid, _context: Context) -> None:
        for kind, content in questions:
            found.extend(grid.send_and_receive([Message(content, 1, kind)]))

    node: Config = {"platform": str(path), **config}
    run_in_process(probe, app, run_config={}, nodes={"it": node})
    assert len(found) == len(questions)
    return found


@pytest.fixture(scope="module")
def opened(trio: dict[str, Path]) -> dict[str, Platform]:
    return {name: open_platform(load_platform(path)) for name, path in trio.items()}


@pytest.fixture(scope="module")
def start(opened: dict[str, Platform]) -> Adapter:
    return opened["atelier"].untrained


def told(content: RecordDict) -> set[str | int | float]:
    """Every name and every value of a message, tensors aside."""
    found: set[str | int | float] = set(content.keys())
    for record in content.values():
        found |= set(record.keys())
        if isinstance(record, ConfigRecord | MetricRecord):
            for value in record.values():
                found |= set(value) if isinstance(value, list) else {value}  # type: ignore[arg-type]
    return found


def test_hello_tells_five_public_fields_and_nothing_else(
    trio: dict[str, Path], opened: dict[str, Platform]
) -> None:
    (reply,) = ask(trio["harbour"], (wire.HELLO, wire.hello("next-item")))
    assert list(reply.content) == [records.REQUEST]
    assert dict(reply.content.config_records[records.REQUEST]) == {
        "platform": "harbour",
        "weight": 2.0,
        "backbone": opened["harbour"].digest,
        "task": "next-item",
        "rounds_left": wire.UNBOUNDED,  # it has no Plan, so no budget
    }


def test_train_answers_with_the_delta_and_four_public_fields_and_nothing_else(
    trio: dict[str, Path], start: Adapter
) -> None:
    (reply,) = ask(trio["harbour"], (wire.TRAIN, asking.request(start, TRAINING)))
    assert sorted(reply.content) == [records.REQUEST, wire.UPDATE]
    fields = dict(reply.content.config_records[records.REQUEST])
    assert fields == {"base": start.digest, "weight": 2.0, "bound": MAX_NORM, "noise": "none"}
    arrays = reply.content.array_records[wire.UPDATE]
    assert {name: tuple(array.shape) for name, array in arrays.items()} == start.shapes
    update = wire.read_update(reply.content)
    check_update(update, start)
    assert any(bool((tensor != 0).any()) for tensor in update.delta.values())


def test_evaluate_answers_nothing_unless_the_platform_shares_its_metrics(
    trio: dict[str, Path], start: Adapter
) -> None:
    (shy,) = ask(trio["kiosk"], (wire.EVALUATE, asking.request(start)))
    assert list(shy.content) == [wire.METRICS]
    assert dict(shy.content.metric_records[wire.METRICS]) == {}
    (open_,) = ask(trio["harbour"], (wire.EVALUATE, asking.request(start)))
    assert list(open_.content) == [wire.METRICS]
    metrics = open_.content.metric_records[wire.METRICS]
    assert sorted(metrics) == ["hr@10", "ndcg@10"]


def test_shared_metrics_are_those_of_the_validation_part(
    trio: dict[str, Path], opened: dict[str, Platform], start: Adapter
) -> None:
    (reply,) = ask(trio["harbour"], (wire.EVALUATE, asking.request(start)))
    ranks = opened["harbour"].rank(start, "validation").ranks
    gain = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean()
    found = wire.read_metrics(reply.content)
    assert found == pytest.approx({"ndcg@10": gain, "hr@10": (ranks <= 10).mean()})
    assert 0 < found["ndcg@10"] < 1


def test_no_reply_holds_a_shopper_an_item_or_a_count_of_rows(
    trio: dict[str, Path], opened: dict[str, Platform], start: Adapter
) -> None:
    for name, platform in opened.items():
        rows = platform.rows
        secret = {*rows.histories.shoppers, *rows.catalogue.items}
        counts = {*vars(rows.report).values(), *rows.histories.lengths.tolist()} - {0, 1, 2}
        for reply in ask(
            trio[name],
            (wire.HELLO, wire.hello("next-item")),
            (wire.TRAIN, asking.request(start, TRAINING)),
            (wire.EVALUATE, asking.request(start)),
        ):
            said = told(reply.content)
            assert not said & secret
            assert not said & counts
            bodies = [
                array.data
                for record in reply.content.values()
                if isinstance(record, ArrayRecord)
                for array in record.values()
            ]
            assert not any(one.encode() in body for one in secret for body in bodies)


def test_training_starts_from_the_adapter_that_came_and_from_nothing_left_behind(
    trio: dict[str, Path], start: Adapter
) -> None:
    question = (wire.TRAIN, asking.request(start, TRAINING))
    moved = start.plus({k: np.ones_like(v) for k, v in start.tensors.items()}, version=1)
    between = (wire.EVALUATE, asking.request(moved)), (wire.TRAIN, asking.request(moved, TRAINING))
    first, *_, again = ask(trio["atelier"], question, *between, question)
    one, two = wire.read_update(first.content), wire.read_update(again.content)
    assert all(np.array_equal(one.delta[name], two.delta[name]) for name in start.tensors)


def test_an_update_is_how_far_it_moved_and_not_where_it_ended(
    trio: dict[str, Path], start: Adapter
) -> None:
    far = start.plus({k: np.ones_like(v) for k, v in start.tensors.items()}, version=1)
    barely = replace(TRAINING, learning_rate=1e-6)
    (reply,) = ask(trio["atelier"], (wire.TRAIN, asking.request(far, barely)))
    update = wire.read_update(reply.content)
    assert update.base == far.digest
    assert 0 < max(float(np.abs(tensor).max()) for tensor in update.delta.values()) < 1e-4


def test_another_round_or_seed_draws_another_order(trio: dict[str, Path], start: Adapter) -> None:
    asked = [TRAINING, replace(TRAINING, seed=1), replace(TRAINING, round=2, rounds=4)]
    replies = ask(trio["atelier"], *((wire.TRAIN, asking.request(start, it)) for it in asked))
    deltas = [wire.read_update(reply.content).delta["adapter.weight"] for reply in replies]
    assert not np.array_equal(deltas[0], deltas[1])
    assert not np.array_equal(deltas[0], deltas[2])


def test_the_order_of_histories_is_a_platforms_own() -> None:
    def order(seed: int, round_: int, name: str) -> tuple[int, ...]:
        return tuple(shuffle(seed, round_, name).permutation(50))

    assert order(0, 1, "a") == order(0, 1, "a")
    others = [order(0, 1, "b"), order(0, 2, "a"), order(1, 1, "a")]
    assert len({order(0, 1, "a"), *others}) == 4


def changed(request: RecordDict, **fields: str) -> RecordDict:
    """The request with other words in it."""
    for name, value in fields.items():
        request.config_records[records.REQUEST][name] = value
    return request


SPOILT: dict[str, Callable[[Adapter], RecordDict]] = {
    "nothing": lambda _: RecordDict(),
    "another backbone": lambda a: asking.request(replace(a, backbone="x" * 64), TRAINING),
    "another task": lambda a: asking.request(replace(a, task="next-basket"), TRAINING),
    "another shape": lambda a: asking.request(
        replace(a, tensors={**a.tensors, "gate.adapter": np.zeros(2, np.float32)}), TRAINING
    ),
    "another digest": lambda a: RecordDict(
        {
            asking.ADAPTER: records.pack({k: v + 1 for k, v in a.tensors.items()}),
            records.REQUEST: asking.request(a, TRAINING).config_records[records.REQUEST],
        }
    ),
    "no training": asking.request,
    "round 3 of 2": lambda a: asking.request(a, replace(TRAINING, round=3)),
    "no epochs": lambda a: asking.request(a, replace(TRAINING, epochs=0)),
    "a million epochs": lambda a: asking.request(a, replace(TRAINING, epochs=1_000_000)),
    "an unknown schedule": lambda a: changed(asking.request(a, TRAINING), schedule="step"),
    "a learning rate below zero": lambda a: asking.request(a, replace(TRAINING, learning_rate=-1)),
}


@pytest.mark.parametrize("what", list(SPOILT))
def test_a_request_that_is_not_in_order_is_answered_with_an_error(
    what: str, trio: dict[str, Path], start: Adapter
) -> None:
    (reply,) = ask(trio["kiosk"], (wire.TRAIN, SPOILT[what](start)))
    assert reply.has_error()


def test_an_adapter_of_another_backbone_or_task_is_named(
    opened: dict[str, Platform], start: Adapter
) -> None:
    check_fit(start, opened["kiosk"])
    with pytest.raises(AdapterError, match="adapter is for other…"):
        check_fit(replace(start, backbone="other"), opened["kiosk"])
    with pytest.raises(AdapterError, match="task 'other'"):
        check_fit(replace(start, task="other"), opened["kiosk"])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_the_server_names_is_the_one_that_is_used(schedule: Schedule) -> None:
    recipe, stretch = how(replace(TRAINING, round=2, rounds=8, schedule=schedule))
    assert recipe.schedule == schedule
    assert (recipe.epochs, recipe.batch, recipe.learning_rate) == (1, 4, 0.05)
    assert (stretch.begin, stretch.end) == (1 / 8, 2 / 8)  # the second of eight rounds


@pytest.mark.parametrize(
    "asked",
    [
        {"round": 0},
        {"round": 3},
        {"epochs": 0},
        {"epochs": 101},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"learning_rate": 1.1},
        {"learning_rate": float("nan")},
        {"seed": -1},
        {"proximal": -0.1},
        {"proximal": 1001.0},
        {"proximal": float("nan")},
    ],
)
def test_a_number_out_of_range_makes_a_round_impossible(asked: dict[str, Any]) -> None:
    how(replace(TRAINING, round=2, epochs=100, learning_rate=1.0, proximal=1000.0))
    with pytest.raises(ConfigError, match="asks for an impossible round"):
        how(replace(TRAINING, **asked))


def test_nothing_the_server_sends_names_another_file(trio: dict[str, Path], start: Adapter) -> None:
    request = changed(asking.request(start, TRAINING), platform=str(trio["kiosk"]))
    hello = changed(wire.hello("next-item"), platform=str(trio["kiosk"]))
    who, trained, plain = ask(
        trio["atelier"],
        (wire.HELLO, hello),
        (wire.TRAIN, request),
        (wire.TRAIN, asking.request(start, TRAINING)),
    )
    assert wire.read_member(who.content).platform == "atelier"
    one, two = wire.read_update(trained.content), wire.read_update(plain.content)
    assert all(np.array_equal(one.delta[name], two.delta[name]) for name in start.tensors)


def test_a_node_without_a_platform_file_says_how_to_start_it() -> None:
    with pytest.raises(ConfigError, match="start the node with platform=PATH"):
        resident(Context(1, 1, {}, RecordDict(), {}))


def test_rows_are_read_once_for_many_messages(trio: dict[str, Path]) -> None:
    context = Context(1, 1, {"platform": str(trio["kiosk"])}, RecordDict(), {})
    assert resident(context) is resident(context)


def test_rows_are_read_anew_when_the_platforms_file_is_written_anew(
    make_platform: Callable[..., Path], tmp_path: Path
) -> None:
    context = Context(1, 1, {"platform": str(make_platform(tmp_path))}, RecordDict(), {})
    assert len(resident(context).rows.histories) == 10
    make_platform(tmp_path, shoppers=7)
    assert len(resident(context).rows.histories) == 7


def test_a_platform_that_cannot_be_opened_is_tried_again_at_the_next_message(
    make_platform: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    rows = (tmp_path / "interactions.tsv").read_text()
    (tmp_path / "interactions.tsv").unlink()
    context = Context(1, 1, {"platform": str(path)}, RecordDict(), {})
    with pytest.raises(AtollError, match="no such file"):
        resident(context)
    (tmp_path / "interactions.tsv").write_text(rows)
    assert resident(context).config.name == "shop"


def test_the_words_of_a_failure_stay_at_home(tmp_path: Path) -> None:
    missing = tmp_path / "secret-shop.toml"
    (reply,) = ask(missing, (wire.HELLO, wire.hello("next-item")))
    assert reply.has_error()
    assert reply.error.reason == "the platform could not answer"
