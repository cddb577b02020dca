"""Every round on disk, whole or not at all, so that a federation can go on where it stood.

    FOLDER/rounds/0007/adapter.safetensors     what platforms will be sent next
                       moments.safetensors     the server optimizer's memory
                       round.json              who replied, was refused, missing; bytes, seconds
    FOLDER/settings.json                       what those rounds depend on
    FOLDER/standing.json                       the run's name, and the platforms' last receipts

A round's folder is written under another name and renamed, so it exists only if it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from server.aggregate import ServerState
from shared.adapter import load_adapter, save_adapter
from shared.errors import AdapterError, RoundError
from shared.files import made_folder, replacing, sync, unwritable
from shared.update import Receipt
from shared.wire import Standing


@dataclass(frozen=True)
class RoundReport:
    """What happened in a round; round 0 is the untrained state.

    Attributes:
        round: from 0.
        seconds: from the first request to the last metric, on the server's clock.
        bytes_down: tensors sent to platforms.
        bytes_up: tensors received from them.
        replied: names of the platforms whose Update was averaged.
        refused: why, by name, for those that answered what cannot be used.
        missing: names of those that did not answer in time.
        validation: by name, the metrics of those that share them.
        moved: whether the quorum was met, so that the Adapter moved.
        noise: by name, how each Update was protected: none, simulated or secure.
    """

    round: int
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    replied: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    validation: dict[str, dict[str, float]] = field(default_factory=dict)
    moved: bool = True
    noise: dict[str, str] = field(default_factory=dict)


class Registry:
    """The rounds under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "rounds"
        self.settings = folder / "settings.json"
        self.place = folder / "standing.json"

    def rounds(self) -> list[int]:
        """Rounds on disk, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())

    def adapter_path(self, round_: int) -> Path:
        """Where the Adapter after this round lies."""
        return self.folder / f"{round_:04d}" / "adapter.safetensors"

    def record(self, state: ServerState, report: RoundReport) -> None:
        """Write a round, and only then let it appear."""
        final = self.folder / f"{report.round:04d}"
        part = self.folder / f".{final.name}.{uuid.uuid4().hex[:8]}"
        made_folder(part)
        try:
            save_adapter(state.adapter, part / "adapter.safetensors")
            save_file(dict(state.moments), part / "moments.safetensors")
            (part / "round.json").write_text(json.dumps(asdict(report), indent=1, sort_keys=True))
            _sync(part)
            os.rename(part, final)
            sync(self.folder)
        except (OSError, SafetensorError) as fault:
            raise unwritable(final, fault) from fault
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def load(self, round_: int) -> tuple[ServerState, RoundReport]:
        """The state after a round and its report.

        Raises:
            RoundError: a file of it is missing or damaged.
        """
        place = self.folder / f"{round_:04d}"
        try:
            adapter = load_adapter(place / "adapter.safetensors")
            moments = load_file(place / "moments.safetensors")
            told = json.loads((place / "round.json").read_text())
            told |= {key: tuple(told[key]) for key in ("replied", "missing")}
            report = RoundReport(**told)
        except (AdapterError, OSError, KeyError, ValueError, TypeError, SafetensorError) as fault:
            raise RoundError(
                f"round {round_} cannot be read ({type(fault).__name__})",
                where=place,
                todo="delete this folder; --resume then goes on from the round before it",
            ) from fault
        moments = {name: np.asarray(value, np.float32) for name, value in moments.items()}
        return ServerState(adapter, moments), report

    def settle(self, settings: Mapping[str, object]) -> None:
        """Write down what the rounds depend on, or compare it with what an earlier start wrote.

        Raises:
            RoundError: a setting differs, so that two federations would be mixed.
        """
        path = self.settings
        if not path.is_file():
            made_folder(path.parent)
            with replacing(path) as part:
                part.write_text(json.dumps(settings, indent=1, sort_keys=True))
            return
        for name, before in json.loads(path.read_text()).items():
            if settings.get(name) != before:
                raise RoundError(
                    f"the rounds recorded have {name} = {before}, not {settings.get(name)}",
                    where=path,
                    todo="set it to what it was, or use another folder",
                )

    def standing(self) -> Standing:
        """The run's name, made up at its first start, and what is known of Ledgers.

        Raises:
            RoundError: the file is damaged.
        """
        if not self.place.is_file():
            made_folder(self.place.parent)
            self.remember(Standing(uuid.uuid4().hex))
        try:
            told = json.loads(self.place.read_text())
            receipts = {
                str(name): Receipt(int(count), str(head))
                for name, (count, head) in told["receipts"].items()
            }
            return Standing(str(told["run"]), receipts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            raise RoundError(
                f"cannot be read ({type(fault).__name__})",
                where=self.place,
                todo="restore it from a backup, or use another folder",
            ) from fault

    def remember(self, standing: Standing) -> None:
        """Write down a Standing, durably."""
        receipts = {name: [it.count, it.head] for name, it in standing.receipts.items()}
        with replacing(self.place) as part:
            part.write_text(json.dumps({"run": standing.run, "receipts": receipts}, indent=1))

    def clear(self) -> None:
        """Forget every round."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.settings.unlink(missing_ok=True)
        self.place.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the files of a folder durable before the folder gets its name."""
    for path in [*folder.iterdir(), folder]:
        sync(path)
