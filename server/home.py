"""The coordinator's folder: what `init` makes, and what server.toml in it says.

server.toml                             this file's keys; relative paths start at the folder
ca.pem ca.key server.pem server.key     server/authority.py
signing.key                             signs models, checkpoints and CAs
platforms.sqlite                        server/enrolment.py
run/ releases/ audit.jsonl checkpoints/ superlink.sqlite
later.head                              server/restored.py, which also writes outside the folder
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from server import authority
from server.certificates import san
from server.config import Federation, FederationSection, federation_from
from shared.channel import with_port
from shared.config import Section, parse, read_toml
from shared.enrolment import NAME
from shared.errors import ConfigError, IdentityError
from shared.files import made_folder, replacing, sync
from shared.signing import signing_key

FILE = "server.toml"
LISTEN, HEALTH = "0.0.0.0:9092", "127.0.0.1:9093"


class _Start(Section):
    platforms: int | None = Field(None, ge=1)  # to wait for before the first round


class _File(Section):
    name: str = Field("coordinator", pattern=NAME)
    listen: str = LISTEN
    health: str = HEALTH
    backbone: str
    pairs: str | None = None
    witness: str | None = None
    federation: FederationSection = FederationSection()
    start: _Start = _Start()


@dataclass(frozen=True)
class ServerHome:
    """What server.toml says.

    Attributes:
        path: the folder.
        name: of the coordinator.
        listen: HOST:PORT for platforms; port 0 for any free one.
        health: HOST:PORT where `up` tells its health; empty for nowhere.
        backbone: file of the Backbone.
        pairs: list of pairs over which sums are taken before the first round; None takes none.
        witness: folder outside this one that keeps what the audit log stands at; None keeps none.
        federation: how rounds go.
        platforms: how many to wait for before the first round; None is the quorum.
    """

    path: Path
    name: str
    listen: str
    health: str
    backbone: Path
    pairs: Path | None
    witness: Path | None
    federation: Federation
    platforms: int | None


def already(path: Path) -> ConfigError:
    """The error for a folder that is a coordinator's home, where there should be none."""
    return ConfigError(
        "is a coordinator's home already, and stays as it is",
        where=path,
        todo="go on with it, or name another --home",
    )


def load_home(path: Path) -> ServerHome:
    """The coordinator's folder.

    Raises:
        IdentityError: it is none.
        ConfigError: its server.toml is wrong.
    """
    if not (path / FILE).is_file():
        raise IdentityError(
            f"is no coordinator's home: it has no {FILE}",
            where=path,
            todo="name another --home, or make one with init",
        )
    file = read_toml(path / FILE, _File)
    with_port(file.listen, "listen")
    with_port(file.health, "health")
    return ServerHome(
        path=path,
        name=file.name,
        listen=file.listen,
        health=file.health,
        backbone=Path(os.path.abspath(path / file.backbone)),
        pairs=None if file.pairs is None else Path(os.path.abspath(path / file.pairs)),
        witness=state_folder() if file.witness is None else _folder(path, file.witness),
        federation=federation_from(file.federation),
        platforms=file.start.platforms,
    )


def state_folder() -> Path | None:
    """Where this user's programs keep what they know: XDG's state folder; None without a home."""
    named = os.environ.get("XDG_STATE_HOME", "")
    if named.startswith("/"):
        return Path(named) / "atoll"
    home = os.environ.get("HOME", "")
    return Path(home) / ".local" / "state" / "atoll" if home.startswith("/") else None


def _folder(path: Path, named: str) -> Path | None:
    """A folder of server.toml; the empty word is for none."""
    return Path(os.path.abspath(path / named)) if named else None


def make_home(
    path: Path, *, hosts: Sequence[str], backbone: Path, listen: str, health: str, name: str
) -> ServerHome:
    """Make a coordinator's folder: certificates, signing key and server.toml, which comes last.

    Args:
        path: a folder that is not there, or is empty.
        hosts: names and IP addresses by which platforms reach it.
        backbone: file of the Backbone.
        listen: HOST:PORT for platforms.
        health: HOST:PORT for whoever watches over it.
        name: of the coordinator.

    Raises:
        ConfigError: something is there, or a value is wrong; nothing is left then.
    """
    content = written(
        backbone=Path(os.path.abspath(backbone)), listen=listen, health=health, name=name
    )
    parse({"name": name, "backbone": str(backbone)}, _File, FILE)
    san(hosts)
    with_port(listen, "listen")
    with_port(health, "health")
    was_there = path.exists()
    if (path / FILE).exists():
        raise already(path)
    if was_there and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError("is not empty", where=path, todo="name a folder that is not there yet")
    made_folder(path)
    try:
        path.chmod(0o700)
        authority.create(path, hosts=hosts, name=name)
        signing_key(path / "signing.key")
        with replacing(path / FILE) as part:
            part.write_text(content, encoding="utf-8")
        sync(path.parent)
    except BaseException:
        for left in path.iterdir():
            left.unlink(missing_ok=True)
        if not was_there:
            shutil.rmtree(path, ignore_errors=True)
        raise
    return load_home(path)


def owners_alone(path: Path) -> None:
    """See to it that nobody but its owner looks into a home, whoever made or restored it.

    Raises:
        IdentityError: the folder is another user's.
    """
    if path.stat().st_mode & 0o777 == 0o700:
        return
    try:
        path.chmod(0o700)
    except OSError as fault:
        raise IdentityError(
            f"others may look into it ({fault.strerror})", where=path, todo="chown it to this user"
        ) from fault


def written(*, backbone: Path, listen: str, health: str, name: str) -> str:
    """A server.toml; the federation's keys are there as comments, at their defaults."""
    lines = [
        "# What this coordinator is and does. Relative paths start at this file's folder.",
        f"name = {json.dumps(name)}",
        f"listen = {json.dumps(listen)}  # for platforms",
        f"health = {json.dumps(health)}  # for whoever watches over it: keep it inside",
        f"backbone = {json.dumps(str(backbone), ensure_ascii=False)}",
        '# pairs = "pairs.safetensors"  # over which sums are taken before the first round',
        '# witness = "/var/lib/atoll-witness"  # folder that is not part of the backup of this one',
        "",
        "[start]",
        "# platforms = 2  # to wait for before the first round; left out, the quorum",
        "",
        "[federation]  # how rounds go; these are the defaults",
    ]
    for key, field in FederationSection.model_fields.items():
        if field.default is None:
            lines.append(f"# {key} =  # left out, what the others make of it")
        else:
            lines.append(f"# {key} = {json.dumps(field.default)}")
    return "\n".join(lines) + "\n"
