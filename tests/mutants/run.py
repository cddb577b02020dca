"""Run the list of mutants: each breaks one promise in the code, and some test must notice.

    list ─→ applied in a copy of the tree ─pytest -x→ killed, or it survived
                 └ unmutated first: the same tests must pass

The working tree is never changed. The exit code is 1 if a mutant survives, if its text is not found
exactly once, if no verdict is reached within the time limit, or if the unmutated tests fail.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.toml")
LEFT_OUT = (".*", "runs", "dist", "__pycache__", "*.egg-info", "node_modules")
LIMIT = 300.0  # seconds for the tests of one mutant; they take about 10 on a quiet machine
ALL_LIMIT = 1800.0  # seconds for all tests without a mutant
MEMORY = 6 * 2**30  # bytes of a test process: a mutant may leave out the check of a size
KILLED, PASSED = 1, 0  # exit codes of pytest: tests failed, all passed


@dataclass(frozen=True)
class Mutant:
    """One change of the code.

    Attributes:
        name: unique, a few words.
        file: path in the tree.
        find: text that stands in it exactly once.
        replace: what takes its place.
        tests: of pytest, files or single tests.
        promise: what the change breaks.
    """

    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    promise: str

    def applied(self, text: str) -> str:
        """The file's text with the change.

        Raises:
            ValueError: the text to find is not there exactly once, or what results is no Python.
        """
        if (count := text.count(self.find)) != 1:
            raise ValueError(f"its text stands {count} times in {self.file}")
        changed = text.replace(self.find, self.replace)
        compile(changed, self.file, "exec")  # SyntaxError is a ValueError of its own kind
        return changed


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        mutant: which.
        killed: whether a test failed.
        by: that test, or why there is no verdict.
        seconds: it took.
    """

    mutant: Mutant
    killed: bool
    by: str
    seconds: float


def read(path: Path) -> list[Mutant]:
    """The mutants of a list."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def run_tests(tree: Path, tests: Iterable[str], limit: float) -> tuple[int | None, str]:
    """Exit code and output of pytest in a tree; None where it took longer than `limit` seconds."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line"]
    kept = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "250"}
    with subprocess.Popen(
        [*words, *tests],
        cwd=tree,
        env={**os.environ, **kept},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_with_little_memory,
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the process and whatever it has started
            output, _ = process.communicate()
            return None, output
    return process.returncode, output


def _with_little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def judged(mutant: Mutant, tree: Path) -> Verdict:
    """Apply a mutant in a copy of the tree, run its tests, and take it back."""
    began, path = time.monotonic(), tree / mutant.file
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text(mutant.applied(original), encoding="utf-8")
        code, output = run_tests(tree, mutant.tests, LIMIT)
    except (ValueError, SyntaxError) as fault:
        return Verdict(mutant, False, f"does not apply: {fault}", 0.0)
    finally:
        path.write_text(original, encoding="utf-8")
    seconds = time.monotonic() - began
    if code == KILLED:
        found = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+\.py::\S+)", output, re.MULTILINE)
        return Verdict(mutant, True, found[1] if found else "?", seconds)
    if code == PASSED:
        return Verdict(mutant, False, "SURVIVED", seconds)
    last = output.strip().splitlines()[-1:] or [""]
    why = f"no verdict in {LIMIT:.0f} s" if code is None else f"pytest ended with {code}: {last[0]}"
    return Verdict(mutant, False, why, seconds)


def table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown table."""
    rows = [
        f"| {it.mutant.name} | `{it.mutant.file}` | {it.mutant.promise} | {shown(it)} |"
        f" {it.seconds:.0f} |"
        for it in verdicts
    ]
    head = ["| mutant | file | promise that it breaks | killed by | s |", "| --- " * 5 + "|"]
    return "\n".join([*head, *rows]) + "\n"


def shown(verdict: Verdict) -> str:
    """The test's name, or in capitals why there is none."""
    return f"`{verdict.by.partition('::')[2]}`" if verdict.killed else f"**{verdict.by}**"


def unmutated(mutants: Sequence[Mutant], trees: Sequence[Path]) -> str:
    """Why the tests of the list fail without any mutant; empty if they pass."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    # A file that is named as a whole needs none of its tests by themselves.
    tests = [it for it in tests if "::" not in it or it.partition("::")[0] not in tests]
    files = sorted({test.partition("::")[0] for test in tests})
    shares = [
        [test for test in tests if files.index(test.partition("::")[0]) % len(trees) == place]
        for place in range(len(trees))
    ]

    def share(place: int) -> tuple[int | None, str]:
        if not shares[place]:
            return PASSED, ""
        return run_tests(trees[place], shares[place], ALL_LIMIT)

    with ThreadPoolExecutor(len(trees)) as pool:
        done = list(pool.map(share, range(len(trees))))
    return "\n".join(output for code, output in done if code != PASSED)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Run mutants; each must be killed by a test.")
    parser.add_argument("words", nargs="*", help="run only mutants with one of these in their name")
    parser.add_argument("--jobs", type=int, default=2, help="at the same time; default 2")
    parser.add_argument("--list", type=Path, default=LIST, help="file of mutants")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree; it is copied")
    parser.add_argument("--table", type=Path, help="write the Markdown table to this file")
    asked = parser.parse_args()
    mutants = [
        it
        for it in read(asked.list)
        if not asked.words or any(word in f"{it.name} {it.file}" for word in asked.words)
    ]
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trees = [Path(scratch) / str(number) for number in range(max(1, asked.jobs))]
        for tree in trees:
            shutil.copytree(asked.root, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
        print(f"{len(mutants)} mutants; first their tests without any", flush=True)
        if fault := unmutated(mutants, trees):
            print(f"{fault}\nthe tests fail without any mutant")
            return 1
        verdicts = everyone(mutants, trees)
    told = table(verdicts)
    print(told)
    if asked.table:
        asked.table.write_text(told, encoding="utf-8")
    left = [it.mutant.name for it in verdicts if not it.killed]
    print(f"{len(verdicts) - len(left)} of {len(verdicts)} killed", *left, sep="\n  not: ")
    return 1 if left or not verdicts else 0


def everyone(mutants: Sequence[Mutant], trees: Sequence[Path]) -> list[Verdict]:
    """The verdicts in the order of the list; a tree serves one mutant at a time."""
    free: queue.Queue[Path] = queue.Queue()
    for tree in trees:
        free.put(tree)

    def one(pair: tuple[int, Mutant]) -> Verdict:
        number, mutant = pair
        tree = free.get()
        try:
            found = judged(mutant, tree)
        finally:
            free.put(tree)
        said = f"killed by {found.by}" if found.killed else found.by
        place = f"{number:3} of {len(mutants)}"
        print(f"{place}  {found.seconds:5.1f} s  {mutant.name}: {said}", flush=True)
        return found

    with ThreadPoolExecutor(len(trees)) as pool:
        return list(pool.map(one, enumerate(mutants, start=1)))


if __name__ == "__main__":
    sys.exit(main())
