"""Fuzz every parser of bytes from outside: `make fuzz`, or `python -m tests.fuzz.run_fuzz --help`.

    corpus, regressions ─→ one process a target: bombs, then atheris ─→ table, findings

A finding is an exception that is no AtollError, a message of several lines, ten seconds of CPU for
one case, or 200 MB more memory than at the start. The case is kept under --out, the run ends with
exit code 1. With --cases the number of cases is set, over all targets.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from tests.fuzz.bombs import bombs
from tests.fuzz.fuzz_target import MEGABYTES, Finding, Target, guarded, peak, reset_peak
from tests.fuzz.mutators import mutate

HERE = Path(__file__).parent
MODULES = ("network", "message", "file", "store", "table")
CASES = 1_100_000
BOMB = 100_000  # levels, keys, digits
WALL = 120  # seconds after which a case counts as hanging, however busy the machine is
FORK = multiprocessing.get_context("fork")
INSTRUMENTED = ["shared", "clients", "server", "simulations", "tomllib", "zipfile"]


@dataclass(frozen=True)
class Outcome:
    """Of one target: cases that ran, seconds, MB of growth, and the findings' keys."""

    name: str
    cases: int
    seconds: float
    megabytes: float
    findings: tuple[str, ...]


def targets(module: str) -> tuple[Target, ...]:
    """Those of one file."""
    found: tuple[Target, ...] = importlib.import_module(f"tests.fuzz.{module}_targets").TARGETS
    return found


def slug(name: str) -> str:
    """A name as a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def kept(target: Target) -> Iterator[Path]:
    """The files of the corpus and the regressions of a target."""
    for folder in ("corpus", "regressions"):
        yield from sorted((HERE / folder / slug(target.name)).glob("*"))


class Watch:
    """Runs cases in a child, and writes down what is found."""

    def __init__(self, target: Target, out: Path) -> None:
        self.target, self.out = target, out
        self.keys: dict[str, str] = {}
        self.highest = 0.0
        self.rebase()

    def rebase(self) -> None:
        """Count memory from here on."""
        reset_peak()
        self.base = peak()

    def check(self, case: bytes) -> None:
        """One case."""
        found = guarded(self.target, case)
        grown = peak() - self.base
        if grown > self.highest + 1:
            self.highest = grown
            (self.out / "megabytes").write_text(f"{grown:.0f}")
        if found is None and grown > MEGABYTES:
            found = Finding("memory", f"{grown:.0f} MB after a case of {len(case):,} bytes")
            self.rebase()
        if found is not None and found.key not in self.keys:
            name = f"{len(self.keys) + 1:02}-{slug(found.key)}"
            self.keys[found.key] = name
            (self.out / name).write_bytes(case)
            (self.out / f"{name}.txt").write_text(found.told[-8000:], errors="backslashreplace")
            (self.out / "findings.json").write_text(json.dumps(list(self.keys)))


def child(target: Target, *, runs: int, out: Path, seed: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    log = os.open(out / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    scratch = importlib.import_module("tests.fuzz.material").scratch
    (out / "scratch").write_text(str(scratch()))
    corpus = out / "corpus"
    corpus.mkdir()
    for place, case in enumerate([*target.seeds(), *(path.read_bytes() for path in kept(target))]):
        (corpus / f"{place:03}").write_bytes(case)
        guarded(target, case)  # what is imported or cached at the first use counts for nobody
    watch = Watch(target, out)
    signal.signal(signal.SIGALRM, hanging)
    for place, (_, case) in enumerate(bombs(target, BOMB), start=1):
        watch.rebase()  # the case itself is none of the parser's memory
        (out / "bombs").write_text(str(place))
        (out / "hanging").write_bytes(case)
        signal.alarm(WALL)
        watch.check(case)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # libFuzzer's timer takes no place that is taken
    (out / "hanging").unlink(missing_ok=True)
    watch.rebase()
    atheris: Any = importlib.import_module("atheris")

    def mutated(case: bytes, longest: int, number: int) -> bytes:
        made = mutate(target.form, case, number) if number % 2 else None
        if made is None or len(made) > longest:
            made = bytes(atheris.Mutate(case, longest))
        return made

    flags = {
        "runs": runs,
        "seed": seed,
        "max_len": target.longest,
        "timeout": WALL,
        "rss_limit_mb": 4096,
        "print_final_stats": 1,
        "artifact_prefix": f"{out}/",
    }
    if target.words:
        (out / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        flags["dict"] = out / "words"
    argv = [sys.argv[0], *(f"-{flag}={value}" for flag, value in flags.items()), str(corpus)]
    structured = {} if target.form == "bytes" else {"custom_mutator": mutated}
    atheris.Setup(argv, watch.check, **structured)
    atheris.Fuzz()


def hanging(_signal: int, _frame: object) -> None:
    """Ends a bomb's case; for the fuzzer's own cases libFuzzer has a timer."""
    raise TimeoutError(f"no end after {WALL} s")


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


@dataclass
class Running:
    """A target that is being fuzzed."""

    target: Target
    out: Path
    process: ForkProcess
    began: float


def start(target: Target, *, runs: int, out: Path, seed: int) -> Running:
    """Fork a process that fuzzes one target: what is imported is there already."""
    folder = out / slug(target.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = {"runs": runs, "out": folder, "seed": seed}
    process = FORK.Process(target=child, args=(target,), kwargs=options)
    process.start()
    return Running(target, folder, process, time.monotonic())


def ended(running: Running) -> Outcome:
    """What came of it."""
    running.process.join()
    folder, seconds = running.out, time.monotonic() - running.began
    shutil.rmtree(_read(folder / "scratch", "") or folder / "none", ignore_errors=True)
    log = (folder / "log").read_text(errors="replace")
    counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", log)
    keys = list(json.loads(_read(folder / "findings.json", "[]")))
    if running.process.exitcode != 0 or counted is None:
        keys.append(f"ended with code {running.process.exitcode}: see {folder}/log")
    cases = int(counted[1]) if counted else 0
    cases += int(_read(folder / "bombs", "0"))
    megabytes = float(_read(folder / "megabytes", "0"))
    return Outcome(running.target.name, cases, seconds, megabytes, (*keys,))


def _read(path: Path, default: str) -> str:
    return path.read_text() if path.exists() else default


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as Markdown."""
    lines = [
        "| target | cases | seconds | peak growth, MB | findings |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {it.name} | {it.cases:,} | {it.seconds:.0f} | {it.megabytes:.0f} | {len(it.findings)} |"
        for it in outcomes
    ]
    total = sum(it.cases for it in outcomes)
    findings = sum(len(it.findings) for it in outcomes)
    most = max(it.megabytes for it in outcomes)
    seconds = sum(it.seconds for it in outcomes)
    lines.append(
        f"| {len(outcomes)} targets | {total:,} | {seconds:.0f} | {most:.0f} | {findings} |"
    )
    return "\n".join(lines) + "\n"


def told(outcome: Outcome, out: Path) -> None:
    """Progress, and where the findings are."""
    where = out / slug(outcome.name)
    sys.stderr.write(f"{outcome.name}: {outcome.cases:,} cases, {outcome.seconds:.0f} s\n")
    for key in outcome.findings:
        sys.stderr.write(f"  FINDING {key}: {where}\n")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=CASES, help="over all targets")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--only", nargs="*", default=[], help="names of targets, or parts of them")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--seed", type=int, default=1, help="another one makes other cases")
    given = parser.parse_args()
    out = given.out.resolve()
    atheris: Any = importlib.import_module("atheris")
    with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=INSTRUMENTED):
        every = [target for module in MODULES for target in targets(module)]
    whole = sum(target.share for target in every)
    waiting = [
        target
        for target in every
        if not given.only or any(part in target.name for part in given.only)
    ]
    outcomes: list[Outcome] = []
    running: list[Running] = []
    gc.freeze()
    while waiting or running:
        while waiting and len(running) < given.jobs:
            target = waiting.pop(0)
            runs = max(1, round(given.cases * target.share / whole))
            running.append(start(target, runs=runs, out=out, seed=given.seed))
        wait([it.process.sentinel for it in running])
        for it in [it for it in running if not it.process.is_alive()]:
            running.remove(it)
            outcomes.append(ended(it))
            told(outcomes[-1], out)
    text = table(outcomes)
    (out / "table.md").write_text(text)
    sys.stdout.write(text)
    return 1 if any(it.findings for it in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
