"""Text that others wrote, made fit for a terminal: what would steer it is spelled out instead.

An escape sequence can clear a screen or hide a line of a diff, and a character that turns the
direction of writing can make code read as what it is not. Neither survives here.

A terminal that is not UTF-8 has no sign for ε or ✓: a program that has worked for an hour must not
end there, so what a stream cannot encode is spelled in ASCII.
"""

from __future__ import annotations

import codecs
import io
import json


def printable(text: str) -> str:
    r"""The text with every character that draws nothing written as `\x1b`, `\r` or `\u202e`.

    Only the space and the tab pass as they are. Letters that look like others do pass.
    """
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() or mark == "\t" else mark.encode("unicode_escape").decode()
        for mark in text
    )


# What our own messages hold beside ASCII, as a stream that cannot take it gets it.
PLAIN = {
    "✓": "ok",
    "✗": "FAIL",
    "–": "-",
    "−": "-",
    "—": "-",
    "…": "...",
    "·": "-",
    "→": "->",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "±": "+/-",
    "≈": "~",
    "▲": "^",
    "▼": "v",
    "○": "o",
    "■": "#",
    "√": "sqrt",
    "Σ": "sum",
    "α": "alpha",
    "δ": "delta",
    "ε": "epsilon",
    "µ": "mu",
    "μ": "mu",
    "ρ": "rho",
    "σ": "sigma",
    "\u00a0": " ",
}
ERRORS = "atoll-plain"  # name of the codec error handler below


def _plain(error: UnicodeError) -> tuple[str, int]:
    r"""A codec error handler: our own signs in ASCII, every other character as JSON escapes it.

    So text can still be read, and a JSON document stays one: `ε` is "epsilon", `é` is `\u00e9`.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spoilt = error.object[error.start : error.end]
    return "".join(PLAIN.get(mark) or json.dumps(mark)[1:-1] for mark in spoilt), error.end


codecs.register_error(ERRORS, _plain)


def tolerate(*streams: object) -> None:
    """Have these text streams never fail because of a character, whatever their encoding is.

    A stream without an encoding, such as one in memory, takes every character as it is.
    """
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and stream.errors != ERRORS:
            stream.reconfigure(errors=ERRORS)


def encodable(text: str, encoding: str) -> str:
    """The text as a tolerant stream of this encoding shows it, for who lays out columns by it."""
    try:
        return text.encode(encoding, ERRORS).decode(encoding)
    except LookupError:  # an encoding that Python does not know
        return text
