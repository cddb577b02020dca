"""Which of our TOML files one is, by its keys: so that a command can say that it was given another.

A scenario holds platforms and a platform's file describes one, so each is easily taken for the
other.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FileKind:
    """A kind of TOML file.

    Attributes:
        noun: what it is called.
        keys: that stand at the top of each such file, and together in no other.
        command: which takes it.
    """

    noun: str
    keys: frozenset[str]
    command: str


PLATFORM = "a platform's file"
SCENARIO = "a scenario"
KINDS = (
    FileKind(PLATFORM, frozenset({"events", "items"}), "atoll-client check --platform FILE"),
    FileKind(SCENARIO, frozenset({"platforms"}), "atoll-sim compare FILE"),
    FileKind(SCENARIO, frozenset({"world"}), "atoll-sim compare FILE"),
    FileKind(
        "the server.toml of a coordinator's home",
        frozenset({"listen", "backbone"}),
        "atoll-server up --home FOLDER",
    ),
    FileKind(
        "the client.toml of a platform's home",
        frozenset({"server", "name"}),
        "atoll-client up --platform FILE --home FOLDER",
    ),
)


def kind_of(keys: Container[str]) -> FileKind | None:
    """The first kind whose keys are all there."""
    return next((it for it in KINDS if all(key in keys for key in it.keys)), None)


def other_kind(mapping: Mapping[str, Any], expected: Container[str]) -> tuple[str, str] | None:
    """What is wrong with a file of another kind, and the next step; None if it is none of those.

    Args:
        mapping: what the file holds.
        expected: keys of the kind that is asked for.
    """
    found, wanted = kind_of(mapping), kind_of(expected)
    if found is None or (wanted is not None and found.noun == wanted.noun):
        return None
    if all(key in expected for key in found.keys):
        return None
    asked = f", not {wanted.noun}" if wanted is not None else ", which is not asked for here"
    return f"is {found.noun}{asked}", f"{found.command} takes it"
