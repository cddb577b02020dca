"""What the `audit` commands of both sides do in a home, the coordinator's or a platform's.

    verify   the chain, the head file, and what the other side exported of this log
    show     the last lines
    held     what is held of the other side's log, for it to verify against

Fields hold what others sent, so what would steer a terminal is spelled out.
"""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from shared import terminal
from shared.audit_log import Entry, Verified, entries, verify
from shared.checkpoints import Checkpoint, Checkpoints, read_checkpoints
from shared.errors import AuditError
from shared.files import replacing
from shared.printable import printable
from shared.signing import canonical, public_of, signing_key

LOG, HELD, KEY = "audit.jsonl", "checkpoints", "signing.key"
WITHOUT = (
    "no checkpoint of the other side was compared: whoever may write both log and head file may"
    " have made both anew; ask it for `audit held`, and give that with --known"
)


def verify_home(home: Path, known: Path | None) -> None:
    """Verify the log of a home, and say what that proves.

    Args:
        home: of it.
        known: what the other side exported; its signatures must be this home's own.

    Raises:
        AuditError: the log was edited, cut or made anew, or there is none; or `known` is empty.
        IdentityError: a checkpoint that this home never signed, or its key is gone.
    """
    log = home / LOG
    if not log.exists() and not log.with_name(f"{LOG}.head").exists():
        raise AuditError("has no audit log", where=home, todo="name a home that was used")
    checkpoints, public = _exported(known) if known else [], None
    if known is not None:
        if not (home / KEY).exists():  # a new one would have signed none of them
            raise AuditError("has no signing.key", where=home, todo="put it back from a backup")
        public = public_of(signing_key(home / KEY))
    for line in told(verify(log, known=checkpoints, public=public), len(checkpoints)):
        said(line)


def _exported(known: Path) -> list[Checkpoint]:
    """The checkpoints that the other side exported.

    Raises:
        AuditError: it is another kind of file, damaged, or empty.
    """
    todo = "give the file that the other side wrote with `audit held --out`"
    try:
        found = list(read_checkpoints(known))
    except AuditError as fault:
        what = f"is no export of checkpoints: {fault.what}"
        raise AuditError(what, where=known, todo=todo) from None
    if not found:
        raise AuditError("holds no checkpoint", where=known, todo=todo)
    return found


def told(found: Verified, checkpoints: int) -> list[str]:
    """A Verified for people."""
    lines = [f"{found.count} lines hold, head {found.head}"]
    if checkpoints:
        lines.append(f"{checkpoints} checkpoints fit: the other side knows {found.known} lines")
    else:
        lines.append(WITHOUT)
    if found.torn:
        lines.append(f"a crash left half a line of {found.torn} bytes; the next one sets it aside")
    return lines


def show_home(home: Path, last: int, *, as_json: bool) -> None:
    """Print the last lines of a home's log, each checked against the one before it.

    Raises:
        AuditError: a line was edited, or there is no log.
    """
    for entry in deque(entries(home / LOG), maxlen=last):
        said(canonical(entry.as_dict()).decode() if as_json else line(entry))


def line(entry: Entry) -> str:
    """A line for people."""
    when = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    fields = "".join(f"  {name}={value}" for name, value in sorted(entry.fields.items()))
    return printable(f"{entry.number:>6}  {when}  {entry.event}{fields}")


def held_in(home: Path, name: str | None, out: Path | None) -> None:
    """List whose logs are known here, or print or write all that is held of one.

    Args:
        home: this side's.
        name: of the other side; None may stand for the only one.
        out: file to write; None prints.

    Raises:
        AuditError: nothing is held of it, or it must be named.
        ConfigError: the file cannot be written.
    """
    kept = Checkpoints(home / HELD)
    names = kept.names()
    if name is None and out is None:
        for each in names:
            its = kept.of(each)
            until = f", the last of {its[-1].count} lines" if its else ""
            said(f"{each}  {len(its)} checkpoints{until}")
        if not names:
            said("no checkpoint of another side is held yet")
        return
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        raise AuditError(
            f"checkpoints of {len(names)} are held", where=home / HELD, todo="name one of them"
        )
    its = kept.of(name)
    if not its:
        todo = f"name one of {', '.join(names)}" if names else "wait for the first exchange"
        raise AuditError(f"nothing is held of {name!r}", where=home / HELD, todo=todo)
    text = "".join(json.dumps(it.as_dict(), sort_keys=True) + "\n" for it in its)
    if out is None:
        said(text.removesuffix("\n"))
        return
    with replacing(out) as part:
        part.write_text(text, encoding="utf-8")
    said(f"{len(its)} checkpoints of {name}\n{out}")


def said(text: str) -> None:
    """A line as it is."""
    terminal.console.print(text, highlight=False, markup=False, soft_wrap=True)
