"""`atoll-server init | invite | platforms | evict | rotate`: the federation's identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from server import authority
from server.enrolment import LONGEST, SECONDS, Enrolment, Member
from server.home import FILE, HEALTH, LISTEN, already, load_home, make_home
from server.witness import server_log, witness_of
from shared.backbone import load_backbone
from shared.channel import address, split
from shared.errors import AtollError, IdentityError
from shared.signing import public_of, signing_key
from shared.terminal import console, print_json, stderr
from shared.token import Token
from shared.trust import certificates, fingerprint, hosts_of

HOME = Path("atoll-server")
Home = Annotated[Path, typer.Option(help="The coordinator's folder.")]
COLUMNS = ("platform", "state", "joined", "last seen", "trusts the CAs", "signing key")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

EXAMPLES = {
    "init": "Example: atoll-server init --host atoll.example.org --backbone backbone.safetensors",
    "invite": "Example: atoll-server invite boutique",
    "platforms": "Example: atoll-server platforms --json",
    "evict": "Example: atoll-server evict boutique",
    "rotate": "Example: atoll-server rotate --ca",
}


def init(
    host: Annotated[
        list[str],
        typer.Option(
            help="Name or IP address by which platforms reach it; give all.", show_default=False
        ),
    ],
    backbone: Annotated[Path, typer.Option(help="The backbone's file.", show_default=False)],
    home: Home = HOME,
    listen: Annotated[str, typer.Option(help="HOST:PORT for platforms.")] = LISTEN,
    health: Annotated[str, typer.Option(help="HOST:PORT of the health endpoint.")] = HEALTH,
    name: Annotated[str, typer.Option(help="Of the coordinator.")] = "coordinator",
) -> None:
    """Make the coordinator's folder: its certificates, its keys and server.toml."""
    if (home / FILE).exists():  # said before a backbone is missed that nobody needs
        raise already(home)
    digest = load_backbone(backbone).digest
    made = make_home(home, hosts=host, backbone=backbone, listen=listen, health=health, name=name)
    audit = server_log(home)
    key = public_of(signing_key(home / "signing.key"))
    audit.add("home made", name=name, signing_key=key, backbone=digest)
    _tell(f"{made.path / 'server.toml'}")
    _tell(f"hosts {', '.join(host)}; listens on {made.listen}")
    _tell(f"signing key {key}")
    at = "" if home == HOME else f" --home {home}"
    steps = ("release", "invite NAME", "up")
    _hint(f"next: {', '.join(f'atoll-server {step}{at}' for step in steps)}")


def invite(
    name: Annotated[
        str, typer.Argument(help="The platform's, as in its file.", show_default=False)
    ],
    home: Home = HOME,
    seconds: Annotated[
        int, typer.Option(min=1, max=LONGEST, help="How long the token is good.")
    ] = SECONDS,
) -> None:
    """Print a token with which this platform may join once; send it by a way you trust."""
    settings = load_home(home)
    issuer = authority.issuer(home)
    secret = _enrolment(home).invite(name, seconds=seconds)
    expires = int(datetime.now(UTC).timestamp()) + seconds
    server_log(home).add("invited", platform=name, seconds=seconds)
    _tell(str(Token(secret, expires, issuer.public_bytes(Encoding.DER))))
    host, port = hosts_of(authority.leaf_of(home))[0], split(settings.listen, lowest=0)[1]
    server = address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    _hint(f"good once, until {_time(expires)}; next, on the platform's machine:")
    _hint(f"atoll-client join TOKEN --server {server} -p {name}.toml")


def platforms(home: Home = HOME, as_json: AsJson = False) -> None:
    """List who is admitted, when each was last seen, and who was evicted."""
    load_home(home)
    found = _enrolment(home).platforms()
    bundle = fingerprint(authority.ca_bundle(home))
    if as_json:
        told = [
            {**asdict(it), "node_key": it.node_key.decode(), **_state(it, bundle)} for it in found
        ]
        print_json(told)
        return
    rows = [_row(it, bundle) for it in found]
    for line in listed(rows, width=console.width if console.is_terminal else None):
        _tell(line)


def listed(rows: Sequence[Sequence[str]], *, width: int | None) -> list[str]:
    """Platforms as lines, a line each; where they do not fit, a line for each fact.

    Args:
        rows: as `COLUMNS` names them.
        width: characters of a terminal's line; None is a file or a pipe, where all fit.
    """
    table = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(it.ljust(most) for it, most in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    if width is None or max(map(len, lines)) <= width:
        return lines
    return [
        f"{name} {fact}" if name == COLUMNS[0] else f"  {name} {fact}"
        for row in rows
        for name, fact in zip(COLUMNS, row, strict=True)
    ]


def evict(
    name: Annotated[str, typer.Argument(help="The platform's.", show_default=False)],
    home: Home = HOME,
) -> None:
    """Shut a platform out, at once: its next call is refused, whoever is connected."""
    settings = load_home(home)
    enrolment = _enrolment(home)
    enrolment.evict(name)
    server_log(home).add("evicted", platform=name)
    _tell(f"{name} is out")
    last = max(
        (it for it in enrolment.platforms() if it.name == name and it.evicted is not None),
        key=lambda it: it.evicted or 0.0,
    )
    try:
        if (witness := witness_of(settings)) is not None:
            witness.evicted(name, last.signing_key, last.evicted or 0.0)
    except (AtollError, OSError) as fault:
        _hint(f"the witness of it was not written: {fault}")


def rotate(
    home: Home = HOME,
    host: Annotated[
        list[str] | None,
        typer.Option(help="One more name or IP address for it.", show_default=False),
    ] = None,
    ca: Annotated[bool, typer.Option("--ca", help="The CA instead: begin.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="With --ca: end what was begun.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --finish: leave behind who is not ready.")
    ] = False,
) -> None:
    """Renew the server's certificate, at once and without a stop; or the CA, in two steps."""
    load_home(home)
    if (finish and not ca) or (force and not finish) or (ca and host):
        raise IdentityError(
            "--finish goes with --ca, --force with --finish, --host with neither",
            todo="see rotate --help",
        )
    audit = server_log(home)
    if not ca:
        authority.rotate_server(home, also=host or ())
        audit.add("certificate rotated")
        _tell(f"certificate renewed until {_until(home)}; a server that runs uses it by itself")
    elif not finish:
        authority.rotate_ca(home)
        audit.add("ca rotation begun", ca=fingerprint(authority.ca_bundle(home)))
        _tell("a new CA stands beside the old one; platforms that are up fetch it within minutes")
        _hint("then, when `atoll-server platforms` says all trust it: rotate --ca --finish")
    else:
        behind = not_ready(_enrolment(home).platforms(), authority.ca_bundle(home))
        if behind and not force:
            raise IdentityError(
                f"{', '.join(behind)} would be locked out: no sign yet of trust in the new CA",
                where=home,
                todo="wait until they have been up for two minutes, evict them, or use --force",
            )
        authority.finish_ca(home)
        audit.add("ca rotation finished", left_behind=", ".join(behind)[:400])
        _tell(f"the new CA stands alone; certificate renewed until {_until(home)}")


def not_ready(members: list[Member], bundle: bytes) -> list[str]:
    """Admitted platforms of which it is not known that they trust these CAs."""
    digest = fingerprint(bundle)
    return [it.name for it in members if it.evicted is None and it.ca_seen != digest]


def _state(member: Member, bundle: str) -> dict[str, str | bool]:
    state = "evicted" if member.evicted is not None else "admitted"
    if state == "admitted" and member.suspended:
        state = "suspended"
    return {"state": state, "trusts_ca": member.ca_seen == bundle}


def _row(member: Member, bundle: str) -> list[str]:
    state = _state(member, bundle)
    return [
        member.name,
        str(state["state"]),
        _time(member.joined),
        _time(member.last_seen),
        "yes" if state["trusts_ca"] else "not yet",
        member.signing_key,
    ]


def _enrolment(home: Path) -> Enrolment:
    return Enrolment(home / "platforms.sqlite")


def _until(home: Path) -> str:
    leaf = certificates(authority.credentials(home)[1])[0]
    return _time(leaf.not_valid_after_utc.timestamp())


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _tell(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _hint(line: str) -> None:
    stderr.print(line, highlight=False, markup=False, soft_wrap=True)
