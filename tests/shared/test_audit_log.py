from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.audit_lines import sealed
from shared.audit_log import AuditLog, Checkpoint, Entry, Verified, entries, verify
from shared.errors import AuditError, IdentityError
from shared.signing import canonical, public_of

ROOT = Path(__file__).parents[2]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
Log = tuple[Path, bytes, Checkpoint]

quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def grown(path: Path, lines: int = 5) -> AuditLog:
    ticks = count(1_700_000_000)
    log = AuditLog(path, clock=lambda: float(next(ticks)))
    for number in range(lines):
        log.add("round", run="7", round=number, loss=0.5 / (number + 1), moved=True)
    return log


def head_of(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def forged(path: Path, change: Callable[[list[Entry]], list[Entry]]) -> None:
    """Write the log anew as somebody would who knows how it is sealed, head file and all."""
    before, lines = "", []
    for number, entry in enumerate(change(list(entries(path))), start=1):
        first = before or entry.before
        it = sealed(Entry(number, entry.time, entry.event, entry.fields, first))
        lines.append(canonical(it.as_dict()) + b"\n")
        before = it.hash
    path.write_bytes(b"".join(lines))
    head_of(path).write_bytes(canonical({"count": len(lines), "head": before}) + b"\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Log:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    log = grown(path)
    return path, path.read_bytes(), log.checkpoint(KEY)


def test_a_log_that_nobody_touched_holds(whole: Log) -> None:
    path, content, checkpoint = whole
    assert verify(path) == Verified(5, checkpoint.head)
    assert verify(path, known=[checkpoint], public=public_of(KEY)).known == 5
    first = json.loads(content.splitlines()[0])
    assert (first["number"], first["event"], first["run"], first["moved"]) == (
        1,
        "round",
        "7",
        True,
    )
    assert [entry.fields["round"] for entry in entries(path)] == [0, 1, 2, 3, 4]
    assert path.stat().st_mode & 0o777 == head_of(path).stat().st_mode & 0o777 == 0o600


def test_two_logs_of_the_same_events_have_nothing_in_common(tmp_path: Path) -> None:
    grown(tmp_path / "a")
    grown(tmp_path / "b")
    with pytest.raises(AuditError, match="line 5 is not the one that the other side knows"):
        verify(tmp_path / "a", known=[grown(tmp_path / "b", 0).checkpoint(KEY)])


@quick
@given(data=st.data())
def test_every_edited_byte_is_found(data: st.DataObject, whole: Log) -> None:
    path, content, checkpoint = whole
    place = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda it: it != content[place]))
    check_found(path, content[:place] + bytes([value]) + content[place + 1 :], checkpoint)


@quick
@given(data=st.data())
def test_every_byte_put_in_or_taken_out_is_found(data: st.DataObject, whole: Log) -> None:
    path, content, checkpoint = whole
    place = data.draw(st.integers(0, len(content) - 1))
    check_found(path, content[:place] + content[place + 1 :], checkpoint)
    more = data.draw(st.binary(min_size=1, max_size=3))
    check_found(path, content[:place] + more + content[place:], checkpoint)


@quick
@given(data=st.data())
def test_removed_repeated_and_moved_lines_are_found(data: st.DataObject, whole: Log) -> None:
    path, content, checkpoint = whole
    lines = content.splitlines(keepends=True)
    order = data.draw(st.lists(st.integers(0, 4), max_size=7).filter(lambda it: it != [*range(5)]))
    if order[:5] == [*range(5)]:  # all is there, and something after it
        check_found(path, b"".join(lines[it] for it in order), checkpoint, by_checkpoint=False)
    else:
        check_found(path, b"".join(lines[it] for it in order), checkpoint)


@quick
@given(data=st.data())
def test_every_truncation_is_found(data: st.DataObject, whole: Log) -> None:
    path, content, checkpoint = whole
    check_found(path, content[: data.draw(st.integers(0, len(content) - 1))], checkpoint)


def check_found(
    path: Path, content: bytes, checkpoint: Checkpoint, *, by_checkpoint: bool = True
) -> None:
    """By the head file alone, and by a checkpoint alone where the head file is gone."""
    copy = path.with_name("copy.jsonl")
    copy.write_bytes(content)
    shutil.copy(head_of(path), head_of(copy))
    with pytest.raises(AuditError, match="jsonl"):
        verify(copy)
    head_of(copy).unlink()
    with pytest.raises(AuditError):
        verify(copy)
    if by_checkpoint:
        with pytest.raises(AuditError):
            verify(copy, known=[checkpoint])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda it: it[:3], "was cut: it has 3 lines, the other side knows 5"),
        (lambda it: it[:2] + it[3:] + it[:1], "line 5 is not the one that the other side knows"),
        (lambda it: it[1:] + it[:1], "line 5 is not the one that the other side knows"),
    ],
)
def test_a_log_forged_with_its_head_file_is_found_by_who_knows_it(
    change: Callable[[list[Entry]], list[Entry]], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    known = grown(path).checkpoint(KEY)
    forged(path, change)
    verify(path)  # said at the module's top: whoever may write both is found by the other side only
    with pytest.raises(AuditError, match=told):
        verify(path, known=[known])


def test_the_other_side_cannot_make_up_a_checkpoint(whole: Log) -> None:
    path, _, checkpoint = whole
    false = Checkpoint(9, "ab" * 32, 0.0, "").signed(OTHER)
    with pytest.raises(AuditError, match="knows 9"):
        verify(path, known=[false])
    with pytest.raises(IdentityError, match="checkpoint of 9 lines"):
        verify(path, known=[checkpoint, false], public=public_of(KEY))


def test_two_checkpoints_that_contradict_each_other_are_told(whole: Log) -> None:
    path, _, checkpoint = whole
    other = Checkpoint(5, "ab" * 32, 0.0, "").signed(KEY)
    with pytest.raises(AuditError, match="two checkpoints of line 5"):
        verify(path, known=[checkpoint, other], public=public_of(KEY))


@pytest.mark.parametrize("how", ["cut", "gone", "edited", "headless", "appended", "other head"])
def test_nothing_is_added_to_a_log_that_was_touched(how: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = grown(path)
    lines = path.read_bytes().splitlines(keepends=True)
    match how:
        case "cut":
            path.write_bytes(b"".join(lines[:4]))
        case "gone":
            path.unlink()
        case "edited":
            path.write_bytes(b"".join([*lines[:4], lines[4].replace(b"true", b"false")]))
        case "headless":
            head_of(path).unlink()
        case "appended":
            forged(path, lambda it: it * 2)
            head_of(path).write_bytes(canonical({"count": 5, "head": json.loads(lines[4])["hash"]}))
        case _:
            head_of(path).write_text("{}")
    with pytest.raises(AuditError):
        log.add("round")
    with pytest.raises(AuditError):
        verify(path)
    with pytest.raises(AuditError):
        log.checkpoint(KEY)


def test_a_log_that_was_never_written_has_an_empty_checkpoint(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    assert (log.checkpoint(KEY).count, log.checkpoint(KEY).head) == (0, "0" * 64)
    assert not log.path.exists()
    known = [log.checkpoint(KEY)]
    log.add("start")
    assert verify(log.path, known=known, public=public_of(KEY)).count == 1


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("Round", {}),
        ("", {}),
        ("x" * 65, {}),
        ("a\nb", {}),
        ("round", {"hash": "x"}),
        ("round", {"number": 1}),
        ("round", {"loss": float("nan")}),
        ("round", {"loss": float("inf")}),
        ("round", {"large": 2**63}),
        ("round", {"nested": {"a": 1}}),
        ("round", {"nothing": None}),
        ("round", {"Ü": 1}),
        ("round", {f"f{number}": 1 for number in range(33)}),
    ],
)
def test_what_no_line_takes_is_refused_before_anything_is_written(
    event: str, fields: dict[str, float], tmp_path: Path
) -> None:
    with pytest.raises(AuditError, match="give plain values"):
        AuditLog(tmp_path / "audit.jsonl").add(event, **fields)
    assert not list(tmp_path.iterdir())


def test_the_longest_line_that_can_be_written_can_be_read(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    fields = {f"{'f' * 60}{number}": "\U0001f600" * 501 for number in range(32)}
    for _ in range(3):
        entry = log.add("e" * 64, **fields)
    assert set(entry.fields.values()) == {"\U0001f600" * 499 + "…"}
    assert verify(log.path).count == 3


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    grown(path, 2)
    with path.open("ab") as file:
        file.truncate(1 << 30)  # a sparse file: a gigabyte of zeros
    tracemalloc.start()
    try:
        for act in (verify, lambda it: AuditLog(it).add("x"), lambda it: list(entries(it))):
            with pytest.raises(AuditError, match="does not end in a line"):
                act(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_long_log_is_verified_without_being_held(tmp_path: Path) -> None:
    path, before = tmp_path / "audit.jsonl", "00" * 32
    with path.open("wb") as file:
        for number in range(1, 20_001):
            it = sealed(Entry(number, 1.0, "round", {"run": "7", "loss": 0.25}, before))
            file.write(canonical(it.as_dict()) + b"\n")
            before = it.hash
    head_of(path).write_bytes(canonical({"count": 20_000, "head": before}) + b"\n")
    tracemalloc.start()
    try:
        assert verify(path).count == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # of 5 MB
    finally:
        tracemalloc.stop()


def test_a_log_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"cannot be read \(No such file"):
        verify(tmp_path / "audit.jsonl")
    with pytest.raises(AuditError, match="cannot be written"):
        AuditLog(tmp_path / "gone" / "audit.jsonl").add("start")
