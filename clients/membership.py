"""A platform's place in the federation: the folder that joining makes, and what it holds.

    client.toml       server, name, platform (its TOML file), health
    ca.pem            CAs by which the server's certificate must be signed
    node.key          P-384, signs each call of the node       signing.key   Ed25519, signs the rest
    coordinator.pub   the coordinator's public signing key

Both keys are made here and never leave. The folder appears whole, once the coordinator has let the
platform in; a refusal leaves nothing, and the same command can be given again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from shared import enrolment
from shared.audit_log import AuditLog
from shared.channel import address
from shared.checkpoints import Checkpoint, Checkpoints
from shared.config import Section, read_toml
from shared.enrolment import CheckpointReply
from shared.errors import ConfigError, IdentityError
from shared.evictions import Eviction, Evictions
from shared.files import replacing, sync, unwritable
from shared.signing import check, private_pem, public_key, read_private, signing_key, write_private
from shared.tables.config import load_platform
from shared.token import Token
from shared.trust import authorities, fingerprint, rank

log = logging.getLogger("atoll.client")

HEALTH = "127.0.0.1:9094"
COORDINATOR = "coordinator"  # the name under which its checkpoints are kept
_REPAIR = "put it back from a backup, or move the folder away and join anew"


class _File(Section):
    server: str  # HOST:PORT
    name: str = Field(pattern=enrolment.NAME)
    platform: str  # absolute path of the platform's TOML file
    health: str = HEALTH


@dataclass(frozen=True)
class Membership:
    """A platform that has joined.

    Attributes:
        home: its folder.
        server: HOST:PORT of the coordinator.
        name: of the platform.
        platform: its TOML file.
        health: where `up` tells its health, HOST:PORT.
        coordinator: public signing key, 64 hexadecimal digits.
    """

    home: Path
    server: str
    name: str
    platform: Path
    health: str
    coordinator: str

    def roots(self) -> bytes:
        """The CAs trusted now, PEM; read anew, since they are renewed.

        Raises:
            IdentityError: missing or damaged.
        """
        content = _read(self.home / "ca.pem")
        authorities(content, where=self.home / "ca.pem")
        return content

    def node_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of its node.

        Raises:
            IdentityError: missing, damaged, or others may read it.
        """
        path = self.home / "node.key"
        try:
            key = serialization.load_pem_private_key(read_private(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
            return key
        raise IdentityError("is damaged, or no P-384 key", where=path, todo=_REPAIR)

    def signing_key(self) -> Ed25519PrivateKey:
        """The key with which it signs.

        Raises:
            IdentityError: missing, damaged, or others may read it.
        """
        path = self.home / "signing.key"
        if not path.exists():  # a new one would be nobody's
            raise IdentityError("is missing", where=path, todo=_REPAIR)
        return signing_key(path)


def home_of(platform_file: Path, name: str) -> Path:
    """Where a platform's folder is unless somebody says otherwise: beside its file."""
    return platform_file.parent / f"{name}.atoll"


def home_at(platform_file: Path, home: Path | None) -> Path:
    """A platform's folder, where it is said to be or beside its file.

    Raises:
        ConfigError: the file is wrong.
    """
    return home or home_of(platform_file, load_platform(platform_file).name)


def load(home: Path) -> Membership:
    """What a platform's folder says.

    Raises:
        IdentityError: there is none, or a file of it is damaged.
        ConfigError: its client.toml is wrong.
    """
    path = home / "client.toml"
    if not path.exists():
        raise IdentityError(
            "this platform has not joined", where=home, todo="join with a token, or name its --home"
        )
    file = read_toml(path, _File)
    coordinator = _read(home / "coordinator.pub").decode(errors="replace").strip()
    try:
        public_key(coordinator)
    except IdentityError:
        raise IdentityError("is damaged", where=home / "coordinator.pub", todo=_REPAIR) from None
    return Membership(
        home=home,
        server=address(file.server),
        name=file.name,
        platform=Path(file.platform),
        health=file.health,
        coordinator=coordinator,
    )


def join(
    token: Token,
    server: str,
    *,
    platform_file: Path,
    home: Path | None = None,
    health: str = HEALTH,
) -> Membership:
    """Make keys, have the coordinator let this platform in, and write its folder.

    Args:
        token: as the coordinator gave it.
        server: HOST[:PORT].
        platform_file: the platform's TOML file.
        home: the folder; None is beside that file.
        health: where `up` is to tell its health, HOST:PORT; empty for nowhere.

    Raises:
        ConfigError: the file is wrong, the folder is there or cannot be written, or nobody answers.
        IdentityError: another server answers, or the coordinator refuses.
    """
    name = load_platform(platform_file).name
    place = Path(os.path.abspath(home or home_of(platform_file, name)))
    server = address(server)
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise ConfigError(
            "is there already", where=place, todo="move it away, or name another --home"
        )
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        # All that can fail here is tried before the coordinator is asked.
        part.mkdir(mode=0o700)
        node = ec.generate_private_key(ec.SECP384R1())
        write_private(part / "node.key", private_pem(node))
        signing = signing_key(part / "signing.key")
        written = {"server": server, "name": name, "health": health}
        written["platform"] = os.path.abspath(platform_file)
        _write(part / "client.toml", "".join(f"{k} = {_quoted(v)}\n" for k, v in written.items()))
        request = enrolment.join_request(token.secret, name=name, node=node, signing=signing)
        reply = enrolment.join(server, token, request)
        bundle = reply.ca.encode()
        pinned = authorities(token.roots)[0]
        if pinned not in authorities(bundle, where=server):
            raise IdentityError(
                "the coordinator no longer trusts the CA of the token",
                where=server,
                todo="ask it for a new token",
            )
        _write(part / "ca.pem", reply.ca)
        _write(part / "coordinator.pub", reply.coordinator + "\n")
        sync(part)
        os.rename(part, place)
        sync(place.parent)
    except OSError as fault:
        raise unwritable(place, fault) from fault
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return load(place)


def exchange_checkpoint(
    member: Membership, audit: AuditLog, *, clock: Callable[[], float] = time.time
) -> bool:
    """Tell the coordinator where this audit log stands, and keep what it says of its own.

    Returns:
        Whether there are new CAs to trust, so that connections must be made anew.

    Raises:
        ConfigError: nobody answers.
        IdentityError: it is another server, it refuses, or a signature does not hold.
        AuditError: the coordinator's audit log went back, or an own file cannot be written.
    """
    own = audit.checkpoint(member.signing_key()).as_dict()
    checkpoints, evictions = Checkpoints(member.home / "checkpoints"), evictions_of(member)
    held = checkpoints.last(COORDINATOR)
    reply = ask(member, own, now=clock(), held=held)
    listed = [Eviction.from_dict(fields) for fields in reply.evictions]
    if lacking := evictions.lacking(listed):  # it was put back from a backup
        log.warning("the coordinator has forgotten %d evictions and is told", len(lacking))
        reply = ask(member, own, now=clock(), held=held, evictions=lacking)
    evictions.keep(listed, member.coordinator)
    told = Checkpoint.from_dict(reply.checkpoint or {})
    renewed = renew(member, reply)
    checkpoints.keep(COORDINATOR, told, member.coordinator)
    return renewed


def evictions_of(member: Membership) -> Evictions:
    """The evictions that this platform keeps for the coordinator."""
    return Evictions(member.home / "evictions.json")


def ask(
    member: Membership,
    checkpoint: dict[str, int | float | str] | None,
    *,
    now: float,
    held: Checkpoint | None = None,
    evictions: Sequence[Eviction] = (),
) -> CheckpointReply:
    """The coordinator's reply.

    Args:
        member: who asks.
        checkpoint: of its own audit log; without one it only shows a sign of life.
        now: on its clock.
        held: the newest checkpoint of the coordinator's log that is kept here.
        evictions: statements that the coordinator lacks.
    """
    roots = member.roots()
    return enrolment.exchange(
        member.server,
        checkpoint,
        platform=member.name,
        signing=member.signing_key(),
        roots=roots,
        ca=fingerprint(roots),
        now=now,
        held=None if held is None else held.as_dict(),
        evictions=evictions,
    )


def renew(member: Membership, reply: CheckpointReply) -> bool:
    """Trust the CAs in the reply from now on, if they are other ones and the coordinator's.

    Raises:
        IdentityError: the signature does not hold, or they are older than those trusted here.
    """
    path, bundle = member.home / "ca.pem", reply.ca.encode()
    check(member.coordinator, "ca", bundle, reply.ca_signature, where=member.server)
    mine = member.roots()
    if bundle == mine:
        return False
    new = authorities(bundle, where=member.server)
    if rank(new) <= rank(authorities(mine, where=path)):
        raise IdentityError(
            "offers CAs that are no newer than those trusted here",
            where=member.server,
            todo="ask the coordinator whether it went back to a backup; if not, its key was stolen",
        )
    _write(path, reply.ca)
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise IdentityError(f"cannot be read ({why})", where=path, todo=_REPAIR) from None


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False)
