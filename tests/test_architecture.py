"""The layout holds: each rule reads source text, keeps the tree, and is shown able to fail."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
CEILING = 400  # lines; one concept a file, usually 80 to 250

# Who may import whom, of ours. `tests` and `simulations` may import all.
MAY_IMPORT = {
    "shared": {"shared"},
    "clients": {"clients", "shared"},
    "server": {"server", "shared"},
    "simulations": {"clients", "server", "shared", "simulations"},
}
OURS = {*MAY_IMPORT, "tests"}

# They speak Flower's Fleet API, for which 1.39 has no public module.
DAEMONS = {
    "clients/link.py",
    "clients/supernode.py",
    "clients/worker.py",
    "clients/workers.py",
    "server/calls.py",
    "server/fleet.py",
    "server/grid.py",
    "server/replies.py",
    "server/superlink.py",
    "simulations/siege/members.py",  # an enrolled platform that does not keep to it
}
APPS = {"clients/app.py", "server/app.py"}
FLWR_FILES = {*APPS, "shared/asking.py", "shared/records.py", "shared/wire.py", *DAEMONS}
FLWR_PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp"}
# flwr 1.39 makes no Message in one process before TaskIdentity.run_id is set, hence this one
# private module in the harness and in what stands in for platforms.
HARNESS = "simulations/harness.py"
STANDINS = {"simulations/benchmarks/standins.py", "simulations/siege/platforms.py"}
HARNESS_EXTRA = "flwr.supercore.task_identity"
RAY_ENGINE = "flwr.simulation"

CLI = {*DAEMONS, "simulations/cli.py"}  # what they print is what they are for
# What trains an Update that is released, and what is made of everybody's rows (decision 19).
RELEASING = {
    f"clients/{name}.py" for name in ("app", "egress", "pieces", "private", "proof", "train")
}
AT_HOME = {
    f"clients.{name}"
    for name in ("beside", "memory", "recall", "shared_memory", "signals", "weighing")
}
VAGUE = {"common", "helper", "helpers", "misc", "util", "utils"}
TAKEN = {"benchmarks", "examples"}  # Opacus installs top-level packages of these names

Files = Mapping[str, str]  # path in the tree → source text
Rule = Callable[[Files], list[str]]


def tree() -> dict[str, str]:
    """Every Python file of ours."""
    folders = (ROOT / name for name in (*sorted(OURS), "deploy", "docs"))
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
    }


def imports(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = PurePosixPath(path).parts[: -node.level] if node.level else ()
            yield node.lineno, ".".join((*here, *filter(None, [node.module])))


def part(path: str) -> str:
    return PurePosixPath(path).parts[0]


def import_direction(files: Files) -> list[str]:
    return [
        f"{path}:{line} imports {name}: {part(path)} may import only {sorted(allowed)}; "
        "move what both sides need to shared"
        for path, text in files.items()
        if (allowed := MAY_IMPORT.get(part(path)))
        for line, name in imports(path, text)
        if (top := name.partition(".")[0]) in OURS and top not in allowed
    ]


def flwr_in_few_files(files: Files) -> list[str]:
    return [
        f"{path}:{line} imports {name}: keep Flower in {sorted(FLWR_FILES)} and simulations/, "
        "and hand this file plain values"
        for path, text in files.items()
        if path not in FLWR_FILES and part(path) not in {"simulations", "tests"}
        for line, name in imports(path, text)
        if name.partition(".")[0] == "flwr"
    ]


def flwr_public_only(files: Files) -> list[str]:
    def allowed(path: str) -> set[str]:
        extra = {RAY_ENGINE} if part(path) in {"simulations", "tests"} else set()
        return FLWR_PUBLIC | extra | ({HARNESS_EXTRA} if path in {HARNESS, *STANDINS} else set())

    return [
        f"{path}:{line} imports {name}: use {sorted(allowed(path))}, so that the pin can move"
        for path, text in files.items()
        if path not in DAEMONS and part(path) != "tests"  # which compare with Flower's own
        for line, name in imports(path, text)
        if name.partition(".")[0] == "flwr" and name not in allowed(path)
    ]


def memory_stays_at_home(files: Files) -> list[str]:
    return [
        f"{path}:{line} imports {name}: what is released must not be trained on others' rows"
        for path, text in files.items()
        if path in RELEASING
        for line, name in imports(path, text)
        if name in AT_HOME or name.rpartition(".")[0] in AT_HOME
    ]


def file_ceiling(files: Files) -> list[str]:
    return [
        f"{path} has {lines} lines: split it by idea, {CEILING} are the ceiling"
        for path, text in files.items()
        if (lines := len(text.splitlines())) > CEILING
    ]


def telling_names(files: Files) -> list[str]:
    return [
        f"{path} says nothing in {word!r}: name it after its one idea"
        for path in files
        for piece in PurePosixPath(path).with_suffix("").parts
        for word in piece.split("_")
        if word in VAGUE
    ]


def no_packages_under_tests(files: Files) -> list[str]:
    return [
        f"{path}: remove it, tests are folders and not packages"
        for path in files
        if part(path) == "tests" and path.endswith("/__init__.py")
    ]


def unique_test_names(files: Files) -> list[str]:
    paths = [PurePosixPath(path) for path in files if part(path) == "tests"]
    names = Counter(path.name for path in paths if path.name != "conftest.py")
    return [
        f"tests has {count} files named {name}: rename, without packages the name is the module"
        for name, count in names.items()
        if count > 1
    ]


def no_taken_folders(files: Files) -> list[str]:
    return [
        f"{name}/ at the top: Opacus installs a package of that name; put it under simulations/"
        for name in sorted({part(path) for path in files} & TAKEN)
    ]


def ignores_have_codes(files: Files) -> list[str]:
    return [
        f"{path}:{token.start[0]} ignores every type error: name the one, `# type: ignore[code]`"
        for path, text in files.items()
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
        and "type: ignore" in token.string
        and "type: ignore[" not in token.string
    ]


def print_in_cli_only(files: Files) -> list[str]:
    return [
        f"{path}:{node.lineno} prints: return the value, and let {sorted(CLI)} print it"
        for path, text in files.items()
        if path not in CLI
        for node in ast.walk(ast.parse(text, path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


def public_surface(text: str) -> tuple[list[str] | None, set[str]]:
    """A module's `__all__`, and the public names that it defines itself."""
    declared, defined = None, set[str]()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if name == "__all__" and isinstance(node, ast.Assign):
                declared = [str(item) for item in ast.literal_eval(node.value)]
            else:
                defined.add(name)
    return declared, {name for name in defined if not name.startswith("_")}


def sorted_all(files: Files) -> list[str]:
    return [
        f"{path}: sort __all__"
        for path, text in files.items()
        if (declared := public_surface(text)[0]) is not None and declared != sorted(set(declared))
    ]


def whole_error_tree(files: Files) -> list[str]:
    declared, defined = public_surface(files["shared/errors.py"])
    return [
        f"shared/errors.py: {name} must stand both in __all__ and in the module"
        for name in sorted(defined ^ set(declared or []))
    ]


TOO_LONG = "\n" * (CEILING + 1)

# rule → a tree that breaks it
BAD: dict[Rule, Files] = {
    import_direction: {"shared/x.py": "def f():\n    from clients.train import train\n"},
    flwr_in_few_files: {"clients/train.py": "import flwr.app\n"},
    flwr_public_only: {"server/app.py": "from flwr.common import Message\n"},
    memory_stays_at_home: {"clients/train.py": "from clients.memory import Memory\n"},
    file_ceiling: {"shared/x.py": TOO_LONG},
    telling_names: {"shared/text_utils.py": ""},
    no_packages_under_tests: {"tests/shared/__init__.py": ""},
    unique_test_names: {"tests/a/test_x.py": "", "tests/b/test_x.py": ""},
    no_taken_folders: {"examples/first.py": ""},
    ignores_have_codes: {"shared/x.py": "x: int = ''  # type: ignore\n"},
    print_in_cli_only: {"shared/x.py": "print('hello')\n"},
    sorted_all: {"shared/x.py": "__all__ = ['b', 'a']\n"},
    whole_error_tree: {"shared/errors.py": "__all__ = []\n\nclass New: ...\n"},
}

# Neighbours of the bad ones that are right.
GOOD: list[tuple[Rule, Files]] = [
    (import_direction, {"shared/x.py": "import numpy, shared.errors\nfrom . import plan\n"}),
    (import_direction, {"simulations/x.py": "import clients.app, server.app\n"}),
    (flwr_in_few_files, {"simulations/x.py": "from flwr.app import Message\n"}),
    (flwr_public_only, {HARNESS: f"import {HARNESS_EXTRA}, {RAY_ENGINE}\n"}),
    (flwr_public_only, {"clients/link.py": "import flwr.supernode\n"}),
    (memory_stays_at_home, {"clients/recall.py": "from clients.memory import Memory\n"}),
    (file_ceiling, {"shared/x.py": "\n" * CEILING}),
    (ignores_have_codes, {"shared/x.py": "x: int = ''  # type: ignore[assignment]\n"}),
    (print_in_cli_only, {"simulations/cli.py": "print('hello')\n"}),
]

MORE_BAD: list[tuple[Rule, Files]] = [
    (import_direction, {"clients/x.py": "import server\n"}),
    (import_direction, {"server/x.py": "from clients import app\n"}),
    (import_direction, {"clients/x.py": "from ..server import app\n"}),
    (import_direction, {"simulations/x.py": "import tests\n"}),
    (flwr_public_only, {"simulations/compare.py": f"import {HARNESS_EXTRA}\n"}),
    (flwr_public_only, {"server/app.py": "import flwr\n"}),
    (whole_error_tree, {"shared/errors.py": "__all__ = ['Gone']\n"}),
]


@pytest.mark.parametrize("rule", BAD, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    problems = rule(tree())
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("rule", "bad"), [*BAD.items(), *MORE_BAD])
def test_the_rule_names_what_breaks_it(rule: Rule, bad: Files) -> None:
    (problem,) = rule(bad)
    assert ":" in problem  # a place or a number, then what to do


@pytest.mark.parametrize(("rule", "good"), GOOD)
def test_the_rule_lets_its_neighbours_pass(rule: Rule, good: Files) -> None:
    assert rule(good) == []


def test_the_rules_read_the_whole_tree() -> None:
    assert {part(path) for path in tree()} >= {"clients", "server", "shared", "simulations"}


def test_no_folder_at_the_top_has_a_taken_name() -> None:
    here = {f"{path.name}/": "" for path in ROOT.iterdir() if path.is_dir()}
    assert no_taken_folders(here) == []
