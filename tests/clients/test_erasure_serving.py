"""Nothing that was read before an erasure is served, trained on or kept after it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from clients import derived_files, settled
from clients.app import resident
from clients.approvals import Approvals
from clients.beside import remembered
from clients.commands.erase import read_file
from clients.daemon import main
from clients.erasure import erase
from clients.erasure_plan import Request
from clients.ledger import entries
from clients.platform import Platform, open_platform
from clients.randomness import secure
from clients.sums_update import counted
from clients.supernode import SuperNode
from clients.train import update, validation
from shared import asking
from shared.asking import Standing
from shared.audit_log import AuditLog
from shared.bundle import PROJECT, pack
from shared.errors import ConfigError, DataError
from shared.health import Health
from shared.pairs import near, save_pairs
from shared.tables.config import load_platform
from shared.tables.erasure_list import new_list, save_list
from shared.tasks import co_visitation
from shared.training import WHOLE, Recipe

PLAN = """
epsilon = 3.0
delta = 1e-6
shoppers_at_least = 5
sampling_rate = 0.5
steps = 2
noise_multiplier = 2.0
"""
ADA = "shop-shopper-03"
Make = Callable[..., Path]
Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


def erase_ada(path: Path) -> None:
    home = path.parent / "shop.atoll"
    erase(Request(config=load_platform(path), file=path, home=home, shoppers=(ADA,)))


def train(platform: Platform) -> None:
    update(
        platform,
        platform.untrained,
        asking.Training(1, 4, 1, 4, 0.05, "cosine", 0),
        Standing("run"),
        recipe=Recipe(epochs=1, batch=4),
        stretch=WHOLE,
        rng=np.random.default_rng(0),
        randomness=secure(),
    )


def test_a_client_that_is_up_reads_its_rows_again_when_a_shopper_is_listed(
    make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path, privacy=PLAN)
    context = Context(1, 1, {"platform": str(path)}, RecordDict(), {})
    before = resident(context)
    assert resident(context) is before
    table = (tmp_path / "interactions.tsv").read_bytes()
    erase_ada(path)
    assert (tmp_path / "interactions.tsv").read_bytes() == table
    assert ADA in before.rows.histories.shoppers
    assert ADA not in resident(context).rows.histories.shoppers


def test_a_round_on_rows_that_were_read_before_an_erasure_is_refused_and_costs_nothing(
    make_platform: Make, tmp_path: Path
) -> None:
    more = "[evaluation]\nshare_metrics = true\nnoise_multiplier = 20.0\n"
    path = make_platform(tmp_path, privacy=PLAN)
    text = path.read_text()
    path.write_text(text[: text.index("[evaluation]")] + more)
    platform = open_platform(load_platform(path))
    erase_ada(path)
    with pytest.raises(DataError, match="a shopper was erased since the rows were read"):
        train(platform)
    with pytest.raises(DataError, match="a shopper was erased since the rows were read"):
        validation(platform, platform.untrained, Standing("run"), randomness=secure())
    policy = platform.config.policy
    assert policy is not None
    assert entries(policy) == []
    train(open_platform(load_platform(path)))
    assert [it.kind for it in entries(policy)] == ["reserve", "release"]


def test_sums_of_rows_that_were_read_before_an_erasure_are_refused_and_cost_nothing(
    make_platform: Make, tmp_path: Path
) -> None:
    items = tuple(f"shop-{place:02}" for place in range(8))
    vectors = np.eye(len(items), dtype=np.float32)
    save_pairs(near(items, vectors, count=4), tmp_path / "pairs.safetensors")
    sums = '[sums]\npairs = "pairs.safetensors"\nnoise_multiplier = 20.0\n'
    path = make_platform(tmp_path, privacy=PLAN, more=sums)
    platform = open_platform(load_platform(path))
    erase_ada(path)
    untrained = co_visitation.untrained(platform.places.pairs)
    asked = asking.Training(1, 1, 1, 4, 0.05, "cosine", 0)
    with pytest.raises(DataError, match="a shopper was erased since the rows were read"):
        counted(platform, untrained, asked, Standing("run"), randomness=secure())
    policy = platform.config.policy
    assert policy is not None
    assert entries(policy) == []


def test_without_a_plan_an_update_of_erased_rows_does_not_leave_either(
    make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    platform = open_platform(load_platform(path))
    erase_ada(path)
    with pytest.raises(DataError, match="a shopper was erased since the rows were read"):
        train(platform)


def test_weights_that_were_fitted_to_erased_rows_are_not_put_into_the_cache(
    make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path, cache=tmp_path / "cache", shoppers=20)
    platform = open_platform(load_platform(path))
    erase_ada(path)
    with pytest.raises(DataError, match="a shopper was erased since the rows were read"):
        remembered(platform, None)
    kept = settled.place_of(platform.config)
    assert kept is not None
    assert not kept.exists()


class WarmWorker:
    """Stands where a worker's process is; it can only be ended."""

    def __init__(self) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1


def test_a_warm_worker_ends_with_its_rows_when_the_list_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shop.erased"
    node = SuperNode(
        connect=lambda: pytest.fail("nobody is to be connected to"),
        approvals=Approvals(tmp_path / "approvals"),
        scratch=tmp_path / "running",
        config={},
        audit=AuditLog(tmp_path / "audit.jsonl"),
        health=Health(),
        erased=path,
    )
    node._forget_erased()
    node._worker = warm = WarmWorker()  # type: ignore[assignment]
    node._forget_erased()
    assert warm.stops == 0
    save_list(path, new_list())
    with caplog.at_level(logging.INFO, logger="atoll.client"):
        node._forget_erased()
    assert warm.stops == 1
    assert node._worker is None
    assert "rows are read again" in caplog.text


def test_approved_code_that_knows_no_erasure_list_is_warned_of(
    make_platform: Make, tmp_path: Path
) -> None:
    import hashlib

    path = make_platform(tmp_path)
    approvals = Approvals(tmp_path / "shop.atoll" / "approvals")
    for number, more in enumerate(({}, {"shared/tables/erasure_list.py": b""})):
        content = pack({PROJECT: b"[project]\n", "clients/app.py": b"", **more})
        digest = approvals.offered(content, claimed=hashlib.sha256(content).hexdigest())
        approvals.approve(digest)
        home = tmp_path / "shop.atoll"
        config = load_platform(path)
        shopper = f"shop-shopper-0{number}"
        outcome = erase(Request(config=config, file=path, home=home, shoppers=(shopper,)))
        warned = " ".join(outcome.facts["warnings"])
        assert f"Approved code {digest[:12]} is older" in warned or number == 1
        assert warned.count("is older") == 1


def test_the_command_erases_shoppers_of_a_file_and_names_nobody(
    typed: Typed, make_platform: Make, tmp_path: Path
) -> None:
    path, names = make_platform(tmp_path), tmp_path / "erase.txt"
    names.write_text("\ufeffshop-shopper-01\n\n  shop-shopper-02 \nshop-shopper-01\n")
    assert read_file(names) == ["shop-shopper-01", "shop-shopper-02", "shop-shopper-01"]
    words = ("erase", ADA, "-p", path, "--file", names)
    code, out, err = typed(main, *words, "--dry-run")
    assert (code, err) == (1, "")
    assert out.startswith("DRY RUN: nothing was changed.")
    code, out, err = typed(main, *words)
    assert (code, err) == (1, "")
    assert "REMAINS: interactions.tsv: 14 rows of these shoppers" in out
    code, out, err = typed(main, "erase", "-p", path, "--rewrite-table")
    assert (code, err) == (0, "")
    assert "interactions.tsv: 14 rows removed, 0 left" in out
    assert "-shopper-" not in out
    record = tmp_path / "shop.erasures" / "erasure-0002.json"
    assert out.endswith(f"complete: {record}\n")
    code, out, err = typed(main, "erase", "--verify", record)
    assert (code, err) == (0, "")
    assert "record 2 of" in out
    assert "3 shoppers, 14 rows removed" in out
    code, out, err = typed(main, "erase", "-p", path, ADA)
    assert code == 0
    assert out.startswith("nothing is left to remove here")
    code, out, err = typed(main, "check", "-p", path)
    assert code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("shop-shopper-99",), "there is no row of this shopper"),
        ((ADA, " "), "identifier 2 is empty"),
        (("--file", "none.txt"), "none.txt: cannot be read (No such file or directory)"),
        (("--file", "platform.bin"), "is not UTF-8"),
        (("--file", "empty.txt"), "has 0 identifiers"),
        ((ADA, "--copy", "copy.xls"), "names no table format"),
        ((ADA, "--copy", "copy.csv"), "copy.csv: no such file"),
        ((ADA, "--model", "platform.bin"), "is not made from this platform's rows"),
        ((ADA, "--verify", "x.json"), "need either --platform or --verify"),
    ],
)
def test_what_cannot_be_erased_is_refused_in_one_line_and_nothing_changes(
    words: tuple[str, ...],
    told: str,
    refused: Refused,
    make_platform: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_platform(tmp_path)
    (tmp_path / "platform.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.txt").write_text("\n \n")
    monkeypatch.chdir(tmp_path)
    assert told in refused(main, "erase", "-p", path, *words)


def test_a_register_that_is_damaged_is_refused(make_platform: Make, tmp_path: Path) -> None:
    config = load_platform(make_platform(tmp_path))
    derived_files.register(config, "pairs", tmp_path / "a.pairs", digest="d", time=1.0)
    (found,) = derived_files.load_register(config)
    assert (found.path, derived_files.location(config, found)) == ("a.pairs", tmp_path / "a.pairs")
    for damaged in (b"", b"{}", b"[]", b'{"format":"atoll derived files 1","files":[{}]}'):
        derived_files.register_path(config).write_bytes(damaged)
        with pytest.raises(DataError, match="the register of derived files is damaged"):
            derived_files.load_register(config)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path)
