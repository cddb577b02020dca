"""What a step under a Plan costs beside one without: time and memory, side by side in one run.

Both train the adapter of the shipped backbone's shape on the same 256 Histories against 12,101
items. Each mode runs in a process of its own, in turns; medians count. Memory is what the steps add
to the process at its peak, so that what Python and torch take anyway hides nothing.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from clients.private import PrivateEngine
from clients.randomness import secure
from server.pretrain import SHAPE
from shared.backbone import new_backbone
from shared.events import from_lists
from shared.plan import Plan
from shared.tasks import next_item
from shared.text import Progress, silent
from shared.training import PlainEngine, Recipe, Rows, Speed

BATCH = 256
ITEMS = 12_101  # of Amazon Beauty, as is the mean length
MEAN_LENGTH = 8.9
TURNS = 3  # processes of each mode
STEPS = 5  # timed in each, after one that is not

Mode = Literal["plain", "private"]
MODES: tuple[Mode, ...] = ("plain", "private")


def measure(*, batch: int = BATCH, progress: Progress = silent) -> dict[str, float]:
    """Ratios of a private step to a plain one, and the figures behind them.

    Returns:
        time_ratio and memory_ratio; seconds and megabytes a step by mode.
    """
    found: dict[Mode, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    context = multiprocessing.get_context("spawn")  # nothing of this process' memory
    for turn in range(TURNS):
        for place, mode in enumerate(MODES):
            progress("steps with and without a Plan", turn * len(MODES) + place, TURNS * len(MODES))
            with context.Pool(1) as pool:
                found[mode].append(pool.apply(measured, (mode, batch)))
    progress("steps with and without a Plan", 1, 1)
    seconds = {mode: statistics.median(it[0] for it in found[mode]) for mode in MODES}
    megabytes = {mode: statistics.median(it[1] for it in found[mode]) for mode in MODES}
    return {
        "time_ratio": seconds["private"] / seconds["plain"],
        "memory_ratio": megabytes["private"] / megabytes["plain"],
        **{f"{mode}_seconds": seconds[mode] for mode in MODES},
        **{f"{mode}_megabytes": megabytes[mode] for mode in MODES},
    }


def measured(mode: Mode, batch: int) -> tuple[float, float]:
    """Median seconds of a step, and megabytes that steps add to this process at their peak."""
    torch.set_num_threads(1)
    rows, everyone = made(batch)
    backbone = new_backbone(replace(SHAPE, encoder="none"), seed=0)
    engine: PlainEngine | PrivateEngine
    if mode == "plain":
        recipe = Recipe(batch=batch)
        engine = PlainEngine(backbone, [rows], recipe, rng=np.random.default_rng(0))
    else:
        engine = PrivateEngine(
            backbone,
            [rows],
            Recipe(),
            rng=np.random.default_rng(0),
            plan=plan_of(batch),
            randomness=secure(),
            speed=Speed(),
        )
    before = peak()
    times = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        parts = [(0, everyone)] if isinstance(engine, PlainEngine) else engine.cut(everyone)
        for _which, piece in parts:
            padded = next_item.pad(rows.histories, piece, max_length=backbone.spec.max_length)
            engine.take(next_item.losses(backbone, rows.table, padded))
        engine.step(rate=0.001)
        times.append(time.perf_counter() - began)
    engine.close()
    return statistics.median(times[1:]), (peak() - before) / 1e6


def made(batch: int) -> tuple[Rows, NDArray[np.int64]]:
    """Histories of random length and items, the same in each process."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.geometric(1 / (MEAN_LENGTH - 2), batch) + 2, 3, 50)
    histories = from_lists(
        [rng.integers(ITEMS, size=int(it)).astype(np.int32) for it in lengths],
        tuple(map(str, range(batch))),
    )
    vectors = rng.normal(size=(ITEMS, SHAPE.text_width)).astype(np.float32)
    return Rows(histories, F.normalize(torch.from_numpy(vectors), dim=1)), np.arange(batch)


def plan_of(batch: int) -> Plan:
    """Numbers of a Plan that this batch would be of; its costs do not depend on them."""
    return Plan(
        clip=1.0,
        noise_multiplier=1.0,
        sampling_rate=0.01,
        steps=STEPS,
        expected_batch=float(batch),
        epsilon=8.0,
        delta=1e-6,
        shoppers_at_least=100 * batch,
        update_norm=100.0,
    )


def peak() -> int:
    """Bytes of memory this process had at most; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
