"""Ours beside RecBole's SASRec, with a stand-in for its interpreter."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients import beside
from shared.device import pick_device
from shared.events import Histories, Question, from_lists, question
from shared.metrics import ndcg
from shared.ranking import rank
from shared.tables.config import load_platform
from simulations.benchmarks import sasrec_in_recbole as script
from simulations.benchmarks.recbole_process import SCRIPT, given
from simulations.benchmarks.sasrec import SETTINGS
from simulations.cli import main
from simulations.untrained import opened

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]

# Speaks as sasrec_in_recbole.py does: chance for scores, and an epoch that is worse than the first.
STAND_IN = f"""#!{sys.executable}
import importlib.util, json, sys
from pathlib import Path
import numpy as np
import torch

def tell(**line):
    sys.stdout.write(json.dumps(line) + "\\n")

assert sys.argv[1] == "-I", sys.argv
found = importlib.util.spec_from_file_location("script", sys.argv[2])
script = sys.modules["script"] = importlib.util.module_from_spec(found)
found.loader.exec_module(script)
if len(sys.argv) == 3:
    tell(recbole="1.2.1", torch="2.0")
    sys.exit()
folder = Path(sys.argv[3])
said = json.loads((folder / "asked.json").read_text())
assert said["settings"]["data_path"] == str(folder)
asked = script.Asked.read(folder / "test.npz")
scores = np.random.default_rng(0).random((len(asked.users), said["items"]), dtype=np.float32)
np.save(folder / "scores.npy", scores)
tell(kind="ready", sequences=7, weights=8, device="cpu", threads=said["threads"], wall=1, cpu=1)
for epoch, value in enumerate([0.75, 0.5], start=1):
    told = {{"hr@10": value, "ndcg@10": value}}
    tell(kind="epoch", epoch=epoch, best=epoch == 1, loss=1.0, wall=60 * epoch, cpu=50, **told)
told = script.figures(script.ranks(torch.from_numpy(scores), asked, 0))
tell(**{{"kind": "end", "stopped by": "time", "test": told}})
"""


def stand_in(path: Path, text: str = STAND_IN) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass(frozen=True)
class Table:
    """A Scorer of rows kept by the shopper's name."""

    values: dict[str, NDArray[np.float32]]

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        return np.stack([self.values[it] for it in contexts.shoppers])


def as_asked(found: Question) -> script.Asked:
    return script.Asked(
        np.arange(len(found.targets)),
        found.targets.astype(np.int64),
        found.contexts.items.astype(np.int64),
        found.contexts.offsets,
    )


def lists(*rows: list[int]) -> Histories:
    made = [np.array(row, np.int32) for row in rows]
    return from_lists(made, tuple(f"shopper {place}" for place in range(len(made))))


def test_a_rank_there_is_counted_by_hand() -> None:
    asked = as_asked(Question(lists([3], [0, 1]), np.array([0, 2], np.int32)))
    scores = np.array([[3, 3, 1, 5], [9, 9, 1, 2]], np.float32)
    # Item 3 was seen, and item 1 is level: the mean of ranks 1 and 2. Then 0 and 1 were seen.
    assert script.ranks(torch.from_numpy(scores), asked, 0).tolist() == [1.5, 2.0]
    assert script.figures(np.array([1.5, 11], np.float32)) == {
        "hr@10": 0.5,
        "ndcg@10": pytest.approx(0.5 / np.log2(2.5)),
    }


def test_ranks_there_are_those_of_our_own_rule() -> None:
    rng = np.random.default_rng(0)
    histories = lists(*(rng.choice(40, int(rng.integers(3, 9))).tolist() for _ in range(50)))
    asked = question(histories, "test")
    scores = rng.integers(0, 6, (len(asked.targets), 40)).astype(np.float32)  # full of ties
    table = Table(dict(zip(asked.contexts.shoppers, scores, strict=True)))
    ours = rank(table, asked, items=40, block=7).ranks
    halves = [
        script.ranks(torch.from_numpy(scores[part].copy()), as_asked(asked), part.start)
        for part in (slice(0, 20), slice(20, None))
    ]
    assert np.array_equal(ours, np.concatenate(halves))
    assert script.figures(ours)["ndcg@10"] == pytest.approx(float(ndcg(ours).mean()))


def test_recbole_is_given_positions_and_order_and_nobodys_name(tmp_path: Path) -> None:
    histories = lists([4, 2, 7], [1, 0, 2, 1])
    parts = {"test": question(histories, "test"), "validation": question(histories, "validation")}
    given(tmp_path, histories, parts, asked={"minutes": 1, "settings": SETTINGS})
    rows = (tmp_path / "atoll" / "atoll.inter").read_text().splitlines()
    assert rows[0].split("\t") == ["user_id:token", "item_id:token", "timestamp:float"]
    told = ["0 4 0", "0 2 1", "0 7 2", "1 1 0", "1 0 1", "1 2 2", "1 1 3"]
    assert [row.replace("\t", " ") for row in rows[1:]] == told
    asked = script.Asked.read(tmp_path / "test.npz")
    # The second one's last item stood in the context already, so nobody asks for it.
    assert (asked.users.tolist(), asked.targets.tolist()) == ([0], [7])
    assert (asked.items.tolist(), asked.offsets.tolist()) == ([4, 2], [0, 2])
    assert script.Asked.read(tmp_path / "validation.npz").targets.tolist() == [2, 2]
    said = json.loads((tmp_path / "asked.json").read_text())
    assert said["settings"]["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert said["settings"] | SETTINGS == said["settings"]
    assert not any(b"shopper" in it.read_bytes() for it in tmp_path.rglob("*") if it.is_file())


class Rows:
    """As much of RecBole's dataset as is used: users 5 and 2, items 9 and 3 of ours, in its ids."""

    def __init__(self) -> None:
        self.field2id_token = {"user_id": ["[PAD]", "5", "2"], "item_id": ["[PAD]", "9", "3"]}
        self.inter_feat = {"user_id": torch.tensor([1, 2]), "item_id": torch.tensor([2, 1])}

    def __getitem__(self, places: torch.Tensor) -> torch.Tensor:
        return places


class Loader:
    _dataset = Rows()


class Model:
    """Scores by RecBole's ids, padding first."""

    device = "cpu"

    def eval(self) -> None: ...

    def full_sort_predict(self, block: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[50.0, 1.0, 2.0], [60.0, 3.0, 4.0]])[block]


def test_recboles_scores_are_put_where_our_positions_are(tmp_path: Path) -> None:
    none = np.zeros(0, np.int64), np.zeros(3, np.int64)
    asked = script.Asked(np.array([2, 5]), np.array([9, 3]), *none)
    scorer = script.Scorer(Model(), Loader(), asked, items=11)
    scores = scorer.scores(0).numpy()
    assert scores.shape == (2, 11)
    assert (scores[0, 9], scores[0, 3]) == (3, 4)
    assert (scores[1, 9], scores[1, 3]) == (1, 2)
    assert set(np.delete(scores, [3, 9], axis=1).ravel()) == {0}  # never met: below all
    scorer.export(tmp_path / "scores.npy")
    assert np.array_equal(np.load(tmp_path / "scores.npy"), scores)
    assert scorer.figures() == script.figures(np.array([2, 1], np.float32))


def test_a_split_that_is_not_ours_is_refused() -> None:
    none = np.zeros(0, np.int64), np.zeros(3, np.int64)
    with pytest.raises(SystemExit, match="split is not ours"):
        script.Scorer(
            Model(), Loader(), script.Asked(np.array([2, 5]), np.array([3, 9]), *none), items=11
        )


@pytest.mark.parametrize(("there", "told"), [(None, "0"), ("", ""), ("3", "3")])
def test_recbole_sees_the_gpus_that_we_see(
    monkeypatch: pytest.MonkeyPatch, there: str | None, told: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if there is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", there)
    assert script.visible() == {"gpu_id": told}


def test_an_epoch_ends_when_time_is_over_and_has_one_batch_at_least() -> None:
    assert list(script.until("abc", lambda: True)) == ["a"]
    assert list(script.until("abc", lambda: False)) == ["a", "b", "c"]


def test_bench_sasrec_sets_ours_beside_its_best_state(
    typed: Typed, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path / "p", shoppers=30)
    words = ["bench", "sasrec", path, "--recbole", stand_in(tmp_path / "python")]
    code, out, err = typed(main, *words, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    platform = opened(load_platform(path), cache=None)
    asked = platform.question("test")
    ranks = rank(beside.own(platform), asked, items=found["items"]).ranks
    ours, theirs = found["ours"], found["sasrec"]
    assert ours["test"]["ndcg@10"] == pytest.approx(float(ndcg(ranks).mean()))
    scores = np.random.default_rng(0).random((len(ranks), found["items"]), dtype=np.float32)
    chance = script.figures(script.ranks(torch.from_numpy(scores), as_asked(asked), 0))
    assert theirs["test"] == pytest.approx(chance)
    less = ours["test"]["ndcg@10"] - chance["ndcg@10"]
    assert found["ours less sasrec"]["difference"] == pytest.approx(less)
    assert (theirs["epoch"], theirs["epochs"], theirs["stopped by"]) == (1, 2, "time")
    assert theirs["validation"] == {"hr@10": 0.75, "ndcg@10": 0.75}
    assert theirs["seconds"] == {"wall": 60, "cpu": 50}
    assert theirs["until it stopped"] == {"wall": 120, "cpu": 50}
    assert theirs["settings"] == SETTINGS
    assert [it["epoch"] for it in found["every epoch"]] == [1, 2]
    whole, less_vectors = ours["with item vectors"]["wall"], ours["seconds"]["wall"]
    assert whole == pytest.approx(less_vectors + ours["stages"]["item vectors"]["wall"])

    code, out, err = typed(main, *words, "--shuffle", "1")
    assert code == 0
    assert "SASRec, epoch 1" in out
    assert "stopped because its minutes were over" in out
    assert f"ours had {pick_device().type}, SASRec cpu." in out
    assert "SASRec, epoch 2: validation NDCG@10 0.5000 after 120 s" in " ".join(err.split())


def said(**line: str) -> str:
    return f"#!{sys.executable}\nprint('''{json.dumps(line)}''')\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (said(missing="No module named 'recbole'"), "cannot import RecBole: No module named"),
        (said(recbole="1.1.1"), "has RecBole 1.1.1, not 1.2.1"),
        (f"#!{sys.executable}\n", "cannot import RecBole: it said nothing"),
        (f"#!{sys.executable}\nprint('hello')\n", "answers no lines of JSON"),
        (f"#!{sys.executable}\nraise SystemExit('\\x1b[2J no')\n", "ended with 1: \\x1b[2J no"),
        ("nobody can run this", "cannot be started: Exec format error"),
    ],
)
def test_an_interpreter_without_recbole_is_one_line(
    refused: Refused, make_platform: Make, tmp_path: Path, text: str, reason: str
) -> None:
    path, python = make_platform(tmp_path / "p"), stand_in(tmp_path / "python", text)
    told = refused(main, "bench", "sasrec", path, "--recbole", python)
    assert told.startswith(f"{python}: {reason}")
    assert "; install recbole==1.2.1 in an environment of its own" in told


def test_no_interpreter_is_one_line(refused: Refused, make_platform: Make, tmp_path: Path) -> None:
    path, python = make_platform(tmp_path / "p"), tmp_path / "no" / "python"
    told = refused(main, "bench", "sasrec", path, "--recbole", python)
    assert told.startswith(f"{python}: cannot be started: No such file or directory; ")


def test_a_training_that_breaks_off_is_one_line(
    refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path / "p")
    breaks = STAND_IN.replace('asked = script.Asked.read(folder / "test.npz")', "1 / 0")
    told = refused(main, "bench", "sasrec", path, "--recbole", stand_in(tmp_path / "a", breaks))
    assert "ended with 1: ZeroDivisionError: division by zero; " in told
    ends = STAND_IN.replace('"kind": "end"', '"kind": "pause"')
    told = refused(main, "bench", "sasrec", path, "--recbole", stand_in(tmp_path / "b", ends))
    assert "said nothing of SASRec's end; run the command again" in told


def test_the_script_says_what_is_missing_where_it_runs(typed: Typed, tmp_path: Path) -> None:
    assert script.versions() == {"missing": "No module named 'recbole'"}
    assert SCRIPT.read_text().count("import recbole") == 0  # only names of it, inside functions
