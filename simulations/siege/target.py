"""What is attacked: `atoll-server up` as a process of its own, with honest platforms at work.

The federation's settings let rounds go on without a platform that is silent, as an operator would
set them where not everybody is trusted to answer.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server import release
from server.enrolment import Enrolment
from shared.backbone import BackboneSpec, load_backbone, new_backbone, save_backbone
from shared.enrolment import join_request
from shared.errors import RoundError
from shared.signing import private_pem
from shared.text import find_encoder
from simulations.benchmarks.floor import noop_bundle
from simulations.deployed import ROOT, Daemon, Deployment

HONEST = ("atelier", "harbour", "kiosk")
MEMBER = "mallory"  # an enrolled platform, in the attackers' hands
FEDERATION: dict[str, int | float | str] = {
    "rounds": 10_000,
    "quorum": len(HONEST),
    "timeout": 20.0,
    "grace": 1.0,
    "patience": 1000,
}
PATIENCE = 180.0  # seconds for the server and its first rounds on a busy machine


class Target:
    """A server and three honest platforms.

    Attributes:
        server: its process.
        keys: node keys by platform, the member's among them.
    """

    def __init__(self, folder: Path) -> None:
        """Make its home; start nothing yet. Args: folder: for all files; it is empty."""
        self.folder, backbone = folder, folder / "backbone.safetensors"
        text = find_encoder()
        spec = BackboneSpec(encoder=text.digest, text_width=text.width, width=8, heads=2, rank=2)
        save_backbone(new_backbone(spec, seed=0), backbone)
        self.backbone = load_backbone(backbone).digest
        self.deployment = Deployment(folder, backbone, {}, FEDERATION)
        self.deployment.found()
        release.publish(self.deployment.home, noop_bundle())
        self.enrolment = Enrolment(self.deployment.home / "platforms.sqlite")
        self.keys = {name: self._enrolled(name) for name in (*HONEST, MEMBER)}
        self._light: subprocess.Popen[bytes] | None = None
        self.server: Daemon | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.deployment.port}"

    @property
    def roots(self) -> bytes:
        """What platforms trust."""
        return (self.deployment.home / "ca.pem").read_bytes()

    def start(self) -> None:
        """Start the server and the honest platforms, and wait until rounds are recorded.

        Raises:
            RoundError: none is in PATIENCE seconds.
        """
        self.server = self.deployment.server()
        self.server.wait(lambda told: "port" in told, PATIENCE)
        pems = self.folder / "keys.pem"
        pems.touch(mode=0o600)
        pems.write_bytes(b"".join(private_pem(self.keys[name]) for name in HONEST))
        words = [sys.executable, "-m", "simulations.siege.platforms", self.address]
        words += [str(self.deployment.home / "ca.pem"), str(pems), self.backbone, *HONEST]
        self._light = subprocess.Popen(words, cwd=ROOT)
        until = time.monotonic() + PATIENCE
        while len(self.rounds()) < 3:
            if time.monotonic() > until or not self.alive():
                raise RoundError(
                    "no rounds", where=self.log_file, todo="look: " + self.log()[-1000:]
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """End all processes."""
        if self._light is not None:
            self._light.kill()
            self._light.wait()
        self.deployment.stop()

    @property
    def pid(self) -> int:
        """Of the server."""
        assert self.server is not None
        return self.server.process.pid

    def alive(self) -> bool:
        """Whether the server's process is the one that was started."""
        assert self.server is not None
        return self.server.process.poll() is None

    def ending(self) -> str:
        """How the server's process is, in words."""
        assert self.server is not None
        code = self.server.process.poll()
        return "alive" if code is None else f"ended with code {code}"

    @property
    def log_file(self) -> Path:
        """What the server writes on standard error."""
        return self.folder / "server.log"

    def log(self) -> str:
        """All that it wrote."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def rounds(self) -> list[tuple[int, float]]:
        """Rounds that the server has told of: number, and seconds since 1970."""
        found = []
        for line in self.log().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(line)
                when = datetime.fromisoformat(told["time"]).timestamp()
                found.append((int(told["round"]), when))
        return found

    def pace(self, since: float, until: float) -> tuple[int, float]:
        """Rounds between two moments, by seconds since 1970, and the median seconds of one."""
        when = [moment for _number, moment in self.rounds() if since <= moment <= until]
        gaps = [after - before for before, after in pairwise(when)]
        return len(when), statistics.median(gaps) if gaps else float("inf")

    def memory(self, what: str = "VmRSS") -> float:
        """MiB of the server's process, now, or with VmHWM at its highest."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(what):
                return int(line.split()[1]) / 1024
        return 0.0

    def forget_highest(self) -> None:
        """Have VmHWM begin again from what is in use now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="utf-8")

    def invite(self, name: str) -> bytes:
        """A secret with which this platform may join."""
        return self.enrolment.invite(name)

    def _enrolled(self, name: str) -> ec.EllipticCurvePrivateKey:
        """The node key of a platform that has joined."""
        key = ec.generate_private_key(ec.SECP384R1())
        signing = Ed25519PrivateKey.generate()
        secret = self.enrolment.invite(name)
        self.enrolment.admit(join_request(secret, name=name, node=key, signing=signing))
        return key


@contextmanager
def target(folder: Path) -> Iterator[Target]:
    """A server at work, ended with the body."""
    made = Target(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many processes that do nothing but keep the machine busy."""
    words = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(words) for _ in range(loops)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
