"""Text that others wrote, made fit for a terminal: what would steer it is spelled out instead.

An escape sequence can clear a screen or hide a line of a diff, and a character that turns the
direction of writing can make code read as what it is not. Neither survives here.
"""

from __future__ import annotations


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
