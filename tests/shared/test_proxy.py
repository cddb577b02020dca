"""Whoever asks a server takes the way that gRPC takes, and the proxy is named."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from server import authority
from shared import proxy
from shared.channel import ask
from shared.errors import ConfigError
from shared.proxy import Route, connected, exempted, route


class Proxy:
    """An HTTP proxy that knows CONNECT, counts, and passes bytes on."""

    def __init__(self, status: bytes = b"200 OK") -> None:
        self.asked = list[str]()
        self.status = status
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://user:secret@127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(near,), daemon=True).start()

    def _tunnel(self, near: socket.socket) -> None:
        with near, suppress(OSError):  # who asked may have gone, or nobody is there to be asked
            self._answer(near)

    def _answer(self, near: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (block := near.recv(4096)):
            head += block
        self.asked.append(head.decode("latin-1"))
        near.sendall(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
        if not self.status.startswith(b"200"):
            return
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as far:
            back = threading.Thread(target=passed_on, args=(far, near), daemon=True)
            back.start()
            passed_on(near, far)
            back.join(10)

    def targets(self) -> list[str]:
        return [head.split(" ")[1] for head in self.asked]


def passed_on(source: socket.socket, sink: socket.socket) -> None:
    try:
        while block := source.recv(65_536):
            sink.sendall(block)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*proxy.PROXIES, *proxy.EXEMPTIONS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def through() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.socket.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    """A gRPC server that echoes: its port, and the CA of its certificate."""
    home = tmp_path / "home"
    home.mkdir()
    authority.create(home, hosts=["127.0.0.1"], name="test")
    made = grpc.server(ThreadPoolExecutor(2))
    echo = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"here")
    made.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a", {"B": echo})])
    port = made.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([authority.credentials(home)])
    )
    made.start()
    yield port, (home / "ca.pem").read_bytes()
    made.stop(0).wait()


@pytest.mark.parametrize("name", proxy.PROXIES)
def test_grpc_and_a_plain_connection_take_the_same_proxy(
    name: str, through: Proxy, server: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, roots = server
    monkeypatch.setenv(name, through.url)
    assert ask(f"127.0.0.1:{port}", "/a/B", b"", roots=roots) == b"here"
    connected("127.0.0.1", port, timeout=10).close()
    assert through.targets() == [f"127.0.0.1:{port}"] * 2
    assert all("dXNlcjpzZWNyZXQ=" in head for head in through.asked)  # user:secret


@pytest.mark.parametrize(
    "settings",
    [
        {"no_proxy": "example.org, 127.0.0.1"},
        {"no_proxy": ".0.0.1"},
        {"no_proxy": "127.0.0.0/8"},
        {"no_grpc_proxy": "127.0.0.1", "no_proxy": ""},
        {"https_proxy": ""},
        {"https_proxy": "https://127.0.0.1:1"},
        {"https_proxy": "socks5://127.0.0.1:1"},
    ],
)
def test_grpc_and_a_plain_connection_go_directly_together(
    settings: dict[str, str],
    through: Proxy,
    server: tuple[int, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, roots = server
    for name, value in {"https_proxy": through.url, **settings}.items():
        monkeypatch.setenv(name, value)
    assert ask(f"127.0.0.1:{port}", "/a/B", b"", roots=roots) == b"here"
    connected("127.0.0.1", port, timeout=10).close()
    assert through.targets() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"HTTPS_PROXY": "http://127.0.0.1:1"},
        {"no_grpc_proxy": "example.org", "no_proxy": "127.0.0.1", "https_proxy": "PROXY"},
        {"no_proxy": "10.0.0.0/8,localhost", "http_proxy": "PROXY"},
        {"no_proxy": "*", "http_proxy": "PROXY"},
    ],
)
def test_what_grpc_makes_of_the_environment_is_what_route_says(
    settings: dict[str, str],
    through: Proxy,
    server: tuple[int, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Grpc decides alone here: without the option that `ask` sets."""
    port, roots = server
    for name, value in settings.items():
        monkeypatch.setenv(name, value.replace("PROXY", through.url) if value == "PROXY" else value)
    trusted = grpc.ssl_channel_credentials(root_certificates=roots)
    with grpc.secure_channel(f"127.0.0.1:{port}", trusted) as channel:
        assert channel.unary_unary("/a/B")(b"", timeout=10) == b"here"
    assert bool(through.targets()) == bool(route("127.0.0.1").host)


def test_a_proxy_that_refuses_is_named_without_its_password(
    server: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = Proxy(b"403 Forbidden")
    monkeypatch.setenv("https_proxy", refusing.url)
    port, roots = server
    named = f"by the proxy 127.0.0.1:{refusing.socket.getsockname()[1]} of https_proxy"
    with pytest.raises(ConfigError, match=named) as by_grpc:
        ask(f"127.0.0.1:{port}", "/a/B", b"", roots=roots)
    with pytest.raises(ConfigError, match=named) as plain:
        connected("127.0.0.1", port, timeout=10)
    refusing.socket.close()
    assert "403" in str(plain.value)
    for told in (str(by_grpc.value), str(plain.value), repr(route("127.0.0.1"))):
        assert "secret" not in told


def test_what_is_not_used_is_named_too() -> None:
    assert str(route("a.example", {})) == ""
    used = route("a.example", {"https_proxy": "http://[::1]:3128"})
    assert (used.host, used.port, str(used)) == (
        "::1",
        3128,
        "by the proxy ::1:3128 of https_proxy",
    )
    told = str(route("a.example", {"https_proxy": "http://p:1", "no_proxy": "example"}))
    assert told == "directly (https_proxy is not used: no_proxy names this host)"
    told = str(route("a.example", {"https_proxy": "https://p:1"}))
    assert told == "directly (https_proxy is not used: only http://HOST:PORT is)"
    assert route("a.example", {"https_proxy": "http://p:x"}).why == "it is no URL"
    assert route("a", {"grpc_proxy": "http://p"}) == Route("p", 80, "grpc_proxy")


def test_exemptions_are_ends_of_names_and_ranges_of_addresses() -> None:
    assert exempted("shop.Example.org", "a, example.ORG")
    assert exempted("10.1.2.3", "10.0.0.0/8")
    assert not exempted("11.1.2.3", "10.0.0.0/8,,")
    assert not exempted("example.org", "shop.example.org,*")
    assert not exempted("example.org", "bad/99")
