"""A question to a coordinator that cannot be asked: what the one line says."""

from __future__ import annotations

import socket

import pytest

from shared.channel import ask, nameless
from shared.errors import ConfigError

# No name server is asked for a name that is too long, so this is the same without a network.
NAMELESS = ".".join(["x" * 60] * 5)


def test_a_host_name_that_does_not_resolve_is_told_as_no_such_host() -> None:
    with pytest.raises(ConfigError, match="no such host; check the name") as caught:
        ask(f"{NAMELESS}:9092", "/a/B", b"", roots=b"", seconds=20.0)
    assert caught.value.where == f"{NAMELESS}:9092"


def test_a_host_that_nobody_answers_at_is_another_fault() -> None:
    with pytest.raises(ConfigError, match="nobody answers there"):
        ask("127.0.0.1:1", "/a/B", b"", roots=b"")


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ("errors resolving a:1: [field:hostname lookup error:Domain name not found]", True),
        ("DNS resolution failed for a:1: C-ares status is not ARES_SUCCESS", True),
        ("failed to connect to all addresses; last error: Connection refused", False),
    ],
)
def test_the_words_of_grpc_for_it_are_known(details: str, expected: bool) -> None:
    assert nameless(details) is expected


def test_who_takes_a_call_and_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ConfigError, match="no answer in time"):
            ask(f"127.0.0.1:{port}", "/a/B", b"", roots=b"", seconds=0.3)
