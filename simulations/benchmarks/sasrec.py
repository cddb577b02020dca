"""Ours beside RecBole's SASRec on one table: NDCG@10, and the time to the best of it.

    rows ─read→ Histories ─fit→ Recall ─rank→ ours
             └─write→ atoll.inter ─RecBole's own interpreter→ scores [S, N] ─rank→ SASRec

Both answer the same Questions, are ranked by shared/ranking.py, and use as many threads as torch
has here. RecBole asks for older packages than ours, so it lives in an environment of its own, named
by its interpreter; `sasrec_in_recbole.py` is what runs there.

    S  shoppers      N  items
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients import beside
from clients.platform import Platform
from shared.errors import ConfigError
from shared.events import Histories, Question
from shared.metrics import hit_rate, ndcg, paired
from shared.ranking import rank
from shared.tables.config import PlatformConfig
from shared.tables.table import read_platform
from shared.text import Progress, find_encoder, silent
from simulations.benchmarks.recbole_process import answers, checked, given
from simulations.benchmarks.ties import PARTS, shuffled
from simulations.untrained import opened

log = logging.getLogger("atoll.sasrec")
SAME = 1e-6  # of a mean: what two orders of adding it up may differ by

# As RecBole 1.2.1 documents SASRec; what is left out are its own defaults, written down so that a
# later default changes nothing.
SETTINGS: dict[str, Any] = {
    "n_layers": 2,
    "n_heads": 2,
    "hidden_size": 64,
    "inner_size": 256,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5,
    "loss_type": "CE",  # full softmax
    "train_neg_sample_args": None,  # which takes no negatives
    "learning_rate": 0.001,
    "train_batch_size": 2048,
    "epochs": 300,
    "stopping_step": 10,
    "seed": 2020,
    "MAX_ITEM_LIST_LENGTH": 50,
}


@dataclass(frozen=True)
class Exported:
    """A `shared.ranking.Scorer` that reads what SASRec wrote.

    Attributes:
        values: [S, N] of the shoppers of one Question.
        row: of each shopper.
    """

    values: NDArray[np.float32]
    row: Mapping[str, int]

    @classmethod
    def read(cls, path: Path, asked: Question) -> Exported:
        """A file of scores in the order of the Question's shoppers; it stays on the disk."""
        row = {shopper: place for place, shopper in enumerate(asked.contexts.shoppers)}
        return cls(np.load(path, mmap_mode="r"), row)

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N]."""
        return self.values[[self.row[it] for it in contexts.shoppers]]


def measure(
    config: PlatformConfig,
    *,
    interpreter: Path,
    minutes: float,
    shuffle: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Both on one table, one after the other.

    Args:
        config: of the table, public rows.
        interpreter: has RecBole and torch.
        minutes: of SASRec's training; what it has when they are over is its last state.
        shuffle: a seed by which the order within ties is drawn anew first; None leaves it.
        progress: called after each epoch, among others.

    Raises:
        ConfigError: as of `recbole_process.answers`.
        DataError: as of `read_platform`.
        ValueError: the figure by which SASRec chose its state is not ours. A fault of the program.
    """
    there = checked(interpreter)
    mine = ours(config, shuffle=shuffle, progress=progress)
    questions: dict[str, Question] = {part: mine.platform.question(part) for part in PARTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = len(mine.platform.rows.catalogue)
        asked = {"minutes": minutes, "threads": torch.get_num_threads(), "items": items}
        given(
            folder, mine.platform.rows.histories, questions, asked={**asked, "settings": SETTINGS}
        )
        ready, epochs, end = trained(interpreter, folder, minutes, progress)
        exported = Exported.read(folder / "scores.npy", questions["test"])
        theirs = rank(exported, questions["test"], items=items).ranks
    if abs(end["test"]["ndcg@10"] - reached(theirs)["ndcg@10"]) > SAME:
        raise ValueError("sasrec_in_recbole.py and shared/ranking.py do not rank alike")
    best = [it for it in epochs if it["best"]][-1]
    level = [it for it in epochs if it["ndcg@10"] >= mine.row["validation"]["ndcg@10"]]
    told = paired(ndcg(mine.test), ndcg(theirs), rng=np.random.default_rng(0))
    return {
        "shoppers": len(theirs),
        "items": items,
        "threads": torch.get_num_threads(),
        "ours": mine.row,
        "sasrec": {
            "validation": {name: best[name] for name in ("hr@10", "ndcg@10")},
            "test": reached(theirs),
            "seconds": {"wall": best["wall"], "cpu": best["cpu"]},
            "epoch": best["epoch"],
            "epochs": len(epochs),
            "stopped by": end["stopped by"],
            "until it stopped": {"wall": epochs[-1]["wall"], "cpu": epochs[-1]["cpu"]},
            "level with ours": level[0]["epoch"] if level else None,
            "sequences": ready["sequences"],
            "weights": ready["weights"],
            "device": ready["device"],
            **there,
            "settings": SETTINGS,
        },
        "ours less sasrec": asdict(told),
        "every epoch": epochs,
    }


@dataclass(frozen=True)
class Ours:
    """What a platform has by itself.

    Attributes:
        platform: opened.
        test: [S] ranks.
        row: figures and seconds.
    """

    platform: Platform
    test: NDArray[np.float32]
    row: dict[str, Any]


def ours(config: PlatformConfig, *, shuffle: int | None, progress: Progress) -> Ours:
    """Prior and own memory, fitted on the validation part and mixed with what is pretrained.

    Item vectors are made anew.
    """
    find_encoder(config.encoder)  # loads libraries, which the other side is not charged for either
    spent: dict[str, dict[str, float]] = {}
    with timed(spent, "rows"):
        rows = read_platform(config)
        if shuffle is not None:
            rows = shuffled(rows, seed=shuffle)
    with timed(spent, "item vectors"):
        platform = opened(config, rows=rows, cache=None, progress=progress)
    items = len(rows.catalogue)
    with timed(spent, "memory, fitted"):
        recall = beside.own(platform)
    with timed(spent, "validation ranked"):
        validation = rank(recall, platform.question("validation"), items=items).ranks
    test = rank(recall, platform.question("test"), items=items).ranks
    whole = {it: sum(stage[it] for stage in spent.values()) for it in ("wall", "cpu")}
    less = {it: whole[it] - spent["item vectors"][it] for it in whole}
    row = {
        "validation": reached(validation),
        "test": reached(test),
        "seconds": less,
        "with item vectors": whole,
        "stages": spent,
        "device": platform.table.device.type,
    }
    return Ours(platform, test, row)


def trained(
    interpreter: Path, folder: Path, minutes: float, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """What SASRec told: when it was ready, after each epoch, and at the end.

    Raises:
        ConfigError: it ended before its end.
    """
    found: dict[str, list[dict[str, Any]]] = {"ready": [], "epoch": [], "end": []}
    whole = round(60 * minutes)
    progress("SASRec, seconds", 0, whole)
    for line in answers(interpreter, str(folder)):
        found.setdefault(str(line.get("kind")), []).append(line)
        if line.get("kind") == "epoch":
            progress("SASRec, seconds", min(round(line["wall"]), whole), whole)
            log.info(
                "SASRec, epoch %d: validation NDCG@10 %.4f after %.0f s, %.0f s of CPU",
                *(line[name] for name in ("epoch", "ndcg@10", "wall", "cpu")),
            )
    if not (found["ready"] and found["epoch"] and found["end"]):
        raise ConfigError(
            "said nothing of SASRec's end", where=interpreter, todo="run the command again"
        )
    progress("SASRec, seconds", whole, whole)
    return found["ready"][0], found["epoch"], found["end"][0]


@contextmanager
def timed(spent: dict[str, dict[str, float]], what: str) -> Iterator[None]:
    """Adds the seconds of a stage: on the wall, and of this process on all its cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent[what] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def reached(ranks: NDArray[np.float32]) -> dict[str, float]:
    """HR@10 and NDCG@10 of ranks [S]."""
    return {"hr@10": float(hit_rate(ranks).mean()), "ndcg@10": float(ndcg(ranks).mean())}


def lines(figures: Mapping[str, Any]) -> list[str]:
    """The table, for people."""
    mine, theirs = figures["ours"], figures["sasrec"]
    head = f"{'':<26}{'validation':<20}{'test':<20}seconds to it"
    names = f"{'':<26}{'HR@10     NDCG@10   ' * 2}wall      CPU"
    rows = [
        row("ours", mine, mine["seconds"]),
        row("  with item vectors", {}, mine["with item vectors"]),
        row(f"SASRec, epoch {theirs['epoch']}", theirs, theirs["seconds"]),
        row(f"  until epoch {theirs['epochs']}", {}, theirs["until it stopped"]),
    ]
    less = figures["ours less sasrec"]
    low, high = less["ci95"]
    why = {
        "time": "stopped because its minutes were over; its best state counts",
        "patience": f"stopped because {SETTINGS['stopping_step']} epochs and one were no better",
        "epochs": "ended with its last epoch",
    }[theirs["stopped by"]]
    return [
        head,
        names,
        *rows,
        "",
        f"NDCG@10 on test, ours less SASRec's: {less['difference']:+.4f}"
        f" (95 % interval {low:+.4f} to {high:+.4f}, p {less['p']:.4f})",
        f"SASRec {why}.",
        f"{figures['shoppers']:,} shoppers, {figures['items']:,} items;"
        f" threads of torch on either side: {figures['threads']};"
        f" ours had {mine['device']}, SASRec {theirs['device']}.",
    ]


def row(name: str, found: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """One line of it."""
    parts = [
        f"{found[part][metric]:<10.4f}" if found else " " * 10
        for part in PARTS
        for metric in ("hr@10", "ndcg@10")
    ]
    return f"{name:<26}{''.join(parts)}{seconds['wall']:<10.1f}{seconds['cpu']:.1f}"
