"""`atoll-client approvals`: which code may run here, and what is new in what is asked for."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from clients.approvals import Approvals, Decision, login
from clients.differences import Change, summary
from clients.membership import home_at
from shared import terminal
from shared.audit_log import AuditLog
from shared.bundle import PROJECT, build, files_of, version_of
from shared.errors import BundleError, ConfigError

cli = typer.Typer(
    help="Which code may run here: nothing runs that is not approved.", no_args_is_help=True
)
NONE = (
    "no bundle has been offered yet: the server offers its code with the first request of a run,"
    " which it begins once enough platforms are connected; keep atoll-client up running until then"
)
INSTALLED = Path(__file__).parents[2]  # what holds the packages `clients` and `shared`
OURS = ("clients", "server", "shared")

Platform = Annotated[
    Path | None,
    typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False),
]
Home = Annotated[
    Path | None,
    typer.Option(help="Its folder; left out, NAME.atoll beside the file.", show_default=False),
]
Digest = Annotated[
    str,
    typer.Argument(
        help="SHA-256 of the bundle, or its first 8 characters or more.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def home_given(platform: Path | None, home: Path | None) -> Path:
    """The platform's folder, by its own name or by that of its file.

    Raises:
        ConfigError: neither is given, or the file is wrong.
    """
    if home is not None:
        return home
    if platform is None:
        raise ConfigError("need --platform or --home", todo="give the platform's TOML file")
    return home_at(platform, None)


@cli.command("list", epilog="Example: atoll-client approvals list -p boutique.toml")
def list_command(platform: Platform = None, home: Home = None, as_json: AsJson = False) -> None:
    """List the bundles that are known, the latest first."""
    found = Approvals(home_given(platform, home) / "approvals").entries()
    if as_json:
        printed_json([asdict(it) for it in found])
        return
    for it in found:
        said(line(it))
    if not found:
        said(NONE)


@cli.command(epilog="Example: atoll-client approvals show 3f2a91c0 -p boutique.toml")
def show(
    digest: Digest, platform: Platform = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Show what a bundle changes: against the one approved before, or the code installed here."""
    approvals = Approvals(home_given(platform, home) / "approvals")
    full = approvals.named(digest)
    new = files_of(approvals.content(full), where=full[:12])
    before = approvals.approved_before(full)
    old, its_digest = installed()
    against = "the code installed here"
    if before is not None:
        old = files_of(approvals.content(before), where=before[:12])
        against = f"bundle {before[:12]}, approved before"
    changes = approvals.changes(full, old)
    if PROJECT not in old:  # a wheel has the packages alone
        changes = [it for it in changes if it.name.partition("/")[0] in OURS]
    version = version_of(new, where=full[:12])
    if as_json:
        printed_json(
            {
                "digest": full,
                "standing": approvals.standing(full),
                "version": version,
                "against": before or "installed",
                "as_installed": full == its_digest,
                "changes": [asdict(change) for change in changes],
            }
        )
        return
    said(f"bundle {full}, {approvals.standing(full)}, {len(new) - 1} files, version {version!a}")
    if full == its_digest:
        said("byte for byte the bundle that the code installed here makes")
    elif its_digest is None:
        said("the code installed here makes no bundle to compare with: it has no pyproject.toml")
    else:
        said(f"another than the code installed here makes, {its_digest[:12]}")
    said(f"against {against}: {summary(changes)}")
    for change in changes:
        for text in shown(change):
            said(text)


def shown(change: Change) -> list[str]:
    """A Change for people."""
    head = f"\n{change.kind} {change.name}  +{change.added} -{change.removed}"
    return [head, *(f"NOTE: {note}" for note in change.notes), *change.lines]


@cli.command(epilog="Example: atoll-client approvals approve 3f2a91c0 -p boutique.toml")
def approve(digest: Digest, platform: Platform = None, home: Home = None) -> None:
    """Let a bundle run on this platform from now on."""
    decide(home_given(platform, home), digest, "approved")


@cli.command(epilog="Example: atoll-client approvals reject 3f2a91c0 -p boutique.toml")
def reject(digest: Digest, platform: Platform = None, home: Home = None) -> None:
    """Let a bundle run no more, or never."""
    decide(home_given(platform, home), digest, "rejected")


def decide(home: Path, digest: str, standing: Literal["approved", "rejected"]) -> None:
    """Write a decision down, in the audit log too.

    To let code run is logged before it may; to stop it is done before it is logged.
    """
    approvals, log = Approvals(home / "approvals"), AuditLog(home / "audit.jsonl")
    full = approvals.named(digest)
    if standing == "approved":
        approvals.content(full)  # nothing is logged of what cannot be approved
        log.add("approved", bundle=full, by=login())
        decision = approvals.approve(full)
    else:
        decision = approvals.reject(full)
        log.add("rejected", bundle=full, by=decision.by)
    said(line(decision))


def installed() -> tuple[dict[str, bytes], str | None]:
    """The code installed here, and the digest of the bundle it makes, if it is a source folder."""
    try:
        bundle = build(INSTALLED)
        return files_of(bundle.content, where="installed"), bundle.digest
    except BundleError:
        paths = (path for name in OURS for path in (INSTALLED / name).rglob("*.py"))
        return {path.relative_to(INSTALLED).as_posix(): path.read_bytes() for path in paths}, None


def line(decision: Decision) -> str:
    """A Decision for people."""
    when = datetime.fromtimestamp(decision.time, UTC).strftime("%Y-%m-%d %H:%M")
    by = f" by {decision.by}" if decision.by else ""
    return f"{decision.digest}  {decision.standing:<8}  {when}{by}"


def printed_json(value: object) -> None:
    """JSON in ASCII: nothing in it steers a terminal."""
    terminal.console.print_json(json.dumps(value), ensure_ascii=True)


def said(text: str) -> None:
    """A line as it is."""
    terminal.console.print(text, highlight=False, markup=False, soft_wrap=True)
