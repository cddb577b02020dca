"""Code and requests that a platform did not agree to: between real processes, none gets through."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import pytest

from clients.approvals import Approvals
from clients.membership import home_of
from server import release
from shared.bundle import build, files_of, pack
from simulations.deployed import ROOT, Deployment

pytestmark = pytest.mark.e2e

MARK = "unapproved code ran"


def tampered(deployment: Deployment, file: str) -> str:
    """Release a bundle that leaves a mark wherever a line of it runs; its digest."""
    bundle = build(ROOT)
    files = files_of(bundle.content, where="here")
    del files[".info/CONTENT"]
    mark = deployment.folder / "mark"
    for name in files if file == "*" else (file,):
        if name.endswith(".py"):
            line = f"open({str(mark)!r}, 'a').write({MARK!r})\n"
            text = files[name].decode()
            head, future, rest = text.partition("from __future__ import annotations\n")
            files[name] = (f"{head}{future}{line}{rest}" if future else line + text).encode()
    content = pack(files)
    digest = hashlib.sha256(content).hexdigest()
    release.publish(deployment.home, type(bundle)(content, digest, bundle.version))
    return digest


@pytest.mark.parametrize("file", ["*", "shared/plan.py"])
def test_a_bundle_that_nobody_approved_waits_and_no_line_of_it_runs(
    deployment: Deployment, file: str
) -> None:
    deployment.found()
    approved = release.current(deployment.home)
    digest = tampered(deployment, file)
    server = deployment.server().ready()
    for name in deployment.platforms:
        home = deployment.join(name, approve=False)
        approvals = Approvals(home / "approvals")
        approvals.offered(approved.content, claimed=approved.digest)
        approvals.approve(approved.digest)  # the honest one; the server sends another
        deployment.client(name)
    for name, path in deployment.platforms.items():
        approvals = Approvals(home_of(path, name) / "approvals")
        until = time.monotonic() + 60
        while approvals.standing(digest) != "waiting":
            assert time.monotonic() < until
            time.sleep(0.1)
    server.wait(lambda told: "0 of 3 can take part" in told["state"])
    assert "has not approved this code" in (deployment.folder / "server.log").read_text()
    assert deployment.registry.rounds() == []
    assert not (deployment.folder / "mark").exists()
    # What its operators then approve runs, without a restart: the rule is theirs.
    if file != "*":
        for name, path in deployment.platforms.items():
            Approvals(home_of(path, name) / "approvals").approve(digest)
        deployment.rounds(1)
        assert MARK in (deployment.folder / "mark").read_text()


def test_a_server_that_asks_for_a_looser_plan_gets_a_number_and_nothing_is_spent(
    deployment: Deployment, released_by: Callable[[str], list[int]]
) -> None:
    deployment.federation = {
        **deployment.federation,
        "noise_multiplier": 0.1,
        "clip": 50.0,
        "steps": 999,
    }
    server, _clients = deployment.begun()
    deployment.rounds(1)
    report = deployment.registry.load(1)[1]
    assert report.replied == ()
    assert set(report.refused) == set(deployment.platforms)
    assert all("own policy forbids" in why for why in report.refused.values())
    assert all(released_by(name) == [] for name in deployment.platforms)
    assert server.told() is not None


def test_a_reply_to_another_adapter_is_refused_by_name_and_the_round_goes_on(
    deployment: Deployment,
) -> None:
    deployment.federation = {**deployment.federation, "quorum": 2}
    deployment.found()
    bundle = build(ROOT)
    files = files_of(bundle.content, where="here")
    del files[".info/CONTENT"]
    # One platform's code answers with another digest, through its own door: only it approves that.
    files["shared/wire.py"] = files["shared/wire.py"].replace(
        b'"base": update.base,', b'"base": "0" * 64 if __file__.find("kiosk") > 0 else update.base,'
    )
    assert files["shared/wire.py"] != files_of(bundle.content, where="")["shared/wire.py"]
    content = pack(files)
    digest = hashlib.sha256(content).hexdigest()
    release.publish(deployment.home, type(bundle)(content, digest, bundle.version))
    deployment.server().ready()
    for name in deployment.platforms:
        deployment.join(name)
        deployment.client(name)
    deployment.rounds(1)
    report = deployment.registry.load(1)[1]
    assert report.replied == ("atelier", "harbour")
    assert set(report.refused) == {"kiosk"}
