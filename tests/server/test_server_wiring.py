"""What `atoll-server up` puts together: who is served, and what its runs are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from server.commands import up
from server.commands.up import Runs
from server.enrolment import Enrolment
from server.home import ServerHome, make_home
from shared.audit_log import AuditLog, entries
from shared.health import Health
from simulations.lagoon import BUNDLE

if TYPE_CHECKING:
    from tests.server.conftest import MakeKeys


@pytest.fixture
def home(tmp_path: Path, backbone: Path) -> ServerHome:
    return make_home(
        tmp_path / "home",
        hosts=["127.0.0.1"],
        backbone=backbone,
        listen="127.0.0.1:0",
        health="",
        name="coordinator",
    )


def test_a_node_is_served_from_its_admission_to_its_eviction_and_then_only_named(
    home: ServerHome, make_keys: MakeKeys
) -> None:
    link = up.superlink_of(home, AuditLog(home.path / "audit.jsonl"))
    store, keys = Enrolment(home.path / "platforms.sqlite"), make_keys()
    told = [(link.name_of(keys.node_key), link.whose(keys.node_key))]
    store.admit(keys.request(store.invite("shop")))
    told.append((link.name_of(keys.node_key), link.whose(keys.node_key)))
    store.evict("shop")
    told.append((link.name_of(keys.node_key), link.whose(keys.node_key)))
    assert told == [(None, None), ("shop", "shop"), (None, "evicted shop")]


def test_a_run_signs_its_requests_with_the_coordinators_key_and_writes_down_its_bundle(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[dict[str, Any]] = []
    grid = SimpleNamespace()

    class Link:
        """Whose run has begun."""

        def online(self) -> list[str]:
            return ["a", "b", "c", "d"]

        @contextmanager
        def run(self, _bundle: object, config: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
            configs.append(config)
            yield grid, SimpleNamespace(run_id=7)

    audit = AuditLog(home.path / "audit.jsonl")
    monkeypatch.setattr(up, "current", lambda _home: BUNDLE)
    monkeypatch.setattr(up, "server_app", lambda _grid, _context: None)
    health = Health(role="server", state="starting", round=None)
    guard = up.guard_of(home, audit, health)
    guard.shown.update("abcd")  # they have shown what they hold of the coordinator's log
    up.run(home, Link(), Runs(audit), health, guard)  # type: ignore[arg-type]
    (config,) = configs
    assert config["signing"] == str(home.path / "signing.key")
    (entry,) = entries(audit.path)
    assert (entry.event, entry.fields) == ("run", {"bundle": BUNDLE.digest, "run": "7"})
    assert grid.check == guard.check  # evidence of a restore that comes in mid-run ends it
