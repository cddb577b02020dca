"""Certificates and the CA change hands while rounds go on, and no round is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from server import authority
from server.commands.enrolment import not_ready
from server.enrolment import Enrolment
from simulations.deployed import Deployment

pytestmark = pytest.mark.e2e

WAIT = 90.0  # seconds: platforms ask for new CAs once a minute


def test_the_ca_and_the_server_s_certificate_rotate_and_no_round_is_lost(
    deployment: Deployment, check_counts: Callable[[Deployment], None]
) -> None:
    # More rounds than fit into the minute that platforms take to hear of a new CA.
    for path in deployment.platforms.values():  # a budget for so many
        path.write_text(path.read_text().replace("epsilon = 20.0", "epsilon = 500.0"))
    deployment.federation = {**deployment.federation, "rounds": 60, "epochs": 1}
    server, clients = deployment.begun()
    deployment.rounds(1)
    home = deployment.home
    authority.rotate_server(home)
    authority.rotate_ca(home)
    enrolment, until = Enrolment(home / "platforms.sqlite"), time.monotonic() + WAIT
    while not_ready(enrolment.platforms(), authority.ca_bundle(home)):
        assert time.monotonic() < until
        time.sleep(0.5)
    authority.finish_ca(home)
    # One that connects anew sees the new certificate, and trusts it.
    clients["kiosk"].stop()
    deployment.client("kiosk").ready()
    server.wait(lambda told: "all rounds" in str(told["state"]), 300.0)
    reports = [deployment.registry.load(n)[1] for n in deployment.registry.rounds()[1:]]
    assert len(reports) == 60
    assert sum(not report.moved for report in reports) <= 1  # that of the restart, at most
    assert all({"atelier", "harbour"} <= set(report.replied) for report in reports)
    deployment.stop()
    check_counts(deployment)
