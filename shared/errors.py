"""Everything that can go wrong and be said in one line.

    AtollError
    ├── ConfigError      a TOML file, a key or an option
    ├── DataError        a table, a row, a History or a Catalogue
    │   └── ColumnError  a column that a table lacks, or that holds lists
    ├── PairsError       a list of pairs
    ├── BackboneError    a text encoder or a backbone file
    ├── AdapterError     an adapter file or its tensors
    ├── PlanError        a Plan that cannot hold its promise, or a request to loosen one
    │   └── HoursError   a request outside the platform's hours
    ├── LedgerError      a ledger that is damaged, old, in use or cannot be written
    │   └── BudgetError  what is asked would spend more than is left
    ├── ReplyError       what a platform answered the server
    ├── RoundError       a federation that cannot go on
    ├── IdentityError    a token, key, certificate or signature that does not hold
    ├── BundleError      code that is damaged, or that nobody here approved
    └── AuditError       an audit log that was edited, cut or cannot be written

An error says what is wrong, where, and the next step. It never holds a shopper's data: a row is
named by its number, a shopper not at all.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

__all__ = [
    "AdapterError",
    "AtollError",
    "AuditError",
    "BackboneError",
    "BudgetError",
    "BundleError",
    "ColumnError",
    "ConfigError",
    "DataError",
    "HoursError",
    "IdentityError",
    "LedgerError",
    "PairsError",
    "PlanError",
    "ReplyError",
    "RoundError",
]


class AtollError(Exception):
    """A fault its reader can mend; command lines print it as one line and exit with code 2.

    Args:
        what: the fault, with the name and the value that are wrong.
        where: the file, and if it helps the line, key or column within it.
        todo: the next step, as an imperative.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, todo: str) -> None:
        self.what = what
        self.where = where
        self.todo = todo
        place = f"{where}: " if where is not None else ""
        super().__init__(" ".join(f"{place}{what}; {todo}".split()))

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle by their positional arguments, and `todo` has none.
        return partial(type(self), where=self.where, todo=self.todo), (self.what,)


class ConfigError(AtollError):
    """A TOML file, a key or an option is missing, unknown or out of range."""


class DataError(AtollError):
    """A table, row, History or Catalogue cannot be used."""


class ColumnError(DataError):
    """A table lacks a column, or has one that does not hold one value a row."""


class PairsError(AtollError):
    """A list of pairs is missing, damaged, or not the one that was named."""


class BackboneError(AtollError):
    """A text encoder or backbone is missing, damaged or not the one that was named."""


class AdapterError(AtollError):
    """An adapter is damaged, or belongs to another backbone, task or shape."""


class PlanError(AtollError):
    """A Plan cannot hold its promise, or somebody asks for a looser one."""


class HoursError(PlanError):
    """A request comes at an hour at which the platform does not train."""


class LedgerError(AtollError):
    """A ledger is damaged, older than what is known of it, in use, or cannot be written."""


class BudgetError(LedgerError):
    """What is asked would spend more than is left of the budget."""


class ReplyError(AtollError):
    """A platform's reply is refused."""


class RoundError(AtollError):
    """A federation cannot start or go on."""


class IdentityError(AtollError):
    """A token, key, certificate or signature does not hold, or the platform was evicted."""


class BundleError(AtollError):
    """An app bundle is damaged, or nobody here has approved it."""


class AuditError(AtollError):
    """An audit log was edited or cut, or cannot be written."""
