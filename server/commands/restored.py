"""`accept-restored` and `confirm`: go on with a home that was put back from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.enrolment import Enrolment
from server.home import load_home
from server.restored import Guard
from server.witness import server_log
from shared.errors import AtollError, IdentityError
from shared.signing import signing_key
from shared.terminal import console, stderr

EXAMPLES = {
    "accept_restored": "Example: atoll-server accept-restored --confirm kiosk --why 'disk failed'",
    "confirm": "Example: atoll-server confirm kiosk",
}
Home = Annotated[Path, typer.Option(help="The coordinator's folder.")]


def accept_restored(
    why: Annotated[str, typer.Option(help="Why it was restored; for the audit log.")],
    home: Home = Path("atoll-server"),
    confirm: Annotated[
        list[str] | None,
        typer.Option(help="Platform that is to go on; give all.", show_default=False),
    ] = None,
) -> None:
    """Go on with what a backup held; platforms that are not confirmed by name are suspended."""
    settings, audit, names = load_home(home), server_log(home), confirm or []
    enrolment = Enrolment(home / "platforms.sqlite")
    guard = Guard(settings, enrolment, audit)
    missing = guard.look()
    gone = {
        name: statement
        for statement in guard.known_evictions()
        if (name := enrolment.live(statement.signing_key)) is not None
    }
    if wrong := [name for name in names if name in gone]:
        raise IdentityError(
            f"{', '.join(wrong)} was evicted after the backup was taken",
            where=home,
            todo="leave it out of --confirm; once it is evicted again, it may be invited",
        )
    known = {member.name for member in enrolment.platforms() if member.evicted is None}
    if unknown := [name for name in names if name not in known]:
        raise IdentityError(
            f"no platform {unknown[0]!r} is admitted", where=home, todo="see who is: platforms"
        )
    # In the log before it is done: what the log does not tell of was not done.
    what = str(missing) if missing is not None else "no later checkpoint is known here"
    audit.add("restore accepted", why=why, missing=what)
    for name in guard.evict_again(gone.values()):
        tell(f"{name} was evicted after the backup, and is evicted again")
    for name in names:
        audit.add("confirmed", platform=name)
    suspended = enrolment.accept_restored(names, after=missing.later.time if missing else 0.0)
    for name in suspended:
        audit.add("suspended", platform=name)
    try:
        guard.accepted(audit.checkpoint(signing_key(home / "signing.key")))
    except (AtollError, OSError) as fault:
        hint(f"the witness was not written: {fault}")
    tell(f"accepted: {what}")
    tell(f"confirmed: {', '.join(names) or 'nobody'}")
    tell(f"suspended: {', '.join(suspended) or 'nobody'}")
    if suspended:
        hint("next: atoll-server confirm NAME, or atoll-server evict NAME, for each suspended one")


def confirm(
    name: Annotated[str, typer.Argument(help="The platform's.", show_default=False)],
    home: Home = Path("atoll-server"),
) -> None:
    """Let a platform take part again that was suspended when a restored home was accepted."""
    load_home(home)
    enrolment = Enrolment(home / "platforms.sqlite")
    if not enrolment.suspended(name):
        raise IdentityError(f"no platform {name!r} is suspended", todo="see who is: platforms")
    server_log(home).add("confirmed", platform=name)
    enrolment.confirm(name)
    tell(f"{name} takes part again")


def tell(line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def hint(line: str) -> None:
    """Print a line to standard error."""
    stderr.print(line, highlight=False, markup=False, soft_wrap=True)
