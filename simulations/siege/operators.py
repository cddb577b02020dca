"""What operators do, and what must follow at once: restore, reject, look at /ready, shut down."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clients.approvals import Approvals
from clients.membership import Membership, exchange_checkpoint, home_of, join
from server import release
from server.enrolment import Enrolment
from server.registry import Registry
from shared.audit_log import AuditLog
from shared.backbone import BackboneSpec, load_backbone, new_backbone, save_backbone
from shared.bundle import CONTENT, Bundle, build, files_of, pack
from shared.enrolment import node_public
from shared.errors import AtollError, RoundError
from shared.text import find_encoder
from simulations.benchmarks.floor import platform_file
from simulations.deployed import ROOT, Daemon, Deployment
from simulations.siege.rows import Finding, Row

HERE = Path(__file__).parent
NAMES = ("bazaar", "kiosk")
FEDERATION: dict[str, int | float | str] = {"rounds": 5, "quorum": 2, "timeout": 300.0}
PATIENCE = 150.0  # seconds for a process to be where it should be, on a busy machine
ENDS = 3.0  # seconds in which a daemon that is told to end is gone
AT_ONCE = 3.0  # seconds in which a worker is gone; it is looked at four times a second


@dataclass
class Federation:
    """A server, and two platforms whose approved code trains for minutes."""

    deployment: Deployment

    @classmethod
    def made(cls, folder: Path) -> Federation:
        """Its files; nothing is started."""
        files = {name: platform_file(folder, name) for name in NAMES}
        backbone = folder / "backbone.safetensors"
        text = find_encoder()
        spec = BackboneSpec(encoder=text.digest, text_width=text.width, width=8, heads=2, rank=2)
        save_backbone(new_backbone(spec, seed=0), backbone)
        deployment = Deployment(folder, backbone, files, FEDERATION)
        deployment.found()
        release.publish(deployment.home, sleepers(load_backbone(backbone).digest))
        return cls(deployment)

    def training(self) -> tuple[Daemon, dict[str, Daemon]]:
        """The server and its clients, at work on a round."""
        server = self.deployment.server().ready()
        clients = {}
        for name in NAMES:
            self.deployment.join(name)
            clients[name] = self.deployment.client(name)
        for client in clients.values():
            client.answering("train", PATIENCE)
        for name in NAMES:
            wait(lambda name=name: self.worker(name) is not None, "a worker trains")  # type: ignore[misc]
        return server, clients

    def worker(self, name: str) -> int | None:
        """The number of the process that trains for a platform."""
        file = self.deployment.platforms[name].with_suffix(".worker")
        return int(file.read_text(encoding="utf-8") or 0) or None if file.exists() else None


def sleepers(backbone: str) -> Bundle:
    """The app bundle whose ClientApp trains for minutes."""
    files = files_of(build(ROOT).content, where="here")
    del files[CONTENT]
    code = (HERE / "sleeper.py").read_bytes()
    files["clients/app.py"] = code.replace(b'"digest"', f'"{backbone}"'.encode())
    content = pack(files)
    return Bundle(content, hashlib.sha256(content).hexdigest(), "0.1.0")


def wait(until: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Seconds until something is so.

    Raises:
        RoundError: it takes longer.
    """
    began = time.monotonic()
    while not until():
        if time.monotonic() - began > seconds:
            raise RoundError(f"not in {seconds:.0f} s: {what}", todo="look at the logs")
        time.sleep(0.02)
    return time.monotonic() - began


def there(process: int) -> bool:
    """Whether a process of this number runs."""
    try:
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        )
    except OSError:
        return False
    return state != "Z"


def ended(daemon: Daemon) -> tuple[float, int]:
    """Seconds until a daemon that is told to end is gone, and its exit code."""
    began = time.monotonic()
    code = daemon.stop(30.0)
    return time.monotonic() - began, code


def typed(home: Path, *words: str) -> tuple[int, str]:
    """What `atoll-server` answers: exit code, and what it prints."""
    program = Path(sys.executable).with_name("atoll-server")
    done = subprocess.run(
        [str(program), *words, "--home", str(home)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def told(member: Membership) -> str:
    """What an exchange of checkpoints ends with, in words; empty if all is well."""
    try:
        exchange_checkpoint(member, AuditLog(member.home / "audit.jsonl"))
    except AtollError as fault:
        return str(fault)
    return ""


def restored_backup(folder: Path) -> Finding:
    """Evict a platform, put a backup of before back, on this machine and on another."""
    deployment = Federation.made(folder).deployment
    home, store = deployment.home, Enrolment(deployment.home / "platforms.sqlite")
    try:
        server = deployment.server().ready()
        members = {}
        for name in NAMES:
            members[name] = join(
                deployment.token(name),
                f"127.0.0.1:{deployment.port}",
                platform_file=deployment.platforms[name],
            )
            assert told(members[name]) == ""
        server.stop()
        shutil.copytree(home, folder / "backup")
        server = deployment.server().ready()
        code, _ = typed(home, "evict", "bazaar")
        assert code == 0
        kiosk = told(members["kiosk"])
        server.stop()
        shutil.rmtree(home)
        shutil.copytree(folder / "backup", home)
        here, _line = typed(home, "up")
        shutil.rmtree(folder / "witness")  # another machine has none
        server = deployment.server().ready()
        key = node_public(members["bazaar"].node_key().public_key())
        before = store.admitted(key) is not None
        kiosk = kiosk or told(members["kiosk"])
        server.wait(lambda says: not says["ready"] and "put back" in str(says["state"]), PATIENCE)
        after = store.admitted(key) is not None
        server.stop()
        again, _line = typed(home, "up")
        code, line = typed(home, "accept-restored", "--why", "siege", "--confirm", "kiosk")
        deployment.server().ready()
        out = "refused" if told(members["bazaar"]) else "let in"
    finally:
        deployment.stop()
    observed = (
        f"same machine: up ends with {here}; another: in until the first checkpoint ({before}),"
        f" then evicted again ({not after}), /ready 503, up ends with {again};"
        f" accept-restored: {code}; the evicted one is {out}"
    )
    return Finding(
        observed,
        here == again == 2
        and not after
        and code == 0
        and "confirmed: kiosk" in line
        and out == "refused",
    )


def rejected_bundle(folder: Path) -> Finding:
    """Reject a bundle while its worker trains."""
    made = Federation.made(folder)
    deployment = made.deployment
    try:
        _server, clients = made.training()
        process = made.worker("kiosk")
        assert process is not None
        assert there(process)
        home = home_of(deployment.platforms["kiosk"], "kiosk")
        Approvals(home / "approvals").reject(release.current(deployment.home).digest)
        gone = wait(lambda: not there(process), "the worker is gone")
        clients["kiosk"].wait(lambda says: "not approved" in str(says["state"]), PATIENCE)
        updates = [
            name
            for number in Registry(deployment.home / "run").rounds()
            for name in Registry(deployment.home / "run").load(number)[1].replied
        ]
    finally:
        deployment.stop()
    observed = f"its worker is gone after {gone:.2f} s, in the middle of a job; {updates} replied"
    return Finding(observed, gone <= AT_ONCE and not updates)


def ready_states(folder: Path) -> Finding:
    """Ask /ready while nobody is there, and while nobody who is there can take part."""
    made = Federation.made(folder)
    deployment = made.deployment
    try:
        server = deployment.server().ready()
        server.wait(lambda says: str(says["state"]).startswith("waiting"), PATIENCE)
        alone = server.told() or {}
        for name in NAMES:
            deployment.join(name, approve=False)
            deployment.client(name)
        server.wait(lambda says: "can take part" in str(says["state"]) and not says["ready"], 300)
        nobody = server.told() or {}
    finally:
        deployment.stop()
    observed = (
        f"alone: ready {alone.get('ready')}, {alone.get('state')!r}, round {alone.get('round')};"
        f" two that cannot: ready {nobody.get('ready')}, {str(nobody.get('state'))[:160]!r}"
    )
    passed = (
        alone.get("state") == "waiting for platforms: 0 of 2"
        and alone.get("round") is None
        and nobody.get("ready") is False
        and "has not approved this code" in str(nobody.get("state"))
    )
    return Finding(observed, passed)


def shutdown(folder: Path) -> Finding:
    """Tell both sides to end while a question is held, and while a round is under way."""
    seconds = dict[str, tuple[float, int]]()
    (folder / "held").mkdir()
    first = Federation.made(folder / "held")
    try:
        server = first.deployment.server().ready()
        first.deployment.join("kiosk")
        client = first.deployment.client("kiosk").ready()
        time.sleep(2.0)  # its question is held by now
        seconds["server, a question held"] = ended(server)
        seconds["client, no server"] = ended(client)
    finally:
        first.deployment.stop()
    (folder / "round").mkdir()
    second = Federation.made(folder / "round")
    try:
        server, clients = second.training()
        workers = [second.worker(name) for name in NAMES]
        seconds["client, a round under way"] = ended(clients["kiosk"])
        seconds["server, a round under way"] = ended(server)
        seconds["client, server gone in a round"] = ended(clients["bazaar"])
        left = [it for it in workers if it is not None and there(it)]
    finally:
        second.deployment.stop()
    observed = "; ".join(f"{what}: {took:.1f} s" for what, (took, _code) in seconds.items())
    well = all(took <= ENDS and code == 0 for took, code in seconds.values())
    return Finding(f"{observed}; workers left: {len(left)}", well and not left)


ROWS: tuple[Row, ...] = (
    Row(
        "restored-backup",
        "a backup is taken, a platform evicted, the backup put back",
        "refused where this machine knows, else at the first checkpoint; the eviction holds",
        restored_backup,
        600.0,
    ),
    Row(
        "rejected-bundle",
        "an operator rejects a bundle while its worker trains",
        f"the worker is gone within {AT_ONCE:.0f} s and nothing is sent",
        rejected_bundle,
        600.0,
    ),
    Row(
        "ready-states",
        "/ready while nobody is there, and while nobody can take part",
        "says that it waits, for how many, and why nobody can; 503 when nobody can",
        ready_states,
        600.0,
    ),
    Row(
        "shutdown",
        "SIGTERM to both sides: a question held, a round under way, no server",
        f"each is gone within {ENDS:.0f} s with exit code 0",
        shutdown,
        600.0,
    ),
)
