"""The signed record of an erasure: what was removed, and which earlier releases cannot be undone.

    Draft, Ledger, audit log ─completed→ facts ─sign→ NAME.erasures/erasure-0001.json ─verify→ facts

Signed like the privacy report, by the same key, over the same canonical JSON; the format in it says
which of the two it is. A record names files and digests, and shoppers by a keyed hash alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clients import report
from clients.approvals import Approvals
from clients.balance import balance_of
from clients.erasure_plan import Draft, Request
from clients.ledger import entries
from clients.report_page import eps
from shared import audit_log, wire
from shared.audit_log import AuditLog
from shared.bundle import files_of
from shared.errors import AtollError, ConfigError
from shared.files import made_folder, replacing
from shared.plan import large_delta
from shared.signing import digest
from shared.tables.erasure_list import load_list, record_paths, records_folder
from shared.tables.table import read_platform

FORMAT = "atoll erasure record 1"
LIST_MODULE = "erasure_list.py"  # a bundle without it reads rows without the list
KEPT = [
    "Ledger: charges, times and digests; no personal data. What is spent stays spent.",
    "Last reply of each purpose, in the Ledger: the noised bytes that have left already. They are "
    "sent again only for the same request; a new answer to it would be a second release.",
    "Audit log: kinds, rounds, digests and times; no personal data.",
    "Item vectors: made from the Catalogue alone.",
    "Erasure list: a keyed hash of each erased identifier, so that no old export or backup brings "
    "the rows back. It is pseudonymous personal data, kept for this purpose alone.",
]
NOT_KNOWN = [
    "Other copies of the rows, backups, and what other programs made of them.",
    "What a file system or a disk keeps of a file that was deleted or replaced.",
    "Adapters and sums that came from the coordinator: this platform's part in them is a release.",
]


def completed(request: Request, draft: Draft, *, now: float) -> dict[str, Any]:
    """All that a record says. Of a draft that was not carried out, what would be done."""
    tables = [_table(table) for table in draft.tables]
    remaining = [
        *draft.remaining,
        *(
            f"{table['file']}: {table['rows_left']} rows of these shoppers"
            for table in tables
            if table["rows_left"]
        ),
        *(f"{table['file']}: {table['note']}" for table in tables if table["note"]),
    ]
    listed = load_list(request.list_path)
    policy = request.config.policy
    return {
        "format": FORMAT,
        "atoll": version("atoll"),
        "platform": request.config.name,
        "dataset": None if policy is None else policy.dataset,
        "number": draft.number,
        "begun": _utc(draft.time),
        "made": _utc(now),
        "status": "not complete" if remaining else "complete",
        "shoppers": [
            {"keyed_hash": name, "rows": rows, "new": name in draft.new}
            for name, rows in sorted(draft.shoppers.items())
        ],
        "erasure_list": {
            "file": request.relative(request.list_path),
            "shoppers": 0 if listed is None else len(listed.shoppers),
        },
        "tables": tables,
        "deleted": [dict(each) for each in draft.derived],
        "remaining": remaining,
        "in_memory": "Counts and weights are made anew from the tables; a client that is up reads "
        "them again before its next request.",
        "earlier_releases": _releases(request),
        "warnings": list(_warnings(request, draft)),
        "kept_on_purpose": KEPT,
        "not_known_here": NOT_KNOWN,
    }


def _table(told: Mapping[str, Any]) -> dict[str, Any]:
    """How a table stands; of one that was not gone through yet, how it would."""
    rows = told["rows"] if told["rewrite"] else 0
    planned = {"rows_removed": rows, "rows_left": told["rows"] - rows, "note": ""}
    hidden = ("rewrite", "format", "rows")
    return planned | {name: value for name, value in told.items() if name not in hidden}


def write_record(request: Request, facts: Mapping[str, Any], *, number: int) -> Path:
    """Sign a record, write it and note it in the audit log; gives its path.

    One that is there already was written before the process was killed, and stays.

    Raises:
        ConfigError: it cannot be written, or the key is damaged or readable by others.
    """
    folder = made_folder(records_folder(request.list_path))
    path = folder / f"erasure-{number:04}.json"
    if not path.exists():
        document = report.sign(facts, report.signing_key(key_path(request)))
        with replacing(path, private=True) as part:
            part.write_bytes(report.rendered(document))
    if request.home.is_dir():
        rows = sum(table["rows_removed"] for table in facts["tables"])
        AuditLog(request.home / "audit.jsonl").add(
            "erased",
            record=path.name,
            sha256=digest(path.read_bytes()),
            shoppers=len(facts["shoppers"]),
            rows=rows,
            complete=facts["status"] == "complete",
        )
    return path


def verify_record(path: Path) -> dict[str, Any]:
    """The document of a record, if it is as it was signed.

    Raises:
        ConfigError: it is no erasure record, or was edited.
    """
    document = report.verify(path)
    if document["facts"].get("format") != FORMAT:
        todo = "verify a privacy report with atoll-client report --verify"
        raise ConfigError("is signed, but no erasure record", where=path, todo=todo)
    return document


def key_path(request: Request) -> Path:
    """The key that signs: of [privacy], or of the same name beside the erasure list without it."""
    policy = request.config.policy
    return policy.key if policy else request.list_path.with_name(f"{request.config.name}.key")


def erasures(list_path: Path | None) -> dict[str, Any]:
    """What a privacy report says of erasures: how many, the last, and those not complete.

    Raises:
        ConfigError: a record was edited.
        DataError: the list is damaged or missing.
    """
    listed = load_list(list_path)
    if list_path is None or listed is None:
        return dict(report.NO_ERASURES)
    documents = {path.name: verify_record(path) for path in record_paths(list_path)}
    last = list(documents.values())[-1:]
    return {
        "records": listed.records,
        "shoppers": len(listed.shoppers),
        "last": last[0]["facts"]["made"] if last else None,
        # A later complete record covers all that an earlier one left: it looks at the whole list.
        "not_complete": [last[0]["facts"]["number"]]
        if last and last[0]["facts"]["status"] != "complete"
        else [],
    }


def _releases(request: Request) -> dict[str, Any]:
    """What left before, may hold something of these shoppers, and cannot be called back."""
    policy = request.config.policy
    if policy is None:
        return {"explanation": "Nothing leaves this platform: its file has no [privacy] section."}
    if policy.plan is None:
        answered = list(_answered(request.home))
        return {
            "explanation": "UNPROTECTED: what left holds no noise, and nothing bounds what it tells"
            " of these shoppers. It cannot be undone. Ask who received it to delete it.",
            "releases": answered,
        }
    plan, dataset = policy.plan, policy.dataset
    try:
        held = entries(policy)
    except AtollError as fault:
        return {"explanation": f"The Ledger cannot be read, so they are not listed: {fault}"}
    released = [entry for entry in held if (entry.kind, entry.dataset) == ("release", dataset)]
    others = [entry for entry in held if entry.kind == "release" and entry.dataset != dataset]
    balance = balance_of(held, policy=policy)
    simulated = any(entry.noise == "simulated" for entry in released)
    bound = (
        "The noise was SIMULATED, so nobody is protected."
        if simulated
        else f"What all of them together tell of one shopper is bounded by ε = {eps(balance.spent)}"
        f" at δ = {plan.delta:.6g}, whether or not the shopper was in them."
    )
    told = f"Each may have used these shoppers' Histories, and cannot be undone. {bound}"
    return {
        "explanation": told if released else "Nothing of this data set has been released.",
        "epsilon_spent": eps(balance.spent),
        "delta": plan.delta,
        "releases": report.releases(released, plan.delta),
        "of_other_data_sets": len(others),
    }


def _answered(home: Path) -> Iterator[dict[str, Any]]:
    """Replies that left a platform without a Ledger, from its audit log."""
    path = home / "audit.jsonl"
    if not path.exists():
        return
    for entry in audit_log.entries(path):
        if entry.event == "answered" and "sha256" in entry.fields:
            told = {name: entry.fields.get(name) for name in ("kind", "round", "sha256")}
            if told["kind"] != wire.HELLO:
                yield {**told, "time": _utc(entry.time)}


def _warnings(request: Request, draft: Draft) -> Iterator[str]:
    """What the officer should look at."""
    config = request.config
    plan = None if config.policy is None else config.policy.plan
    if draft.alike:
        yield (
            f"{draft.alike} other shoppers differ from an erased one in case alone: if they are the"
            " same person, erase them as well."
        )
    yield from _older_code(request)
    if plan is None:
        return
    if (told := large_delta(plan.delta)) is not None:
        yield told
    try:
        left = read_platform(config).report.shoppers
    except AtollError as fault:
        yield f"The tables cannot be used any more: {fault}"
        return
    listed = load_list(request.list_path)
    known = () if listed is None else listed.shoppers
    left -= sum(1 for name in draft.new if draft.shoppers[name] and name not in known)  # a dry run
    if left < plan.shoppers_at_least:
        yield (
            f"shoppers_at_least is {plan.shoppers_at_least}, and fewer are left: lower it in"
            " [privacy], and check that δ is still far below 1 divided by the new number."
        )


def _older_code(request: Request) -> Iterator[str]:
    """Approved bundles that would read a table without the erasure list."""
    approvals = Approvals(request.home / "approvals")
    try:
        for decision in approvals.entries():
            if decision.standing != "approved":
                continue
            files = files_of(approvals.content(decision.digest), where=decision.digest[:12])
            if not any(Path(name).name == LIST_MODULE for name in files):
                yield (
                    f"Approved code {decision.digest[:12]} is older than erasure lists, and reads"
                    " every row that a table holds: take the rows out of the table, and approve a"
                    " newer bundle."
                )
    except AtollError as fault:
        yield f"The approved code could not be looked at: {fault}"


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
