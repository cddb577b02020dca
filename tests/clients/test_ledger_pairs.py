"""Entries of a ledger come in pairs; a chain that says otherwise is refused, well sealed or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from clients.chain import Asked, Entry, genesis, sealed, text_of, verified
from shared.accounting import Charge
from shared.errors import LedgerError

START = genesis("identity", "secure")
RESERVE = Entry(
    number=1,
    kind="reserve",
    of=None,
    dataset="shop",
    unit="shopper",
    asked=Asked("update", "run", 1, "adapter"),
    charge=Charge(2.0),
    plan={"epsilon": 4.0},
    noise="secure",
    time=1.0,
    payload=None,
    before="",
)
RELEASE = replace(RESERVE, number=2, kind="release", of=1, payload="ab" * 32)
ABANDON = replace(RESERVE, number=2, kind="abandon", of=1)


def read(entries: Sequence[Entry], *, start: str = START) -> list[Entry]:
    """What is read of these entries, each sealed with the one before it."""
    before, rows = start, list[tuple[object, object, object]]()
    for entry in entries:
        made = sealed(replace(entry, before=before))
        rows.append((made.number, text_of(made), made.hash))
        before = made.hash
    return verified(rows, start=START, where=Path("shop.ledger"))


def test_a_reservation_and_what_ends_it_are_read_back() -> None:
    assert [it.kind for it in read([RESERVE, RELEASE])] == ["reserve", "release"]
    again = [replace(RESERVE, number=3), replace(ABANDON, number=4, of=3)]
    assert [it.kind for it in read([RESERVE, ABANDON, *again])][2:] == ["reserve", "abandon"]


WRONG: dict[str, Callable[[], Sequence[Entry]]] = {
    "a release without a reservation": lambda: [replace(RELEASE, number=1)],
    "a second release": lambda: [RESERVE, RELEASE, replace(RELEASE, number=3)],
    "a release after it was abandoned": lambda: [RESERVE, ABANDON, replace(RELEASE, number=3)],
    "two reservations at once": lambda: [RESERVE, replace(RESERVE, number=2)],
    "a release of another reservation": lambda: [RESERVE, replace(RELEASE, of=7)],
    "a cheaper release": lambda: [RESERVE, replace(RELEASE, charge=Charge(9.0))],
    "a release of another data set": lambda: [RESERVE, replace(RELEASE, dataset="other")],
    "a release of another unit": lambda: [RESERVE, replace(RELEASE, unit="event")],
    "a release of another request": lambda: [
        RESERVE,
        replace(RELEASE, asked=Asked("metrics", "run", 1, "adapter")),
    ],
    "a release under another Plan": lambda: [RESERVE, replace(RELEASE, plan={"epsilon": 9.0})],
    "a release of other noise": lambda: [RESERVE, replace(RELEASE, noise="simulated")],
    "a number left out": lambda: [RESERVE, replace(RELEASE, number=3)],
    "a first number of 2": lambda: [replace(RESERVE, number=2)],
}


@pytest.mark.parametrize("how", WRONG)
def test_a_chain_that_is_sealed_and_says_otherwise_is_refused(how: str) -> None:
    with pytest.raises(LedgerError, match="was edited, removed or moved"):
        read(WRONG[how]())


def test_a_chain_of_another_ledger_is_refused() -> None:
    with pytest.raises(LedgerError, match="entry 1 was edited, removed or moved"):
        read([RESERVE, RELEASE], start=genesis("another", "secure"))
    with pytest.raises(LedgerError, match="entry 1 was edited, removed or moved"):
        read([RESERVE, RELEASE], start=genesis("identity", "simulated"))
