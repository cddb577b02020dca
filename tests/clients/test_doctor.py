from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import typer
from cryptography.hazmat.primitives.serialization import Encoding

from clients.commands import doctor
from clients.commands.join import join
from server import authority
from server.enrolment import Enrolment
from server.enrolment_service import handlers
from shared import doctor as both
from shared import terminal
from shared.audit_log import AuditLog
from shared.doctor import Check, clock, disk, memory, packages, private
from shared.signing import signing_key
from shared.token import Token

Typed = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]

cli = typer.Typer(pretty_exceptions_enable=False)
cli.command()(doctor.doctor)
cli.command()(join)


def main() -> None:
    terminal.run(cli)


@dataclass
class Side:
    """A platform that has joined a coordinator which runs."""

    platform: Path
    home: Path
    coordinator: Path
    server: grpc.Server


@pytest.fixture
def side(make_platform: Make, typed: Typed, tmp_path: Path) -> Iterator[Side]:
    home = tmp_path / "server"
    home.mkdir()
    authority.create(home, hosts=["127.0.0.1"], name="coordinator")
    key, audit = signing_key(home / "signing.key"), AuditLog(home / "audit.jsonl")
    store = Enrolment(home / "platforms.sqlite")
    server = grpc.server(ThreadPoolExecutor(4))
    service = handlers(
        store,
        key=key,
        checkpoint=lambda: audit.checkpoint(key),
        keep=lambda *_: None,
        ca_bundle=lambda: authority.ca_bundle(home),
        audit=audit,
    )
    server.add_generic_rpc_handlers((service,))
    secrets = grpc.ssl_server_credentials([authority.credentials(home)])
    port = server.add_secure_port("127.0.0.1:0", secrets)
    server.start()
    platform = make_platform(tmp_path / "shop")
    der = authority.issuer(home).public_bytes(Encoding.DER)
    token = str(Token(store.invite("shop"), 0, der))
    address = f"127.0.0.1:{port}"
    code, out, err = typed(main, "join", token, "--server", address, "-p", platform)
    assert (code, out.splitlines()[0]) == (0, f"shop has joined {address}"), err
    joined = tmp_path / "shop" / "shop.atoll"
    free = (joined / "client.toml").read_text().replace(":9094", ":0")
    (joined / "client.toml").write_text(free)  # others may test on this machine
    yield Side(platform, joined, home, server)
    server.stop(0).wait()


def found(side: Side, *, off: float = 0.0) -> dict[str, Check]:
    """Every check by its name, less those of this very machine."""
    listed = {
        it.name: it for it in doctor.checks(side.platform, None, now=lambda: time.time() + off)
    }
    for name in ("python", "packages", "disk", "memory", "gpu"):
        del listed[name]
    return listed


def wrong(side: Side, *, off: float = 0.0) -> set[str]:
    return {it.name for it in found(side, off=off).values() if it.ok is False}


def test_a_platform_that_has_joined_is_ready(side: Side) -> None:
    before = {it: it.read_bytes() for it in side.platform.parent.rglob("*") if it.is_file()}
    told = found(side)
    assert [it.line() for it in told.values() if it.ok is False] == []
    assert set(told) == {
        *("platform file", "tables", "backbone", "ledger", "membership", "keys", "node key"),
        *("audit log", "health", "trust", "reach", "certificate", "clock", "coordinator"),
        "versions",
    }
    assert told["coordinator"].told == "shop is admitted"
    assert "trusted, TLSv1." in told["certificate"].told
    assert {it: it.read_bytes() for it in side.platform.parent.rglob("*") if it.is_file()} == before


def test_who_has_not_joined_is_told_how(make_platform: Make, tmp_path: Path) -> None:
    platform = make_platform(tmp_path)
    listed = {it.name: it for it in doctor.checks(platform, None, now=time.time)}
    assert listed["membership"].ok is False
    assert "join with a token" in listed["membership"].todo
    assert listed["platform file"].ok is True


def test_a_platform_file_that_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[platform]\nname = 7\n")
    listed = {it.name: it for it in doctor.checks(tmp_path / "p.toml", None, now=time.time)}
    assert listed["platform file"].ok is False
    assert listed["membership"].ok is None


def test_a_coordinator_that_is_down_is_told_and_no_more_is_asked(side: Side) -> None:
    side.server.stop(0).wait()
    assert wrong(side) == {"reach"}
    assert "cannot be reached" in found(side)["reach"].told
    assert found(side)["coordinator"].told == "not asked"


def test_something_else_on_the_coordinators_port_is_told(side: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        text = (side.home / "client.toml").read_text().splitlines()[1:]
        (side.home / "client.toml").write_text("\n".join([f'server = "{address}"', *text]))

        def answer() -> None:
            for _ in range(2):
                with other.accept()[0] as connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = pool.submit(answer)
        told = found(side)["certificate"]
        answering.result()
    assert (told.ok, told.told.startswith(f"no TLS at {address}")) == (False, True)


def test_a_certificate_of_another_ca_is_told(side: Side, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority.create(tmp_path / "other", hosts=["127.0.0.1"], name="coordinator")
    shutil.copy(tmp_path / "other" / "ca.pem", side.home / "ca.pem")
    told = found(side)
    assert wrong(side) == {"certificate"}
    assert "is not trusted" in told["certificate"].told


def test_a_clock_that_is_off_is_told_from_both_sides(side: Side) -> None:
    told = found(side, off=90.0)
    assert told["clock"].ok is False
    assert "90.0 s ahead of the coordinator's" in told["clock"].told.replace("89.9", "90.0")
    assert "clock" in told["coordinator"].told
    assert found(side, off=20.0)["clock"].ok is None


def test_an_evicted_platform_is_told(side: Side) -> None:
    Enrolment(side.coordinator / "platforms.sqlite").evict("shop")
    assert "or it was evicted" in found(side)["coordinator"].told


@pytest.mark.parametrize(
    ("name", "check"), [("node.key", "node key"), ("signing.key", "keys"), ("ca.pem", "trust")]
)
def test_a_file_that_is_gone_is_told(name: str, check: str, side: Side) -> None:
    (side.home / name).unlink()
    assert check in wrong(side)


def test_a_ledger_that_is_damaged_is_told(make_platform: Make, tmp_path: Path) -> None:
    plan = "epsilon = 3.0\nshoppers_at_least = 8\nsampling_rate = 0.5\nsteps = 2\nrounds = 2"
    platform = make_platform(tmp_path, privacy=plan)
    assert {it.name: it.told for it in doctor.checks(platform, None, now=time.time)}["ledger"] == (
        "0 entries, verified"
    )
    (tmp_path / "shop.ledger").write_bytes(b"nonsense" * 200)
    listed = {it.name: it for it in doctor.checks(platform, None, now=time.time)}
    assert (listed["ledger"].ok, "is damaged" in listed["ledger"].told) == (False, True)


def test_tables_that_are_gone_are_told(side: Side) -> None:
    (side.platform.parent / "items.tsv").unlink()
    assert wrong(side) == {"tables"}


def test_a_renamed_platform_is_told(side: Side) -> None:
    text = side.platform.read_text()
    side.platform.write_text(text.replace('name = "shop"', 'name = "store"'))
    listed = {it.name: it for it in doctor.checks(side.platform, side.home, now=time.time)}
    assert "joined as shop" in listed["membership"].told


def test_each_check_is_one_line_and_a_wrong_one_exit_code_2(typed: Typed, side: Side) -> None:
    (side.home / "node.key").chmod(0o644)
    code, out, err = typed(main, "doctor", "-p", side.platform)
    assert (code, err) == (2, "")
    assert all(line[:2] in ("✓ ", "✗ ", "– ") for line in out.splitlines())
    assert "✗ keys: node.key has mode 644; chmod 600" in out
    code, out, _ = typed(main, "doctor", "-p", side.platform, "--json")
    assert code == 2
    assert {it["name"]: it["ok"] for it in json.loads(out)}["keys"] is False


def test_packages_are_compared_with_their_pins() -> None:
    assert packages(["numpy>=1", "pytest", "none-such; extra == 'ray'"]) == Check(
        "packages", True, "2 as pinned"
    )
    told = packages(["numpy==0.1", "no-such-package>=2"])
    assert told.ok is False
    assert "numpy is" in told.told
    assert "no-such-package is missing" in told.told
    assert both.python().ok is True


def test_a_full_disk_and_a_full_memory_are_told(tmp_path: Path) -> None:
    assert disk(tmp_path / "not" / "yet", least=0).ok is True
    assert disk(tmp_path, least=2**80).ok is False
    source = tmp_path / "meminfo"
    source.write_text("MemTotal: 9 kB\nMemAvailable:    1048576 kB\n")
    assert memory(source=source).told == "1.0 GiB available"
    assert memory(source=source).ok is False
    assert memory(source=tmp_path / "none").ok is None


def test_clocks_and_keys(tmp_path: Path) -> None:
    assert [clock(theirs=0.0, mine=off).ok for off in (1.0, -4.0, 30.0, -61.0)] == [
        *(True, True),
        None,
        False,
    ]
    assert private(tmp_path, ["a"]).told == "a is missing"


def test_a_port_is_not_taken_by_looking() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert both.port("port", address, ours=False).ok is False
    assert both.port("port", address, ours=False).ok is True
    assert both.port("port", "nonsense:x", ours=False).ok is False
    assert both.port("port", "", ours=False).ok is None
