"""A worker runs the approved bundle and nothing else of ours."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.approvals import Approvals
from clients.workers import Stopped, Worker
from shared.bundle import PROJECT, pack
from shared.errors import BundleError

ROOT = Path(__file__).parents[2]
PROJECT_TEXT = b'[project]\nname = "atoll"\nversion = "0.1.0"\n'
HEAD = """
import os, sys, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from shared.mark import MARK

app = ClientApp()


@app.query("hello")
def hello(message, context):
    fields = {FIELDS}
    return Message(RecordDict({"told": ConfigRecord(fields)}), reply_to=message)
"""
Start = Callable[..., Worker]


def bundle(fields: str = "{'mark': MARK}", *, more: bytes = b"") -> bytes:
    return pack(
        {
            PROJECT: PROJECT_TEXT,
            "shared/__init__.py": b"",
            "shared/mark.py": b"MARK = 'of the bundle'\n",
            "clients/__init__.py": b"",
            "clients/app.py": HEAD.replace("{FIELDS}", fields).encode() + more,
        }
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    running = []

    def make(
        content: bytes, *, approve: bool = True, revoked: Callable[[], None] = lambda: None
    ) -> Worker:
        approvals = Approvals(tmp_path / "approvals")
        digest = approvals.offered(content, claimed=hashlib.sha256(content).hexdigest())
        if approve:
            approvals.approve(digest)
        scratch = tmp_path / "running"
        running.append(Worker(approvals, digest, scratch=scratch, revoked=revoked))
        return running[-1]

    yield make
    for worker in running:
        worker.stop(grace=0.0)


def ask(worker: Worker, stop: threading.Event | None = None) -> Message:
    message = Message(RecordDict(), 1, "query.hello", ttl=60.0, group_id="1")
    message.metadata.__dict__["_message_id"] = "m1"
    return worker.answer(message, {"platform": "shop.toml"}, stop=stop or threading.Event())


def told(worker: Worker) -> ConfigRecord:
    return ask(worker).content.config_records["told"]


def test_the_bundle_answers_and_stays_warm(start: Start) -> None:
    worker = start(bundle("{'pid': os.getpid(), 'of': context.node_config['platform']}"))
    first, second = told(worker), told(worker)
    assert first["pid"] == second["pid"] != os.getpid()
    assert first["of"] == "shop.toml"
    assert ask(worker).metadata.reply_to_message_id == "m1"


def test_code_of_the_installation_is_out_of_its_reach(start: Start) -> None:
    look = "{'mark': MARK, 'here': __import__('clients.app').app.__file__}"
    found = told(start(bundle(look)))
    assert found["mark"] == "of the bundle"
    assert "/running/" in str(found["here"])
    find = "__import__('importlib').util.find_spec"  # of what is installed and not in the bundle
    missing = f"{{name: {find}(name) is None for name in ('shared.plan', 'server.fleet')}}"
    found = told(start(bundle(missing)))
    assert (found["shared.plan"], found["server.fleet"]) == (True, True)


def test_a_bundle_that_is_not_approved_starts_nothing(start: Start, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not approved"):
        start(bundle(), approve=False)
    assert not list((tmp_path / "running").glob("*/bundle/clients"))


def test_one_that_cannot_be_imported_is_told_in_one_line(start: Start) -> None:
    broken = pack({PROJECT: PROJECT_TEXT, "clients/__init__.py": b"", "clients/app.py": b"1 / 0\n"})
    with pytest.raises(BundleError, match="does not start"):
        start(broken)


def test_a_worker_that_dies_over_a_request_is_told_and_is_no_longer_alive(start: Start) -> None:
    worker = start(bundle("os._exit(9)"))
    with pytest.raises(BundleError, match="before it answered"):
        ask(worker)
    assert not worker.alive


def test_a_daemon_that_is_told_to_stop_does_not_wait_for_ever(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.workers.STOP", 0.5)
    worker, stop = start(bundle("time.sleep(60)")), threading.Event()
    stop.set()
    began = time.monotonic()
    with pytest.raises(Stopped):
        ask(worker, stop)
    assert time.monotonic() - began < 5


def test_nothing_of_the_daemon_s_environment_is_passed_on_but_a_list(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = told(start(bundle("{'names': sorted(os.environ), 'alone': sys.flags.isolated}")))
    assert "SHOP_DATABASE_PASSWORD" not in found["names"]  # type: ignore[operator]
    assert "OMP_NUM_THREADS" in found["names"]  # type: ignore[operator]
    assert "PYTHONPATH" not in found["names"]  # type: ignore[operator]
    assert found["alone"] == 1  # neither a user's packages nor a folder of ours is looked into


@pytest.mark.parametrize("how", ["rejected", "unreadable", "removed", "bytes gone"])
@pytest.mark.parametrize("busy", [True, False])
def test_a_bundle_that_may_not_run_any_more_ends_its_worker_at_once(
    start: Start, tmp_path: Path, how: str, busy: bool
) -> None:
    told_so = threading.Event()
    begun = tmp_path / "begun"
    content = bundle(f"{{'pid': open({str(begun)!r}, 'w').write('x') and time.sleep(60)}}")
    worker = start(content, revoked=told_so.set)
    asked: list[BaseException] = []

    def work() -> None:
        try:
            ask(worker)
        except BundleError as fault:
            asked.append(fault)

    thread = threading.Thread(target=work)
    if busy:
        thread.start()
        while not begun.exists():
            time.sleep(0.02)
    approvals = Approvals(tmp_path / "approvals")
    decision = approvals.folder / f"{worker.digest}.json"
    if how == "rejected":
        approvals.reject(worker.digest)
    elif how == "unreadable":
        decision.write_text("[" * 100_000)
    elif how == "removed":
        decision.unlink()
    else:
        decision.with_suffix(".fab").unlink()
    assert told_so.wait(20.0)
    assert not worker.alive
    if busy:
        thread.join(20.0)
        assert [type(fault) for fault in asked] == [BundleError]


def test_a_worker_is_ended_as_it_starts_too(start: Start, tmp_path: Path) -> None:
    slow = pack(
        {
            PROJECT: PROJECT_TEXT,
            "clients/__init__.py": b"",
            "clients/app.py": b"import time\ntime.sleep(60)\n",
        }
    )
    approvals = Approvals(tmp_path / "approvals")
    digest = hashlib.sha256(slow).hexdigest()

    def reject() -> None:
        while not list((tmp_path / "running").glob("*/bundle/clients/app.py")):
            time.sleep(0.02)
        approvals.reject(digest)

    threading.Thread(target=reject, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(BundleError, match="does not start"):
        start(slow)
    assert time.monotonic() - began < 40


def test_what_a_worker_started_is_ended_with_it(start: Start, tmp_path: Path) -> None:
    child = "__import__('subprocess').Popen(['sleep', '60']).pid"
    worker = start(bundle(f"{{'child': {child}}}"))
    process = int(told(worker)["child"])  # type: ignore[arg-type]
    assert state(process) != "Z"
    Approvals(tmp_path / "approvals").reject(worker.digest)
    until = time.monotonic() + 20
    while state(process) != "Z":
        assert time.monotonic() < until
        time.sleep(0.02)


def test_its_copy_of_the_code_is_gone_when_it_is(start: Start, tmp_path: Path) -> None:
    worker = start(bundle())
    assert list((tmp_path / "running").iterdir())
    worker.stop()
    assert not list((tmp_path / "running").iterdir())


def test_it_dies_with_the_daemon_that_is_killed(tmp_path: Path) -> None:
    # Code that goes on by itself, and would not notice that nobody asks any more.
    busy = b"import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
    content = bundle("{'pid': os.getpid()}", more=busy)
    approvals = Approvals(tmp_path / "approvals")
    digest = approvals.offered(content, claimed=hashlib.sha256(content).hexdigest())
    approvals.approve(digest)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from clients.approvals import Approvals; from clients.workers import Worker\n"
        "home = Path(sys.argv[1])\n"
        "worker = Worker(Approvals(home / 'approvals'), sys.argv[2], scratch=home / 'running')\n"
        "print(worker._process.pid, flush=True); time.sleep(60)\n"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), digest],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    worker = int(daemon.stdout.readline())
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    daemon.stdout.close()
    until = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and "Z" not in state(worker):
        assert time.monotonic() < until
        time.sleep(0.02)


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
