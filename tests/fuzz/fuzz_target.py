"""A fuzz target: one parser of bytes from outside, and what may come out of it.

    case: bytes ─Target.run→ nothing or an AtollError        anything else is a finding

A target's `check` calls the parser of the product, with everything that the product does with the
result before it trusts it. `guarded` turns any other exception, too much CPU time and too much
memory into a Finding.
"""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.errors import AtollError

SECONDS = 10.0  # of CPU that one case may take; a busy machine does not lengthen it
LONGEST = 2_000  # characters of a message
MEGABYTES = 200  # by which the process may grow, over all cases

Form = Literal["bytes", "json", "toml", "tensors"]  # how cases are mutated


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: of it, and of its folder in the corpus.
        check: hands one case to the parser.
        seeds: cases from which the fuzzer starts: at least one that is accepted.
        form: what its mutator understands, beside single bytes.
        words: strings that the fuzzer puts into cases.
        longest: bytes of a case that the fuzzer makes.
        share: of all cases, relative to the other targets.
    """

    name: str
    check: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    form: Form = "bytes"
    words: tuple[bytes, ...] = ()
    longest: int = 8192
    share: float = 1.0


@dataclass(frozen=True)
class Finding:
    """What must not have happened.

    Attributes:
        key: the same for cases with the same cause.
        told: the traceback, or how much was used.
    """

    key: str
    told: str


def guarded(target: Target, case: bytes) -> Finding | None:
    """Run one case; the Finding, if it is one."""
    began = time.process_time()
    try:
        each(lambda: target.check(case))
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # a panic of Rust code is no Exception
        return Finding(_cause(fault), traceback.format_exc())
    took = time.process_time() - began
    if took > SECONDS:
        return Finding("slow", f"{took:.1f} s of CPU for {len(case):,} bytes")
    return None


def each(check: Callable[[], object]) -> None:
    """One of several parsers of the same case: an AtollError from it does not end the others."""
    try:
        check()
    except AtollError as fault:
        check_message(str(fault))


def check_message(text: str) -> None:
    """Raises: ValueError if a message is no line that can be read in one look."""
    if "\n" in text:
        raise ValueError(f"more than one line: {text[:LONGEST]!r}")
    if len(text) > LONGEST:
        raise ValueError(f"a message of {len(text):,} characters: {text[:LONGEST]}")


def peak() -> float:
    """The most memory that this process has used since `reset_peak`, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak() -> None:
    """Forget how much memory was used before."""
    Path("/proc/self/clear_refs").write_text("5")


def _cause(fault: BaseException) -> str:
    """The exception's type, and the line of ours that was innermost."""
    frames = traceback.extract_tb(fault.__traceback__)
    ours = [it for it in frames if not {"site-packages", "lib"} & set(Path(it.filename).parts)]
    inner = ours[-1] if ours else frames[-1]
    return f"{type(fault).__name__} at {Path(inner.filename).name}:{inner.lineno}"
