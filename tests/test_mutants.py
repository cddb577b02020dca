"""The list of mutants fits the tree, and the program that runs it can fail."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "mutants"
MUTANTS: list[dict[str, Any]] = tomllib.loads((FOLDER / "mutants.toml").read_text())["mutant"]
KEYS = {"name", "file", "find", "replace", "tests", "promise"}


def functions_in(path: Path) -> set[str]:
    """Names of the test functions in a file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {it.name for it in ast.walk(tree) if isinstance(it, functions)}


def faults(mutant: dict[str, Any], root: Path) -> list[str]:
    """Why a mutant cannot be run."""
    if set(mutant) != KEYS or not (mutant["promise"] and mutant["tests"]):
        return ["lacks a key, a test or a promise"]
    text = (root / mutant["file"]).read_text(encoding="utf-8")
    told = []
    if text.count(mutant["find"]) != 1:
        told.append(f"its text stands {text.count(mutant['find'])} times in {mutant['file']}")
    else:
        changed = text.replace(mutant["find"], mutant["replace"])
        if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text)):
            told.append("changes nothing")
    for test in mutant["tests"]:
        file, _, name = test.partition("::")
        if not (root / file).is_file():
            told.append(f"there is no {file}")
        elif name and name.partition("[")[0] not in functions_in(root / file):
            told.append(f"there is no {test}")
    return told


def test_every_mutant_applies_to_one_place_and_names_tests_that_are_there() -> None:
    told = {mutant.get("name"): found for mutant in MUTANTS if (found := faults(mutant, ROOT))}
    assert told == {}
    names = Counter(mutant["name"] for mutant in MUTANTS)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"find": "no such text"}, "stands 0 times"),
        ({"find": "entry"}, "times in shared/audit_lines.py"),
        ({"replace": MUTANTS[0]["find"]}, "changes nothing"),
        ({"tests": ["tests/shared/test_nothing.py"]}, "there is no tests/shared/test_nothing.py"),
        ({"tests": ["tests/shared/test_audit_chain.py::test_no"]}, "test_no"),
        ({"tests": []}, "lacks"),
    ],
)
def test_a_mutant_that_does_not_fit_is_found(change: dict[str, Any], fault: str) -> None:
    assert faults(MUTANTS[0], ROOT) == []
    assert fault in "\n".join(faults({**MUTANTS[0], **change}, ROOT))


CODE = "def positive(number):\n    return number > 0\n"
TEST = "from code_of import positive\n\ndef test_one():\n    assert positive(1)\n"


@pytest.mark.parametrize(
    ("find", "replace", "code", "told"),
    [
        ("> 0", "< 0", 0, "killed by test_code.py::test_one"),
        ("> 0", ">= 0", 1, "SURVIVED"),
        ("> 1", ">= 0", 1, "does not apply: its text stands 0 times"),
    ],
)
def test_a_mutant_that_survives_or_does_not_apply_fails_the_run(
    find: str, replace: str, code: int, told: str, tmp_path: Path
) -> None:
    tree, listed = tmp_path / "tree", tmp_path / "list.toml"
    tree.mkdir()
    (tree / "code_of.py").write_text(CODE)
    (tree / "test_code.py").write_text(TEST)
    fields = {"name": "it", "file": "code_of.py", "find": find, "replace": replace, "promise": "p"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
    listed.write_text("\n".join(["[[mutant]]", *lines, 'tests = ["test_code.py"]']))
    words = ["--root", str(tree), "--list", str(listed), "--jobs", "1"]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert told in done.stdout
    assert (tree / "code_of.py").read_text() == CODE
