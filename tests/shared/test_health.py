from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import pytest

from shared.doctor import port as check_port
from shared.errors import ConfigError
from shared.health import Health, served


def asked(port: int, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as fault:
        with fault:
            return fault.code, json.load(fault)


def test_it_is_live_at_once_and_ready_when_it_says_so() -> None:
    health = Health(role="client")
    with served("127.0.0.1:0", health) as port:
        assert asked(port, "/live") == (200, {"live": True})
        assert asked(port, "/ready")[0] == 503
        health.say(ready=True, state="connected")
        status, told = asked(port, "/ready")
        assert (status, told["state"], told["role"]) == (200, "connected", "client")
        health.say(ready=False)
        assert asked(port, "/ready")[0] == 503


def test_what_init_and_doctor_take_for_an_address_is_served() -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        with served(f"{host}:0", Health()) as port:
            address = f"http://{host}:{port}/live"
            with urllib.request.urlopen(address, timeout=5) as answer:
                assert answer.status == 200
        assert check_port("health", f"{host}:0", ours=False).ok


def test_a_number_that_is_not_known_yet_is_null() -> None:
    with served("127.0.0.1:0", Health(round=None)) as port:
        assert asked(port, "/ready")[1]["round"] is None


def test_nothing_else_is_served() -> None:
    with served("127.0.0.1:0", Health()) as port:
        for path in ("/", "/metrics", "/../etc/passwd"):
            assert asked(port, path)[0] == 404


def test_it_is_gone_when_the_body_ends() -> None:
    with served("127.0.0.1:0", Health()) as port:
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_an_empty_address_serves_nobody() -> None:
    with served("", Health()) as port:
        assert port == 0


def test_an_address_that_is_taken_or_none_is_told_in_one_line() -> None:
    with served("127.0.0.1:0", Health()) as port:
        for address in (f"127.0.0.1:{port}", "127.0.0.1:x", "nowhere", "127.0.0.1:70000"):
            with pytest.raises(ConfigError, match="health"), served(address, Health()):
                pass
