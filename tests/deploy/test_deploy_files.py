from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from shared.tables.config import load_platform

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
GPU = DEPLOY / "systemd" / "atoll-client-gpu.conf"
EXPOSED = 2.5  # the most that systemd-analyze security may say, of 10

Step = tuple[str, str]  # instruction, the rest of its line


def dockerfile() -> list[Step]:
    """The instructions of the Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def stages() -> list[list[Step]]:
    """The same, one list a stage; what stands before the first FROM is left out."""
    found: list[list[Step]] = []
    for step in dockerfile():
        if step[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(step)
    return found


def said(steps: list[Step], instruction: str) -> list[str]:
    return [rest for name, rest in steps if name == instruction]


def environment(steps: list[Step]) -> dict[str, str]:
    words = " ".join(said(steps, "ENV")).split()
    return dict(word.split("=", 1) for word in words)


def services() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return read


def platforms() -> dict[str, dict[str, Any]]:
    return {name: it for name, it in services().items() if name != "server"}


def analyze() -> str:
    """The program systemd-analyze, or a skip."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed here")
    return found


def installed(unit: Path, folder: Path) -> Path:
    """A copy of a unit as it is installed: a template as an instance, its program there."""
    path = folder / unit.name.replace("@.", "@boutique.")
    path.write_text(
        re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.M)
    )
    return path


def exposure(path: Path) -> float:
    run = subprocess.run(
        [analyze(), "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", run.stdout)
    assert found, run.stdout + run.stderr
    return float(found[1])


def claimed(path: Path) -> float:
    found = re.search(r"^# Exposure [^\n]*?([\d.]+) of 10", path.read_text(), re.M)
    assert found, f"{path.name} does not tell its exposure"
    return float(found[1])


def test_the_image_starts_from_a_base_that_is_pinned_and_can_be_pinned_by_digest() -> None:
    (base,) = (rest for name, rest in dockerfile() if name == "ARG" and rest.startswith("BASE="))
    assert re.fullmatch(r"BASE=python:3\.11[\w.]*-slim-\w+", base)
    assert all(steps[0][1].split()[0] == "${BASE}" for steps in stages())
    assert "BASE=python:3.11-slim-bookworm@sha256:" in DOCKERFILE.read_text()


def test_the_image_runs_as_a_user_with_a_fixed_number_who_is_not_root() -> None:
    assert said(stages()[-1], "USER") == ["10001:10001"]
    assert any("useradd --uid 10001" in step for step in said(stages()[-1], "RUN"))


def test_nothing_is_added_from_the_network_and_no_compiler_is_installed() -> None:
    steps = dockerfile()
    assert not said(steps, "ADD")
    assert not [step for step in said(steps, "RUN") if re.search(r"apt|curl|wget|gcc|sudo", step)]
    assert "PIP_ONLY_BINARY" in environment(stages()[0])


def test_the_image_says_how_it_is_stopped_watched_and_kept_from_calling_home() -> None:
    final = stages()[-1]
    assert said(final, "STOPSIGNAL") == ["SIGTERM"]
    (health,) = said(final, "HEALTHCHECK")
    assert "/live" in health
    assert "urllib" in health
    told = environment(final)
    assert {name: told[name] for name in told if name.startswith(("FLWR_", "HF_"))} == {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
    }


def test_the_image_holds_code_alone() -> None:
    allowed = {"constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
    allowed |= {"shared", "clients", "server", "simulations"}
    copied = {word for step in said(stages()[0], "COPY") for word in step.split()[:-1]}
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert copied == allowed
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == allowed


@pytest.mark.parametrize("name", services())
def test_every_service_is_hardened(name: str) -> None:
    service = services()[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["stop_grace_period"] == "60s"
    assert {"tmpfs", "pids_limit", "mem_limit", "cpus", "restart"} <= set(service)
    assert "/live" in service["healthcheck"]["test"][-1]
    assert not {"privileged", "ports", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert not service["image"].endswith(":latest")


@pytest.mark.parametrize("name", services())
def test_no_secret_goes_through_the_environment(name: str) -> None:
    known = {"OMP_NUM_THREADS", "ATOLL_HEALTH_PORT"}
    assert set(services()[name]["environment"]) <= known


def test_a_platform_reaches_the_server_and_nobody_else() -> None:
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]
    assert all(network == {"internal": True} for network in networks.values())
    assert set(services()["server"]["networks"]) == set(networks)
    assert sorted(it["networks"] for it in platforms().values()) == sorted([it] for it in networks)


def test_a_platform_alone_sees_its_rows_and_only_reads_them() -> None:
    for name, service in services().items():
        mounts = [it.rsplit(":", 2) for it in service["volumes"] if it.endswith(":ro")]
        rows = [source for source, target, _ in mounts if target == "/rows"]
        assert [Path(source).name for source in rows] == ([] if name == "server" else [name])
        kept = [it.partition(":")[0] for it in service["volumes"] if not it.endswith(":ro")]
        assert all(volume.startswith(f"{name}-") for volume in kept)
    assert len(platforms()) == 3


@pytest.mark.parametrize("name", platforms())
def test_a_platforms_file_is_read_and_writes_to_its_volumes_alone(name: str) -> None:
    config = load_platform(DEPLOY / "compose" / "platforms" / f"{name}.toml")
    policy = config.policy
    assert config.name == name
    assert policy is not None
    assert policy.plan is not None
    home, head = Path("/var/lib/atoll/home"), Path("/var/lib/atoll/head")
    assert {policy.ledger.parent, policy.key.parent} == {home}
    assert policy.head.parent == head
    assert config.cache == home / "cache"
    assert {config.events.path.parent, config.items.path.parent} == {Path("/rows")}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_exposes_little_and_says_how_little(unit: Path, tmp_path: Path) -> None:
    measured = exposure(installed(unit, tmp_path))
    assert measured <= EXPOSED
    assert measured <= claimed(unit) + 0.2, "another systemd counts a little differently, no more"


def test_a_gpu_exposes_little_more(tmp_path: Path) -> None:
    (client,) = (unit for unit in UNITS if "@" in unit.name)
    path = installed(client, tmp_path)
    drop_in = path.with_name(f"{path.name}.d")
    drop_in.mkdir()
    shutil.copy(GPU, drop_in / "gpu.conf")
    measured = exposure(path)
    assert measured <= EXPOSED
    assert measured <= claimed(GPU) + 0.2


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [analyze(), "verify", "--man=no", str(installed(unit, tmp_path))],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in run.stderr.splitlines() if "atoll" in line]
    assert not ours, "\n".join(ours)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_is_given_time_to_stop_and_starts_again_if_it_fails(unit: Path) -> None:
    text = unit.read_text()
    assert {"TimeoutStopSec=60", "Restart=on-failure", "KillSignal=SIGTERM"} <= set(text.split())
    assert "\nWatchdogSec" not in text
    assert "\nMemoryDenyWriteExecute" not in text  # oneDNN writes machine code at run time


def test_files_are_found() -> None:
    assert [unit.name for unit in UNITS] == ["atoll-client@.service", "atoll-server.service"]
    assert set(platforms()) == {"hearth", "kiosk", "market"}
