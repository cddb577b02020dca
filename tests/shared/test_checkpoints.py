from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.audit_log import AuditLog, verify
from shared.checkpoints import NONE, Checkpoint, Checkpoints, read_checkpoints
from shared.errors import AuditError, IdentityError
from shared.signing import canonical, public_of, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
PUBLIC = public_of(KEY)


def at(count: int, mark: str = "ab", *, key: Ed25519PrivateKey = KEY) -> Checkpoint:
    head = mark * 32 if count else NONE
    return Checkpoint(count, head, float(count), "").signed(key)


def test_what_is_kept_is_there_in_order_and_for_its_owner_alone(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "checkpoints")
    assert kept.of("kiosk") == []
    for count in (0, 3, 7):
        kept.keep("kiosk", at(count), PUBLIC)
    kept.keep("atelier", at(1), PUBLIC)
    assert [it.count for it in Checkpoints(kept.folder).of("kiosk")] == [0, 3, 7]
    assert kept.names() == ["atelier", "kiosk"]
    assert (kept.folder / "kiosk.jsonl").stat().st_mode & 0o777 == 0o600
    assert kept.folder.stat().st_mode & 0o777 == 0o700


def test_the_same_again_adds_nothing(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.keep("kiosk", at(3), PUBLIC)
    kept.keep("kiosk", replace(at(3), time=9.0).signed(KEY), PUBLIC)
    assert kept.of("kiosk") == [at(3)]


def test_a_log_that_went_back_or_was_rewritten_is_refused(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.keep("kiosk", at(7), PUBLIC)
    with pytest.raises(AuditError, match="kiosk: the log went back to 6 lines, 7 were known"):
        kept.keep("kiosk", at(6), PUBLIC)
    with pytest.raises(AuditError, match="kiosk: line 7 of the log is another than the one known"):
        kept.keep("kiosk", at(7, "cd"), PUBLIC)
    with pytest.raises(AuditError, match="went back to 0"):
        kept.keep("kiosk", at(0), PUBLIC)
    assert kept.of("kiosk") == [at(7)]


@pytest.mark.parametrize(
    "false",
    [
        at(3, key=OTHER),
        replace(at(3), count=4),
        replace(at(3), head="cd" * 32),
        replace(at(3), time=4.0),
        replace(at(3), signature=""),
        replace(at(3), signature=sign(KEY, "model", at(3).body)),
    ],
)
def test_a_checkpoint_that_its_owner_did_not_sign_is_refused(
    false: Checkpoint, tmp_path: Path
) -> None:
    kept = Checkpoints(tmp_path)
    with pytest.raises(IdentityError, match="kiosk: the checkpoint signature does not hold"):
        kept.keep("kiosk", false, PUBLIC)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"count": True},
        {"count": -1},
        {"count": 2**63},
        {"count": "3"},
        {"count": 0},
        {"head": "AB" * 32},
        {"head": None},
        {"time": float("inf")},
        {"time": "now"},
        {"signature": 5},
    ],
)
def test_what_is_no_checkpoint_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    assert Checkpoint.from_dict({**at(3).as_dict(), "platform": "kiosk"}) == at(3)
    with pytest.raises(AuditError, match="is no checkpoint of an audit log"):
        Checkpoint.from_dict({**at(3).as_dict(), **change})
    with pytest.raises(AuditError, match="is no checkpoint"):
        Checkpoints(tmp_path).keep("kiosk", replace(at(3), **change), PUBLIC)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "..", "a/b", "../kiosk", "a.b", "a\0", "x" * 65, "ä"])
def test_a_name_that_could_leave_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    for act in (Checkpoints(tmp_path).of, lambda it: Checkpoints(tmp_path).keep(it, at(1), PUBLIC)):
        with pytest.raises(AuditError, match="is nobody's name"):
            act(name)


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_half_a_checkpoint_is_written_over(cut: int, tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.keep("kiosk", at(3), PUBLIC)
    with (tmp_path / "kiosk.jsonl").open("ab") as file:
        file.write(canonical(at(5).as_dict())[:cut])
    assert kept.of("kiosk") == [at(3)]
    kept.keep("kiosk", at(7), PUBLIC)
    assert kept.of("kiosk") == [at(3), at(7)]
    (tmp_path / "first.jsonl").write_bytes(canonical(at(5).as_dict())[:cut])
    kept.keep("first", at(7), PUBLIC)
    assert kept.of("first") == [at(7)]


@pytest.mark.parametrize("content", [b"{}\n", b"[]\n", b"x" * 5000, b"[" * 3000 + b"\n", b"\xff\n"])
def test_a_damaged_file_is_told_and_never_added_to(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kiosk.jsonl"
    path.write_bytes(content)
    with pytest.raises(AuditError, match=r"kiosk\.jsonl: line 1 is no checkpoint"):
        Checkpoints(tmp_path).of("kiosk")
    with pytest.raises(AuditError, match="is no checkpoint"):
        Checkpoints(tmp_path).keep("kiosk", at(9), PUBLIC)
    assert path.read_bytes() == content


def test_of_many_that_keep_at_once_the_file_never_goes_back(tmp_path: Path) -> None:
    def keep(start: int) -> None:
        for count in range(start, 40, 2):
            with suppress(AuditError):  # another thread was ahead
                Checkpoints(tmp_path).keep("kiosk", at(count), PUBLIC)

    threads = [Thread(target=keep, args=(start,)) for start in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [it.count for it in Checkpoints(tmp_path).of("kiosk")]
    assert counts == sorted(set(counts))
    assert counts[-1] == 39


def test_what_one_side_keeps_convicts_the_other(tmp_path: Path) -> None:
    log, kept = AuditLog(tmp_path / "audit.jsonl"), Checkpoints(tmp_path / "theirs")
    for _ in range(3):
        log.add("round")
        kept.keep("server", log.checkpoint(KEY), PUBLIC)
    exported = list(read_checkpoints(kept.folder / "server.jsonl"))
    assert verify(log.path, known=exported, public=PUBLIC).known == 3
    for path in (log.path, log.path.with_name("audit.jsonl.head")):
        path.unlink()
    for _ in range(4):
        log.add("round")  # another history, longer than the one known
    kept.keep("server", log.checkpoint(KEY), PUBLIC)  # said in the module: this alone cannot tell
    with pytest.raises(AuditError, match="line 1 is not the one that the other side knows"):
        verify(log.path, known=exported, public=PUBLIC)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot be read"):
        list(read_checkpoints(tmp_path / "gone.jsonl"))
