"""What was read of a platform's tables, what was dropped, and what looks wrong.

A report names items, which are public by assumption, and never a shopper.
"""

from __future__ import annotations

from dataclasses import dataclass

MUCH = 0.25  # of the rows dropped for whatever reason but part and limit: a warning
MUCH_UNKNOWN = 0.1  # of the rows without a key or of an unknown item: a warning


@dataclass(frozen=True)
class ReadReport:
    """What was read, kept and dropped. Every row of the events table is counted once.

    rows = blank + erased_rows + missing_keys + duplicates + unknown_items + short_events
           + limited_events + events

    Attributes:
        missing_keys: rows whose shopper or item is empty or a null word.
        item_missing: item rows whose identifier is.
        near_events: of the events of unknown items, those that one of the catalogue would take if
            case, spaces, width, a .0 or leading zeros did not count.
        near_items: how many identifiers these are.
        examples: of unknown items, only where they are known to be items.
        hints: what to change, in words.
        written: what was detected of the way the tables are written, in words.
        spellings: pairs of shoppers whose identifiers differ only in a way that one person's two
            spellings might (shared/tables/spelling.py).
        case_alone: of these, the pairs that differ in case alone.
        items_in_part: whether the configuration leaves items out, so that unknown ones are meant.
        erased_rows: rows of shoppers on the erasure list, which are still in the table.
    """

    rows: int
    blank: int
    duplicates: int
    unknown_items: int
    short_shoppers: int
    short_events: int
    limited_shoppers: int
    limited_events: int
    shoppers: int
    events: int
    items: int
    item_duplicates: int
    items_without_text: int
    min_length: int
    missing_keys: int = 0
    item_missing: int = 0
    near_events: int = 0
    near_items: int = 0
    spellings: int = 0
    case_alone: int = 0
    examples: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    items_in_part: bool = False
    erased_rows: int = 0

    def dropped(self) -> list[str]:
        """What was dropped, in words."""
        told = {
            f"{self.blank:,} blank rows": self.blank,
            f"{self.erased_rows:,} rows of erased shoppers, still in the table": self.erased_rows,
            f"{self.missing_keys:,} events without shopper or item": self.missing_keys,
            f"{self.duplicates:,} rows that repeat another": self.duplicates,
            f"{self.unknown_items:,} events of items not in the catalogue": self.unknown_items,
            f"{self.short_shoppers:,} shoppers with fewer than {self.min_length} events"
            f" ({self.short_events:,} events)": self.short_shoppers,
            f"{self.limited_shoppers:,} shoppers outside part or limit"
            f" ({self.limited_events:,} events)": self.limited_shoppers,
            f"{self.item_missing:,} item rows without identifier": self.item_missing,
            f"{self.item_duplicates:,} item rows that repeat another": self.item_duplicates,
        }
        return [what for what, count in told.items() if count]

    def warnings(self) -> list[str]:
        """What should be looked at before anything is trained, in words."""
        told = []
        lost = self.rows - self.limited_events - self.erased_rows - self.events
        unknown = self.missing_keys + self.unknown_items
        if self.items_in_part:
            lost, unknown = lost - self.unknown_items, self.missing_keys
        if lost > MUCH * self.rows or unknown > MUCH_UNKNOWN * self.rows:
            some = ", ".join(map(repr, self.examples))
            which = f"; items that the catalogue lacks: {some}" if some else ""
            told.append(f"{lost / self.rows:.0%} of the rows of events were dropped{which}")
        if self.spellings:
            of_case = f", {self.case_alone:,} of them in case alone" if self.case_alone else ""
            told.append(
                f"{self.spellings:,} pairs of shoppers may be one person each: their identifiers"
                f" differ only in case, spaces, width or the form of an e-mail address{of_case};"
                " if so, set normalise in [events] or join them before export"
            )
        return [*told, *self.hints]

    def lines(self) -> list[str]:
        """The report in words, what did not happen left out."""
        kept = [f"kept {self.events:,} events of {self.shoppers:,} shoppers, {self.items:,} items"]
        if self.items_without_text:
            kept.append(f"{self.items_without_text:,} items without text go by their identifier")
        return [
            *self.written,
            f"read {self.rows:,} rows of events",
            *(f"dropped {what}" for what in self.dropped()),
            *kept,
            *(f"warning: {what}" for what in self.warnings()),
        ]
