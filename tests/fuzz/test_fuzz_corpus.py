"""Every parser of outside bytes: the seed corpus, past findings, and small bombs. `make fuzz` runs
the fuzzer itself.
"""

from __future__ import annotations

import pytest

from tests.fuzz.bombs import bombs
from tests.fuzz.fuzz_target import Finding, Target, each, guarded
from tests.fuzz.run_fuzz import HERE, MODULES, kept, slug, targets

EVERY = {target.name: target for module in MODULES for target in targets(module)}
# Long and deep tables are left to `make fuzz`; the parser of a Plan is that of the other TOML.
DEEP = [name for name in EVERY if not name.startswith("tables:") and "Plan" not in name]
SMALL = 1_500  # levels: more than Python's own limit of 1,000


@pytest.mark.parametrize("name", EVERY)
def test_seeds_and_past_findings_give_no_more_than_one_line(name: str) -> None:
    target = EVERY[name]
    files = {str(path.relative_to(HERE)): path.read_bytes() for path in kept(target)}
    assert any(path.startswith("corpus") for path in files), "run python -m tests.fuzz.make_corpus"
    found = {path: guarded(target, case) for path, case in files.items()}
    assert {path: it.told for path, it in found.items() if it is not None} == {}


@pytest.mark.parametrize("name", DEEP)
def test_deep_and_long_input_gives_no_more_than_one_line(name: str) -> None:
    target = EVERY[name]
    found = {bomb: guarded(target, case) for bomb, case in bombs(target, SMALL)}
    assert {bomb: it.told for bomb, it in found.items() if it is not None} == {}


def test_no_folder_of_cases_lacks_its_target() -> None:
    folders = {path.name for kind in ("corpus", "regressions") for path in (HERE / kind).iterdir()}
    assert folders <= {slug(name) for name in EVERY}


def test_a_traceback_and_a_message_of_two_lines_are_findings() -> None:
    def fail(_case: bytes) -> None:
        raise KeyError("of the parser")

    def two_lines(_case: bytes) -> None:
        each(lambda: int("no number\n2"))

    for check, key in ((fail, "KeyError at"), (two_lines, "ValueError at")):
        found = guarded(Target("one", check, list), b"")
        assert isinstance(found, Finding)
        assert found.key.startswith(key)
