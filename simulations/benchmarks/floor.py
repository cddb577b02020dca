"""What a round costs on the wire beside training: no-op platforms, 1 MiB Adapters, real processes.

    ours     SuperLink and the ServerApp in one process ←TLS→ atoll-client up, each with its worker
    Flower   flower-superlink, flower-supernode, flwr run, as they come; without TLS and node keys

Both run the same rounds (server/rounds.py: train, then evaluate) over the same no-op code, in one
run of this benchmark, one after the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from server import release
from server.commands.up import superlink_of
from server.home import load_home
from shared.audit_log import AuditLog
from shared.backbone import BackboneSpec, new_backbone, save_backbone
from shared.bundle import CONTENT, Bundle, build, files_of, pack
from shared.errors import ConfigError
from shared.text import Progress, find_encoder, silent
from simulations.benchmarks.noop_server import timed
from simulations.deployed import ROOT, Deployment, free_port, tail

HERE = Path(__file__).parent
START = 300.0  # seconds for Flower's processes to run all rounds


def measure(
    *, platforms: int, rounds: int, flower: bool, progress: Progress = silent
) -> dict[str, float | int | None]:
    """Median seconds a round, ours and Flower's.

    Args:
        platforms: no-op platforms, each a process of its own.
        rounds: ours; of Flower's, far slower, a quarter, at least three.
        flower: whether to time Flower's own SuperLink and SuperNodes beside it.
        progress: called while it works.
    """
    theirs = None
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if flower:
            progress("Flower's own SuperLink", 0, 1)
            theirs = statistics.median(
                stock(folder, platforms=platforms, rounds=max(3, rounds // 4))
            )
            progress("Flower's own SuperLink", 1, 1)
        progress("ours", 0, 1)
        ours = deployed(folder, platforms=platforms, rounds=rounds)
        progress("ours", 1, 1)
    return {
        "platforms": platforms,
        "ours_s_per_round": statistics.median(ours),
        "ours_slowest_s": max(ours),
        "flower_s_per_round": theirs,
    }


def noop_bundle() -> Bundle:
    """The app bundle with a ClientApp that does nothing and a ServerApp that times it."""
    files = files_of(build(ROOT).content, where="here")
    del files[CONTENT]
    files["clients/app.py"] = (HERE / "noop_client.py").read_bytes()
    files["server/noop.py"] = (HERE / "noop_server.py").read_bytes()
    files["pyproject.toml"] = files["pyproject.toml"].replace(b"server.app:app", b"server.noop:app")
    content = pack(files)
    return Bundle(content, hashlib.sha256(content).hexdigest(), "0.1.0")


def deployed(folder: Path, *, platforms: int, rounds: int) -> list[float]:
    """Seconds of our rounds."""
    names = [f"p{number}" for number in range(platforms)]
    files = {name: platform_file(folder, name) for name in names}
    backbone = folder / "backbone.safetensors"
    text = find_encoder()
    spec = BackboneSpec(encoder=text.digest, text_width=text.width, width=8, heads=2, rank=2)
    save_backbone(new_backbone(spec, seed=0), backbone)
    made = Deployment(folder, backbone, files, {})
    made.found()
    release.publish(made.home, noop_bundle())
    link = superlink_of(load_home(made.home), AuditLog(made.home / "audit.jsonl"))
    link.start()
    try:
        for name in names:
            made.join(name)
            made.client(name)
        patience = time.monotonic() + START
        while len(link.online()) < platforms:
            if time.monotonic() > patience:
                raise ConfigError("platforms did not come online", todo="see their logs above")
            time.sleep(0.05)
        with link.run(release.current(made.home), {}) as (grid, _context):
            return timed(grid, platforms=platforms, rounds=rounds)
    finally:
        made.stop()
        link.stop()


def platform_file(folder: Path, name: str) -> Path:
    """A platform's file that passes for one; its tables are opened and never read."""
    for table in ("events.csv", "items.csv"):
        (folder / table).touch()
    path = folder / f"{name}.toml"
    path.write_text(
        f"""[platform]
name = "{name}"
[events]
path = "events.csv"
columns = {{ shopper = "user", item = "item", order = "pos" }}
[items]
path = "items.csv"
columns = {{ item = "item", text = "text" }}
[backbone]
path = "backbone.safetensors"
[privacy]
unprotected = true
""",
        encoding="utf-8",
    )
    return path


def stock(folder: Path, *, platforms: int, rounds: int) -> list[float]:
    """Seconds of the same rounds on Flower's own programs.

    Raises:
        ConfigError: they did not get through in START seconds.
    """
    app, home, told = folder / "app", folder / "flwr", folder / "seconds.json"
    for name, content in files_of(noop_bundle().content, where="no-op").items():
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    shutil.rmtree(app / ".info")
    home.mkdir()
    fleet, control = free_port(), free_port()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
        f'address = "127.0.0.1:{control}"\ninsecure = true\n',
        encoding="utf-8",
    )
    settings = {"rounds": rounds, "quorum": platforms, "folder": json.dumps(str(told))}
    with (folder / "flower.log").open("wb") as log, processes(home, log) as start:
        start(
            *("flower-superlink", "--insecure", "--disable-runtime-dependency-installation"),
            *("--fleet-api-address", f"127.0.0.1:{fleet}", "--host", "127.0.0.1"),
            *("--port", str(control)),
        )
        for number in range(platforms):
            start(
                *("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{fleet}"),
                *("--host", "127.0.0.1", "--port", str(free_port())),
                *("--node-config", f'platform="p{number}"'),
            )
        time.sleep(10.0)
        start(
            *("flwr", "run", str(app), "here", "--run-config"),
            " ".join(f"{name}={value}" for name, value in settings.items()),
        )
        until = time.monotonic() + START
        while not told.exists():
            if time.monotonic() > until:
                raise ConfigError(
                    f"Flower's own programs took longer than {START:.0f} s",
                    todo=f"look: {tail(folder / 'flower.log', 1500)}",
                )
            time.sleep(0.5)
        time.sleep(0.5)
        return [float(it) for it in json.loads(told.read_text(encoding="utf-8"))]


@contextmanager
def processes(home: Path, log: IO[bytes]) -> Iterator[Callable[..., None]]:
    """A way to start Flower's programs; all that were started are ended, with their children."""
    running: list[subprocess.Popen[bytes]] = []
    quiet = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }

    def start(*words: str) -> None:
        program = Path(sys.executable).with_name(words[0])
        running.append(
            subprocess.Popen(
                [str(program), *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **quiet, "PATH": f"{program.parent}:{os.environ['PATH']}"},
                start_new_session=True,
            )
        )

    try:
        yield start
    finally:
        for process in reversed(running):
            try:
                os.killpg(process.pid, 15)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                if process.poll() is None:
                    os.killpg(process.pid, 9)
