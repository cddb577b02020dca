"""What an erasure has to remove: the request, and a draft of all that was found for it.

    Request ─plan→ Draft: hashes, rows by table, caches, models; what remains to be done by hand

Planning reads and changes nothing. A draft goes to the disk before it is carried out, so it holds
no identifier: shoppers stand in it by the keyed hash of `shared/tables/erasure_list.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from clients import derived_files, settled, taught
from shared import manifest
from shared.errors import ConfigError, DataError
from shared.tables.config import EventTable, PlatformConfig
from shared.tables.dialect import normalised_keys
from shared.tables.erasure_list import ErasureList, load_list, new_list, spellings_of
from shared.tables.formats import format_of
from shared.tables.row_removal import row_counts, sha256_of
from shared.tables.scan import EMPTY


@dataclass(frozen=True)
class Request:
    """What is to be erased, and how far.

    Attributes:
        config: of the platform.
        file: its TOML file; paths in the record are relative to its folder.
        home: the folder of its membership; there need not be one.
        shoppers: identifiers as the table has them; none applies the list again.
        rewrite: also take the rows out of the platform's own table.
        copies: further files with the table's columns; they are always rewritten.
        models: files made from rows that were moved from where they were made.
        keep_models: leave models for now, to be trained again; the record is then not complete.
        models_deleted: models that are not where they were made were deleted by hand.
        absent: also list shoppers of whom there is no row.
        wait: seconds to wait for a round that is being trained.
    """

    config: PlatformConfig
    file: Path
    home: Path
    shoppers: tuple[str, ...] = ()
    rewrite: bool = False
    copies: tuple[Path, ...] = ()
    models: tuple[Path, ...] = ()
    keep_models: bool = False
    models_deleted: bool = False
    absent: bool = False
    wait: float = 600.0

    @property
    def list_path(self) -> Path:
        """Where the list of erased shoppers is."""
        path = self.config.events.erased
        assert path is not None  # a configuration that was read from a file names one
        return path

    @property
    def draft_path(self) -> Path:
        """Where an erasure that is under way is written down."""
        return self.list_path.with_suffix(".erasing")

    def relative(self, path: Path) -> str:
        """A path as a record names it."""
        return os.path.relpath(path, self.file.parent)

    def located(self, name: str) -> Path:
        """The path that a record names."""
        return Path(os.path.abspath(self.file.parent / name))


@dataclass(frozen=True)
class Draft:
    """What was found for a request.

    Attributes:
        number: of the record that it becomes.
        time: when it was made, seconds since 1970; whatever was made of rows before is removed.
        key: of the erasure list.
        new: hashes of shoppers that the list does not have yet.
        spellings: further hashes for the list: of the same shoppers as the tables spell them.
        shoppers: rows in all tables, by hash; of those that were asked for, and of listed ones that
            a table still has.
        tables: file, format, rows to be removed, and whether they are, of each table.
        derived: file, what it is and SHA-256 of each cache and model to be deleted.
        remaining: a line for each thing that is left to do by hand.
        moved: digests of models that lie elsewhere than where they were made.
        alike: shoppers that are not erased and differ from one that is in case alone.
        forget_models: models that are not where they were made count as deleted.
        unfinished: the last record was not complete.
    """

    number: int
    time: float
    key: str
    new: tuple[str, ...]
    shoppers: Mapping[str, int]
    tables: tuple[Mapping[str, Any], ...]
    derived: tuple[Mapping[str, str], ...]
    remaining: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    spellings: tuple[str, ...] = ()
    alike: int = 0
    forget_models: bool = False
    unfinished: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be done that was not done before."""
        rows = any(table["rows"] and table["rewrite"] for table in self.tables)
        return not (self.new or self.spellings or rows or self.derived or self.forget_models)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """A draft that was read from JSON.

        Raises:
            TypeError: it has other fields.
        """
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
        }
        return cls(**fields)


def plan(request: Request, *, now: float) -> Draft:
    """Look for everything that is to be removed; changes nothing.

    Raises:
        DataError: a shopper of whom there is neither a row nor an entry in the list; an identifier
            that is a null word.
        ConfigError: a model is none.
    """
    listed = load_list(request.list_path) or new_list()
    keys = _keys(request)
    found = _found(request, listed, keys)
    counts, wanted = found.counts, dict.fromkeys(map(listed.hash_of, keys))
    unknown = [
        place
        for place, (key, name) in enumerate(zip(keys, request.shoppers, strict=True), 1)
        if not (counts.get(listed.hash_of(key)) or key in listed or name in listed)
    ]
    if unknown and not request.absent:
        raise _unknown(request, unknown, alike=found.alike)
    new = [h for h in wanted if h not in listed.shoppers]
    others = [h for h in found.spellings if h not in listed.shoppers and h not in wanted]
    since = now if new or others else max(listed.shoppers.values(), default=0.0)
    models, moved, remaining = _models(request, since=since)
    return Draft(
        number=listed.records + 1,
        time=now,
        key=listed.key,
        new=tuple(new),
        spellings=tuple(others),
        shoppers={**dict.fromkeys(wanted, 0), **counts},
        tables=tuple(found.tables),
        derived=tuple([*_caches(request, since=since), *models]),
        remaining=tuple(remaining),
        moved=tuple(moved),
        alike=found.alike,
        forget_models=request.models_deleted,
    )


@dataclass(frozen=True)
class _Found:
    """What all tables together have of the shoppers that were asked for, or are on the list.

    Attributes:
        counts: rows by the hash of the identifier as it is normalised; none is 0.
        spellings: hashes of each identifier as asked for, as normalised and as the tables spell it.
        tables: as of a Draft.
        alike: as of a Draft.
    """

    counts: dict[str, int]
    spellings: dict[str, None]
    tables: Sequence[Mapping[str, Any]]
    alike: int


def _found(request: Request, listed: ErasureList, keys: Sequence[str]) -> _Found:
    """Looks through the tables."""
    events, counts, tables, alike = request.config.events, dict[str, int](), [], 0
    wanted = {*keys, *request.shoppers}
    spellings = dict.fromkeys(map(listed.hash_of, wanted))
    for table in (events, *(_copy(request, path) for path in request.copies)):
        rows, near = _rows(table, listed, wanted)
        alike += near
        same = normalised_keys([*rows], events.normalise)
        for (name, count), key in zip(rows.items(), same, strict=True):
            shopper = listed.hash_of(key)
            counts[shopper] = counts.get(shopper, 0) + count
            spellings |= dict.fromkeys([shopper, listed.hash_of(name)])
        tables.append(
            {
                "file": request.relative(table.path),
                "format": table.format,
                "rewrite": request.rewrite or table is not events,
                "rows": sum(rows.values()),
            }
        )
    return _Found(counts, spellings, tables, alike)


def _keys(request: Request) -> list[str]:
    """The identifiers as they are normalised, in the order of the request.

    Raises:
        DataError: one is a null word: no row has it.
    """
    events = request.config.events
    for place, name in enumerate(request.shoppers, 1):
        if name.strip() in events.dialect.null_words:
            raise DataError(
                f"identifier {place} is the null word {name.strip()!r}: such rows have no shopper"
                " and are never read",
                where=events.path,
                todo="leave it out, or set null_words in [events] if it is an identifier",
            )
    return normalised_keys(request.shoppers, events.normalise)


def _copy(request: Request, path: Path) -> EventTable:
    """A further file, or folder of part files, with the table's columns."""
    events = request.config.events
    given = events.format if path.is_dir() else None
    return replace(events, path=path, format=format_of(str(path), given, "--copy"))


def _rows(table: EventTable, listed: ErasureList, wanted: set[str]) -> tuple[dict[str, int], int]:
    """Rows of each shopper that is to be erased, and how many others are spelt almost alike.

    A table that has no row at all has none of them.
    """
    try:
        counts = row_counts(table)
    except DataError as fault:
        if fault.what != EMPTY:
            raise
        return {}, 0
    names = spellings_of(lambda name: name in wanted or name in listed, [*counts], table.normalise)
    found = {name: counts[name] for name in names}
    others = normalised_keys([name for name in counts if name not in found], table.normalise)
    folded = {shopper.casefold() for shopper in wanted}
    return found, len({name for name in others if name.casefold() in folded})


def _caches(request: Request, *, since: float) -> Iterator[dict[str, str]]:
    """Files kept beside item vectors and Ledger that were made from rows, before `since`."""
    cache, policy = settled.place_of(request.config), request.config.policy
    kept = {cache: "cache of how the platform's own signals are weighed"}
    if policy is not None:
        kept[taught.sent_path(policy)] = "copy of how signals are weighed, as it was sent"
    for path, what in kept.items():
        if path is not None and path.is_file() and path.stat().st_mtime < since:
            yield {"file": request.relative(path), "what": what, "sha256": sha256_of(path)}


def _models(request: Request, *, since: float) -> tuple[list[dict[str, str]], list[str], list[str]]:
    """Models made from rows before `since` to be deleted, digests of moved ones, what remains."""
    delete: dict[Path, str] = {}
    remaining = []
    moved: dict[str, Path] = {}
    for path in request.models:
        known = derived_files.digest_of(path)
        if known is None or manifest.beside(path).exists():
            todo = "name an adapter or a list of pairs that was made on this platform"
            raise ConfigError("is not made from this platform's rows", where=path, todo=todo)
        moved[known[1]] = path.resolve()
        delete[path.resolve()] = f"{known[0]}, made from rows"
    for file in derived_files.load_register(request.config):
        path = derived_files.location(request.config, file)
        if file.time >= since or file.digest in moved:
            continue
        there = derived_files.digest_of(path) if path.is_file() else None
        if there == (file.kind, file.digest):
            delete[path] = f"{file.kind}, made from rows"
        elif not path.exists() and not request.models_deleted:
            remaining.append(
                f"{request.relative(path)}: a model made from rows is not there any more; name its"
                " place with --model, or say --models-deleted"
            )
    if request.keep_models:
        remaining += [
            f"{request.relative(path)}: {what}: to be trained again without these shoppers"
            for path, what in delete.items()
        ]
        return [], [], remaining
    gone = [
        {"file": request.relative(path), "what": what, "sha256": sha256_of(path)}
        for path, what in delete.items()
    ]
    return gone, list(moved), remaining


def _unknown(request: Request, positions: Sequence[int], *, alike: int) -> DataError:
    """Nobody knows these shoppers, named by their place in the request."""
    if len(request.shoppers) == 1:
        what = "there is no row of this shopper, nor an entry in the list of erased shoppers"
    else:
        places = ", ".join(map(str, positions[:20])) + (", …" if len(positions) > 20 else "")
        what = f"there is no row of {len(positions)} of the shoppers (number {places})"
    if alike:
        what += f"; {alike} in the table differ from what was given in case alone"
    return DataError(
        what,
        where=request.config.events.path,
        todo="spell the identifier as the table does, or give --absent to list it all the same",
    )
