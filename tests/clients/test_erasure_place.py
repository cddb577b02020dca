"""An erasure list that a changed platform file would leave behind is refused, not forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clients import derived_files
from clients.commands.erase import place_lines
from clients.erasure import erase, load_draft
from clients.erasure_plan import Request
from server.witness import read_mark
from shared.errors import AuditError, ConfigError, DataError
from shared.evictions import Evictions
from shared.tables.config import load_platform
from shared.tables.erasure_list import load_list

Make = Callable[..., Path]
ADA = "shop-shopper-03"
NESTED = b'{"format":' + b"[" * 100_000


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> Path:
    """A platform of which one shopper was erased."""
    path = make_platform(tmp_path)
    erase(request_of(path, ADA))
    return path


def request_of(path: Path, *shoppers: str) -> Request:
    config = load_platform(path)
    return Request(config=config, file=path, home=path.parent / "home", shoppers=shoppers)


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "shop"', 'name = "store"'),
        ("[privacy]\n", '[privacy]\nledger = "state/shop.ledger"\n'),
    ],
)
def test_a_renamed_platform_or_a_moved_ledger_does_not_lose_the_list(
    shop: Path, old: str, new: str
) -> None:
    changed(shop, old, new)
    with pytest.raises(ConfigError, match=r"shop\.erase.* is read at .*\.erased.*erased = ") as no:
        load_platform(shop)
    assert str(shop.parent / "shop.erased") in str(no.value)
    changed(shop, "[events]\n", '[events]\nerased = "shop.erased"\n')
    config = load_platform(shop)
    listed = load_list(config.events.erased)
    assert listed is not None
    assert ADA in listed
    assert derived_files.register_path(config) == shop.parent / "shop.derived"


def test_a_renamed_file_does_not_lose_the_list(shop: Path) -> None:
    moved = shop.rename(shop.with_name("store.toml"))
    changed(moved, 'name = "shop"', 'name = "store"')
    with pytest.raises(ConfigError, match="seems to be of this platform"):
        load_platform(moved)


def test_records_and_registers_alone_are_not_lost_either(shop: Path) -> None:
    (shop.parent / "shop.erased").unlink()
    changed(shop, "[privacy]\n", '[privacy]\nledger = "state/shop.ledger"\n')
    with pytest.raises(ConfigError, match=r"shop\.erasures seems to be of this platform"):
        load_platform(shop)


def test_the_list_of_another_platform_in_the_folder_is_left_alone(shop: Path) -> None:
    other = shop.with_name("other.toml")
    other.write_text(shop.read_text().replace('name = "shop"', 'name = "other"'))
    assert load_list(load_platform(other).events.erased) is None


def test_erase_says_the_line_that_keeps_the_list(shop: Path) -> None:
    path = load_platform(shop).events.erased
    assert path is not None
    (line,) = place_lines(shop, path)
    assert line.endswith('erased = "shop.erased"')
    changed(shop, "[events]\n", "[events]\n" + line.rpartition(": ")[2] + "\n")
    assert load_platform(shop).events.erased == path
    assert not [*place_lines(shop, path)]


def test_deeply_nested_files_are_damaged_files(shop: Path, tmp_path: Path) -> None:
    request, nested = request_of(shop), tmp_path / "nested.json"
    for path in (request.draft_path, derived_files.register_path(request.config), nested):
        path.write_bytes(NESTED)
    with pytest.raises(DataError, match="an unfinished erasure cannot be read"):
        load_draft(request)
    with pytest.raises(DataError, match="register of derived files is damaged"):
        derived_files.load_register(request.config)
    with pytest.raises(AuditError, match="is damaged"):
        Evictions(nested).all()
    with pytest.raises(AuditError, match="is no checkpoint"):
        read_mark(nested, "0" * 64)
    request.list_path.write_bytes(NESTED)
    with pytest.raises(DataError, match="the erasure list is damaged"):
        load_list(request.list_path)
