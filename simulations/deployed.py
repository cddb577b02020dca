"""A federation of real processes on this machine: the deployed daemons, over loopback.

    found → server up → join, approve → clients up → rounds in the registry

What `atoll-server` and `atoll-client` do on machines of their own they do here side by side, so
that tests can kill them and benchmarks can time them. Every process is ended by its own number.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from clients.approvals import Approvals
from clients.membership import HEALTH, home_of, join, load
from server import authority, release
from server.enrolment import Enrolment
from server.home import make_home
from server.registry import Registry
from shared.errors import RoundError
from shared.token import Token

LOOK = 0.05  # seconds between two looks at a process
PATIENCE = 120.0  # seconds for a process to be ready on a busy machine
ROOT = Path(__file__).parents[1]


def tail(log: Path, count: int = 2000) -> str:
    """The last characters of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-count:]


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """One process of ours, its log and its health."""

    def __init__(self, words: Sequence[str], log: Path, health: int) -> None:
        """Start it. Args: words: of the command line. health: its port."""
        self.health, self.log = health, log
        program = Path(sys.executable).with_name(words[0])
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [str(program), *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"},
            )

    def told(self) -> dict[str, Any] | None:
        """What it says of itself, or None while it says nothing."""
        try:
            address = f"http://127.0.0.1:{self.health}/ready"
            with urllib.request.urlopen(address, timeout=2) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as fault:
            return dict(json.load(fault))
        except (OSError, ValueError):
            return None

    def wait(self, until: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE) -> None:
        """Wait until what it says fits.

        Raises:
            RoundError: it ended, or took longer.
        """
        patience = time.monotonic() + seconds
        while not ((told := self.told()) and until(told)):
            if self.process.poll() is not None or time.monotonic() > patience:
                raise RoundError(
                    f"is not where it should be (exit code {self.process.poll()}, says {told})",
                    where=self.log,
                    todo=f"look at its last lines: {tail(self.log)}",
                )
            time.sleep(LOOK)

    def ready(self) -> Daemon:
        """Wait until it is."""
        self.wait(lambda told: bool(told["ready"]))
        return self

    def answering(self, kind: str, seconds: float = PATIENCE) -> None:
        """Wait until a client is at a request of this kind: query.hello, train, evaluate."""
        self.wait(lambda told: told["state"] == f"answering {kind}", seconds)

    def kill(self) -> None:
        """`kill -9`, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds: float = 40.0) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.process.returncode)

    def end(self, seconds: float) -> int:
        """Wait until it ends by itself; its exit code."""
        return int(self.process.wait(seconds))


@dataclass
class Deployment:
    """A server's home, the platforms' files, and what runs of them.

    Attributes:
        folder: of everything.
        backbone: the backbone's file.
        platforms: each platform's TOML file, by name.
        federation: keys of [federation] in server.toml.
        seed: of the platforms' noise, which a simulation repeats; None is secure noise.
    """

    folder: Path
    backbone: Path
    platforms: Mapping[str, Path]
    federation: Mapping[str, int | float | str]
    seed: int | None = None
    daemons: list[Daemon] = field(default_factory=list)
    port: int = 0

    @property
    def home(self) -> Path:
        """The server's."""
        return self.folder / "server"

    @property
    def registry(self) -> Registry:
        """Where its rounds are."""
        return Registry(self.home / "run")

    def found(self, source: Path = ROOT) -> None:
        """Make the server's home, with the bundle of this source."""
        self.port, self.server_health = free_port(), free_port()
        make_home(
            self.home,
            hosts=["127.0.0.1", "localhost"],
            backbone=self.backbone,
            listen=f"127.0.0.1:{self.port}",
            health=f"127.0.0.1:{self.server_health}",
            name="coordinator",
        )
        file = self.home / "server.toml"
        witness = f"witness = {json.dumps(str(self.folder / 'witness'))}\n\n[start]"
        file.write_text(
            file.read_text(encoding="utf-8").replace("[start]", witness, 1), encoding="utf-8"
        )
        self.settle(self.federation)
        release.publish(self.home, release.build(source))

    def settle(self, federation: Mapping[str, int | float | str]) -> None:
        """Write [federation] anew."""
        file = self.home / "server.toml"
        before = file.read_text(encoding="utf-8").partition("[federation]")[0]
        lines = [f"{name} = {json.dumps(value)}" for name, value in federation.items()]
        file.write_text("\n".join([before + "[federation]", *lines, ""]), encoding="utf-8")

    def server(self, *options: str) -> Daemon:
        """Start the server."""
        words = ["atoll-server", "up", "--home", str(self.home), *options]
        return self._started(words, self.folder / "server.log", self.server_health)

    def join(self, name: str, *, approve: bool = True) -> Path:
        """Invite a platform and have it join; its home. The server has to be up."""
        member = join(
            self.token(name), f"127.0.0.1:{self.port}", platform_file=self.platforms[name]
        )
        file = member.home / "client.toml"  # several on one machine need ports of their own
        before = file.read_text(encoding="utf-8")
        file.write_text(before.replace(HEALTH, f"127.0.0.1:{free_port()}"), encoding="utf-8")
        if approve:
            self.approve(name)
        return member.home

    def token(self, name: str) -> Token:
        """An invitation."""
        secret = Enrolment(self.home / "platforms.sqlite").invite(name)
        ca = authority.issuer(self.home).public_bytes(Encoding.DER)
        return Token(secret, int(time.time()) + 600, ca)

    def approve(self, name: str) -> None:
        """Have its operator approve the current bundle, as one who knows it."""
        approvals = Approvals(home_of(self.platforms[name], name) / "approvals")
        bundle = release.current(self.home)
        approvals.offered(bundle.content, claimed=bundle.digest)
        approvals.approve(bundle.digest)

    def begun(self) -> tuple[Daemon, dict[str, Daemon]]:
        """A server, and the clients of all its platforms, at work."""
        self.found()
        server = self.server().ready()
        clients = {}
        for name in self.platforms:
            self.join(name)
            clients[name] = self.client(name)
        return server, clients

    def client(self, name: str) -> Daemon:
        """Start a platform's client."""
        options = [] if self.seed is None else ["--simulated-noise", str(self.seed)]
        home = home_of(self.platforms[name], name)
        port = int(load(home).health.rpartition(":")[2])
        words = ["atoll-client", "up", "-p", str(self.platforms[name]), *options]
        return self._started(words, self.folder / f"{name}.log", port)

    def rounds(self, last: int, seconds: float = 300.0) -> None:
        """Wait until this round is recorded.

        Raises:
            RoundError: it takes longer.
        """
        patience = time.monotonic() + seconds
        while not (done := self.registry.rounds()) or done[-1] < last:
            if time.monotonic() > patience:
                raise RoundError(
                    f"round {last} is not there after {seconds:.0f} s, but {done}",
                    where=self.folder,
                    todo=tail(self.folder / "server.log"),
                )
            time.sleep(LOOK)

    def stop(self) -> None:
        """End whatever still runs."""
        for daemon in reversed(self.daemons):
            daemon.stop(20.0)
        self.daemons.clear()

    def _started(self, words: Sequence[str], log: Path, health: int) -> Daemon:
        daemon = Daemon(words, log, health)
        self.daemons.append(daemon)
        return daemon
