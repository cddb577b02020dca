"""Erase shoppers from everything that a platform's side keeps of their rows.

    shoppers ─plan→ draft (on the disk) ─carry out→ list, tables, caches, models ─→ signed record
                      └ killed at any moment: the next call carries the same draft out first

From the moment a shopper is on the list (`shared/tables/erasure_list.py`) no reader uses the rows.
The Ledger's lock is held meanwhile, so no round trains on rows that were read before and is
released after. Nothing here learns a shopper's rows: it needs their numbers in the file alone.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clients import derived_files, settled, taught
from clients.erasure_plan import Draft, Request, plan
from clients.erasure_record import completed, verify_record, write_record
from clients.ledger_file import locked as ledger_locked
from shared.errors import AtollError, DataError, LedgerError
from shared.files import replaces, unwritable
from shared.signing import canonical, write_private
from shared.strict_parsing import json_file
from shared.tables.erasure_list import ErasureList, load_list, record_paths, save_list
from shared.tables.row_removal import remove_rows
from shared.tables.sources import files_of

LOOK = 0.25  # seconds between two looks at whether a round has ended
LARGEST = 2**30  # bytes of a draft; a million shoppers need some 250 MB


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes:
        facts: as the record has them; of a dry run, what would be done.
        record: its file; None where nothing was left to do, or nothing was to be done.
        resumed: records of erasures that a killed process had left unfinished.
    """

    facts: Mapping[str, Any]
    record: Path | None
    resumed: tuple[Path, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing remains."""
        return not self.facts["remaining"]


def erase(
    request: Request, *, dry_run: bool = False, clock: Callable[[], float] = time.time
) -> Outcome:
    """Erase shoppers, or say what would be done.

    Raises:
        DataError: nobody knows one of the shoppers; the list is damaged; a table cannot be read.
        LedgerError: a round is still being trained when `wait` is over.
        ConfigError: a model is none, or a file cannot be written.
    """
    if dry_run:
        draft = plan(request, now=clock())
        return Outcome(completed(request, draft, now=clock()), None)
    with _one_at_a_time(request), _no_round(request):
        resumed = []
        while (left := load_draft(request)) is not None:
            resumed.append(carry_out(request, left, now=clock()))
        draft = plan(request, now=clock())
        if draft.is_empty:
            draft = _with_unfinished(request, draft)
            facts = completed(request, draft, now=clock())
            if facts["remaining"] or not draft.unfinished:
                return Outcome(facts, None, tuple(resumed))
        save_draft(request, draft)
        path = carry_out(request, draft, now=clock())
    facts = json.loads(path.read_bytes())["facts"]
    return Outcome(facts, path, tuple(resumed))


def carry_out(request: Request, draft: Draft, *, now: float) -> Path:
    """Do what a draft says, from whichever point it was left at; gives the signed record.

    The order is what makes it safe to be killed: from the list on, nobody reads the rows; the draft
    goes last.

    Raises:
        ConfigError: a file cannot be written.
    """
    listed = load_list(request.list_path) or ErasureList(draft.key)
    listed = replace(listed, platform=_owner(request))
    listed = listed.with_shoppers([*draft.new, *draft.spellings], draft.time)
    save_list(request.list_path, listed)
    tables = [_without(request, dict(table), listed) for table in draft.tables]
    for each in draft.derived:
        remove(request.located(each["file"]))
    _remove_leftovers(request, draft)
    _update_register(request, draft)
    done = replace(draft, tables=tuple(tables))
    facts = completed(request, done, now=now)
    save_list(request.list_path, replace(listed, records=max(listed.records, draft.number)))
    path = write_record(request, facts, number=draft.number)
    remove(request.draft_path)
    return path


def _owner(request: Request) -> str:
    """The platform's TOML file as its erasure list names it."""
    return os.path.relpath(request.file.resolve(), os.path.abspath(request.list_path.parent))


def load_draft(request: Request) -> Draft | None:
    """An erasure that a killed process left unfinished.

    Raises:
        DataError: it is damaged.
    """
    try:
        return Draft.from_dict(json_file(request.draft_path, largest=LARGEST))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError):
        todo = "move it away and erase the same shoppers again"
        raise DataError(
            "an unfinished erasure cannot be read", where=request.draft_path, todo=todo
        ) from None


def save_draft(request: Request, draft: Draft) -> None:
    """Write down what is to be done, before it is done."""
    write_private(request.draft_path, canonical(draft.as_dict()) + b"\n")


def remove(path: Path) -> None:
    """Delete a file; it may be gone already.

    Raises:
        ConfigError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as fault:
        raise unwritable(path, fault) from fault


@contextmanager
def _no_round(request: Request) -> Iterator[None]:
    """Keep rounds out while the body runs; one that is being trained is waited for.

    Raises:
        LedgerError: it goes on for longer than `wait`.
    """
    policy = request.config.policy
    if policy is None or policy.plan is None or not policy.ledger.exists():
        yield
        return
    until = time.monotonic() + request.wait
    while True:
        try:
            handle = ledger_locked(policy.ledger.resolve())
            break
        except LedgerError as fault:
            if time.monotonic() >= until:
                raise LedgerError(
                    "a round is being trained, and nothing was erased yet",
                    where=policy.ledger,
                    todo="run this again when it has ended, or give a longer --wait",
                ) from fault
        time.sleep(LOOK)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _one_at_a_time(request: Request) -> Iterator[None]:
    """Keep other erasures of this platform out; a killed one keeps nobody out."""
    handle = os.open(request.file, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _with_unfinished(request: Request, draft: Draft) -> Draft:
    """The draft with the shoppers of the last record, if that one was not complete.

    What it left to do by hand may be done now: then there has to be a record that says so.
    """
    for path in record_paths(request.list_path)[-1:]:
        facts = verify_record(path)["facts"]
        if facts["status"] != "complete":
            names = {each["keyed_hash"]: 0 for each in facts["shoppers"]}
            return replace(draft, shoppers={**names, **draft.shoppers}, unfinished=True)
    return draft


def _without(request: Request, told: dict[str, Any], listed: ErasureList) -> dict[str, Any]:
    """Take the rows out of one table where that is to be done; how it stands afterwards."""
    events, path = request.config.events, request.located(told["file"])
    table = replace(events, path=path, format=told["format"])
    told |= {"rows_removed": 0, "rows_left": told["rows"], "note": ""}
    if not path.exists():
        return told | {"rows_left": 0, "note": "the file is gone"}
    if told["rows"] and told["rewrite"]:
        try:
            names = max(it.stat().st_nlink for it in files_of(table))
            removal = remove_rows(table, listed.__contains__)
            # Fewer rows: a process that was killed had taken some out before.
            told |= {"rows_removed": max(removal.rows, told["rows"]), "rows_left": 0}
            told |= {"sha256_before": removal.before, "sha256_after": removal.after}
            if names > 1:
                told["note"] = "the file had another name (a hard link), which still has the rows"
        except AtollError as fault:
            told["note"] = f"{fault.what}; {fault.todo}"
    return told


def _remove_leftovers(request: Request, draft: Draft) -> None:
    """Delete what killed processes left of files that are made from rows."""
    config = request.config
    places = [settled.place_of(config)]
    places += [taught.sent_path(config.policy)] if config.policy else []
    for table in draft.tables:
        path = request.located(table["file"]).resolve()
        found = replace(config.events, path=path, format=table["format"])
        places += [it.resolve() for it in files_of(found)] if path.exists() else [path]
    for place in filter(None, places):
        for path in place.parent.glob(f".{glob.escape(place.name)}.*"):
            if replaces(path) == place.name and path.stat().st_mtime < draft.time:
                remove(path)


def _update_register(request: Request, draft: Draft) -> None:
    """Leave out the models that are gone."""
    files: Sequence[derived_files.DerivedFile] = derived_files.load_register(request.config)
    if not files:
        return
    gone = {each["file"] for each in draft.derived}

    def stays(file: derived_files.DerivedFile) -> bool:
        path = derived_files.location(request.config, file)
        missing = draft.forget_models and not path.exists() and file.time < draft.time
        moved = file.digest in draft.moved
        return not (missing or moved or request.relative(path) in gone)

    left = [file for file in files if stays(file)]
    if len(left) < len(files):
        derived_files.save_register(request.config, left)
