"""`atoll-server models`: what was recorded, and which version platforms are given."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from server import models
from server.registry import Promotion, Registry, Version
from server.witness import server_log
from shared import signing
from shared.errors import ConfigError, RoundError
from shared.terminal import console, print_json

cli = typer.Typer(
    name="models",
    help="Versions of the model: list, show, promote, roll back, hand out.",
    no_args_is_help=True,
)

Home = Annotated[Path, typer.Option(help="The server's folder.")]
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of a simulation's run, in place of --home.", show_default=False),
]
Named = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="Number of a round, or 8 digits or more of a digest.",
        show_default=False,
    ),
]
Why = Annotated[
    str, typer.Option(help="Why, for history and audit log; must be given.", show_default=False)
]
Sums = Annotated[
    bool, typer.Option("--sums", help="Of the sums over pairs, in place of the rounds.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
HOME = Path("atoll-server")


@cli.command("list", epilog="Example: atoll-server models list --folder runs/demo")
def list_command(
    home: Home = HOME, folder: Folder = None, sums: Sums = False, as_json: AsJson = False
) -> None:
    """List the versions: round, adapter, participants, validation mean, and which is promoted."""
    registry, _public = opened(home, folder, sums=sums)
    promoted = registry.current()
    found = [it for it in registry.versions() if it.present]
    if as_json:
        told = [facts(it, promoted=is_same(it, promoted)) for it in found]
        print_json(told)
        return
    for it in found:
        marks = ["signed"] if it.signature else []
        marks += ["promoted"] if is_same(it, promoted) else []
        means = [f"{name} {value:.4f}" for name, value in it.manifest.metrics.items()]
        words = [
            f"round {it.manifest.round}",
            it.manifest.adapter[:16],
            f"{len(it.manifest.participants)} participants",
            *means,
            *marks,
        ]
        say("  ".join(words))
    if not sums and not any(it.manifest.metrics for it in found):
        say(models.NOTHING_SHARED)


@cli.command(epilog="Example: atoll-server models show 3 --json")
def show(version: Named, home: Home = HOME, folder: Folder = None, as_json: AsJson = False) -> None:
    """Show one version: manifest, signature, its promotions, and whether it verifies."""
    registry, public = opened(home, folder)
    found, promoted = models.find(registry, version), registry.current()
    told = facts(found, promoted=is_same(found, promoted))
    told["verified"] = models.checked(registry, found, public=public)
    told["basis"] = models.basis(registry, found)
    told["promotions"] = [
        event(it) for it in registry.promotions() if it.version == found.manifest.version
    ]
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        if name != "promotions":
            say(f"{name}: {shown(value)}")
    for it in told["promotions"]:
        say(f"{it['kind']}: {it['time']} by {it['who']}{': ' if it['why'] else ''}{it['why']}")


@cli.command(epilog="Example: atoll-server models promote 3 --why 'best on validation'")
def promote(version: Named, home: Home = HOME, folder: Folder = None, why: Why = "") -> None:
    """Give platforms this version from now on, once it verifies."""
    registry, public = opened(home, folder)
    before, found = registry.current(), models.find(registry, version)
    who = user()
    tell = audited("promoted", home, folder, who=who, why=why)
    models.promote(registry, found, who=who, why=why, public=public, tell=tell)
    say(f"promoted: {changed(before, found)}")
    say(models.basis(registry, found))


@cli.command(epilog="Example: atoll-server models rollback --why 'worse for two platforms'")
def rollback(home: Home = HOME, folder: Folder = None, why: Why = "") -> None:
    """Give platforms again the version that was promoted before."""
    registry, public = opened(home, folder)
    before = registry.current()
    who = user()
    tell = audited("rolled back", home, folder, who=who, why=why)
    models.roll_back(registry, who=who, why=why, public=public, tell=tell)
    say(f"rolled back: {changed(before, registry.current())}")


@cli.command(epilog="Example: atoll-server models export --out adapter.safetensors")
def export(
    out: Annotated[Path, typer.Option(help="The adapter's file; its manifest lies beside it.")],
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION",
            help="Number of a round, or 8 digits or more of a digest; left out, the promoted one.",
            show_default=False,
        ),
    ] = None,
    home: Home = HOME,
    folder: Folder = None,
    sums: Sums = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write a version as files for platforms: NAME.safetensors, and NAME.json that is signed."""
    registry, public = opened(home, folder, sums=sums)
    if sums and version is None:
        version = "1"  # there is one, and nobody has to choose it
    found = registry.current() if version is None else models.find(registry, version)
    if found is None:
        raise RoundError(
            "no version is promoted",
            where=registry.path,
            todo="run atoll-server models promote VERSION --why REASON, or give a version here too",
        )
    tell = audited("exported", home, folder, who=user(), file=str(out.absolute()))
    models.export(registry, found, out, force=force, public=public, tell=tell)
    say(f"{models.title(found)}{'' if found.signature else ', unsigned'}")
    for path in (out, out.with_suffix(".json")):
        say(str(path))


def opened(home: Path, folder: Path | None, *, sums: bool = False) -> tuple[Registry, str | None]:
    """The registry, and the key by which its signatures are checked, if there is one.

    Raises:
        ConfigError: it holds no versions.
    """
    run = home / "run" if folder is None else folder
    place = (home if folder is None else folder) / "sums" if sums else run
    registry = Registry(place)
    if not registry.versions():
        raise ConfigError(
            "holds no recorded versions",
            where=place,
            todo="name the server's --home, or a run's --folder",
        )
    key = home / "signing.key"
    if folder is not None or not key.is_file():
        return registry, None
    return registry, signing.public_of(signing.signing_key(key))


def audited(event: str, home: Path, folder: Path | None, **fields: str) -> models.Tell:
    """Adds a line to the coordinator's audit log; a simulation has none.

    It comes before the deed: what the log does not tell of was not done.
    """
    if folder is not None:
        return models.nobody

    def tell(version: Version) -> None:
        told = version.manifest
        server_log(home).add(
            event, version=told.version, round=told.round, adapter=told.adapter, **fields
        )

    return tell


def user() -> str:
    """Who types; a number where the machine knows no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def facts(version: Version, *, promoted: bool) -> dict[str, Any]:
    """A version for programs."""
    told = version.manifest
    return {
        "version": told.version,
        "round": told.round,
        "run": told.run,
        "adapter": told.adapter,
        "digest": version.digest,
        "parents": list(told.parents),
        "backbone": told.backbone,
        "task": told.task,
        "participants": list(told.participants),
        "metrics": dict(told.metrics),
        "recorded": moment(told.time),
        "atoll": told.atoll,
        "signature": version.signature,
        "promoted": promoted,
    }


def event(promotion: Promotion) -> dict[str, str]:
    """A promotion for programs."""
    when = moment(promotion.time)
    return {"kind": promotion.kind, "time": when, "who": promotion.who, "why": promotion.why}


def moment(seconds: float) -> str:
    """A time as people write it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def is_same(version: Version, other: Version | None) -> bool:
    """Whether both are one row."""
    return other is not None and version.digest == other.digest


def changed(before: Version | None, now: Version | None) -> str:
    """From which version to which."""
    return " -> ".join("none" if it is None else models.title(it) for it in (before, now))


def shown(value: Any) -> str:
    """A fact for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:.4f}" for name, number in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "-"


def say(line: str) -> None:
    """One line of output."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
