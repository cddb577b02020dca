from __future__ import annotations

import hashlib
import json
import os
import pwd
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from clients.approvals import WAITING, Approvals, login
from shared.bundle import PROJECT, files_of, pack
from shared.errors import BundleError, ConfigError

FIRST = pack({PROJECT: b"[project]\n", "shared/a.py": b"A = 1\nB = 2\n", "shared/old.py": b"x\n"})
SECOND = pack({PROJECT: b"[project]\n", "shared/a.py": b"A = 9\nB = 2\n", "shared/new.py": b"y\n"})


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def approvals(tmp_path: Path) -> Approvals:
    return Approvals(tmp_path / "approvals")


def offered(approvals: Approvals, content: bytes = FIRST) -> str:
    return approvals.offered(content, claimed=digest_of(content))


def test_a_bundle_waits_until_its_operator_has_decided(
    approvals: Approvals, tmp_path: Path
) -> None:
    assert approvals.standing(digest_of(FIRST)) == "unknown"
    digest = offered(approvals)
    assert approvals.standing(digest) == "waiting"
    with pytest.raises(BundleError, match="not approved"):
        approvals.unpack(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert approvals.approve(digest).by
    assert approvals.standing(digest) == "approved"
    approvals.unpack(digest, tmp_path / "out")
    assert (tmp_path / "out/shared/a.py").read_bytes() == b"A = 1\nB = 2\n"
    assert not (tmp_path / "out/.info").exists()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_a_decision_holds_at_once_for_whoever_has_it_open(approvals: Approvals) -> None:
    digest = offered(approvals)
    other = Approvals(approvals.folder)
    other.approve(digest)
    assert approvals.standing(digest) == "approved"
    other.reject(digest)
    assert approvals.standing(digest) == "rejected"


def test_what_was_rejected_stays_so_when_it_is_offered_again(approvals: Approvals) -> None:
    digest = offered(approvals)
    approvals.reject(digest)
    assert offered(approvals) == digest
    assert approvals.standing(digest) == "rejected"


def test_a_bundle_that_is_not_the_one_it_was_said_to_be_is_not_kept(approvals: Approvals) -> None:
    with pytest.raises(BundleError, match="as the server says"):
        approvals.offered(SECOND, claimed=digest_of(FIRST))
    assert approvals.entries() == []


def test_a_bundle_that_could_do_harm_never_waits(approvals: Approvals) -> None:
    content = pack({PROJECT: b"", "../out.py": b""})
    with pytest.raises(BundleError):
        offered(approvals, content)
    assert approvals.entries() == []


def test_one_that_changed_on_the_disk_after_it_was_approved_does_not_run(
    approvals: Approvals, tmp_path: Path
) -> None:
    digest = offered(approvals)
    approvals.approve(digest)
    file = approvals.folder / f"{digest}.fab"
    file.write_bytes(SECOND)
    with pytest.raises(BundleError, match=rf"{digest}\.fab: was changed on the disk"):
        approvals.unpack(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BundleError, match="changed on the disk"):
        approvals.approve(digest)


def test_one_whose_bytes_are_gone_or_damaged_is_had_again_and_its_decision_stands(
    approvals: Approvals,
) -> None:
    digest = offered(approvals)
    approvals.approve(digest)
    file = approvals.folder / f"{digest}.fab"
    file.unlink()
    assert approvals.standing(digest) == "unknown"  # so the daemon asks for it
    with pytest.raises(BundleError, match="is not here"):
        approvals.approve(digest)
    offered(approvals)
    assert approvals.standing(digest) == "approved"
    file.write_bytes(b"damaged")
    offered(approvals)
    assert approvals.content(digest) == FIRST
    assert approvals.standing(digest) == "approved"


def test_it_is_unpacked_into_a_new_folder_only(approvals: Approvals, tmp_path: Path) -> None:
    digest = offered(approvals)
    approvals.approve(digest)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("elsewhere", "link"):
        with pytest.raises(ConfigError, match="cannot be written"):
            approvals.unpack(digest, tmp_path / name)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_half_an_unpacked_bundle_is_never_left(
    approvals: Approvals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = offered(approvals)
    approvals.approve(digest)
    real = Path.open

    def full(path: Path, *words: Any, **more: Any) -> object:
        if path.name == "old.py":
            raise OSError(28, "No space left on device")
        return real(path, *words, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ConfigError, match="No space left"):
        approvals.unpack(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_who_decided_and_when_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    approvals = Approvals(tmp_path, clock=lambda: 5.0)
    digest = offered(approvals)
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.delenv("SUDO_USER", raising=False)
    name = pwd.getpwuid(os.getuid()).pw_name
    approvals.approve(digest)
    told = json.loads((tmp_path / f"{digest}.json").read_text())
    assert told == {"digest": digest, "standing": "approved", "time": 5.0, "by": name}
    monkeypatch.setenv("SUDO_USER", "ann\x1b[2J")
    assert login() == f"{name} (sudo by ann\\x1b[2J)"


def test_only_the_owner_may_open_what_is_kept(approvals: Approvals) -> None:
    offered(approvals)
    assert approvals.folder.stat().st_mode & 0o777 == 0o700


def test_what_a_crash_left_without_a_decision_is_cleared(approvals: Approvals) -> None:
    offered(approvals)
    left = approvals.folder / f"{digest_of(SECOND)}.fab"
    left.write_bytes(SECOND)
    assert approvals.standing(digest_of(SECOND)) == "unknown"
    offered(approvals, pack({PROJECT: b"other"}))
    assert not left.exists()


def test_many_that_offer_at_once_leave_each_bundle_once(approvals: Approvals) -> None:
    contents = [pack({PROJECT: str(number).encode()}) for number in range(6)]
    threads = [
        Thread(target=lambda: [offered(approvals, content) for content in contents])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {it.digest for it in approvals.entries()} == set(map(digest_of, contents))


def test_a_damaged_decision_approves_nothing(approvals: Approvals) -> None:
    digest = offered(approvals)
    for text in ("", "{}", '{"digest": 1}', json.dumps({"digest": digest, "standing": "yes"})):
        (approvals.folder / f"{digest}.json").write_text(text)
        with pytest.raises(BundleError, match="cannot be read"):
            approvals.standing(digest)


def test_a_decision_of_another_bundle_approves_nothing(approvals: Approvals) -> None:
    first, second = offered(approvals), offered(approvals, SECOND)
    approvals.approve(first)
    decision = (approvals.folder / f"{first}.json").read_bytes()
    (approvals.folder / f"{second}.json").write_bytes(decision)
    with pytest.raises(BundleError, match="cannot be read"):
        approvals.standing(second)
    assert approvals.standing(first) == "approved"


def test_what_changed_is_shown_file_by_file(approvals: Approvals) -> None:
    first = offered(approvals)
    approvals.approve(first)
    second = offered(approvals, SECOND)
    assert approvals.approved_before(second) == first
    against = files_of(approvals.content(first), where="first")
    found = {change.name: change for change in approvals.changes(second, against)}
    assert {name: change.kind for name, change in found.items()} == {
        "shared/a.py": "changed",
        "shared/new.py": "added",
        "shared/old.py": "removed",
    }
    assert "-A = 1" in found["shared/a.py"].lines
    assert "+A = 9" in found["shared/a.py"].lines
    assert approvals.changes(first, against) == []


def test_a_flood_of_offers_fills_no_disk_and_pushes_out_no_decision(approvals: Approvals) -> None:
    kept = offered(approvals)
    approvals.approve(kept)
    for number in range(2 * WAITING):
        offered(approvals, pack({PROJECT: str(number).encode()}))
    standings = [entry.standing for entry in approvals.entries()]
    assert standings.count("waiting") == WAITING
    assert approvals.standing(kept) == "approved"
    assert len(list(approvals.folder.glob("*.fab"))) == WAITING + 1


def test_the_beginning_of_a_digest_names_one_bundle_or_none(approvals: Approvals) -> None:
    digest = offered(approvals)
    assert approvals.named(digest[:8]) == digest
    for start in (digest[:7], "0" * 8, ""):
        with pytest.raises(BundleError, match="at least 8"):
            approvals.named(start)


def test_a_digest_cannot_lead_out_of_the_folder(approvals: Approvals) -> None:
    offered(approvals)
    assert approvals.standing("../" + "a" * 61) == "unknown"
    with pytest.raises(BundleError):
        approvals.reject("../secret")
    (approvals.folder.parent / "secret.fab").write_bytes(b"x")
    with pytest.raises(BundleError, match="is not here"):
        approvals.content("../secret")
