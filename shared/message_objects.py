"""A message of Flower's from the objects in which it travels, read with suspicion.

    SHA-256 → bytes ─whole_message→ Message, or a ReplyError

Flower sends a message as a tree of objects: the message, its records, their arrays, and the chunks
of those. An array may name one chunk many times, and a shape may have any number of axes, so a few
kilobytes can ask for gigabytes. That is counted before anything is put together.
"""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from shared.errors import ReplyError
from shared.records import MAX_AXES, SAME_VERSION
from shared.strict_parsing import json_value

LARGEST = 64 * 2**20  # bytes of all objects of a message, and of its arrays once put together
MOST = 20_000  # objects of a message


def whole_message(name: str, contents: Mapping[str, bytes]) -> Message:
    """The message of these objects.

    Args:
        name: SHA-256 of the message's own object, hex.
        contents: its objects by their SHA-256, hex.

    Raises:
        ReplyError: they make no message, or one that is too large.
    """
    try:
        _check_sizes(contents)
        message = inflate_object_from_contents(name, dict(contents))
    except ReplyError:
        raise
    # Flower raises many kinds for what it cannot read, and the sender can choose which.
    except Exception as fault:
        raise ReplyError(f"is no message ({type(fault).__name__})", todo=SAME_VERSION) from fault
    if not isinstance(message, Message):
        raise ReplyError(f"is no message but {type(message).__name__}", todo=SAME_VERSION)
    return message


def _check_sizes(contents: Mapping[str, bytes]) -> None:
    """Refuse what would be too large once it is put together.

    Raises:
        ReplyError: says what is too large.
        ValueError: an object is not as Flower makes them.
    """
    if len(contents) > MOST:
        raise ReplyError(f"has {len(contents):,} objects", todo=SAME_VERSION)
    whole = sum(map(len, contents.values()))
    for content in contents.values():
        head, _, body = content.partition(b"\0")
        kind, children, _size = head.decode().split(" ")
        if kind != "Array":
            continue
        array = json_value(body)
        shape, places = array["shape"], array["arraychunk_ids"]
        if len(shape) > MAX_AXES or len(places) > MOST:
            raise ReplyError(
                f"an array has {len(shape)} axes and {len(places):,} chunks", todo=SAME_VERSION
            )
        sizes = [len(contents[child]) for child in filter(None, children.split(","))]
        whole += sum(sizes[place] for place in places)
    if whole > LARGEST:
        raise ReplyError(
            f"has {whole:,} bytes, more than {LARGEST:,}",
            todo="have the platform use this backbone",
        )
