from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.aggregate import ServerState
from server.commands import models
from server.registry import Registry, RoundReport
from shared import manifest, signing, terminal
from shared.adapter import Adapter, load_adapter
from shared.audit_log import Entry, entries, verify

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


def main() -> None:
    terminal.run(models.cli)


def record(registry: Registry, number: int) -> None:
    adapter = Adapter({"w": np.full(3, number, np.float32)}, "backbone", "task", number)
    told = {"a": {"ndcg@10": 0.25}, "b": {"ndcg@10": 0.5}, "c": {}} if number else {}
    report = RoundReport(number, replied=("a", "b", "c")[: number + 1], validation=told)
    registry.record(ServerState(adapter), report)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of a server that recorded rounds 0 to 2."""
    home = tmp_path / "home"
    home.mkdir()
    registry = Registry(home / "run", signing.signing_key(home / "signing.key"))
    for number in range(3):
        record(registry, number)
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a simulation, which has no key."""
    folder = tmp_path / "demo"
    record(Registry(folder), 0)
    return folder


def said(typed: Typed, *words: str | Path) -> list[str]:
    code, out, err = typed(main, *words)
    assert (code, err) == (0, "")
    return out.splitlines()


def printed(typed: Typed, *words: str | Path) -> Any:
    return json.loads("\n".join(said(typed, *words, "--json")))


def because(home: Path) -> tuple[str | Path, ...]:
    return "--home", home, "--why", "because"


def audited(home: Path) -> list[Entry]:
    """What the coordinator's audit log says."""
    path = home / "audit.jsonl"
    return list(entries(path)) if path.exists() else []


def title(home: Path, number: int) -> str:
    return f"round {number} ({adapter(home, number)[:16]})"


def adapter(home: Path, number: int) -> str:
    return load_adapter(Registry(home / "run").adapter_path(number)).digest


def test_list_shows_participants_validation_mean_and_what_is_promoted(
    typed: Typed, home: Path
) -> None:
    said(typed, "promote", "1", *because(home))
    zero, one, two = said(typed, "list", "--home", home)
    assert zero == f"round 0  {adapter(home, 0)[:16]}  1 participants  signed"
    assert one == (
        f"round 1  {adapter(home, 1)[:16]}  2 participants  ndcg@10 0.3750  signed  promoted"
    )
    assert two == f"round 2  {adapter(home, 2)[:16]}  3 participants  ndcg@10 0.3750  signed"


def test_list_for_programs_is_json_and_nothing_else(typed: Typed, home: Path) -> None:
    said(typed, "promote", "2", *because(home))
    told = printed(typed, "list", "--home", home)
    assert [it["round"] for it in told] == [0, 1, 2]
    assert [it["promoted"] for it in told] == [False, False, True]
    assert told[1]["participants"] == ["a", "b"]
    assert told[1]["metrics"] == {"ndcg@10": 0.375}
    assert told[1]["parents"] == [told[0]["digest"]]


def test_a_simulations_run_is_shown_too(typed: Typed, folder: Path) -> None:
    line, _basis = said(typed, "list", "--folder", folder)
    assert "signed" not in line
    told = printed(typed, "show", "0", "--folder", folder)
    assert (told["signature"], told["verified"]) == ("", "whole, unsigned")


def test_show_tells_manifest_promotions_and_whether_it_verifies(typed: Typed, home: Path) -> None:
    said(typed, "promote", "1", "--home", home, "--why", "the best")
    told = printed(typed, "show", adapter(home, 1)[:8], "--home", home)
    (promotion,) = told["promotions"]
    assert (promotion["who"], promotion["why"]) == (getpass.getuser(), "the best")
    assert told["verified"] == "whole, its signature holds"
    lines = said(typed, "show", "1", "--home", home)
    assert f"adapter: {adapter(home, 1)}" in lines
    assert "participants: a, b" in lines
    assert "promoted: yes" in lines
    assert lines[-1].startswith("promote: ")
    assert lines[-1].endswith(f"by {getpass.getuser()}: the best")


def test_show_tells_what_is_damaged(typed: Typed, home: Path) -> None:
    Registry(home / "run").adapter_path(1).write_bytes(b"x")
    told = printed(typed, "show", "1", "--home", home)
    assert "round 1 cannot be read" in told["verified"]


def test_promote_and_rollback_say_what_changed(typed: Typed, home: Path) -> None:
    one, two = title(home, 1), title(home, 2)
    assert said(typed, "promote", "1", *because(home))[0] == f"promoted: none -> {one}"
    assert said(typed, "promote", "2", *because(home))[0] == f"promoted: {one} -> {two}"
    assert said(typed, "rollback", *because(home)) == [f"rolled back: {two} -> {one}"]


def test_export_writes_the_promoted_version_for_platforms(
    typed: Typed, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    said(typed, "promote", "1", *because(home))
    lines = said(typed, "export", "--home", home, "--out", out)
    assert lines == [title(home, 1), str(out), str(out.with_suffix(".json"))]
    manifest.check_file(out, signing.public_of(signing.signing_key(home / "signing.key")))
    said(typed, "export", "2", "--home", home, "--out", out, "--force")
    assert load_adapter(out).digest == adapter(home, 2)


def test_what_goes_without_a_signature_is_told(typed: Typed, folder: Path, tmp_path: Path) -> None:
    lines = said(typed, "export", "0", "--folder", folder, "--out", tmp_path / "o.safetensors")
    assert lines[0].endswith(", unsigned")


def test_every_refusal_is_one_line_and_changes_nothing(
    refused: Refused, home: Path, tmp_path: Path
) -> None:
    at = ("--home", home)
    database = home / "run" / "registry.sqlite"
    assert refused(main, "list", "--home", tmp_path / "none") == (
        f"{tmp_path / 'none' / 'run'}: holds no recorded versions;"
        " name the server's --home, or a run's --folder"
    )
    assert refused(main, "show", "9", *at) == (
        f"{database}: no round 9 is recorded; see models list"
    )
    assert refused(main, "promote", "xyz", *because(home)).startswith(
        "'xyz' names no version; give"
    )
    assert refused(main, "rollback", *because(home)) == (
        f"{database}: no version is promoted; promote the version that you want"
    )
    out = tmp_path / "a.safetensors"
    assert refused(main, "export", *at, "--out", out).startswith(f"{database}: no version is")
    assert refused(main, "export", "1", *at, "--out", tmp_path / "a").endswith(".safetensors")


def test_a_version_that_the_servers_key_did_not_sign_is_not_promoted(
    refused: Refused, home: Path
) -> None:
    (home / "signing.key").unlink()
    signing.signing_key(home / "signing.key")
    assert "signature does not hold" in refused(main, "promote", "1", *because(home))


def test_who_gave_platforms_which_version_and_why_is_in_the_audit_log(
    typed: Typed, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    said(typed, "promote", "1", "--home", home, "--why", "best on validation")
    said(typed, "promote", "2", "--home", home, "--why", "better still")
    said(typed, "rollback", "--home", home, "--why", "worse for two platforms")
    said(typed, "export", "--home", home, "--out", out)
    found = audited(home)
    assert [it.event for it in found] == ["promoted", "promoted", "rolled back", "exported"]
    assert [it.fields["round"] for it in found] == [1, 2, 1, 1]
    assert {it.fields["who"] for it in found} == {getpass.getuser()}
    back, out_again = found[2:]
    assert back.fields["why"] == "worse for two platforms"
    assert back.fields["version"] == Registry(home / "run").promotions()[-1].version == 2
    assert back.fields["adapter"] == out_again.fields["adapter"] == adapter(home, 1)
    assert out_again.fields["file"] == str(out)
    verify(home / "audit.jsonl")


def test_what_is_refused_or_only_looked_at_is_not_in_the_audit_log(
    typed: Typed, refused: Refused, home: Path, tmp_path: Path
) -> None:
    said(typed, "list", "--home", home)
    said(typed, "show", "1", "--home", home)
    refused(main, "rollback", *because(home))
    refused(main, "export", "--home", home, "--out", tmp_path / "a.safetensors")
    said(typed, "promote", "1", *because(home))
    refused(main, "promote", "1", *because(home))
    assert [it.event for it in audited(home)] == ["promoted"]


def test_nothing_is_done_of_which_the_audit_log_cannot_tell(
    typed: Typed, home: Path, tmp_path: Path
) -> None:
    (home / "audit.jsonl").mkdir()
    out = tmp_path / "a.safetensors"
    for words in (
        ("promote", "1", *because(home)),
        ("export", "1", "--home", home, "--out", out),
    ):
        code, _, err = typed(main, *words)
        assert (code, "audit.jsonl: cannot be written" in err) == (2, True)
    assert Registry(home / "run").promotions() == []
    assert not out.exists()


def test_a_simulations_run_has_no_audit_log(typed: Typed, folder: Path, tmp_path: Path) -> None:
    said(typed, "promote", "0", "--folder", folder, "--why", "to try it")
    said(typed, "export", "--folder", folder, "--out", tmp_path / "a.safetensors")
    assert list(tmp_path.rglob("audit*")) == []


@pytest.mark.parametrize("words", [["promote", "1"], ["rollback"]])
@pytest.mark.parametrize("why", [[], ["--why", ""], ["--why", " "]])
def test_no_version_is_given_to_platforms_without_a_reason(
    words: list[str], why: list[str], refused: Refused, home: Path
) -> None:
    assert refused(main, *words, "--home", home, *why) == (
        "what platforms are given changes for a reason, and none was given;"
        " say it with --why '…'; it goes into the history"
    )


def test_promote_says_what_a_version_is_chosen_by(typed: Typed, tmp_path: Path) -> None:
    registry, home = Registry(tmp_path / "run"), tmp_path
    noised = {1: {"a": 0.25, "b": 0.5}, 2: {"a": 0.375, "b": 0.625}, 3: {"b": 0.875, "c": 0.5}}
    for number in range(4):
        adapter = Adapter({"w": np.full(3, number, np.float32)}, "backbone", "task", number)
        told = {name: {"ndcg@10": it, "hr@10": 0.0} for name, it in noised.get(number, {}).items()}
        noise = {"a": "secure", "b": "none", "c": "secure"} if number else {}
        registry.record(
            ServerState(adapter), RoundReport(number, validation={**told, "d": {}}, noise=noise)
        )
    promoted = said(typed, "promote", "1", *because(home))
    assert promoted[1:] == [
        "validation: ndcg@10 0.7500 summed over 2 platforms (1 of them noised), mean 0.3750;"
        " of 2 versions round 2 has the most, 1.0000"
    ]
    assert printed(typed, "show", "3", "--home", home)["basis"] == (
        "validation: ndcg@10 1.3750 summed over 2 platforms (1 of them noised), mean 0.6875;"
        " of 1 versions round 3 has the most, 1.3750"
    )
    assert "no platform shared metrics" in said(typed, "promote", "0", *because(home))[1]


def test_a_run_of_which_nobody_shared_metrics_says_that_nothing_tells_versions_apart(
    typed: Typed, folder: Path
) -> None:
    *_, last = said(typed, "list", "--folder", folder)
    assert last.startswith("validation: no platform shared metrics")
    assert "atoll-client compare" in last
