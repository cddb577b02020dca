"""What goes wrong between real processes, and what is lost by it: nothing but the moment.

The platforms hold their replies back to whole seconds, so that a process can be killed in a phase
of a round that is known: while it says hello, trains or evaluates.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from clients.membership import join
from server import authority
from server.enrolment import Enrolment
from shared.audit_log import entries as lines_of
from shared.errors import IdentityError
from simulations.deployed import Daemon, Deployment

pytestmark = pytest.mark.e2e

PHASES = ("query.hello", "train", "evaluate")
Check = Callable[[Deployment], None]


@pytest.mark.parametrize("phase", PHASES)
def test_a_server_killed_in_any_phase_of_a_round_goes_on_and_loses_none(
    deployment: Deployment, check_same: Check, phase: str
) -> None:
    server, clients = deployment.begun()
    if phase != "query.hello":
        deployment.rounds(1)
    clients["kiosk"].answering(phase)
    server.kill()
    before = deployment.registry.rounds()
    deployment.server()
    deployment.rounds(3)
    assert deployment.registry.rounds()[: len(before)] == before
    deployment.stop()
    check_same(deployment)


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_killed_in_any_phase_comes_back_and_is_asked_again_in_the_same_round(
    deployment: Deployment, check_same: Check, phase: str
) -> None:
    _server, clients = deployment.begun()
    if phase != "query.hello":
        deployment.rounds(1)
    clients["kiosk"].answering(phase)
    clients["kiosk"].kill()
    deployment.client("kiosk")
    deployment.rounds(3)
    deployment.stop()
    check_same(deployment)


def test_a_server_that_stands_under_a_certificate_of_another_authority_is_not_spoken_to(
    deployment: Deployment,
) -> None:
    server, clients = deployment.begun()
    deployment.rounds(1)
    server.stop()
    done = deployment.registry.rounds()
    other = deployment.folder / "other"
    other.mkdir()
    authority.create(other, hosts=["127.0.0.1"], name="other")
    for file in ("ca.pem", "ca.key", "server.pem", "server.key"):
        shutil.copy(other / file, deployment.home / file)
    deployment.server().ready()
    clients["kiosk"].wait(lambda told: "certificate is not of the authority" in told["state"])
    assert deployment.registry.rounds() == done  # it is up, and alone


def test_an_evicted_client_is_refused_within_a_second_and_the_others_go_on(
    deployment: Deployment,
) -> None:
    deployment.federation = {**deployment.federation, "quorum": 2}
    _server, clients = deployment.begun()
    deployment.rounds(1)
    began = time.monotonic()
    Enrolment(deployment.home / "platforms.sqlite").evict("kiosk")
    clients["kiosk"].wait(lambda told: "turned this platform away" in told["state"], 10.0)
    assert time.monotonic() - began < 2.5  # its answer of this second and the question after it
    deployment.rounds(3)
    assert "kiosk" not in deployment.registry.load(3)[1].replied


def test_a_join_token_that_was_used_is_refused_and_leaves_nothing(deployment: Deployment) -> None:
    deployment.found()
    deployment.server().ready()
    token = deployment.token("kiosk")
    at = f"127.0.0.1:{deployment.port}"
    join(token, at, platform_file=deployment.platforms["kiosk"])
    place = deployment.folder / "again"
    with pytest.raises(IdentityError):
        join(token, at, platform_file=deployment.platforms["kiosk"], home=place)
    assert not place.exists()
    told = [entry.event for entry in lines_of(deployment.home / "audit.jsonl")]
    assert told.count("joined") == 1
    assert "join refused" in told


def tree_of(daemon: Daemon) -> list[int]:
    """A daemon's process and those that it started."""
    found = [daemon.process.pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == daemon.process.pid:
                found.append(int(stat.parent.name))
    return found


def disk(daemon: Daemon, *, full: bool) -> None:
    """No file of these processes grows any more, as on a full disk; or all may again."""
    for number in tree_of(daemon):
        soft = 0 if full else resource.RLIM_INFINITY
        resource.prlimit(number, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


def test_a_full_disk_at_the_server_loses_no_round_and_no_charge(
    deployment: Deployment, check_same: Check
) -> None:
    server, clients = deployment.begun()
    deployment.rounds(1)
    clients["kiosk"].answering("train")
    disk(server, full=True)
    time.sleep(6.0)
    before = deployment.registry.rounds()
    disk(server, full=False)
    deployment.rounds(3)
    assert server.process.poll() is None  # it came through it
    assert deployment.registry.rounds()[: len(before)] == before
    deployment.stop()
    check_same(deployment)


def test_a_full_disk_at_a_platform_spends_nothing_and_it_takes_part_again(
    deployment: Deployment, check_counts: Check
) -> None:
    deployment.federation = {**deployment.federation, "quorum": 2, "rounds": 6}
    _server, clients = deployment.begun()
    deployment.rounds(1)
    disk(clients["kiosk"], full=True)
    deployment.rounds(2)
    disk(clients["kiosk"], full=False)
    deployment.rounds(6)
    reports = [deployment.registry.load(number)[1] for number in deployment.registry.rounds()]
    assert any("kiosk" not in report.replied for report in reports[2:4])
    assert "kiosk" in reports[6].replied
    assert clients["kiosk"].process.poll() is None
    deployment.stop()
    check_counts(deployment)
