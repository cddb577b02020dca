from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server import authority
from server.certificates import CA_LIFE, LEAF_LIFE
from server.commands import doctor
from server.enrolment import Enrolment
from server.home import load_home, make_home
from shared import terminal
from shared.doctor import Check
from shared.enrolment import join_request
from shared.locking import alone
from shared.trust import fingerprint

Typed = Callable[..., tuple[int, str, str]]
NOW = time.time()
DAY = 24 * 3600.0

cli = typer.Typer(pretty_exceptions_enable=False)
cli.command(epilog=doctor.EXAMPLE)(doctor.doctor)


def main() -> None:
    terminal.run(cli)


@pytest.fixture(scope="module")
def made(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made") / "home"
    make_home(
        home,
        hosts=["localhost", "127.0.0.1"],
        backbone=backbone,
        listen="127.0.0.1:0",
        health="127.0.0.1:0",
        name="coordinator",
    )
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


def found(home: Path, *, now: float = NOW) -> dict[str, Check]:
    """Every check by its name, less those of this very machine."""
    listed = {it.name: it for it in doctor.checks(load_home(home), now=now)}
    for name in ("python", "packages", "disk", "memory"):
        assert name in listed
        del listed[name]
    return listed


def wrong(home: Path, *, now: float = NOW) -> set[str]:
    return {it.name for it in found(home, now=now).values() if it.ok is False}


def edit(home: Path, old: str, new: str) -> None:
    text = (home / "server.toml").read_text()
    assert old in text
    (home / "server.toml").write_text(text.replace(old, new, 1))


def test_a_new_home_lacks_a_release_and_platforms_and_says_how_to_come_by_them(home: Path) -> None:
    before = {it: it.read_bytes() for it in home.rglob("*") if it.is_file()}
    told = found(home)
    assert {it.name for it in told.values() if it.ok is False} == {"release"}
    assert "atoll-server release" in told["release"].todo
    assert told["platforms"].todo == "atoll-server invite NAME"
    assert {it: it.read_bytes() for it in home.rglob("*") if it.is_file()} == before


def test_a_certificate_is_told_before_it_ends(home: Path) -> None:
    soon = NOW + (LEAF_LIFE - timedelta(days=20)).total_seconds()
    assert wrong(home, now=soon) == {"release", "certificate"}
    assert "expires on" in found(home, now=soon)["certificate"].told
    late = NOW + LEAF_LIFE.total_seconds() + DAY
    assert "expired on" in found(home, now=late)["certificate"].told
    ca = NOW + (CA_LIFE - timedelta(days=300)).total_seconds()
    assert found(home, now=ca)["ca"].todo == "atoll-server rotate --ca"


def test_a_clock_before_the_certificate_is_told(home: Path) -> None:
    assert found(home, now=NOW - DAY)["certificate"].todo == "set this machine's clock"


def test_a_key_of_another_certificate_is_told(home: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority.create(tmp_path / "other", hosts=["a"], name="c")
    shutil.copy(tmp_path / "other" / "server.key", home / "server.key")
    told = found(home)["certificate"]
    assert (told.ok, "is not the key" in told.told) == (False, True)


def test_keys_that_others_may_read_are_told(home: Path) -> None:
    (home / "ca.key").chmod(0o644)
    assert "ca.key has mode 644" in found(home)["keys"].told
    (home / "signing.key").unlink()
    told = found(home)
    assert "signing.key is missing" in told["keys"].told
    assert told["signing key"].ok is False
    assert not (home / "signing.key").exists()


def test_an_address_that_the_certificate_does_not_name_is_told(home: Path) -> None:
    edit(home, 'listen = "127.0.0.1:0"', 'listen = "127.0.0.2:0"')
    assert found(home)["hosts"].todo == "atoll-server rotate --host 127.0.0.2"
    edit(home, 'listen = "127.0.0.2:0"', 'listen = "0.0.0.0:0"')
    assert found(home)["hosts"].ok is True


def test_a_port_is_free_in_use_by_us_or_by_somebody_else(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        edit(home, 'listen = "127.0.0.1:0"', f'listen = "{address}"')
        assert found(home)["port"].told.startswith(f"{address} cannot be used")
        with alone(home, "server"):
            assert found(home)["port"] == Check(
                "port", True, f"{address}, in use by the one that is up"
            )
    assert found(home)["port"] == Check("port", True, f"{address} is free")
    with alone(home, "server"):
        assert found(home)["port"].ok is False


def test_a_backbone_that_is_gone_is_told(home: Path, backbone: Path) -> None:
    edit(home, str(backbone), "/nowhere.safetensors")
    assert wrong(home) == {"release", "backbone"}


def test_platforms_that_were_not_seen_are_named(home: Path) -> None:
    for name, seen in (("shop", NOW - 5.0), ("kiosk", NOW - 3600.0), ("new", None)):
        store = Enrolment(home / "platforms.sqlite", clock=lambda: NOW - 7200.0)
        node, signing = ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()
        store.admit(join_request(store.invite(name), name=name, node=node, signing=signing))
        if seen:
            later = Enrolment(home / "platforms.sqlite", clock=partial(float, seen))
            later.seen(name, ca=fingerprint(authority.ca_bundle(home)))
    told = found(home)["platforms"]
    assert told.told == ("3 admitted; kiosk was not seen for 60 minutes, new was never seen")
    authority.rotate_ca(home)
    rotation = found(home)["ca rotation"]
    assert (rotation.ok, rotation.todo) == (None, "wait for them")


def test_a_changed_audit_log_is_told(home: Path) -> None:
    (home / "audit.jsonl").write_text("nonsense\n")
    assert "audit log" in wrong(home)


def test_what_is_wrong_is_one_line_each_and_exit_code_2(typed: Typed, home: Path) -> None:
    code, out, err = typed(main, "--home", home)
    assert (code, err) == (2, "")
    lines = out.splitlines()
    assert all(line[:2] in ("✓ ", "✗ ", "– ") for line in lines)
    (line,) = (line for line in lines if "release" in line.partition(":")[0])
    assert line.startswith("✗ release: ")
    code, out, _ = typed(main, "--home", home, "--json")
    assert code == 2
    assert {"name", "ok", "told", "todo"} == set(json.loads(out)[0])


def test_no_home_is_one_line(typed: Typed, tmp_path: Path) -> None:
    code, out, err = typed(main, "--home", tmp_path)
    assert (code, out) == (2, "")
    assert "is no coordinator's home" in err
