"""The daemon's end of a worker: start it on an approved bundle, ask it, stop it.

    approvals ─unpack→ folder ─spawn→ worker.py ⇄ Worker.answer(Message)

The bundle is unpacked and verified anew for each process, so what runs is what was approved, not
what lies on the disk since. Between requests the process stays: tables, item vectors and imports
are warm.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from clients.approvals import Approvals
from shared.errors import BundleError
from shared.files import made_folder

START = 120.0  # seconds until a worker has imported everything; a cold disk is slow
STOP = 0.5  # seconds that a request under way has to end when the daemon stops
LARGEST = 64 * 2**20  # bytes of an answer
LOOK = 0.25  # seconds between two looks at whether to stop, and whether the bundle may still run
# A worker gets nothing of the daemon's environment but what finds devices, threads and locales.
PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
PREFIXES = ("OMP_", "MKL_", "CUDA_", "NVIDIA_", "HF_", "LC_", "TORCH_")

Config = dict[str, bool | float | int | str]


class Stopped(Exception):  # noqa: N818 (no fault: the daemon was told to stop)
    """The daemon was told to stop before an answer was there."""


class Worker:
    """One process that runs one bundle."""

    def __init__(
        self,
        approvals: Approvals,
        digest: str,
        *,
        scratch: Path,
        revoked: Callable[[], None] = lambda: None,
    ) -> None:
        """Start it.

        Args:
            approvals: which bundles may run; looked at as long as the process lives.
            digest: of the bundle.
            scratch: folder where the bundle is unpacked.
            revoked: called, from another thread, once the process was killed because the bundle
                may not run any more.

        Raises:
            BundleError: the bundle is not approved, is damaged, or does not start.
        """
        self.digest = digest
        for old in made_folder(scratch).iterdir():  # of a daemon that was killed
            shutil.rmtree(old, ignore_errors=True)
        self._folder = Path(tempfile.mkdtemp(dir=scratch))
        code = self._folder / "bundle"
        approvals.unpack(digest, code)
        ours, theirs = socket.socketpair()
        with theirs:
            script = Path(__file__).with_name("worker.py")
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(script), str(code), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,  # so that what it started is ended with it
            )
        self._over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(approvals, revoked), daemon=True)
        watch.start()
        self._channel = Connection(ours.detach())
        if not self._channel.poll(START) or not self._started():
            self.stop(grace=0.0)
            raise BundleError(
                "does not start", where=digest[:12], todo="look at the lines above; reject it"
            )

    def _watch(self, approvals: Approvals, revoked: Callable[[], None]) -> None:
        """Kill the process as soon as its bundle may not run: as it starts, works or waits."""
        while not self._over.wait(LOOK) and self.alive:
            if not approvals.permits(self.digest):
                self._kill()
                self._process.wait()
                revoked()
                return

    def _kill(self) -> None:
        """Kill it and what it started; once it was waited for, its number is another's."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _started(self) -> bool:
        try:
            return self._channel.recv_bytes() == b"ready"
        except (EOFError, OSError):
            return False

    def answer(self, message: Message, config: Config, *, stop: threading.Event) -> Message:
        """What the bundle's ClientApp answers.

        Args:
            message: the request.
            config: Flower's node configuration, by which this side tells it of its platform.
            stop: set when the daemon is to end; a request under way then has STOP seconds.

        Raises:
            BundleError: the process ended before it had answered.
            Stopped: the daemon is to end.
        """
        told = {
            "message": message.metadata.message_id,
            "run": message.metadata.run_id,
            "node": message.metadata.dst_node_id,
            "config": config,
        }
        left = STOP
        try:
            self._channel.send_bytes(json.dumps(told).encode())
            self._channel.send_bytes(message_to_proto(message).SerializeToString())
            while not self._channel.poll(LOOK):
                left -= LOOK if stop.is_set() else 0.0
                if left <= 0:
                    raise Stopped
            return message_of(self._channel.recv_bytes(LARGEST), where=self.digest[:12])
        except (EOFError, OSError) as fault:
            with suppress(subprocess.TimeoutExpired):  # its pipe closes before it is gone
                self._process.wait(1.0)
            raise BundleError(
                f"ended before it answered (exit code {self._process.poll()})",
                where=self.digest[:12],
                todo="look at the lines above, and at the machine's memory",
            ) from fault

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def stop(self, grace: float = 5.0) -> None:
        """End the process and remove its copy of the code."""
        self._channel.close()
        self._over.set()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self._kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def message_of(content: bytes, *, where: str) -> Message:
    """The message that a bundle's process sent.

    Raises:
        BundleError: it is none.
    """
    try:
        return message_from_proto(ProtoMessage.FromString(content))
    # protobuf and Flower raise many kinds for what they cannot read.
    except Exception as fault:
        raise BundleError(
            f"answered what is no message ({type(fault).__name__})",
            where=where,
            todo="reject it, and ask the coordinator for another",
        ) from fault


def environment() -> dict[str, str]:
    """What a worker knows of the daemon's environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED or name.startswith(PREFIXES)
    }
    return kept | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
