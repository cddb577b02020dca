"""Every test runs the same way everywhere: no network, no telemetry, the same random examples.

Below that, a world small enough to check by hand: a random text encoder of width 16, a backbone
made for it, and functions that write a platform's tables, or a scenario of three platforms.
"""

from __future__ import annotations

import os

# Before any test module imports the libraries that read these.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tensors are tiny here: a second thread would only wait for the first, above all on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"
# pytest-xdist gives its processes a width, which would stay fixed whatever a test sets.
os.environ.pop("COLUMNS", None)

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# No deadline: a busy machine is no fault of the code. Derandomised: a red test stays red.
settings.register_profile("atoll", deadline=None, derandomize=True)
settings.load_profile("atoll")

WORDS = ("tea", "cup", "red", "oak", "ink", "pen", "wool", "salt", "lamp", "rope", "bell", "kite")


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's state and cache folders are the tests' own, for child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg")))
        yield


@pytest.fixture(autouse=True)
def _handlers_of_its_own() -> Iterator[None]:
    """A command that a test runs sends log lines to a stream that is closed once the test ends."""
    loggers = [logging.getLogger(name) for name in (None, "flwr")]
    before = [list(logger.handlers) for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder in Hugging Face layout: two layers of random weights, a few words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(vocabulary)})
    shape = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_backbone(encoder: Path) -> Callable[..., Path]:
    """Writes a backbone of width 8 for the encoder; another seed is another backbone."""
    from shared.backbone import BackboneSpec, new_backbone, save_backbone
    from shared.text import find_encoder

    def make(path: Path, *, seed: int = 0) -> Path:
        digest = find_encoder(str(encoder)).digest
        spec = BackboneSpec(encoder=digest, text_width=16, width=8, heads=2, rank=2, out_rank=4)
        save_backbone(new_backbone(spec, seed=seed), path)
        return path

    return make


@pytest.fixture(scope="session")
def backbone(make_backbone: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone that all platforms here have, unless a test gives them another."""
    return make_backbone(tmp_path_factory.mktemp("backbone") / "backbone.safetensors")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of item vectors that all tests share, so that a catalogue is read once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def write_tables() -> Callable[..., None]:
    """Writes interactions.tsv and items.tsv: shoppers that step through the catalogue.

    Each next item is one to three places on, so no shopper meets an item twice and there is
    something to learn. Item `NAME-00`, shopper `NAME-shopper-00`; three words a text.
    """

    def write(
        folder: Path, name: str = "shop", *, shoppers: int = 10, items: int = 16, seed: int = 0
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        rows = ["user\titem\tpos"]
        for shopper in range(shoppers):
            place = int(rng.integers(items))
            for position in range(4 + shopper % 2):
                rows.append(f"{name}-shopper-{shopper:02}\t{name}-{place:02}\t{position}")
                place = (place + int(rng.integers(1, 4))) % items
        (folder / "interactions.tsv").write_text("\n".join(rows) + "\n")
        texts = islice(permutations(WORDS, 3), 37 * seed, None, 7)
        named = [f"{name}-{item:02}\t{' '.join(next(texts))}" for item in range(items)]
        (folder / "items.tsv").write_text("\n".join(["item\ttext", *named]) + "\n")

    return write


@pytest.fixture(scope="session")
def make_platform(
    write_tables: Callable[..., None], encoder: Path, backbone: Path, cache: Path
) -> Callable[..., Path]:
    """Writes a platform's tables and its platform.toml, and gives the path of the latter."""

    def make(
        folder: Path,
        name: str = "shop",
        *,
        shoppers: int = 10,
        items: int = 16,
        seed: int = 0,
        weight: float = 1.0,
        share_metrics: bool = False,
        backbone: Path = backbone,
        cache: Path = cache,
        privacy: str = "unprotected = true",
        more: str = "",
    ) -> Path:
        write_tables(folder, name, shoppers=shoppers, items=items, seed=seed)
        path = folder / "platform.toml"
        path.write_text(
            f"""
[platform]
name = {json.dumps(name)}
weight = {weight}
[events]
path = "interactions.tsv"
columns = {{ shopper = "user", item = "item", order = "pos" }}
[items]
path = "items.tsv"
columns = {{ item = "item", text = "text" }}
[backbone]
path = {json.dumps(str(backbone))}
encoder = {json.dumps(str(encoder))}
cache = {json.dumps(str(cache))}
[privacy]
answer_seconds = 0.0
{privacy}
{more}
[evaluation]
share_metrics = {json.dumps(share_metrics)}
"""
        )
        return path

    return make


@pytest.fixture(scope="session")
def trio(
    make_platform: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Three platforms of different size and weight, by name; "harbour" alone shares its metrics."""
    folder = tmp_path_factory.mktemp("trio")
    return {
        "atelier": make_platform(folder / "a", "atelier", shoppers=8, items=16, seed=1),
        "harbour": make_platform(
            folder / "h", "harbour", shoppers=14, items=24, seed=2, weight=2.0, share_metrics=True
        ),
        "kiosk": make_platform(folder / "k", "kiosk", shoppers=10, items=18, seed=3, weight=0.5),
    }


@pytest.fixture(scope="session")
def make_scenario(
    write_tables: Callable[..., None], encoder: Path, backbone: Path
) -> Callable[..., Path]:
    """Writes three platforms' tables and a scenario of two rounds beside them."""

    def make(folder: Path, *, more: str = "", backbone: Path | None = backbone) -> Path:
        lines = ['title = "Three small shops"']
        for seed, (name, shoppers) in enumerate({"a": 24, "b": 12, "c": 9}.items(), start=1):
            write_tables(folder / name, name, shoppers=shoppers, items=14 + 4 * seed, seed=seed)
            lines += ["[[platforms]]", f'name = "{name}"', f"weight = {seed / 2}"]
            lines += ["[platforms.events]", f'path = "{name}/interactions.tsv"']
            lines += ['columns = { shopper = "user", item = "item", order = "pos" }']
            lines += ["[platforms.items]", f'path = "{name}/items.tsv"']
            lines += ['columns = { item = "item", text = "text" }']
        lines += ["[backbone]", f"encoder = {json.dumps(str(encoder))}"]
        lines += [f"path = {json.dumps(str(backbone))}"] if backbone else []
        lines += ["[federation]", "rounds = 2", "batch = 4", "learning_rate = 0.05"]
        lines += ["[comparison]", "personalise_epochs = 1", more]
        path = folder / "small.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return make


@pytest.fixture(scope="session")
def run_federation(backbone: Path) -> Callable[..., object]:
    """Runs the deployed apps in one process and gives the server's Registry.

    Keys of a federation are keyword arguments; by default two rounds with a quorum of two.
    """
    from clients.app import app as client_app
    from server.app import app as server_app
    from server.registry import Registry
    from simulations.harness import Config, Fault, run_in_process

    def run(
        files: Mapping[str, Path],
        folder: Path,
        *,
        threads: int = 1,
        faults: Sequence[Fault] = (),
        backbone: Path = backbone,
        resume: bool = False,
        **federation: bool | float | int | str,
    ) -> Registry:
        config: Config = {
            "rounds": 2,
            "quorum": 2,
            "batch": 4,
            "learning_rate": 0.05,
            "backbone": str(backbone),
            "folder": str(folder),
            "resume": resume,
            **federation,
        }
        nodes: dict[str, Config] = {name: {"platform": str(path)} for name, path in files.items()}
        run_in_process(
            server_app, client_app, run_config=config, nodes=nodes, threads=threads, faults=faults
        )
        return Registry(folder)

    return run


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Calls a program's entry point as its command line would: exit code, output, errors."""
    import torch

    def call(main: Callable[[], None], *words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
        threads = torch.get_num_threads()
        try:
            with pytest.raises(SystemExit) as left:
                main()
        finally:
            torch.set_num_threads(threads)  # a command shares the cores out anew
        told = capsys.readouterr()
        return int(left.value.code or 0), told.out, told.err

    return call


@pytest.fixture
def refused(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., str]:
    """The one line with which a command refuses its input; it must leave tmp_path as it was."""

    def listing() -> dict[Path, bytes | None]:
        return {it: it.read_bytes() if it.is_file() else None for it in tmp_path.rglob("*")}

    def call(main: Callable[[], None], *words: str | Path) -> str:
        before = listing()
        code, out, err = typed(main, *words)
        *progress, line = err.splitlines()
        assert (code, out) == (2, ""), err
        assert line.startswith("error: ")
        assert not any(re.search("error|Traceback|  File ", other) for other in progress), err
        assert "-shopper-" not in err  # nobody's identifier
        assert listing() == before  # nothing half-written, nothing left behind
        return line.removeprefix("error: ")

    return call


@pytest.fixture
def lagoon(tmp_path: Path) -> Iterator[object]:
    """A SuperLink over real TLS, and the keys of the platforms that it knows."""
    from flwr.supercore.task_identity import TaskIdentity

    from simulations.lagoon import Lagoon

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    yield (made := Lagoon(tmp_path))
    made.end()
