"""Attacks by whoever reaches the port, without a key that is enrolled."""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from server import authority
from shared import enrolment
from shared.errors import AtollError
from shared.token import Token
from simulations.deployed import ROOT
from simulations.siege.rows import Finding, Row
from simulations.siege.target import Target, busy, target

MIB = 2**20
IDLE, IDLE_SECONDS, CALM_SECONDS, TIMES, LOOPS = 1000, 200.0, 60.0, 3, 10
SLOWER = 2.0  # times that rounds may take under attack
GROWTH = 100.0  # MiB
BODY, CONNECTIONS, EACH = 60 * MIB, 30, 2
OPEN_CALLS, OPEN_SECONDS = 1000, 30.0
NONSENSE, ADDRESSES = 250, 10
HELLO = 1.0  # seconds
TLS_HELLO = b"\x16\x03\x01\x02\x00"  # the first five bytes


def idle(folder: Path) -> Finding:
    """1,000 connections that say nothing, on a busy machine, three times."""
    told, passed = [], True
    for time_ in range(TIMES):
        place = folder / str(time_)
        place.mkdir()
        with target(place) as made, busy(LOOPS):
            calm = over(made, CALM_SECONDS)
            with idle_connections(made.deployment.port, IDLE) as dropped:
                rounds, pace = over(made, IDLE_SECONDS)
            ending = made.ending()
            told.append(
                f"{ending}, {rounds} rounds, {pace:.2f} s each ({calm[1]:.2f} s without),"
                f" {dropped()} connections dropped by the server"
            )
            passed &= made.alive() and rounds > 1 and pace <= SLOWER * calm[1]
    return Finding("; ".join(told), passed)


def over(made: Target, seconds: float) -> tuple[int, float]:
    """Rounds in so many seconds from now, and the median seconds of one; less if it ends."""
    began = time.time()
    while time.time() < began + seconds and made.alive():
        time.sleep(0.5)
    return made.pace(began, time.time())


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[Callable[[], int]]:
    """So many connections that say nothing, or five bytes, for as long as the body runs.

    One that the server drops is opened again. Yields how many were dropped so far.
    """
    ended, dropped = threading.Event(), [0]

    def opened(number: int) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", port), timeout=30.0)
        if number % 2:
            made.sendall(TLS_HELLO)
        made.setblocking(False)
        return made

    def keep() -> None:
        with selectors.DefaultSelector() as all_:
            for number in range(count):
                with suppress(OSError):
                    all_.register(opened(number), selectors.EVENT_READ, number)
            while not ended.is_set():
                for key, _events in all_.select(0.5):
                    assert isinstance(key.fileobj, socket.socket)
                    with suppress(BlockingIOError), suppress(ConnectionError):
                        if key.fileobj.recv(4096):
                            continue
                    all_.unregister(key.fileobj)
                    key.fileobj.close()
                    dropped[0] += 1
                    with suppress(OSError):
                        all_.register(opened(key.data), selectors.EVENT_READ, key.data)
            for key in list(all_.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield lambda: dropped[0]
    finally:
        ended.set()
        thread.join()


def bodies(method: str) -> Callable[[Path], Finding]:
    """30 connections that send messages of 60 MB to a method, twice each."""

    def run(folder: Path) -> Finding:
        with target(folder) as made:
            before = made.memory()
            made.forget_highest()
            codes = flood(made, method)
            highest, after = made.memory("VmHWM"), made.memory()
            answered = ", ".join(f"{count} × {code}" for code, count in codes.most_common())
            return Finding(
                f"{before:.0f} → {highest:.0f} MiB at its highest, {after:.0f} after; {answered}",
                made.alive() and highest - before <= GROWTH and codes["OK"] == 0,
            )

    return run


def flood(made: Target, method: str) -> Counter[str]:
    """How the calls ended, by the name of their status."""
    body, codes = bytes(BODY), Counter[str]()

    def send() -> None:
        with connected(made, ("grpc.max_send_message_length", -1)) as channel:
            for _ in range(EACH):
                try:
                    channel.unary_unary(method)(body, timeout=60.0)
                    codes["OK"] += 1
                except grpc.RpcError as fault:
                    codes[fault.code().name] += 1

    together(send, CONNECTIONS)
    return codes


@contextmanager
def connected(made: Target, *options: tuple[str, int]) -> Iterator[grpc.Channel]:
    """A connection of its own to the port, by somebody who has seen the CA."""
    every = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *options]
    secrets = grpc.ssl_channel_credentials(made.roots)
    with grpc.secure_channel(made.address, secrets, options=every) as channel:
        yield channel


def together(work: Callable[[], None], count: int) -> None:
    """Run this in so many threads."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def unfinished(folder: Path) -> Finding:
    """1,000 calls that begin and never send their message."""
    with target(folder) as made, connections(made, OPEN_CALLS // 25) as channels:
        calm, ended = greet(made, 5.0), threading.Event()

        def never() -> Iterator[bytes]:
            ended.wait(OPEN_SECONDS + 60.0)
            yield b""

        began = time.time()
        calls = [
            channel.stream_unary(method).future(never())
            for channel in channels
            for method in 5 * (enrolment.HELLO, enrolment.JOIN, PULL, PUSH_OBJECT, "/no/Such")
        ]
        hellos = greet(made, OPEN_SECONDS)
        rounds, _pace = made.pace(began, time.time())
        ended.set()
        for call in calls:
            call.cancel()
        return Finding(
            f"{made.ending()}, Hello {max(hellos):.2f} s at most ({max(calm):.2f} s before),"
            f" {rounds} rounds in {OPEN_SECONDS:.0f} s",
            made.alive() and max(hellos) <= HELLO and rounds > 0,
        )


@contextmanager
def connections(made: Target, count: int) -> Iterator[Sequence[grpc.Channel]]:
    """So many connections."""
    secrets = grpc.ssl_channel_credentials(made.roots)
    options = [("grpc.use_local_subchannel_pool", 1)]
    every = [grpc.secure_channel(made.address, secrets, options=options) for _ in range(count)]
    try:
        yield every
    finally:
        for channel in every:
            channel.close()


def greet(made: Target, seconds: float) -> list[float]:
    """Seconds of one Hello after another, one a second, by a process of its own."""
    ca = made.deployment.home / "ca.pem"
    words = [sys.executable, "-m", "simulations.siege.greeter", made.address, str(ca), str(seconds)]
    told = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    return [float(it) for it in json.loads(told)]


def joins(folder: Path) -> Finding:
    """Nonsense joins from several addresses, then one with a valid token."""
    with target(folder) as made, Relays(made.deployment.port, ADDRESSES) as relays:
        token = token_for(made, "newcomer")
        refused, began = Counter[str](), time.monotonic()
        node, signing = ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()
        for number in range(NONSENSE):
            nonsense = enrolment.join_request(
                number.to_bytes(16, "big"), name="newcomer", node=node, signing=signing
            )
            try:
                enrolment.join(relays.addresses[number % ADDRESSES], token, nonsense)
                refused["accepted"] += 1
            except AtollError as fault:
                refused[fault.what] += 1
        took = time.monotonic() - began
        request = enrolment.join_request(token.secret, name="newcomer", node=node, signing=signing)
        try:
            enrolment.join(made.address, token, request)
            said = "accepted at once"
        except AtollError as fault:
            said = f"refused ({fault.what})"
        return Finding(
            f"{NONSENSE} nonsense joins in {took:.0f} s, {refused['too many joins failed']} of them"
            f" refused unread; the valid token was {said}",
            said == "accepted at once" and not refused["accepted"],
        )


def token_for(made: Target, name: str) -> Token:
    """An invitation, as the coordinator gives it."""
    ca = authority.issuer(made.deployment.home).public_bytes(Encoding.DER)
    return Token(made.invite(name), int(time.time()) + 600, ca)


class Relays:
    """Ports that pass connections on to the server, each from another address of loopback."""

    def __init__(self, port: int, count: int) -> None:
        """Args: port: of the server. count: of addresses, from 127.0.0.2 on."""
        self._port = port
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.addresses = [f"127.0.0.1:{it.getsockname()[1]}" for it in self._sockets]
        for number, near in enumerate(self._sockets):
            args = (near, f"127.0.0.{number + 2}")
            threading.Thread(target=self._serve, args=args, daemon=True).start()

    def __enter__(self) -> Relays:
        """They are open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        for near in self._sockets:
            near.close()

    def _serve(self, near: socket.socket, source: str) -> None:
        with suppress(OSError):
            while True:
                one = near.accept()[0]
                far = ("127.0.0.1", self._port)
                other = socket.create_connection(far, source_address=(source, 0))
                for way in ((one, other), (other, one)):
                    threading.Thread(target=passed_on, args=way, daemon=True).start()


def passed_on(source: socket.socket, sink: socket.socket) -> None:
    """Pass on all bytes of one direction."""
    with suppress(OSError), source:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


PULL, PUSH_OBJECT = "/flwr.proto.Fleet/PullMessages", "/flwr.proto.Fleet/PushObject"

ROWS = (
    Row(
        "idle-connections",
        f"{IDLE:,} TCP connections that send nothing, or 5 bytes of a TLS hello, for"
        f" {IDLE_SECONDS:.0f} s beside {LOOPS} busy loops; {TIMES} times",
        f"alive; rounds of three honest platforms at most {SLOWER:.0f} × slower than without",
        idle,
        1200.0,
    ),
    Row(
        "large-joins",
        f"{CONNECTIONS} connections send Join messages of {BODY // MIB} MiB, {EACH} each",
        f"refused; memory grows by at most {GROWTH:.0f} MiB",
        bodies(enrolment.JOIN),
        300.0,
    ),
    Row(
        "large-calls",
        f"{CONNECTIONS} connections without a key send PushObject of {BODY // MIB} MiB,"
        f" {EACH} each",
        f"refused; memory grows by at most {GROWTH:.0f} MiB",
        bodies(PUSH_OBJECT),
        300.0,
    ),
    Row(
        "unfinished-calls",
        f"{OPEN_CALLS:,} calls by outsiders that never send their message, for"
        f" {OPEN_SECONDS:.0f} s",
        f"Hello within {HELLO:.0f} s; rounds go on",
        unfinished,
        300.0,
    ),
    Row(
        "nonsense-joins",
        f"{NONSENSE} joins with invented tokens from {ADDRESSES} addresses, then a valid one",
        "the valid token is accepted",
        joins,
        300.0,
    ),
)
