"""One SuperLink under many platforms: light stand-ins, 1 MiB Adapters, TLS and node keys.

    SuperLink, ServerApp (this process) ←TLS→ stand-ins (another process, a thread and a link each)

Both share the machine's cores, so a round's time is of both. Memory is this process' own, after the
rounds and at its highest.
"""

from __future__ import annotations

import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server import authority
from server.superlink import SuperLink
from shared.bundle import Bundle
from shared.enrolment import node_public
from shared.errors import ConfigError
from shared.text import Progress, silent
from simulations.benchmarks.noop_server import timed
from simulations.deployed import ROOT

START = 120.0  # seconds for all stand-ins to be there
MIB = 2**20
NOTHING = Bundle(b"", hashlib.sha256(b"").hexdigest(), "0")  # stand-ins ask for no code


def measure(
    *, platforms: Sequence[int], rounds: int, progress: Progress = silent
) -> dict[str, list[dict[str, float | int]]]:
    """A row for each number of platforms: seconds a round, and memory in MiB."""
    rows = []
    for done, count in enumerate(platforms):
        progress("platforms", done, len(platforms))
        with tempfile.TemporaryDirectory() as place:
            rows.append(row(Path(place), count, rounds))
    progress("platforms", len(platforms), len(platforms))
    return {"rows": rows}


def row(folder: Path, count: int, rounds: int) -> dict[str, float | int]:
    """One number of platforms.

    Raises:
        ConfigError: the stand-ins did not come.
    """
    home = folder / "home"
    home.mkdir()
    authority.create(home, hosts=["127.0.0.1"], name="load")
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(count)]
    names = {node_public(key.public_key()): f"p{n}" for n, key in enumerate(keys)}
    file = folder / "keys.pem"
    file.touch(mode=0o600)
    file.write_bytes(
        b"".join(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            for key in keys
        )
    )
    link = SuperLink(
        listen="127.0.0.1:0",
        database=folder / "superlink.sqlite",
        credentials=lambda: authority.credentials(home),
        name_of=names.get,
    )
    link.start()
    words = [sys.executable, "-m", "simulations.benchmarks.standins", f"127.0.0.1:{link.port}"]
    standins = subprocess.Popen([*words, str(home / "ca.pem"), str(file)], cwd=ROOT)
    try:
        until = time.monotonic() + START
        while len(link.online()) < count:
            if time.monotonic() > until or standins.poll() is not None:
                raise ConfigError(
                    f"{len(link.online())} of {count} stand-ins came",
                    todo="try fewer, or a machine with more cores",
                )
            time.sleep(0.05)
        # The highest so far is forgotten.
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        with link.run(NOTHING, {}) as (grid, _context):
            seconds = timed(grid, platforms=count, rounds=rounds)
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        memory = {
            line.split()[0]: int(line.split()[1]) * 1024 / MIB
            for line in status.splitlines()
            if line.startswith(("VmRSS", "VmHWM"))
        }
    finally:
        standins.kill()
        standins.wait()
        link.stop(grace=0.1)
    return {
        "platforms": count,
        "rounds": len(seconds),
        "s_per_round": statistics.median(seconds),
        "slowest_s": max(seconds),
        "memory_mib": memory["VmRSS:"],
        "highest_mib": memory["VmHWM:"],
    }
