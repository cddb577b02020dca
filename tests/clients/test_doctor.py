from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import typer

from clients.commands import doctor
from clients.commands.join import join
from server import authority
from server.enrolment import Enrolment
from shared import terminal
from shared.backbone import BackboneSpec, new_backbone, save_backbone
from shared.doctor import Check

if TYPE_CHECKING:
    from tests.clients.conftest import Coordinator

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
def side(make_platform: Make, typed: Typed, tmp_path: Path, coordinator: Coordinator) -> Side:
    platform = make_platform(tmp_path / "shop")
    words = ("--server", coordinator.server, "-p", platform, "--health", "127.0.0.1:0")
    code, out, err = typed(main, "join", str(coordinator.token()), *words)
    assert (code, out.splitlines()[0]) == (0, f"shop has joined {coordinator.server}"), err
    return Side(platform, tmp_path / "shop" / "shop.atoll", coordinator.home, coordinator.port)


def found(side: Side, *, off: float = 0.0) -> dict[str, Check]:
    """Every check by its name, less those of this very machine."""
    listed = {
        it.name: it for it in doctor.checks(side.platform, None, now=lambda: time.time() + off)
    }
    for name in ("python", "packages", "disk", "memory", "gpu"):
        del listed[name]
    return listed


def checked(platform: Path) -> dict[str, Check]:
    """Every check of a platform that has not joined, by its name."""
    return {it.name: it for it in doctor.checks(platform, None, now=time.time)}


def plan(*, shoppers_at_least: int) -> str:
    return (
        f"epsilon = 3.0\nshoppers_at_least = {shoppers_at_least}\nsampling_rate = 0.5\n"
        "steps = 2\nrounds = 2"
    )


def without_privacy(platform: Path) -> None:
    head, _, rest = platform.read_text().partition("[privacy]")
    platform.write_text(head + "[evaluation]" + rest.partition("[evaluation]")[2])


def wrong(side: Side, *, off: float = 0.0) -> set[str]:
    return {it.name for it in found(side, off=off).values() if it.ok is False}


def test_a_platform_that_has_joined_is_ready(side: Side) -> None:
    before = {it: it.read_bytes() for it in side.platform.parent.rglob("*") if it.is_file()}
    told = found(side)
    assert [it.line() for it in told.values() if it.ok is False] == []
    assert set(told) == {
        *("platform file", "tables", "backbone", "privacy", "ledger", "membership", "keys"),
        *("node key", "audit log", "health", "trust", "reach", "certificate", "clock"),
        *("coordinator", "versions"),
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


def test_a_lower_bound_above_the_shoppers_of_the_table_is_told(
    make_platform: Make, tmp_path: Path
) -> None:
    platform = make_platform(tmp_path, privacy=plan(shoppers_at_least=10))
    assert checked(platform)["privacy"].ok is True
    platform.write_text(platform.read_text().replace("at_least = 10", "at_least = 11"))
    told = checked(platform)
    assert told["tables"].told == "45 events of 10 shoppers, 16 items"
    assert told["privacy"].line() == (
        "✗ privacy: [privacy]: shoppers_at_least 11 is more than there are;"
        " set a public lower bound that holds"
    )
    (tmp_path / "items.tsv").unlink()  # then nothing is known of the bound
    assert (checked(platform)["tables"].ok, checked(platform)["privacy"].ok) == (False, None)


def test_a_platform_without_privacy_section_is_told_to_write_one(
    make_platform: Make, tmp_path: Path
) -> None:
    platform = make_platform(tmp_path)
    assert checked(platform)["privacy"].ok is None  # unprotected: it is said, and no fault
    without_privacy(platform)
    told = checked(platform)["privacy"]
    assert (told.ok, "trains for nobody" in told.told) == (False, True)
    assert told.todo == "write one, or for public rows one of unprotected = true"


def test_a_backbone_that_is_gone_or_of_another_encoder_is_told(
    make_platform: Make, tmp_path: Path, backbone: Path
) -> None:
    platform = make_platform(tmp_path)
    other = BackboneSpec(encoder="another", text_width=16, width=8, heads=2, rank=2, out_rank=4)
    save_backbone(new_backbone(other, seed=0), tmp_path / "other.safetensors")
    text = platform.read_text()
    for name, why in (("gone", "no such backbone file"), ("other", "was made for another text")):
        path = tmp_path / f"{name}.safetensors"
        platform.write_text(text.replace(str(backbone), str(path)))
        told = checked(platform)["backbone"]
        assert (told.ok, why in told.told, bool(told.todo)) == (False, True, True)


def test_a_ledger_that_is_damaged_is_told(make_platform: Make, tmp_path: Path) -> None:
    platform = make_platform(tmp_path, privacy=plan(shoppers_at_least=8))
    assert {it.name: it.told for it in doctor.checks(platform, None, now=time.time)}["ledger"] == (
        "0 entries, verified"
    )
    (tmp_path / "shop.ledger").write_bytes(b"nonsense" * 200)
    listed = {it.name: it for it in doctor.checks(platform, None, now=time.time)}
    assert (listed["ledger"].ok, "is damaged" in listed["ledger"].told) == (False, True)


def test_a_name_that_does_not_resolve_is_no_such_host(side: Side) -> None:
    text = (side.home / "client.toml").read_text().splitlines()[1:]
    for host in (".".join(["x" * 60] * 5), "y" * 70):  # too long: no name server is asked
        (side.home / "client.toml").write_text("\n".join([f'server = "{host}:9092"', *text]))
        told = found(side)["reach"]
        assert told.told == f"{host}:9092: no such host"
        assert told.todo.startswith("check the name")


def test_a_health_port_that_is_taken_names_the_key_to_change(side: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = side.home / "client.toml"
        port = taken.getsockname()[1]
        file.write_text(file.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"'))
        told = found(side)["health"]
    assert told.ok is False
    assert told.todo.startswith(f"set health in {file} to another HOST:PORT")


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
