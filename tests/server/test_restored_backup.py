"""A coordinator that is put back from a backup: who was evicted stays out, and nothing is asked."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server import release
from server.commands import doctor
from server.daemon import main
from server.enrolment import Enrolment
from server.enrolment_service import handlers
from server.home import load_home, make_home
from server.restored import Guard
from server.witness import server_log, witness_of, write_mark
from shared import enrolment as wire
from shared.audit_log import entries, verify
from shared.channel import REQUEST
from shared.checkpoints import Checkpoint, Checkpoints
from shared.doctor import Check
from shared.errors import AuditError, IdentityError
from shared.evictions import Eviction
from shared.signing import public_of, sign, signing_key
from simulations.lagoon import BUNDLE

if TYPE_CHECKING:
    from tests.server.conftest import Keys, MakeKeys

Typed = Callable[..., tuple[int, str, str]]


@dataclass
class Server:
    """A coordinator's home, a backup of it, and the platforms' keys."""

    home: Path
    backup: Path
    keys: dict[str, Keys]

    @property
    def store(self) -> Enrolment:
        return Enrolment(self.home / "platforms.sqlite")

    @property
    def key(self) -> Ed25519PrivateKey:
        return signing_key(self.home / "signing.key")

    def guard(self, **how: Any) -> Guard:
        return Guard(load_home(self.home), self.store, server_log(self.home), **how)

    def checkpoint(self) -> dict[str, Any]:
        """What a platform is sent and keeps."""
        return server_log(self.home).checkpoint(self.key).as_dict()

    def admit(self, name: str) -> None:
        self.store.admit(self.keys[name].request(self.store.invite(name), name))
        server_log(self.home).add("joined", platform=name)

    def take_backup(self) -> None:
        gc.collect()  # connections that nobody has any more take SQLite's journals with them
        shutil.copytree(self.home, self.backup)

    def restore(self) -> None:
        for _ in range(10):  # a journal may go by itself in between
            shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.backup, self.home)

    def forget_witness(self) -> None:
        """As on another machine."""
        witness = witness_of(load_home(self.home))
        assert witness is not None
        shutil.rmtree(witness.folder)

    def live(self) -> list[str]:
        return [it.name for it in self.store.platforms() if it.evicted is None]

    def events(self) -> list[str]:
        return [entry.event for entry in entries(self.home / "audit.jsonl")]


@pytest.fixture
def server(tmp_path: Path, backbone: Path, make_keys: MakeKeys) -> Server:
    """A coordinator with two platforms, and a backup of it."""
    home = tmp_path / "home"
    where = {"listen": "127.0.0.1:0", "health": "", "name": "coordinator"}
    make_home(home, hosts=["127.0.0.1"], backbone=backbone, **where)
    made = Server(home, tmp_path / "backup", {name: make_keys() for name in ("bazaar", "kiosk")})
    release.publish(home, BUNDLE)
    for name in made.keys:
        made.admit(name)
    made.take_backup()
    return made


@pytest.fixture
def evicted(server: Server, typed: Typed) -> Server:
    """The same after bazaar was evicted, kiosk was told, and the backup was put back."""
    assert typed(main, "evict", "bazaar", "--home", server.home)[0] == 0
    return server


def refusal(typed: Typed, *words: str | Path) -> str:
    """The one line with which a command refuses."""
    code, out, err = typed(main, *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    return err


def statements(server: Server) -> list[dict[str, float | str]]:
    """The evictions, as platforms are told of them."""
    gone = [it for it in server.store.platforms() if it.evicted is not None]
    told = [Eviction(it.name, it.signing_key, it.evicted or 0.0) for it in gone]
    return [eviction.signed(server.key).as_dict() for eviction in told]


def test_up_refuses_what_this_machine_knows_to_be_old(evicted: Server, typed: Typed) -> None:
    evicted.restore()
    assert verify(evicted.home / "audit.jsonl").count == 2  # by itself it holds
    line = refusal(typed, "up", "--home", evicted.home)
    assert "put back from a backup: line 3 of the audit log is missing: 1 entry" in line
    assert "evicted meanwhile: bazaar; atoll-server accept-restored" in line


def test_doctor_says_so_too(evicted: Server) -> None:
    def check() -> Check:
        found = {it.name: it for it in doctor.checks(load_home(evicted.home), now=0.0)}
        return found["restored"]

    assert check().ok
    evicted.restore()
    assert check().ok is False
    assert "put back from a backup" in check().told


def test_a_log_that_grew_past_what_is_missing_is_found_out_too(evicted: Server) -> None:
    evicted.restore()
    for number in range(3):  # the operator goes on before the server is started
        server_log(evicted.home).add("invited", platform=f"shop{number}")
    missing = evicted.guard().look()
    assert missing is not None
    assert "line 3 of the audit log is another than the one of" in str(missing)


def test_the_witness_is_no_part_of_the_home_and_for_its_owner_alone(server: Server) -> None:
    witness = witness_of(load_home(server.home))
    assert witness is not None
    assert server.home not in witness.folder.parents
    assert witness.folder.is_relative_to(os.environ["XDG_STATE_HOME"])
    assert [path.stat().st_mode & 0o077 for path in (witness.folder, witness.path)] == [0, 0]
    mark = witness.read()
    assert mark is not None
    assert mark.count == 2


def test_a_witness_that_cannot_be_written_keeps_no_line_out_of_the_log(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    toml = server.home / "server.toml"
    toml.write_text(toml.read_text().replace("[start]", 'witness = "../file/in"\n[start]', 1))
    server_log(server.home).add("invited", platform="late")
    assert server.events()[-1] == "invited"


def test_a_checkpoint_that_a_platform_holds_stops_all_asking(evicted: Server) -> None:
    held = evicted.checkpoint()
    evicted.restore()
    evicted.forget_witness()
    told = list[str]()
    guard = evicted.guard(found=told.append)
    assert guard.look() is None
    guard.check()
    guard.show(held, [])
    with pytest.raises(AuditError, match=r"put back from a backup: line 3 .* is missing"):
        guard.check()
    assert len(told) == 1
    assert evicted.events()[-1] == "restore found"
    guard.show(held, [])  # again: neither a line nor a word more
    assert (len(told), evicted.events().count("restore found")) == (1, 1)
    again = evicted.guard()
    assert again.look() is not None  # a restart does not forget it


def test_an_eviction_that_a_platform_keeps_is_done_again_at_once(evicted: Server) -> None:
    signed = statements(evicted)
    evicted.restore()
    evicted.forget_witness()
    assert evicted.live() == ["bazaar", "kiosk"]
    evicted.guard().show(None, signed)
    assert evicted.live() == ["kiosk"]
    assert evicted.events()[-1] == "evicted again"
    evicted.guard().show(None, signed)
    assert evicted.events().count("evicted again") == 1


@pytest.mark.parametrize("forged", ["checkpoint", "eviction"])
def test_what_this_coordinator_did_not_sign_changes_nothing(
    server: Server, make_keys: MakeKeys, forged: str
) -> None:
    mallory = make_keys().signing
    checkpoint = Checkpoint(99, "a" * 64, 2e9, "").signed(mallory).as_dict()
    kiosk = server.store.named("kiosk")
    assert kiosk is not None
    eviction = Eviction("kiosk", kiosk.signing_key, 2e9).signed(mallory).as_dict()
    guard = server.guard()
    shown = (checkpoint, []) if forged == "checkpoint" else (None, [eviction])
    with pytest.raises(IdentityError, match="signature does not hold"):
        guard.show(*shown)
    guard.check()
    assert server.live() == ["bazaar", "kiosk"]
    assert guard.look() is None


def test_a_checkpoint_that_another_key_signed_is_refused_from_the_disk_too(
    server: Server, make_keys: MakeKeys
) -> None:
    witness = witness_of(load_home(server.home))
    assert witness is not None
    forged = Checkpoint(99, "a" * 64, 2e9, "").signed(make_keys().signing)
    for path in (server.home / "later.head", witness.path):
        write_mark(path, forged)
        with pytest.raises(AuditError, match="is no checkpoint of this coordinator"):
            server.guard().look()
        path.unlink()
    assert server.guard().look() is None


def test_an_old_checkpoint_of_this_very_log_is_no_evidence(server: Server) -> None:
    held = server.checkpoint()
    server_log(server.home).add("invited", platform="late")
    guard = server.guard()
    guard.show(held, [])
    guard.show(server.checkpoint(), [])
    guard.check()


def test_going_on_needs_each_member_by_name(evicted: Server, typed: Typed) -> None:
    held = evicted.checkpoint()
    evicted.restore()
    words = ("accept-restored", "--home", evicted.home, "--why", "the disk failed")
    code, out, _ = typed(main, *words)
    assert code == 0
    assert "bazaar was evicted after the backup, and is evicted again" in out
    assert "confirmed: nobody\nsuspended: kiosk" in out
    keys = evicted.keys
    assert [evicted.store.admitted(keys[name].node_key) for name in keys] == [None, None]
    assert evicted.store.whose(keys["kiosk"].node_key) == "suspended kiosk"
    guard = evicted.guard()
    assert guard.look() is None
    guard.show(held, [])  # of before: it no longer counts
    guard.check()
    code, out, _ = typed(main, "confirm", "kiosk", "--home", evicted.home)
    assert (code, out) == (0, "kiosk takes part again\n")
    assert evicted.store.admitted(keys["kiosk"].node_key) is not None
    assert evicted.store.admitted(keys["bazaar"].node_key) is None
    assert evicted.events()[2:] == ["restore accepted", "evicted again", "suspended", "confirmed"]


def test_who_was_evicted_meanwhile_cannot_be_confirmed(evicted: Server, typed: Typed) -> None:
    evicted.restore()
    words = ("accept-restored", "--home", evicted.home, "--why", "x", "--confirm", "bazaar")
    assert "bazaar was evicted after the backup was taken" in refusal(typed, *words)
    words = (*words[:-1], "nobody")
    assert "no platform 'nobody' is admitted" in refusal(typed, *words)
    assert evicted.guard().look() is not None


def test_who_is_confirmed_goes_on_and_a_second_restore_is_found_out(
    evicted: Server, typed: Typed
) -> None:
    evicted.restore()
    words = ("accept-restored", "--home", evicted.home, "--why", "x", "--confirm", "kiosk")
    assert typed(main, *words)[0] == 0
    assert evicted.store.named("kiosk") is not None
    shutil.rmtree(evicted.backup)
    evicted.take_backup()
    server_log(evicted.home).add("invited", platform="late")
    held = evicted.checkpoint()
    evicted.restore()
    evicted.forget_witness()
    guard = evicted.guard()
    assert guard.look() is None
    guard.show(held, [])
    with pytest.raises(AuditError, match="put back"):
        guard.check()


def test_a_platform_that_is_not_known_here_can_show_what_it_holds(
    server: Server, make_keys: MakeKeys
) -> None:
    server.keys["late"] = make_keys()
    server.admit("late")
    held = server.checkpoint()
    server.restore()
    server.forget_witness()
    guard = server.guard()
    call = methods(server, guard)
    with pytest.raises(Answered, match="no platform 'late' is enrolled"):
        call("Checkpoint", request(server, "late", held))
    with pytest.raises(AuditError, match="put back"):
        guard.check()
    secret = server.store.invite("other")
    body = wire.packed(make_keys().request(secret, "other"))
    with pytest.raises(Answered, match="put back from a backup, and is not confirmed"):
        call("Join", body)


def test_a_suspended_platform_is_told_that_it_is(server: Server) -> None:
    server.store.accept_restored(["kiosk"])
    call = methods(server, server.guard())
    with pytest.raises(Answered, match="this platform is suspended; ask the coordinator"):
        call("Checkpoint", request(server, "bazaar", None))
    reply = wire.unpacked(
        call("Checkpoint", request(server, "kiosk", None)), wire.CheckpointReply, ""
    )
    assert reply.evictions == []


def test_each_platform_is_told_of_each_eviction(evicted: Server) -> None:
    call = methods(evicted, evicted.guard())
    content = call("Checkpoint", request(evicted, "kiosk", None))
    reply = wire.unpacked(content, wire.CheckpointReply, "")
    (eviction,) = (Eviction.from_dict(fields) for fields in reply.evictions)
    eviction.check(public_of(evicted.key))
    assert eviction.name == "bazaar"


class Answered(Exception):  # noqa: N818 (a refusal as gRPC tells it)
    """A call ended with a status and a line."""


class Context:
    """What a handler sees of a call."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def invocation_metadata(self) -> list[tuple[str, bytes]]:
        return [(REQUEST, self.content)]

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def abort(self, _code: object, line: str) -> None:
        raise Answered(line)


def methods(server: Server, guard: Guard) -> Callable[[str, bytes], bytes]:
    """The enrolment service, called without a network."""
    log = server_log(server.home)
    service = handlers(
        server.store,
        key=server.key,
        checkpoint=lambda: log.checkpoint(server.key),
        keep=Checkpoints(server.home / "checkpoints").keep,
        ca_bundle=lambda: b"CAs",
        audit=log,
        guard=guard,
    )

    @dataclass
    class Details:
        method: str
        invocation_metadata: tuple[()] = ()

    def call(name: str, content: bytes) -> bytes:
        method = service.service(Details(f"/{wire.SERVICE}/{name}"))
        found: bytes = method.stream_unary(iter(()), Context(content))
        return found

    return call


def request(server: Server, name: str, held: dict[str, Any] | None) -> bytes:
    """A platform's request, by its key."""
    blank = wire.CheckpointRequest.model_construct(
        platform=name,
        sent=server_log(server.home).clock(),
        ca="0" * 64,
        checkpoint=None,
        held=held,
        evictions=[],
        proof="",
    )
    body = wire.checkpoint_body(blank)
    proof = sign(server.keys[name].signing, "exchange", body)
    return wire.packed(blank.model_copy(update={"proof": proof}))
