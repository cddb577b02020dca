"""`atoll-client join` as an operator types it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clients.daemon import main
from clients.membership import load

if TYPE_CHECKING:
    from tests.clients.conftest import Coordinator

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


@pytest.mark.parametrize("health", ["127.0.0.1:9095", "[::1]:9095", ""])
def test_the_health_address_that_is_typed_is_the_one_of_client_toml(
    health: str, typed: Typed, coordinator: Coordinator, platform: Path
) -> None:
    words = ("--server", coordinator.server, "-p", platform, "--health", health)
    code, _, err = typed(main, "join", str(coordinator.token()), *words)
    assert code == 0, err
    assert load(platform.with_name("shop.atoll")).health == health


@pytest.mark.parametrize("health", ["127.0.0.1", "9095", "http://127.0.0.1:9095", "::1:x"])
def test_a_health_address_that_is_none_is_refused_before_anybody_is_asked(
    health: str, refused: Refused, coordinator: Coordinator, platform: Path
) -> None:
    token = str(coordinator.token())
    words = ("join", token, "--server", coordinator.server, "-p", platform, "--health", health)
    assert repr(health) in refused(main, *words)
    assert coordinator.store.platforms() == []


def test_a_port_without_tls_is_told_in_one_line_and_no_other_is_printed(
    coordinator: Coordinator, platform: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    program = Path(sys.executable).with_name("atoll-client")
    with socket.create_server(("127.0.0.1", 0)) as plain, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{plain.getsockname()[1]}"

        def answer() -> None:
            with plain.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = pool.submit(answer)
        found = subprocess.run(
            [program, "join", str(coordinator.token()), "--server", address, "-p", platform],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        answering.result(10)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"error: {address}: no TLS there; check the address and the port\n"
