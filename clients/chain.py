"""The chain of a Ledger: what an entry is, and how one proves that none was edited or left out.

    genesis ─before→ entry 1 ─hash→ before, entry 2 ─hash→ … ─hash→ head
                     reserve        release or abandon

An entry is kept as canonical JSON, whose SHA-256 the next one holds. Genesis is the hash of random
bytes, so a head, which the server sees, tells nothing. Entries come in pairs: at most one
reservation is open, and it is the last entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from shared.accounting import Charge
from shared.errors import LedgerError, PlanError
from shared.signing import canonical, digest
from shared.strict_parsing import LATEST
from shared.update import Noise, Receipt

Kind = Literal["reserve", "release", "abandon"]
REPEATED = (
    "dataset",
    "unit",
    "asked",
    "charge",
    "plan",
    "noise",
    "allowance",
)  # by what ends a reservation
RESTORE = "put the newest copy back; an older one is refused as well"


@dataclass(frozen=True)
class Asked:
    """The request that a reservation answers; the same one again is answered from the ledger.

    Attributes:
        purpose: what leaves: an Update, metrics, or sums, which are an Update too.
        run: whose round it is.
        round: its number.
        adapter: digest of the Adapter that came in.
    """

    purpose: Literal["update", "metrics", "sums"]
    run: str
    round: int
    adapter: str


@dataclass(frozen=True)
class Entry:
    """One row, never changed.

    Attributes:
        number: from 1.
        kind: reserve: may be spent. release: is spent. abandon: nothing left the platform.
        of: number of the reserve that this one ends; None on a reserve.
        dataset: whose budget.
        unit: what one record of it is.
        asked: which request it answers.
        charge: what it costs.
        plan: every number of the Plan that was in force, `Plan.public()`.
        noise: where the noise came from.
        time: seconds since 1970.
        payload: SHA-256 of what was released, hex; None on the other kinds.
        before: hash of the entry before, or genesis.
        allowance: every mechanism that may run on the data set in all, as it was fixed when this
            was reserved (clients/allowance.py); none in entries of older versions.
        hash: SHA-256 of all of the above, hex.
    """

    number: int
    kind: Kind
    of: int | None
    dataset: str
    unit: str
    asked: Asked
    charge: Charge
    plan: Mapping[str, float | int | str]
    noise: Noise
    time: float
    payload: str | None
    before: str
    allowance: tuple[Charge, ...] = ()
    hash: str = ""


Entries = Sequence[Entry]


def genesis(identity: str, noise: str) -> str:
    """What the first entry holds as the hash before it; a ledger's noise is sealed in it."""
    return digest(canonical({"id": identity, "noise": noise}))


def text_of(entry: Entry) -> str:
    """What is hashed and kept."""
    fields = asdict(entry)
    del fields["hash"]
    return canonical(fields).decode()


def sealed(entry: Entry) -> Entry:
    """The entry with its hash."""
    return replace(entry, hash=digest(text_of(entry)))


def verified(
    rows: Iterable[tuple[object, object, object]], *, start: str, where: Path
) -> list[Entry]:
    """Entries of rows (number, text, hash), in the order of their numbers.

    Args:
        rows: as they are kept.
        start: genesis.
        where: the ledger, for errors.

    Raises:
        LedgerError: an entry was edited, removed, added or moved; names the first.
    """
    found: list[Entry] = []
    for place, (number, text, seal) in enumerate(rows, start=1):
        entry = _parsed(text, seal)
        before = found[-1] if found else None
        if number != place or entry is None or not _follows(entry, before, start):
            raise LedgerError(
                f"entry {place} was edited, removed or moved", where=where, todo=RESTORE
            )
        found.append(entry)
    return found


def _parsed(text: object, seal: object) -> Entry | None:
    if not isinstance(text, str) or not isinstance(seal, str) or digest(text) != seal:
        return None
    try:
        fields = json.loads(text)
        asked, charge = Asked(**fields.pop("asked")), Charge(**fields.pop("charge"))
        allowance = tuple(Charge(**one) for one in fields.pop("allowance", []))
        entry = Entry(asked=asked, charge=charge, allowance=allowance, hash=seal, **fields)
        return entry if _typed(entry) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, PlanError):
        return None


def _typed(entry: Entry) -> bool:
    """Whether each value is of the type that it is declared with, whatever a file gave it."""
    told: dict[str, object] = {**vars(entry), **vars(entry.charge), **vars(entry.asked)}
    plan, time = told["plan"], told["time"]
    texts = ("dataset", "unit", "before", "run", "adapter")
    return (
        all(isinstance(told[name], str) for name in texts)
        and all(type(told[name]) is int for name in ("number", "round", "steps"))
        and all(type(charge.steps) is int for charge in entry.allowance)
        and (told["of"] is None or type(told["of"]) is int)
        and (told["payload"] is None or isinstance(told["payload"], str))
        and told["kind"] in ("reserve", "release", "abandon")
        and told["purpose"] in ("update", "metrics", "sums")
        and told["noise"] in ("simulated", "secure")
        and isinstance(plan, dict)
        and all(isinstance(it, int | float | str) for it in plan.values())
        and isinstance(time, int | float)
        and 0 <= time <= LATEST
    )


def _follows(entry: Entry, before: Entry | None, start: str) -> bool:
    if before is None:
        return (entry.number, entry.before, entry.kind) == (1, start, "reserve")
    if (entry.number, entry.before) != (before.number + 1, before.hash):
        return False
    if before.kind != "reserve":
        return entry.kind == "reserve"
    same = all(getattr(entry, name) == getattr(before, name) for name in REPEATED)
    return entry.kind in {"release", "abandon"} and entry.of == before.number and same


def receipt_of(entries: Entries, start: str) -> Receipt:
    """What a ledger with these entries is known by."""
    return Receipt(len(entries), entries[-1].hash if entries else start)


def check_known(
    entries: Entries, *, start: str, known: Receipt, by: str, where: str | Path
) -> None:
    """Refuse a ledger that is older than what is known of it, or another one.

    Args:
        entries: of the ledger; it may have gone on since it was known.
        start: genesis.
        known: of it.
        by: who knows, for errors.
        where: the ledger, for errors.

    Raises:
        LedgerError: entries are missing at its end, or the last one known is not in it.
    """
    if known.count > len(entries):
        raise LedgerError(
            f"is an old copy: it has {len(entries)} entries, {by} knows {known.count}",
            where=where,
            todo="put the newest copy back",
        )
    if known.count < 0 or receipt_of(entries[: known.count], start).head != known.head:
        raise LedgerError(
            f"entry {known.count} is not the one that {by} knows: it is another ledger",
            where=where,
            todo="put back the ledger that this platform has used so far",
        )
