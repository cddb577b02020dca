"""From a scenario to platforms that can federate: tables, backbone, one TOML file each.

OUT/data/NAME/            rows of the embedded world, as files anyone can read
OUT/public/source/        rows of its source world, if a backbone is made from it
OUT/backbone.safetensors  unless the scenario names one; with its model card
OUT/platforms/NAME.toml   what that platform's own client would be given
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clients.platform import Platform, open_platform
from clients.readiness import comparable
from clients.sums import own_pairs
from server.pairs import listed, together
from server.pretrain import pretrain
from shared.backbone import new_backbone, save_backbone
from shared.errors import DataError
from shared.events import to_date
from shared.files import made_folder
from shared.pairs import save_pairs
from shared.tables.config import PlatformConfig, load_platform
from shared.tables.dump import write_platform
from shared.tables.table import PlatformRows, read_platform
from shared.text import Progress, find_encoder, silent, titled
from simulations.protected import unprotected
from simulations.scenario import Scenario
from simulations.worlds.embedded import generate, write
from simulations.worlds.specs import source_world


@dataclass(frozen=True)
class Ready:
    """A scenario's platforms, opened.

    Attributes:
        platforms: in the order of their names.
        files: each platform's TOML file, by name.
        backbone: the backbone's file.
        met: list of the pairs that occur, over which sums are exact; None where none are taken.
        near: list of the pairs near by text, over which they are noised.
    """

    platforms: tuple[Platform, ...]
    files: dict[str, Path]
    backbone: Path
    met: Path | None = None
    near: Path | None = None


def prepare(
    scenario: Scenario,
    out: Path,
    *,
    cache: Path,
    seed: int,
    resume: bool = False,
    trained: bool = True,
    progress: Progress = silent,
) -> Ready:
    """Write what the platforms need under `out` and open them.

    Args:
        scenario: which platforms.
        out: folder of this run; made if missing.
        cache: folder of item vectors, shared between runs.
        seed: of the embedded worlds and of the backbone made from one.
        resume: keep a backbone that was made here before: rounds belong to it to the last bit.
        trained: False leaves a backbone that is made untrained: the prior does not depend on it.
        progress: called while texts are read and the backbone is trained.

    Raises:
        AtollError: a table or the backbone cannot be used.
    """
    out, cache = out.resolve(), cache.resolve()
    configs = scenario.platforms
    if scenario.world is not None:
        progress("making the embedded world", 0, 1)
        world = generate(scenario.world, seed=seed)
        configs = tuple(load_platform(path) for path in write(world, out / "data").values())
        progress("making the embedded world", 1, 1)
    configs = tuple(sorted(configs, key=lambda config: config.name))
    # Every table is read before anything is made of one: a bad one leaves nothing behind.
    rows = [_read(config, made=scenario.world is not None) for config in configs]
    for config, read in zip(configs, rows, strict=True):
        comparable(config, read)
    made = out / "backbone.safetensors"
    backbone = scenario.backbone or (made if resume and made.is_file() else None)
    if backbone is None and not trained:
        backbone = made
        text = find_encoder(scenario.encoder)
        spec = replace(scenario.shape, encoder=text.digest, text_width=text.width)
        made_folder(out)
        save_backbone(new_backbone(spec, seed=seed), backbone)
    elif backbone is None:
        backbone = source_backbone(scenario, out, cache=cache, seed=seed, progress=progress)
    met = near = None
    if scenario.sums is not None and len(configs) > 1:  # one platform has nobody to sum with
        met, near = lists(scenario, rows, out, cache=cache, progress=progress)
    mine = [
        unprotected(
            replace(config, backbone=backbone, encoder=scenario.encoder, cache=cache),
            out,
            pairs=met,
        )
        for config in configs
    ]
    platforms = [
        open_platform(config, rows=read, progress=titled(progress, config.name))
        for config, read in zip(mine, rows, strict=True)
    ]
    files = {}
    place = made_folder(out / "platforms")
    for config in mine:
        files[config.name] = place / f"{config.name}.toml"
        write_platform(config, files[config.name], within=out)
    return Ready(tuple(platforms), files, backbone, met, near)


def check_there(config: PlatformConfig) -> None:
    """Refuse a platform whose tables are not there.

    Raises:
        DataError: no such file.
    """
    for table in (config.events, config.items):
        if not table.path.exists():
            todo = "say with --data where the tables lie, or mend its path"
            raise DataError("no such file", where=table.path, todo=todo)


def _read(config: PlatformConfig, *, made: bool) -> PlatformRows:
    check_there(config)
    try:
        return read_platform(config)
    except DataError as fault:
        if not made:
            raise
        raise DataError(
            f"gets too little of the embedded world: {fault.what}",
            where=config.name,
            todo="give it a larger part, or [world] a larger scale",
        ) from fault


def lists(
    scenario: Scenario,
    rows: Sequence[PlatformRows],
    out: Path,
    *,
    cache: Path,
    progress: Progress,
) -> tuple[Path, Path | None]:
    """Write the pairs that occur, and those near by text if sums are taken under Plans too."""
    assert scenario.sums is not None
    own = [own_pairs(to_date(read.histories), read.catalogue) for read in rows]
    met = made_folder(out) / "pairs-met.safetensors"
    save_pairs(together(own), met)
    if not scenario.sums.share:
        return met, None
    found = listed(
        [read.catalogue for read in rows],
        encoder=scenario.encoder,
        nearest=scenario.sums.nearest,
        cache=cache,
        progress=titled(progress, "all items"),
    )
    near = out / "pairs-near.safetensors"
    save_pairs(found, near)
    return met, near


def source_backbone(
    scenario: Scenario, out: Path, *, cache: Path, seed: int, progress: Progress
) -> Path:
    """Pretrain on the embedded source world, whose rows are nobody's."""
    path = out / "backbone.safetensors"
    world = generate(source_world(scenario.source_scale), seed=seed)
    sources: list[PlatformConfig] = [
        replace(load_platform(file), cache=cache) for file in write(world, out / "public").values()
    ]
    pretrain(
        sources,
        path,
        encoder=scenario.encoder,
        shape=scenario.shape,
        seed=seed,
        progress=titled(progress, "backbone"),
    )
    return path
