from __future__ import annotations

import ipaddress
import ssl
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from server import authority
from server.authority import (
    ca_bundle,
    create,
    credentials,
    finish_ca,
    issuer,
    rotate_ca,
    rotate_server,
)
from server.listener import Listener
from shared.channel import REQUEST, ask
from shared.errors import AtollError, ConfigError, IdentityError
from shared.trust import authorities, certificates, hosts_of, issued_by, pem

HOSTS = ["localhost", "127.0.0.1"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    create(tmp_path, hosts=HOSTS, name="coordinator")
    return tmp_path


def leaf(home: Path) -> x509.Certificate:
    return certificates(credentials(home)[1])[0]


def test_a_ca_says_what_it_may_do(home: Path) -> None:
    (ca,) = authorities(ca_bundle(home))
    extensions = ca.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    assert ca.not_valid_after_utc - ca.not_valid_before_utc > timedelta(days=3649)
    own = x509.SubjectKeyIdentifier.from_public_key(ca.public_key())
    assert extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == own


def test_the_servers_certificate_is_for_its_hosts_and_for_servers_alone(home: Path) -> None:
    (ca,) = authorities(ca_bundle(home))
    found = leaf(home).extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    basic = found.get_extension_for_class(x509.BasicConstraints)
    usage = found.get_extension_for_class(x509.KeyUsage)
    assert (basic.critical, basic.value.ca) == (True, False)
    assert (usage.value.digital_signature, usage.value.key_cert_sign) == (True, False)
    own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    by = found.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert by.key_identifier == own.digest
    assert leaf(home).not_valid_after_utc - leaf(home).not_valid_before_utc < timedelta(days=398)
    assert issued_by(leaf(home), ca)
    assert issuer(home) == ca


def test_a_chain_is_leaf_then_ca_and_passes_a_verifier(home: Path) -> None:
    chain = certificates(credentials(home)[1])
    assert chain[1:] == authorities(ca_bundle(home))
    store = verification.Store(authorities(ca_bundle(home)))
    builder = verification.PolicyBuilder().store(store)
    for host in (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))):
        assert builder.build_server_verifier(host).verify(chain[0], [])
    with pytest.raises(verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example")).verify(chain[0], [])


@pytest.mark.parametrize("turn", [lambda home: None, rotate_server, rotate_ca])
def test_keys_are_for_their_owner_alone(turn: Callable[[Path], None], home: Path) -> None:
    turn(home)
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    assert sorted(it.name for it in home.iterdir()) == [
        "ca.key",
        "ca.pem",
        "server.key",
        "server.pem",
    ]


def test_what_is_there_is_not_made_again(home: Path) -> None:
    before = {it: it.read_bytes() for it in home.iterdir()}
    with pytest.raises(ConfigError, match="is there already; rotate it"):
        create(home, hosts=HOSTS, name="coordinator")
    assert {it: it.read_bytes() for it in home.iterdir()} == before


@pytest.mark.parametrize("hosts", [[], [""], ["a b"], ["host:9092"], ["1.2.3.400"], ["https://a"]])
def test_a_host_that_is_none_is_refused_and_nothing_made(hosts: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="host"):
        create(tmp_path, hosts=hosts, name="coordinator")
    assert not list(tmp_path.iterdir())


def test_hosts_may_be_names_and_addresses_of_both_kinds(tmp_path: Path) -> None:
    create(tmp_path, hosts=["A.example", "10.0.0.1", "fd00::1", "a.example"], name="c")
    assert hosts_of(leaf(tmp_path)) == ["a.example", "10.0.0.1", "fd00::1"]


def test_a_rotated_certificate_is_new_for_the_same_hosts_by_the_same_ca(home: Path) -> None:
    bundle, before = ca_bundle(home), leaf(home)
    rotate_server(home, also=["more.example"])
    after = leaf(home)
    assert ca_bundle(home) == bundle
    assert after.public_key() != before.public_key()
    assert hosts_of(after) == [*HOSTS, "more.example"]
    assert issued_by(after, authorities(bundle)[0])


def test_a_ca_is_rotated_in_two_phases(home: Path) -> None:
    (old,) = authorities(ca_bundle(home))
    before = leaf(home)
    rotate_ca(home)
    first, new = authorities(ca_bundle(home))
    assert (first, leaf(home), issuer(home)) == (old, before, old)
    with pytest.raises(IdentityError, match="finish that rotation first"):
        rotate_ca(home)
    rotate_server(home)  # in between, still by the one that all trust
    assert issuer(home) == old
    finish_ca(home)
    assert authorities(ca_bundle(home)) == [new]
    assert (issuer(home), hosts_of(leaf(home))) == (new, HOSTS)
    assert (home / "ca.key").read_bytes().count(b"BEGIN") == 1
    with pytest.raises(IdentityError, match="no rotation to finish"):
        finish_ca(home)
    rotate_ca(home)
    finish_ca(home)


def test_a_crash_between_key_and_certificate_leaves_a_pair(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = credentials(home)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(authority, "_write", crash)
    with pytest.raises(KeyboardInterrupt):
        rotate_server(home)
    assert (home / "server.key").read_bytes().count(b"BEGIN") == 2
    assert credentials(home) == before
    with pytest.raises(KeyboardInterrupt):
        rotate_ca(home)
    monkeypatch.undo()
    rotate_server(home)
    rotate_ca(home)
    finish_ca(home)
    key, chain = credentials(home)
    assert load_pem_private_key(key, None).public_key() == certificates(chain)[0].public_key()


def test_whoever_reads_during_rotations_gets_a_pair(home: Path) -> None:
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set():
            key, chain = credentials(home)
            pair = load_pem_private_key(key, None).public_key(), certificates(chain)[0].public_key()
            assert pair[0] == pair[1]
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for _ in range(15):
                rotate_server(home)
        finally:
            done.set()
        assert reader.result() > 0


@pytest.mark.parametrize(
    ("file", "use"),
    [
        ("ca.key", rotate_ca),
        ("ca.pem", ca_bundle),
        ("server.key", credentials),
        ("server.pem", credentials),
    ],
)
@pytest.mark.parametrize("spoil", ["missing", "damaged"])
def test_a_damaged_home_is_told_in_one_line(
    file: str, use: Callable[[Path], object], spoil: str, home: Path
) -> None:
    if spoil == "missing":
        (home / file).unlink()
    else:
        (home / file).write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(AtollError, match=file.replace(".", r"\.")):
        use(home)


def test_a_lost_server_key_is_healed_by_a_rotation(home: Path) -> None:
    (home / "server.key").unlink()
    rotate_server(home)
    assert credentials(home)


def test_a_leaf_is_no_authority(home: Path) -> None:
    with pytest.raises(IdentityError, match="no coordinator's CA"):
        authorities(pem([leaf(home)]))
    with pytest.raises(IdentityError, match="holds no certificates"):
        authorities(b"")


async def echo(_messages: object, context: Any) -> bytes:
    """What came in the headers of the call."""
    return bytes(dict(context.invocation_metadata())[REQUEST])


def until_shown(port: int, home: Path) -> None:
    """Wait until the port shows the certificate that lies in the home, and no other any more."""
    wanted = x509.load_pem_x509_certificate(credentials(home)[1]).serial_number
    patience, in_a_row = time.monotonic() + 20.0, 0
    while in_a_row < 5:
        assert time.monotonic() < patience
        time.sleep(0.05)
        try:
            told = ssl.get_server_certificate(("127.0.0.1", port))
        except OSError:  # the old server closes its port at this moment
            continue
        shown = x509.load_pem_x509_certificate(told.encode()).serial_number
        in_a_row = in_a_row + 1 if shown == wanted else 0


def test_a_server_that_runs_takes_a_rotated_certificate(home: Path) -> None:
    method = grpc.stream_unary_rpc_method_handler(echo)
    service = grpc.method_handlers_generic_handler("test.Echo", {"Echo": method})
    server = Listener("127.0.0.1:0", lambda: credentials(home), service)
    port = server.port
    server.start()
    try:
        for turn in (lambda home: None, rotate_server, rotate_ca, rotate_server):
            before = ca_bundle(home)
            turn(home)
            until_shown(port, home)
            assert ask(f"127.0.0.1:{port}", "/test.Echo/Echo", b"a", roots=before) == b"a"
        both = ca_bundle(home)
        first, new = authorities(both)
        finish_ca(home)
        until_shown(port, home)
        assert ask(f"localhost:{port}", "/test.Echo/Echo", b"b", roots=both) == b"b"
        assert ask(f"localhost:{port}", "/test.Echo/Echo", b"c", roots=pem([new])) == b"c"
        with pytest.raises(IdentityError, match="is not by the coordinator"):
            ask(f"localhost:{port}", "/test.Echo/Echo", b"d", roots=pem([first]))
    finally:
        server.stop(0.0)
