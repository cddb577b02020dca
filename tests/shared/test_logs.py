from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from shared import logs

Err = Callable[[], str]


@pytest.fixture
def err(capsys: pytest.CaptureFixture[str]) -> Iterator[Err]:
    root, flower, ours = (logging.getLogger(name) for name in (None, "flwr", "atoll"))
    before = [(it, list(it.handlers), it.level, it.propagate) for it in (root, flower, ours)]
    yield lambda: capsys.readouterr().err
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def test_a_line_is_one_json_object_with_its_fields(err: Err) -> None:
    logs.to_stderr()
    logging.getLogger("atoll.server").info("round %d", 3, extra={"round": 3, "moved": True})
    (line,) = err().splitlines()
    told = json.loads(line)
    assert told["message"] == "round 3"
    assert (told["level"], told["logger"], told["round"]) == ("info", "atoll.server", 3)
    assert told["time"].endswith("+00:00")


def test_what_an_exception_says_is_within_its_line(err: Err) -> None:
    logs.to_stderr()
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("atoll.client").exception("failed")
    (line,) = err().splitlines()
    assert "two\nlines" in json.loads(line)["exception"]


def test_flower_s_own_lines_go_the_same_way_from_warnings_up(err: Err) -> None:
    logs.to_stderr()
    logging.getLogger("flwr").info("[Fleet.PullMessages]")
    logging.getLogger("flwr").warning("something is wrong")
    (line,) = err().splitlines()
    assert json.loads(line)["logger"] == "flwr"


def test_text_is_for_terminals(err: Err) -> None:
    logs.to_stderr(as_json=False)
    logging.getLogger("atoll.server").info("serving")
    assert "atoll.server INFO serving" in err()
