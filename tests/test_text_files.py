"""Every text file is read and written as UTF-8 whatever the machine's locale is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for package in ("shared", "clients", "server", "simulations")
    for path in (ROOT / package).rglob("*.py")
)
PLACE = {"read_text": 0, "write_text": 1}  # of the encoding among positional arguments


def without_encoding(code: str) -> Iterator[tuple[int, str]]:
    """(line, call) of each call that opens a text file by the locale's encoding."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        named = {word.arg for word in node.keywords}
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if ast.unparse(node.func) == "os.open":  # a descriptor, which holds bytes
            continue
        if isinstance(node.func, ast.Name):
            called = {"open": "open", "fdopen": "fdopen"}.get(node.func.id, "")
        if "encoding" in named or (called in PLACE and len(node.args) > PLACE[called]):
            continue
        if named & {"text", "universal_newlines"} and called in {"run", "Popen", "check_output"}:
            yield node.lineno, called
        if called in PLACE:
            yield node.lineno, called
        if called in {"open", "fdopen"} and is_text(node):
            yield node.lineno, called


def is_text(node: ast.Call) -> bool:
    """Whether a call of open, Path.open or os.fdopen is of a text file."""
    words = [*node.args, *(word.value for word in node.keywords if word.arg == "mode")]
    path = not isinstance(node.func, ast.Attribute) or node.func.attr == "fdopen"
    modes = [it.value for it in words[1 if path else 0 :] if isinstance(it, ast.Constant)]
    if modes:
        return "b" not in str(modes[0])
    return path or not words  # open(path), or path.open(); Ledger.open(policy) is none of these


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_file_depends_on_the_locale(path: Path) -> None:
    assert list(without_encoding(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.read_text()", True),
        ('path.read_text("ascii")', False),
        ('path.write_text("a")', True),
        ('path.write_text("a", "utf-8")', False),
        ('path.write_text("a", encoding="utf-8")', False),
        ("open(path)", True),
        ('open(path, "rb")', False),
        ('open(path, encoding="utf-8")', False),
        ("path.open()", True),
        ('path.open("a")', True),
        ('path.open("rb")', False),
        ('os.fdopen(number, "w")', True),
        ('os.fdopen(number, "wb")', False),
        ("Ledger.open(policy, noise=noise)", False),
        ("run(words, text=True)", False),
        ("subprocess.run(words, text=True)", True),
        ('subprocess.run(words, text=True, encoding="utf-8")', False),
    ],
)
def test_a_call_that_depends_on_the_locale_is_recognised(code: str, found: bool) -> None:
    assert bool(list(without_encoding(code))) is found
