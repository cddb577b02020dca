"""What a comparison holds at a time, and what it leaves: counted by objects, not by the process."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clients.item_data import ItemData
from clients.memory import Memory
from clients.platform import Platform
from clients.recall import Recall
from clients.signals import Signals
from clients.sums import Places
from shared.words import Texts
from simulations.compare import compare
from simulations.federations import federate, sum_up
from simulations.prepare import Ready, prepare
from simulations.run import full_comparison, with_seed
from simulations.scenario import Scenario, load_scenario

LARGE = (Platform, ItemData, Texts, Places, Recall, Signals, Memory)


@pytest.fixture(scope="module")
def scenario(
    write_tables: Callable[..., None],
    encoder: Path,
    backbone: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scenario:
    """Three channels of one shop and one catalogue, with sums."""
    folder = tmp_path_factory.mktemp("channels")
    write_tables(folder / "shop", "shop", shoppers=36, items=20, seed=1)
    lines = ['title = "Channels"']
    for number in range(3):
        lines += ["[[platforms]]", f'name = "channel-{number}"', "[platforms.events]"]
        lines += ['path = "shop/interactions.tsv"', f"part = [{number / 3}, {(number + 1) / 3}]"]
        lines += ['columns = { shopper = "user", item = "item", order = "pos" }']
        lines += ["[platforms.items]", 'path = "shop/items.tsv"']
        lines += ['columns = { item = "item", text = "text" }']
    lines += ["[backbone]", f"encoder = {json.dumps(str(encoder))}"]
    lines += [f"path = {json.dumps(str(backbone))}"]
    lines += ["[federation]", "rounds = 1", "batch = 4", "learning_rate = 0.05"]
    lines += ["[comparison]", "personalise_epochs = 1", "resamples = 100"]
    lines += ["[sums]", "share = 0.0"]
    path = folder / "channels.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return load_scenario(path)


@pytest.fixture(scope="module")
def ready(scenario: Scenario, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return prepare(scenario, tmp_path_factory.mktemp("ready"), cache=cache, seed=0)


def large_objects() -> dict[int, object]:
    """Everything large that is alive, by its identity."""
    gc.collect()
    return {id(it): it for it in gc.get_objects() if type(it) in LARGE}


def test_a_seed_leaves_nothing_large_behind(
    scenario: Scenario, cache: Path, tmp_path: Path
) -> None:
    before = large_objects()  # what fixtures of other tests hold
    full_comparison(with_seed(scenario, 1), tmp_path, cache=cache, threads=2)
    assert [type(it) for key, it in large_objects().items() if key not in before] == []


def test_platforms_of_one_catalogue_hold_one_copy_of_it(ready: Ready) -> None:
    first, *others = ready.platforms
    for platform in others:
        assert platform.rows.catalogue is first.rows.catalogue
        assert platform.table is first.table
        assert platform.texts is first.texts
        assert platform.places is first.places
        assert platform.rows.histories is not first.rows.histories


def test_a_federation_opens_no_second_copy_of_what_is_open(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    assert ready.platforms[0].places.pairs.directed  # so that one is alive
    before = large_objects()
    assert any(isinstance(it, ItemData) for it in before.values())
    seen: list[str] = []
    made = weakref.WeakSet[ItemData]()
    plain = ItemData.__init__

    def noted(self: ItemData, *args: object) -> None:
        plain(self, *args)  # type: ignore[arg-type]
        made.add(self)
        seen.append(self.catalogue.digest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ItemData, "__init__", noted)
        assert sum_up(scenario, ready, tmp_path) is not None
        federate(scenario, ready, tmp_path)
    assert seen == []


@pytest.mark.parametrize("threads", [1, 2])
def test_twice_as_many_platforms_hold_no_more_memories_at_a_time(
    threads: int,
    scenario: Scenario,
    ready: Ready,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = federate(scenario, ready, tmp_path)
    alive: set[int] = set()
    peaks: list[int] = []
    plain = Signals.__init__

    def counted(self: Signals, *args: object, **more: object) -> None:
        plain(self, *args, **more)  # type: ignore[arg-type]
        alive.add(id(self))
        weakref.finalize(self, alive.discard, id(self))
        peaks.append(len(alive))

    monkeypatch.setattr(Signals, "__init__", counted)

    def most(platforms: tuple[Platform, ...]) -> int:
        peaks.clear()
        compare(scenario, platforms, registry, seed=0, training=False, threads=threads)
        assert not alive
        return max(peaks)

    def renamed(platform: Platform) -> Platform:
        return replace(
            platform, config=replace(platform.config, name=f"{platform.config.name}-too")
        )

    few = most(ready.platforms)
    many = most((*ready.platforms, *map(renamed, ready.platforms)))
    # Where tasks run at once, how their peaks fall together differs by a few.
    assert many <= few + 3 * (threads - 1)
    assert len(peaks) > 2 * few  # they were made, and not kept
