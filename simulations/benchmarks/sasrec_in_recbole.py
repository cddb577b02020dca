"""RecBole's SASRec, trained in an environment of its own; tells how it goes in lines of JSON.

Started by `sasrec.py` with another interpreter, so it imports nothing of ours:

    sasrec_in_recbole.py          one line: which RecBole and torch are here, or what is missing
    sasrec_in_recbole.py FOLDER   trains; a line when ready, a line an epoch, a line at the end

    FOLDER/asked.json          minutes, threads, settings
    FOLDER/atoll/atoll.inter   RecBole's atomic file: position of the History, of the item, order
    FOLDER/validation.npz      users [S], targets [S], items [E], offsets [S+1]: a Question
    FOLDER/test.npz            the same
    FOLDER/scores.npy          float32 [S, N] of the test part, by the best state: written here

RecBole's own full ranking masks no item that was seen, so ranks are counted here, by the rule of
shared/ranking.py: a test sets the two side by side. They are counted where the model computes, so
that a GPU does not wait for a CPU to rank.

    B  Histories in a block      S  Histories      N  items of the Catalogue
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 512  # Histories scored at a time: 25 MB over 12,000 items
Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Asked:
    """One part of the split, as `shared.events.Question` has it.

    Attributes:
        users: [S] positions of Histories.
        targets: [S] position of the item to be found.
        items: [E] what was seen before it, History after History.
        offsets: [S+1] History s is items[offsets[s] : offsets[s+1]].
    """

    users: NDArray[np.int64]
    targets: NDArray[np.int64]
    items: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def read(cls, path: Path) -> Asked:
        """From a file of arrays with these names."""
        with np.load(path) as found:
            return cls(*(found[name] for name in ("users", "targets", "items", "offsets")))


@dataclass(frozen=True)
class Clock:
    """Seconds since it was made: on the wall, and of this process on all its cores."""

    wall: float
    cpu: float

    @classmethod
    def started(cls) -> Clock:
        """Now."""
        return cls(time.perf_counter(), time.process_time())

    def read(self) -> dict[str, float]:
        """Seconds since then."""
        return {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


def ranks(scores: Tensor, asked: Asked, start: int) -> NDArray[np.float32]:
    """[B] where each target stands among the unseen items, 1 = best; ties take their mean rank.

    Args:
        scores: [B, N] of the Histories from `start` on; overwritten with -inf where an item was
            seen.
        asked: what they were asked.
        start: position of the first of them.
    """
    import torch

    stop = start + len(scores)
    lengths = np.diff(asked.offsets[start : stop + 1])
    seen = torch.from_numpy(asked.items[asked.offsets[start] : asked.offsets[stop]])
    rows = torch.from_numpy(np.repeat(np.arange(len(scores)), lengths))
    scores[rows.to(scores.device), seen.to(scores.device)] = -torch.inf
    targets = torch.from_numpy(asked.targets[start:stop]).to(scores.device)
    own = scores.gather(1, targets[:, None])
    above = (scores > own).sum(1).cpu().numpy()
    level = (scores == own).sum(1).cpu().numpy() - 1
    found: NDArray[np.float32] = (1 + above + 0.5 * level).astype(np.float32)
    return found


def figures(found: NDArray[np.float32]) -> dict[str, float]:
    """HR@10 and NDCG@10 of ranks [S]."""
    hit = found <= 10
    gain = np.where(hit, 1 / np.log2(1 + found.astype(np.float64)), 0.0)
    return {"hr@10": float(hit.mean()), "ndcg@10": float(gain.mean())}


class Scorer:
    """RecBole's model and its loader of one part of the split, asked in our order and positions.

    Args:
        model: RecBole's.
        loader: of its valid or test part.
        asked: ours.
        items: N.

    Raises:
        SystemExit: RecBole split otherwise than we did.
    """

    def __init__(self, model: Any, loader: Any, asked: Asked, *, items: int) -> None:
        self.model, self.asked, self.items = model, asked, items
        self.rows = loader._dataset
        users, tokens = (self.rows.field2id_token[name] for name in ("user_id", "item_id"))
        held = [int(users[place]) for place in self.rows.inter_feat["user_id"].numpy()]
        place = {user: row for row, user in enumerate(held)}
        self.order = np.array([place[int(user)] for user in asked.users], np.int64)
        self.columns = np.array([int(token) for token in tokens[1:]], np.int64)
        last = self.rows.inter_feat["item_id"].numpy()[self.order]
        if not np.array_equal(self.columns[last - 1], asked.targets):
            raise SystemExit("RecBole's split is not ours")

    def scores(self, start: int) -> Tensor:
        """[B, N] of the block of Histories that begins there; an item it never met comes last."""
        import torch

        block = self.rows[torch.from_numpy(self.order[start : start + BLOCK])]
        self.model.eval()
        with torch.no_grad():
            known = self.model.full_sort_predict(block.to(self.model.device))
        found: Tensor = known.new_full((len(known), self.items), float(known.min()) - 1)
        found[:, torch.from_numpy(self.columns).to(known.device)] = known[:, 1:]  # 0 is padding
        return found

    def starts(self) -> range:
        """Where blocks begin."""
        return range(0, len(self.order), BLOCK)

    def figures(self) -> dict[str, float]:
        """HR@10 and NDCG@10."""
        return figures(
            np.concatenate([ranks(self.scores(at), self.asked, at) for at in self.starts()])
        )

    def export(self, path: Path) -> None:
        """Every score, block by block."""
        shape = (len(self.order), self.items)
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for at in self.starts():
            file[at : at + BLOCK] = self.scores(at).cpu().numpy()
        file.flush()


def visible() -> dict[str, str]:
    """RecBole's setting of which GPUs may be seen: those that this process may see.

    RecBole writes it over the environment's, and its default, the first, would bring back one that
    was hidden.
    """
    return {"gpu_id": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}


def train(folder: Path, tell: Tell) -> None:
    """Train until patience or time ends, as RecBole's `Trainer.fit` does, and rank by our rule."""
    import torch
    from recbole.config import Config  # type: ignore[import-not-found]
    from recbole.data import (  # type: ignore[import-not-found]
        create_dataset,
        data_preparation,
    )
    from recbole.model.sequential_recommender.sasrec import (  # type: ignore[import-not-found]
        SASRec,
    )
    from recbole.trainer.trainer import Trainer  # type: ignore[import-not-found]
    from recbole.utils import early_stopping, init_seed  # type: ignore[import-not-found]

    said = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    torch.set_num_threads(said["threads"])
    sys.argv = sys.argv[:1]  # RecBole takes every argument for a setting
    os.chdir(folder)  # it writes logs where it stands
    clock = Clock.started()
    settings = {**said["settings"], **visible()}
    config = Config(model="SASRec", dataset="atoll", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    parts = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = SASRec(config, parts[0]._dataset).to(config["device"])
    validation, test = (
        Scorer(model, loader, Asked.read(folder / f"{name}.npz"), items=said["items"])
        for name, loader in zip(("validation", "test"), parts[1:], strict=True)
    )
    trainer = Trainer(config, model)
    sequences = len(parts[0]._dataset)
    weights = sum(it.numel() for it in model.parameters())
    begun = {"device": str(config["device"]), "threads": torch.get_num_threads()}
    tell({"kind": "ready", "sequences": sequences, "weights": weights, **begun, **clock.read()})

    limit = 60 * said["minutes"]
    best, waited, kept, why = -np.inf, 0, copy.deepcopy(model.state_dict()), "epochs"
    for epoch in range(config["epochs"]):
        loss = trainer._train_epoch(until(parts[0], lambda: clock.read()["wall"] > limit), epoch)
        spent = clock.read()
        found = validation.figures()
        best, waited, stop, better = early_stopping(
            found["ndcg@10"], best, waited, max_step=config["stopping_step"]
        )
        if better:
            kept = copy.deepcopy(model.state_dict())
        told = {"kind": "epoch", "epoch": epoch + 1, "best": bool(better), "loss": float(loss)}
        tell({**told, **found, "training": spent, **clock.read()})
        if stop or spent["wall"] > limit:
            why = "patience" if stop else "time"
            break
    model.load_state_dict(kept)
    test.export(folder / "scores.npy")
    tell({"kind": "end", "stopped by": why, "test": test.figures()})


def until(loader: Any, over: Callable[[], bool]) -> Iterator[Any]:
    """The batches of an epoch until time is over; one at least, so that there is a loss."""
    for batch in loader:
        yield batch
        if over():
            return


def versions() -> dict[str, str]:
    """Of what is needed here, or what is missing."""
    try:
        import torch
        from recbole import __version__  # type: ignore[import-not-found]
        from recbole.trainer import Trainer  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as missing:
        return {"missing": str(missing)}
    return {"recbole": str(__version__), "torch": str(torch.__version__)}


def main() -> None:
    """Lines go to what was standard output; whatever libraries say there goes beside it."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)

        def tell(line: Mapping[str, Any]) -> None:
            lines.write(json.dumps(line) + "\n")
            lines.flush()

        if len(sys.argv) > 1:
            train(Path(sys.argv[1]), tell)
        else:
            tell(versions())


if __name__ == "__main__":
    main()
