from __future__ import annotations

import time

import pytest

from clients.differences import ALL_LINES, LINES, NEITHER, Change, compare, summary


def only(before: bytes | None, after: bytes | None, name: str = "shared/a.py") -> Change:
    old = {} if before is None else {name: before}
    new = {} if after is None else {name: after}
    (change,) = compare(old, new)
    return change


def test_a_change_is_shown_with_what_stands_around_it() -> None:
    before = "".join(f"line {number}\n" for number in range(20)).encode()
    change = only(before, before.replace(b"line 9\n", b"line nine\nand more\n"))
    assert (change.kind, change.added, change.removed, change.notes) == ("changed", 2, 1, ())
    assert change.lines[0] == "@@ -7,7 +7,8 @@"
    assert change.lines[4:7] == ("-line 9", "+line nine", "+and more")


def test_added_and_removed_files_are_shown_whole() -> None:
    assert only(None, b"a\nb\n").lines[1:] == ("+a", "+b")
    assert only(b"a\n", None).lines[1:] == ("-a",)
    assert only(None, b"").lines == ()
    counts = summary([only(None, b"a\nb\n"), only(b"a\n", None), only(b"a\n", b"b\n")])
    assert counts == "3 files differ: 1 changed, 1 added, 1 removed; lines +3 -2"


def test_the_list_of_digests_says_nothing_new() -> None:
    assert compare({".info/CONTENT": b"a"}, {".info/CONTENT": b"b"}) == []


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"safe()\r\x1b[1Ahidden()\n", "+safe()\\r\\x1b[1Ahidden()"),
        (b"\x1b]0;title\x07\n", "+\\x1b]0;title\\x07"),
        (b"a \xff\xfe b\n", "+a \\xff\\xfe b"),
        ("x = '\u202eevil\u2066'\n".encode(), "+x = '\\u202eevil\\u2066'"),
        (b"\xc2\x9b2J\n", "+\\x9b2J"),
        ("a\u2028b\n".encode(), "+a\\u2028b"),
        (b"a\x0bb\x0cc\x1cd\n", "+a\\x0bb\\x0cc\\x1cd"),
        ("größe\t= 店 # 😀\n".encode(), "+größe\t= 店 # 😀"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_and_not_obeyed(content: bytes, shown: str) -> None:
    change = only(b"", content)
    assert change.lines[-1] == shown
    assert all(letter.isprintable() or letter == "\t" for line in change.lines for letter in line)


def test_a_name_that_a_terminal_would_obey_is_spelled_out() -> None:
    assert only(None, b"x", name="a\x1b[2J.py").name == "a\\x1b[2J.py"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"# coding: utf-7\n+AAo-x = 1\n", "declares the encoding utf-7"),
        (b"#!/usr/bin/python\n# -*- coding: latin-1 -*-\n", "declares the encoding iso-8859-1"),
        (b"# coding: no\x1bsuch\n", "declares the encoding one that Python does not know"),
        (b"# caf\xe9\n", "not UTF-8"),
        (b"# comment\rimport os\n", "a carriage return"),
        (b"if x:\n\f  y()\n", "a form feed"),
        (b"x = '\x1b[2J'\n", "holds characters that draw nothing"),
    ],
)
def test_what_python_reads_otherwise_than_people_carries_a_note(content: bytes, note: str) -> None:
    assert any(it.startswith(note) for it in only(None, content).notes)
    assert all(it.isprintable() for it in only(None, content).notes)


@pytest.mark.parametrize("content", [b"x = 1\n", b"# coding: utf-8\n", b"\xef\xbb\xbfx\r\n", b""])
def test_what_python_reads_as_it_is_shown_carries_none(content: bytes) -> None:
    assert only(None, content).notes == ()


def test_files_that_differ_in_their_last_end_alone_are_told() -> None:
    change = only(b"x = 1", b"x = 1\n")
    assert (change.lines, change.notes) == ((), (NEITHER,))


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (b"\\x1b\n", b"\x1b\n", "\\x1b"),
        (b"\xff\n", b"\\xff\n", "\\xff"),
        (b"a\r\n", b"a\\r\n", "a\\r"),
    ],
)
def test_two_lines_that_look_alike_and_differ_are_a_change(
    before: bytes, after: bytes, shown: str
) -> None:
    assert only(before, after).lines[1:] == (f"-{shown}", f"+{shown}")


def test_text_made_to_be_slow_to_compare_is_not() -> None:
    def woven(step: int) -> bytes:
        return b"".join(b"x%d\n" % (number * step % 101) for number in range(LINES // 2))

    files = {f"shared/a{number}.py": woven(1) for number in range(3 * ALL_LINES // LINES)}
    began = time.monotonic()
    changes = compare(files, {name: woven(7) for name in files})
    assert time.monotonic() - began < 10  # seconds; an unbounded one takes minutes
    assert len(changes) == len(files)
    assert changes[-1].added == changes[-1].removed == LINES // 2
    large = compare({"a.py": b"x\n" * 200_000}, {"a.py": b"x\ny\n" * 100_000})
    assert large[0].added == 200_000
