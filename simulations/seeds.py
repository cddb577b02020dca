"""One scenario under several seeds: other shoppers in each part, or another world; other noise.

    compare, seed 0 ─┐
    compare, seed 1 ─┼─ gained, by platform and scorer → seeds.json, seeds.md, seeds.html
    …               ─┘

A seed's own interval is over shoppers who happened to be in its test; over seeds the split moves
too. So a gain here is a ratio of means with Student's t over seeds, and its p is Holm's over all
comparisons of the table.
"""

from __future__ import annotations

import ctypes
import gc
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from shared.errors import ConfigError
from shared.files import replacing
from shared.metrics import gained, holm
from simulations.findings import figure, number, percent
from simulations.html import document, listing, panels, table, text
from simulations.plots import INK, MUTED, OTHER, PAPER, SHARED, panel

COLUMNS = ("platform", "scorer", "HR@10", "NDCG@10", "over local", "95 % interval", "p")
Metrics = Mapping[str, Any]


def run_seeds(
    seeds: Sequence[int], out: Path, one: Callable[[int, Path], Metrics], *, resume: bool = False
) -> dict[str, Any]:
    """Compare under each seed in a folder of its own, and write what they say together.

    Args:
        seeds: at least two.
        out: folder of them all.
        one: compares under a seed in a folder, and gives what metrics.json holds.
        resume: a seed that was compared here to its end is read, not compared again.

    Returns:
        What seeds.json holds.

    Raises:
        ConfigError: what a seed left here cannot be read, or is of something else.
    """
    runs = []
    for seed in seeds:
        place = out / f"seed-{seed}"
        there = place / "metrics.json"
        release_memory()
        runs.append(_read(there, seed) if resume and there.is_file() else one(seed, place))
    kinds = {
        (run["scenario"], run["title"], tuple(run["scorers"]), tuple(run["platforms"]))
        for run in runs
    }
    if len(kinds) > 1:
        raise ConfigError(
            "holds seeds of another scenario, of other scorers or of other platforms",
            where=out,
            todo="leave --resume out, or name another --out",
        )
    found = over_seeds(runs)
    written = {
        "seeds.json": json.dumps(found, indent=1, ensure_ascii=False) + "\n",
        "seeds.md": markdown(found),
        "seeds.html": page(found),
    }
    for name, told in written.items():
        with replacing(out / name) as part:
            part.write_text(told, encoding="utf-8")
    return found


def release_memory() -> None:
    """Give back what the seed before has left: cycles to Python, and freed pages to the system.

    Threads allocate from arenas of their own, of which glibc gives nothing back by itself; without
    this the process grows by what every seed has left free there.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(ctypes.c_size_t(0))


def over_seeds(runs: Sequence[Metrics]) -> dict[str, Any]:
    """Means over seeds, and what each scorer that has others' help is over local.

    Args:
        runs: metrics of one scenario under at least two seeds.
    """
    first = runs[0]
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for name in first["platforms"]:
        entries = [run["platforms"][name] for run in runs]
        local = _ndcg(entries, _base(entries[0]["scorers"]))
        tables[name] = {}
        for scorer in (it for it in first["scorers"] if it in entries[0]["scorers"]):
            reached = _ndcg(entries, scorer)
            hits = [entry["scorers"][scorer]["hr@10"] for entry in entries]
            row: dict[str, Any] = {
                "hr@10": float(np.mean(hits)),
                "ndcg@10": float(np.mean(reached)),
                "by_seed": reached,
            }
            if scorer in _compared(entries[0]) and any(local):
                told = gained(local, reached)
                row |= {"gain": told.gain, "half": told.half, "p": told.p}
            tables[name][scorer] = row
    compared = [row for rows in tables.values() for row in rows.values() if "p" in row]
    for row, p in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row["p_holm"] = p
    return {
        "format": 1,
        **{key: first[key] for key in ("scenario", "title", "atoll", "scorers", "machine")},
        "world": first.get("world", False),
        "seeds": [run["seed"] for run in runs],
        "seconds": sum(run["seconds"] for run in runs),
        "shoppers": {name: [run["platforms"][name]["shoppers"] for run in runs] for name in tables},
        "platforms": tables,
    }


def markdown(found: Metrics) -> str:
    """The table as Markdown."""
    lines = [f"# {found['title']}, over seeds {_listed(found['seeds'])}", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "| --- | --- |" + " ---: |" * 5]
    lines += ["| " + " | ".join(row) + " |" for row in rows(found)]
    return "\n".join([*lines, "", _protocol(found)]) + "\n"


def rows(found: Metrics) -> list[list[str]]:
    """The cells of COLUMNS."""
    return [
        [
            name,
            scorer,
            figure(row["hr@10"]),
            figure(row["ndcg@10"]),
            percent(row.get("gain")),
            _interval(row),
            figure(row.get("p_holm"), ".3f"),
        ]
        for name, scorers in found["platforms"].items()
        for scorer, row in scorers.items()
    ]


def page(found: Metrics) -> str:
    """The whole page. The same figures give the same bytes."""
    drawn = {
        name: _drawing(name, scorers)
        for name, scorers in found["platforms"].items()
        if any("gain" in row for row in scorers.values())
    }
    head = f"Atoll {found['atoll']} · {found['scenario']} · seeds {_listed(found['seeds'])}"
    facts = {
        "seeds": text(_listed(found["seeds"])),
        "time": text(f"{found['seconds']:,.0f} s in all"),
        "machine": text(found["machine"]),
    }
    body = [
        f'<p class="kicker">{text(head)}</p>\n<h1>{text(found["title"])}</h1>',
        f"<p>{text(_protocol(found))}</p>",
        panels(
            "Over local, by platform",
            "NDCG@10 over the platform's own, in per cent, with 95&nbsp;% intervals over seeds; "
            "hollow where the interval holds zero. Small dots are single seeds.",
            drawn,
        ),
        "<h2>All figures</h2>",
        table(
            "All figures",
            "Means over seeds; p by Holm's method over the whole table",
            COLUMNS,
            [[text(cell) for cell in row] for row in rows(found)],
            words=("platform", "scorer"),
        ),
        f"<h2>How this was made</h2>\n{listing(facts)}",
    ]
    return document(found["title"], body)


def _drawing(name: str, scorers: Mapping[str, Mapping[str, Any]]) -> str:
    told = [(scorer, row) for scorer, row in scorers.items() if "gain" in row]
    local = np.array(scorers[_base(scorers)]["by_seed"])

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for place, (_scorer, row) in enumerate(told):
            middle, half = 100 * row["gain"], 100 * row["half"]
            single = 100 * (np.array(row["by_seed"]) / np.where(local > 0, local, np.nan) - 1)
            axes.scatter(single, [place + 0.25] * len(single), s=6, color=OTHER, linewidths=0)
            axes.hlines(place, middle - half, middle + half, SHARED, linewidth=1.6)
            face = SHARED if abs(middle) > half else PAPER
            axes.scatter([middle], [place], s=26, facecolor=face, edgecolor=SHARED, zorder=3)
        axes.set_yticks(range(len(told)), [scorer for scorer, _ in told], color=INK)
        axes.set_ylim(len(told) - 0.4, -0.6)
        axes.grid(axis="x")
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _place: tick(value))
        axes.spines["bottom"].set_visible(False)

    title = f"{name}: NDCG@10 over local by scorer, over seeds"
    return panel(draw, title, height=40 + 30 * len(told), left=110, right=14, bottom=22)


def tick(value: float) -> str:
    """A mark of the axis in per cent, with as many digits as it has."""
    return f"{value:+.6g} %".replace("-", "−") if round(value, 6) else "0"


def _base(scorers: Mapping[str, Any]) -> str:
    """What a platform has without the others; where nothing was shared, its own memory."""
    return "local" if "local" in scorers else "memory"


def _compared(entry: Mapping[str, Any]) -> Iterable[str]:
    """Scorers that have more than the platform itself."""
    return (*entry.get("against_local", {}), "personalised", "pooled")  # where they are


def _ndcg(entries: Sequence[Mapping[str, Any]], scorer: str) -> list[float]:
    return [float(entry["scorers"][scorer]["ndcg@10"]) for entry in entries]


def _interval(row: Mapping[str, Any]) -> str:
    gain, half = number(row.get("gain")), number(row.get("half"))
    if np.isnan(gain + half):
        return figure(None)
    return f"{percent(gain - half)} to {percent(gain + half)}"


def _protocol(found: Metrics) -> str:
    drawn = (
        "makes another world" if found["world"] else "draws other shoppers into a platform's part"
    )
    common = "Seeds that divide one table have shoppers in common, so both are somewhat too sure."
    told = (
        f"Each of {len(found['seeds'])} seeds {drawn}, other "
        "orders and other noise; each one's test part was read once. A gain is the ratio of two "
        "means over seeds, its interval Student's t over them, its p Holm's over this table."
    )
    return told if found["world"] else f"{told} {common}"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _read(path: Path, seed: int) -> Metrics:
    try:
        found: Metrics = json.loads(path.read_text(encoding="utf-8"))
        if found["seed"] != seed:
            raise ValueError("another seed")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
        raise ConfigError(
            "cannot be read", where=path, todo="remove it, and this seed is compared again"
        ) from fault
    return found
