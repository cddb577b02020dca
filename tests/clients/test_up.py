"""`atoll-client up`: what it refuses before anything is started, in one line."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clients.daemon import main
from clients.membership import join

if TYPE_CHECKING:
    from tests.clients.conftest import Coordinator

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]


@pytest.fixture
def shop(coordinator: Coordinator, make_platform: Make, tmp_path: Path) -> Path:
    """The file of a platform that has joined."""
    made = make_platform(tmp_path / "shop")
    join(coordinator.token(), coordinator.server, platform_file=made, health="127.0.0.1:0")
    return made


@pytest.fixture(autouse=True)
def _same_logs() -> Iterator[None]:
    """Its log goes to a standard error that ends with the test."""
    loggers = [logging.getLogger(name) for name in (None, "atoll", "flwr")]
    before = [(it, it.handlers[:], it.level, it.propagate) for it in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "[privacy]\nanswer_seconds = 0.0\nunprotected = true\n",
            "",
            "platform.toml: has no [privacy] section, so it trains for nobody; write one",
        ),
        ("interactions.tsv", "gone.tsv", "gone.tsv: the table cannot be read (No such file"),
        ('"items.tsv"', '"gone.tsv"', "gone.tsv: the table cannot be read (No such file"),
        ("[backbone]\npath", "[backbone]\n# path", "shop: no backbone named; set path under"),
        (".safetensors", ".gone", "backbone.gone: no such backbone file; make one with"),
    ],
)
def test_a_platform_that_cannot_answer_does_not_start(
    old: str, new: str, told: str, refused: Refused, shop: Path
) -> None:
    text = shop.read_text()
    assert text.count(old) == 1
    shop.write_text(text.replace(old, new))
    assert told in refused(main, "up", "-p", shop)


def test_a_table_that_may_not_be_read_and_a_damaged_backbone_are_refused_too(
    refused: Refused, shop: Path, backbone: Path
) -> None:
    copy = shop.with_name("copy.safetensors")
    copy.write_bytes(backbone.read_bytes()[:-4])
    whole = shop.read_text()
    shop.write_text(shop.read_text().replace(str(backbone), str(copy)))
    assert "copy.safetensors: not a readable backbone" in refused(main, "up", "-p", shop)
    table = shop.with_name("items.tsv")
    table.unlink()
    table.mkdir()
    shop.write_text(whole)
    assert "items.tsv: no such file: a folder without .tsv files" in refused(main, "up", "-p", shop)


def test_a_health_port_that_is_taken_names_the_key_to_change(typed: Typed, shop: Path) -> None:
    file = shop.with_name("shop.atoll") / "client.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(file.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        code, out, err = typed(main, "up", "-p", shop)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {file}: health = '127.0.0.1:{port}': cannot serve health there")
    assert err.rstrip().endswith('; set health there to another HOST:PORT, or to "" for none')
    assert not file.with_name("running").exists()
    assert not file.with_name("audit.jsonl").exists()


def test_a_node_is_told_its_platform_and_the_coordinators_key_and_nothing_else(
    typed: Typed, shop: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, bool | float | int | str]] = []
    monkeypatch.setattr(
        "clients.commands.up.serve", lambda _member, config, *_, **__: told.append(config)
    )
    assert typed(main, "up", "-p", shop)[0] == 0
    assert told == [{"platform": str(shop.resolve()), "coordinator": coordinator.key}]


def test_a_platform_that_joined_under_another_name_does_not_start(
    refused: Refused, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.commands.up.serve", lambda *_parts, **_more: None)
    home = str(shop.with_name("shop.atoll"))
    shop.write_text(shop.read_text().replace('name = "shop"', 'name = "other"', 1))
    assert "joined as 'shop'" in refused(main, "up", "-p", shop, "--home", home)
