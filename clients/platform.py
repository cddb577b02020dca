"""A platform at work: its configuration, its rows, its item vectors and its backbone, in memory.

platform.toml ─read→ rows, Catalogue ─encode, whiten→ table [N, W]
                                                with backbone.safetensors → Platform
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial

from torch import Tensor

from clients.item_data import ItemData, item_data, places
from clients.sums import Places
from shared import wire
from shared.adapter import Adapter
from shared.backbone import Backbone, fill_slots, load_backbone, read_slots
from shared.cache_folder import default_cache
from shared.device import pick_device
from shared.errors import BackboneError, ConfigError, PlanError
from shared.events import Histories, Part, Question, question, to_date, training_part
from shared.ranking import Ranking, rank
from shared.tables.config import PlatformConfig
from shared.tables.table import PlatformRows, check_erasures, read_platform
from shared.tasks import co_visitation, next_item
from shared.text import EncoderSpec, Progress, find_encoder, item_table, silent
from shared.training import Rows
from shared.words import Texts


@dataclass(frozen=True)
class Platform:
    """One data owner, opened.

    Attributes:
        config: what its file says.
        rows: what was read.
        item_data: of its Catalogue; platforms of one catalogue share it.
        backbone: its own copy; training overwrites the adapter slots.
        digest: the backbone's.
    """

    config: PlatformConfig
    rows: PlatformRows
    item_data: ItemData
    backbone: Backbone
    digest: str

    @property
    def table(self) -> Tensor:
        """[N, W] unit vectors of its Catalogue, on the device."""
        return self.item_data.table

    @cached_property
    def training(self) -> Rows:
        """What it trains on."""
        return Rows(training_part(self.rows.histories), self.table)

    @cached_property
    def told(self) -> Histories:
        """What it counts where it adds to sums: all but the events that test.

        The events that validate are among them, for a platform takes its own part of the sums out
        again before it validates by them.
        """
        return to_date(self.rows.histories)

    @cached_property
    def _questions(self) -> dict[Part, Question]:
        return {}

    def question(self, part: Part) -> Question:
        """One part of its leave-one-out split."""
        if part not in self._questions:
            self._questions[part] = question(self.rows.histories, part)
        return self._questions[part]

    @cached_property
    def untrained(self) -> Adapter:
        """The state every training starts from: nothing added to the prior."""
        slots = read_slots(self.backbone, digest=self.digest, task=next_item.NAME)
        zeros = {name: tensor * 0 for name, tensor in slots.tensors.items()}
        return Adapter(zeros, backbone=slots.backbone, task=slots.task)

    @property
    def texts(self) -> Texts:
        """What its texts say of two items."""
        return self.item_data.texts

    @cached_property
    def places(self) -> Places:
        """Where its items stand in the list of pairs that its file names.

        Raises:
            PlanError: it names none.
            PairsError: the list cannot be read.
        """
        policy = self.config.policy
        if policy is None or policy.pairs is None:
            raise PlanError(
                "has no [sums] section, so nothing is told of which items go together",
                where=self.config.name,
                todo="write one into its file",
            )
        return places(policy.pairs, self.rows.catalogue)

    def member(self, task: str) -> wire.Member:
        """What it says of itself to whoever asks for this task; all of it public."""
        name, weight = self.config.name, self.config.weight
        if task == co_visitation.NAME:
            return wire.Member(name, weight, self.places.pairs.digest, task)
        return wire.Member(name, weight, self.digest, next_item.NAME)

    def check_erasures(self) -> None:
        """Refuse to go on with rows that were read before a shopper was erased.

        Raises:
            DataError: as of `shared.tables.table.check_erasures`.
        """
        check_erasures(self.rows, self.config)

    def copy(self) -> Platform:
        """The same platform with a backbone of its own, so that training disturbs nobody."""
        return replace(self, backbone=copy.deepcopy(self.backbone))

    def scorer(self, adapter: Adapter) -> next_item.NextItemScorer:
        """The recommender with this Adapter; valid until the slots are filled anew."""
        fill_slots(self.backbone, adapter)
        return next_item.NextItemScorer(self.backbone.eval(), self.table)

    def rank(self, adapter: Adapter, part: Part) -> Ranking:
        """Rank its whole Catalogue for every shopper of a part of the split."""
        return rank(self.scorer(adapter), self.question(part), items=len(self.rows.catalogue))


def frozen_parts(config: PlatformConfig) -> tuple[Backbone, EncoderSpec]:
    """A platform's backbone and the text encoder that it was made for; neither looks at a row.

    Raises:
        ConfigError: no backbone is named.
        BackboneError: one of them is missing or damaged, or they do not belong together.
    """
    path = config.backbone
    if path is None:
        raise ConfigError(
            "no backbone named", where=config.name, todo="set path under [backbone] in its file"
        )
    frozen = load_backbone(path)
    text = find_encoder(config.encoder)
    if text.digest != frozen.spec.encoder:
        raise BackboneError(
            f"was made for another text encoder than {config.encoder!r}",
            where=path,
            todo="set encoder under [backbone] to the one its model card names",
        )
    return frozen, text


def open_platform(
    config: PlatformConfig,
    *,
    rows: PlatformRows | None = None,
    progress: Progress = silent,
) -> Platform:
    """Read a platform's tables and make ready to train or recommend.

    Args:
        config: of the platform.
        rows: its tables where they are read already; None reads them.
        progress: called while item texts are read.

    Raises:
        AtollError: a file is missing, damaged, or does not belong with the others.
    """
    frozen, text = frozen_parts(config)
    rows = rows or read_platform(config)
    gpu = config.participation.gpu
    # Under a Plan the CPU: a GPU's float32 depends on a row's place in a product (decision 12).
    under_plan = config.policy is not None and config.policy.plan is not None
    device = pick_device("never" if under_plan else gpu)
    data = item_data(
        rows.catalogue,
        encoder=text.digest,
        encoding=pick_device(gpu).type,
        device=device,
        vectors=partial(
            item_table,
            rows.catalogue,
            text,
            cache=config.cache or default_cache(),
            spare=config.cache is None,
            progress=progress,
            gpu=gpu,
        ),
    )
    rows = replace(rows, catalogue=data.catalogue)
    return Platform(config, rows, data, frozen.to(device), frozen.digest)
