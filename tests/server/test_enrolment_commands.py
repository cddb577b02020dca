from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server import authority
from server.commands import enrolment
from server.config import FederationSection, federation_from
from server.enrolment import Enrolment
from server.home import load_home
from shared import terminal
from shared.audit_log import entries
from shared.enrolment import join_request
from shared.signing import public_of, signing_key
from shared.token import Token
from shared.trust import authorities, fingerprint, hosts_of

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]

cli = typer.Typer(pretty_exceptions_enable=False)
for name, example in enrolment.EXAMPLES.items():
    cli.command(name, epilog=example)(getattr(enrolment, name))


def main() -> None:
    terminal.run(cli)


@pytest.fixture
def home(typed: Typed, backbone: Path, tmp_path: Path) -> Path:
    home = tmp_path / "atoll-server"
    words = ("--host", "localhost", "--host", "127.0.0.1", "--backbone", backbone)
    code, _, err = typed(main, "init", "--home", home, *words)
    assert code == 0, err
    return home


def admit(home: Path, name: str = "shop") -> None:
    store = Enrolment(home / "platforms.sqlite")
    node, signing = ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()
    store.admit(join_request(store.invite(name), name=name, node=node, signing=signing))


def test_init_makes_a_home_that_loads(home: Path, backbone: Path) -> None:
    settings = load_home(home)
    assert (settings.path, settings.name, settings.backbone) == (home, "coordinator", backbone)
    assert (settings.listen, settings.health) == ("0.0.0.0:9092", "127.0.0.1:9093")
    assert settings.federation == federation_from(FederationSection())
    assert settings.platforms is None
    assert hosts_of(authority.leaf_of(home)) == ["localhost", "127.0.0.1"]
    for name in ("ca.key", "server.key", "signing.key"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [it.event for it in entries(home / "audit.jsonl")] == ["home made"]


def test_every_key_of_a_federation_is_in_the_file_at_its_default(home: Path) -> None:
    path = home / "server.toml"
    text = path.read_text()
    for key, field in FederationSection.model_fields.items():
        assert re.search(rf"^# {key} =", text, re.M), key
        if field.default is not None:
            text = re.sub(rf"^# ({key} =)", r"\1", text, flags=re.M)
    path.write_text(text.replace("rounds = 10", "rounds = 3").replace("# platforms", "platforms"))
    assert load_home(home).federation.rounds == 3
    assert load_home(home).platforms == 2


def test_init_leaves_a_full_folder_alone(refused: Refused, backbone: Path, tmp_path: Path) -> None:
    home = tmp_path / "h"
    home.mkdir()
    (home / "notes.txt").write_text("precious")
    line = refused(main, "init", "--home", home, "--host", "a", "--backbone", backbone)
    assert line == f"{home}: is not empty; name a folder that is not there yet"


@pytest.mark.parametrize("there", [True, False])
def test_init_on_a_home_says_so_and_changes_nothing(
    there: bool, home: Path, refused: Refused, backbone: Path
) -> None:
    file = backbone if there else backbone.with_name("gone.safetensors")
    line = refused(main, "init", "--home", home, "--host", "a", "--backbone", file)
    assert line == (
        f"{home}: is a coordinator's home already, and stays as it is;"
        " go on with it, or name another --home"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "a b"], "host 'a b' is neither a name nor an IP address"),
        (["--host", "a", "--listen", "nowhere:port"], "'nowhere:port' is no address"),
        (["--host", "a", "--health", "x y"], "'x y' is no address"),
        (["--host", "a", "--name", "../x"], "server.toml: 'name' is"),
        (["--host", "a", "--backbone", "/none"], "/none: "),
    ],
)
def test_init_refuses_what_is_wrong_and_leaves_nothing(
    words: list[str], told: str, refused: Refused, backbone: Path, tmp_path: Path
) -> None:
    line = refused(main, "init", "--home", tmp_path / "h", "--backbone", backbone, *words)
    assert line.startswith(told)


def test_invite_prints_the_token_and_nothing_else(typed: Typed, home: Path) -> None:
    code, out, err = typed(main, "invite", "shop", "--home", home, "--seconds", "60")
    assert (code, out.count("\n")) == (0, 1)
    token = Token.read(out)
    assert out.strip() == str(token)
    assert authorities(token.roots) == [authority.issuer(home)]
    assert out.strip() not in err
    next_step = "atoll-client join TOKEN --server localhost:9092 -p shop.toml"
    assert err.splitlines()[-1] == next_step
    store = Enrolment(home / "platforms.sqlite")
    node, signing = ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()
    store.admit(join_request(token.secret, name="shop", node=node, signing=signing))
    log = (home / "audit.jsonl").read_text()
    assert token.secret.hex() not in log
    assert "invited" in log


def test_platforms_are_listed_with_what_they_trust(typed: Typed, home: Path) -> None:
    admit(home)
    admit(home, "kiosk")
    store = Enrolment(home / "platforms.sqlite")
    store.seen("shop", ca=fingerprint(authority.ca_bundle(home)))
    assert typed(main, "evict", "kiosk", "--home", home)[:2] == (0, "kiosk is out\n")
    code, out, err = typed(main, "platforms", "--home", home, "--json")
    assert (code, err) == (0, "")
    shop, kiosk = json.loads(out)
    assert (shop["name"], shop["state"], shop["trusts_ca"]) == ("shop", "admitted", True)
    assert (kiosk["name"], kiosk["state"], kiosk["trusts_ca"]) == ("kiosk", "evicted", False)
    assert shop["node_key"].startswith("-----BEGIN PUBLIC KEY-----")
    code, table, _ = typed(main, "platforms", "--home", home)
    assert code == 0
    heading, *rows = table.splitlines()
    assert heading.split("  ")[0] == "platform"
    assert [row.split()[:2] for row in rows] == [["shop", "admitted"], ["kiosk", "evicted"]]
    assert [row.split()[-1] for row in rows] == [shop["signing_key"], kiosk["signing_key"]]


@pytest.mark.parametrize("width", [40, 68, 80, 120, 200, None])
def test_no_terminal_is_too_narrow_for_a_key_or_a_date(width: int | None) -> None:
    row = ["boutique", "admitted", "2026-01-31 12:00 UTC", "never", "not yet", "a" * 64]
    lines = enrolment.listed([row, row], width=width)
    for fact in row:
        assert sum(fact in line for line in lines) == 2
    wide = width is None or width >= 145
    assert len(lines) == (3 if wide else 12)
    assert wide or max(map(len, lines)) <= max(width or 0, 2 + len("signing key ") + 64)


def test_whom_nobody_admitted_nobody_evicts(refused: Refused, home: Path) -> None:
    Enrolment(home / "platforms.sqlite").platforms()
    assert refused(main, "evict", "shop", "--home", home).startswith("no platform 'shop'")


def test_rotate_renews_the_certificate(typed: Typed, home: Path) -> None:
    before = authority.credentials(home)
    code, out, err = typed(main, "rotate", "--home", home, "--host", "more.example")
    assert code == 0, err
    assert out.startswith("certificate renewed until ")
    assert authority.credentials(home) != before
    assert hosts_of(authority.leaf_of(home)) == ["localhost", "127.0.0.1", "more.example"]


def test_a_ca_is_not_dropped_while_a_platform_would_be_locked_out(typed: Typed, home: Path) -> None:
    admit(home)
    store = Enrolment(home / "platforms.sqlite")
    store.seen("shop", ca=fingerprint(authority.ca_bundle(home)))
    assert typed(main, "rotate", "--ca", "--home", home)[0] == 0
    assert len(authorities(authority.ca_bundle(home))) == 2
    code, _, err = typed(main, "rotate", "--ca", "--finish", "--home", home)
    assert code == 2
    assert "shop would be locked out" in err
    assert len(authorities(authority.ca_bundle(home))) == 2
    store.seen("shop", ca=fingerprint(authority.ca_bundle(home)))
    assert typed(main, "rotate", "--ca", "--finish", "--home", home)[0] == 0
    assert len(authorities(authority.ca_bundle(home))) == 1


def test_who_is_evicted_or_left_behind_by_force_holds_up_nobody(typed: Typed, home: Path) -> None:
    for name in ("shop", "kiosk"):
        admit(home, name)
    typed(main, "evict", "kiosk", "--home", home)
    typed(main, "rotate", "--ca", "--home", home)
    assert "error: " in typed(main, "rotate", "--ca", "--finish", "--home", home)[2]
    code, out, _ = typed(main, "rotate", "--ca", "--finish", "--force", "--home", home)
    assert code == 0, out
    assert list(entries(home / "audit.jsonl"))[-1].fields["left_behind"] == "shop"


@pytest.mark.parametrize(
    "words", [["--finish"], ["--force", "--ca"], ["--force"], ["--ca", "--host", "a"]]
)
def test_options_of_rotate_that_do_not_go_together_are_refused(
    words: list[str], refused: Refused, home: Path
) -> None:
    assert refused(main, "rotate", "--home", home, *words).startswith("--finish goes with --ca")


@pytest.mark.parametrize(
    "words", [["invite", "shop"], ["platforms"], ["evict", "shop"], ["rotate"], ["rotate", "--ca"]]
)
def test_a_folder_that_is_no_home_is_told(
    words: list[str], refused: Refused, tmp_path: Path
) -> None:
    line = refused(main, *words, "--home", tmp_path)
    assert line.startswith(f"{tmp_path}: is no coordinator's home: it has no server.toml")


def test_what_init_prints_is_what_a_platform_will_hold(
    typed: Typed, backbone: Path, tmp_path: Path
) -> None:
    home = tmp_path / "h"
    _, out, err = typed(main, "init", "--home", home, "--host", "a", "--backbone", backbone)
    assert f"signing key {public_of(signing_key(home / 'signing.key'))}" in out
    assert "atoll-server invite NAME" in err
