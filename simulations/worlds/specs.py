"""What a world is made of: platforms, people and the numbers of the law.

`default_world` is the demo's; `source_world` is the public one that a backbone is pretrained on;
`wide_world` is one large catalogue, to be dealt out to platforms that sell the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from shared.errors import ConfigError
from shared.tables.draw import WHOLE, Part
from simulations.worlds.catalogues import TEMPLATES
from simulations.worlds.journeys import Habits
from simulations.worlds.vocabulary import Vocabulary

Law = Literal["journeys", "contrary"]

DEMO_DEPARTMENTS = (
    *("kitchen", "bathroom", "toys", "pets", "garden"),
    *("office", "camping", "beauty", "fitness", "cycling"),
)
SOURCE_DEPARTMENTS = ("sewing", "music", "fishing", "travel", "workshop", "baby")
FEWEST = 8  # shoppers of a platform, however small the scale
EVERYONE = 20_000  # shoppers that are dealt out, at scale 1


@dataclass(frozen=True)
class PlatformSpec:
    """One platform to be made.

    Attributes:
        name: unique; prefixes its item identifiers.
        shoppers: how many Histories.
        items: size of its catalogue; at least one for each product type it sells.
        departments: share of the catalogue, and pull on shoppers, of each department it has.
        law: the order in which needs follow one another.
        template: how its titles are worded, a place in `catalogues.TEMPLATES`.
        weight: its public weight in the federation.
    """

    name: str
    shoppers: int
    items: int
    departments: Mapping[str, float]
    law: Law = "journeys"
    template: int = 0
    weight: float = 1.0


@dataclass(frozen=True)
class Dealt:
    """A platform that gets a part of another's shoppers, and of its items.

    Attributes:
        name: unique.
        shoppers: the part of them, as `shared.tables.draw` draws it; nobody is on two platforms.
        items: the part of them. Who has too few events left is dropped.
        weight: its public weight in the federation.
    """

    name: str
    shoppers: Part
    items: Part = WHOLE
    weight: float = 1.0


@dataclass(frozen=True)
class WorldSpec:
    """Platforms, and the people who shop there.

    Attributes:
        platforms: with unique names.
        people: everyone there is. Each platform draws its shoppers from them, so that platforms
            of a and b shoppers have about a·b/people shoppers in common.
        habits: the numbers of the law.
        dealt: in place of the only platform, those that its tables are dealt out to; empty where
            every platform has tables of its own.
    """

    platforms: tuple[PlatformSpec, ...]
    people: int
    habits: Habits = field(default_factory=Habits)
    dealt: tuple[Dealt, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of the platforms that meet."""
        return [it.name for it in self.dealt or self.platforms]


def default_world(scale: float = 1.0) -> WorldSpec:
    """The demo's five platforms: four ordinary ones, from large to tiny, and a contrary one.

    Args:
        scale: multiplies the numbers of shoppers and people, not the catalogues.
    """

    def sized(count: int) -> int:
        return max(FEWEST, round(count * scale))

    everything = dict.fromkeys(DEMO_DEPARTMENTS, 1.0)
    outdoors = dict.fromkeys(("camping", "cycling", "fitness", "garden"), 2.0)
    home = {"kitchen": 3.0, "bathroom": 3.0, "garden": 2.0, "office": 2.0, "beauty": 2.0}
    corner = {"kitchen": 2.0, "camping": 2.0, "toys": 1.0, "beauty": 1.0, "garden": 1.0}
    gifts = dict.fromkeys(("toys", "pets", "beauty", "fitness", "office"), 1.0)
    return WorldSpec(
        platforms=(
            PlatformSpec("market", sized(2400), 700, everything, weight=8.0),
            PlatformSpec("trail", sized(800), 500, everything | outdoors, template=1, weight=3.0),
            PlatformSpec(
                "hearth", sized(350), 400, home | {"pets": 1.0, "toys": 1.0}, template=2, weight=1.0
            ),
            PlatformSpec(
                "kiosk", sized(120), 300, corner | {"cycling": 1.0}, template=3, weight=0.5
            ),
            PlatformSpec("outlet", sized(500), 450, gifts, law="contrary", template=4, weight=2.0),
        ),
        people=sized(12_000),
    )


def source_world(scale: float = 1.0) -> WorldSpec:
    """One public platform, "source", of other departments than the demo's, to pretrain on.

    The law is the same, so general habits can be learnt from it (a style is kept, a need comes
    again, the last event weighs most), but none of the demo's journeys.
    """
    shoppers = max(FEWEST, round(3000 * scale))
    departments = dict.fromkeys(SOURCE_DEPARTMENTS, 1.0)
    return WorldSpec((PlatformSpec("source", shoppers, 600, departments),), people=2 * shoppers)


def wide_world(shoppers: int, dealt: tuple[Dealt, ...] = ()) -> WorldSpec:
    """One platform, "everyone", of 3,000 items, whose shoppers are to be divided over platforms.

    Its catalogue is the same whatever the number of shoppers.
    """
    everyone = PlatformSpec("everyone", shoppers, 3000, dict.fromkeys(DEMO_DEPARTMENTS, 1.0))
    return WorldSpec((everyone,), people=shoppers, dealt=dealt)


def check(spec: WorldSpec, words: Vocabulary) -> None:
    """Refuse a world that cannot be made.

    Raises:
        ConfigError: names the platform and the number that is wrong.
    """
    if len(set(spec.names)) < len(spec.names):
        raise ConfigError("two platforms of the world share a name", todo="give each its own")
    if spec.dealt and len(spec.platforms) > 1:
        raise ConfigError("the tables of one platform can be dealt out", todo="name one alone")
    for one, other in combinations(spec.dealt, 2):
        if max(one.shoppers[0], other.shoppers[0]) < min(one.shoppers[1], other.shoppers[1]):
            raise ConfigError(
                f"platforms {one.name!r} and {other.name!r} of the world share shoppers",
                todo="give them parts that do not overlap",
            )
    for platform in spec.platforms:
        fault, todo = _fault(platform, spec, words)
        if fault:
            raise ConfigError(fault, where=f"platform {platform.name!r} of the world", todo=todo)


def _fault(platform: PlatformSpec, spec: WorldSpec, words: Vocabulary) -> tuple[str, str]:
    unknown = sorted(set(platform.departments) - set(words.departments))
    if unknown:
        return f"unknown department {unknown[0]!r}", f"choose from {', '.join(words.departments)}"
    if not platform.departments or min(platform.departments.values()) <= 0:
        return "departments must be there and weigh more than 0", "name one with a weight of 1"
    sold = sum(len(words.departments[name].types) for name in platform.departments)
    if platform.items < sold:
        fault = f"{platform.items} items cannot cover {sold} product types"
        return fault, f"ask for {sold} items or more, or for fewer departments"
    if not 1 <= platform.shoppers <= spec.people:
        fault = f"{platform.shoppers} shoppers cannot be drawn from {spec.people} people"
        return fault, "ask for at least 1 and at most that many"
    if not 0 <= platform.template < len(TEMPLATES):
        fault = f"there is no title template {platform.template}"
        return fault, f"choose from 0 to {len(TEMPLATES) - 1}"
    return "", ""
