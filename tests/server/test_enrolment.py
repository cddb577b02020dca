from __future__ import annotations

import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from server.enrolment import Enrolment
from shared.enrolment import JoinRequest
from shared.errors import ConfigError, IdentityError
from shared.signing import public_of

if TYPE_CHECKING:
    from tests.server.conftest import Clock, MakeKeys


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Enrolment:
    return Enrolment(tmp_path / "platforms.sqlite", clock=clock)


def listed(store: Enrolment) -> list[tuple[str, bool]]:
    return [(it.name, it.evicted is None) for it in store.platforms()]


def test_a_token_admits_one_platform_once(store: Enrolment, make_keys: MakeKeys) -> None:
    secret, keys = store.invite("shop"), make_keys()
    store.admit(keys.request(secret))
    found = store.admitted(keys.node_key)
    assert found is not None
    assert (found.name, found.signing_key) == ("shop", public_of(keys.signing))
    assert store.named("shop") == found
    for again in (keys, make_keys()):
        with pytest.raises(IdentityError, match="the token was used already"):
            store.admit(again.request(secret))
    assert listed(store) == [("shop", True)]


def test_an_expired_foreign_or_replaced_token_admits_nobody(
    store: Enrolment, clock: Clock, make_keys: MakeKeys
) -> None:
    first = store.invite("shop")
    second = store.invite("shop")
    for secret in (first, bytes(16)):
        with pytest.raises(IdentityError, match="the token is unknown"):
            store.admit(make_keys().request(secret))
    with pytest.raises(IdentityError, match="not for a platform named 'other'"):
        store.admit(make_keys().request(second, "other"))
    clock.now += 600
    with pytest.raises(IdentityError, match="the token has expired"):
        store.admit(make_keys().request(second))
    assert listed(store) == []


def test_an_open_token_of_a_restored_store_admits_nobody(
    store: Enrolment, make_keys: MakeKeys
) -> None:
    secret = store.invite("bazaar")
    store.accept_restored([])  # after the backup it may have been used, and its platform evicted
    with pytest.raises(IdentityError, match="the token is unknown"):
        store.admit(make_keys().request(secret, "bazaar"))


def test_a_refused_join_leaves_the_token_good(store: Enrolment, make_keys: MakeKeys) -> None:
    secret, keys = store.invite("shop"), make_keys()
    other = make_keys().request(secret)
    false = keys.request(secret).model_copy(update={"node_proof": other.node_proof})
    with pytest.raises(IdentityError, match="proof of the node key"):
        store.admit(false)
    store.admit(keys.request(secret))


def test_a_name_that_is_taken_is_invited_again_only_after_eviction(
    store: Enrolment, make_keys: MakeKeys
) -> None:
    old, new = make_keys(), make_keys()
    store.admit(old.request(store.invite("shop")))
    with pytest.raises(IdentityError, match="'shop' is admitted already"):
        store.invite("shop")
    store.evict("shop")
    with pytest.raises(IdentityError, match="a key of it was here before"):
        store.admit(old.request(store.invite("shop")))
    store.admit(new.request(store.invite("shop")))
    assert store.admitted(old.node_key) is None
    found = store.named("shop")
    assert found is not None
    assert found.records == f"shop-{public_of(new.signing)[:8]}"  # its audit log is another
    assert listed(store) == [("shop", False), ("shop", True)]


@pytest.mark.parametrize("name", ["", "a b", "../x", "ä", "x" * 65, "a\n"])
def test_what_is_no_name_is_not_invited(name: str, store: Enrolment) -> None:
    with pytest.raises(ConfigError, match="is no platform's name"):
        store.invite(name)


def test_an_invite_is_open_for_a_sensible_time(store: Enrolment) -> None:
    for seconds in (0, -1, 10**9):
        with pytest.raises(ConfigError, match="cannot be open"):
            store.invite("shop", seconds=seconds)


def test_no_secret_is_on_the_disk_and_the_store_is_the_owners_alone(
    store: Enrolment, tmp_path: Path
) -> None:
    secret = store.invite("shop")
    for path in tmp_path.iterdir():
        assert secret not in path.read_bytes()
        assert secret.hex().encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_eviction_holds_at_once_in_every_process_and_thread(
    store: Enrolment, tmp_path: Path, make_keys: MakeKeys
) -> None:
    keys = make_keys()
    store.admit(keys.request(store.invite("shop")))
    other = Enrolment(tmp_path / "platforms.sqlite")
    assert other.admitted(keys.node_key) is not None
    store.evict("shop")
    assert other.admitted(keys.node_key) is None
    assert other.named("shop") is None
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(other.admitted, keys.node_key).result() is None
    with pytest.raises(IdentityError, match="no platform 'shop' is admitted"):
        other.evict("shop")


def test_a_key_has_an_owner_also_after_its_eviction(store: Enrolment, make_keys: MakeKeys) -> None:
    keys, other = make_keys(), make_keys()
    store.admit(keys.request(store.invite("shop")))
    assert store.whose(keys.node_key) == "shop"
    store.evict("shop")
    store.admit(other.request(store.invite("shop")))
    assert store.whose(keys.node_key) == "evicted shop"
    assert store.whose(other.node_key) == "shop"
    assert store.whose(b"nobody's") is None


def test_neither_key_of_an_evicted_platform_comes_back_with_a_new_other_one(
    store: Enrolment, make_keys: MakeKeys
) -> None:
    old = make_keys()
    store.admit(old.request(store.invite("shop")))
    store.evict("shop")
    for again in (replace(make_keys(), node=old.node), replace(make_keys(), signing=old.signing)):
        for name in ("shop", "other"):
            with pytest.raises(IdentityError, match="a key of it was here before"):
                store.admit(again.request(store.invite(name), name))
    assert listed(store) == [("shop", False)]


def test_two_that_race_for_a_token_are_one_platform(
    store: Enrolment, tmp_path: Path, clock: Clock, make_keys: MakeKeys
) -> None:
    both = 8
    start = threading.Barrier(both)
    secret = store.invite("shop")

    def race(request: JoinRequest) -> bool:
        own = Enrolment(tmp_path / "platforms.sqlite", clock=clock)
        start.wait()
        try:
            own.admit(request)
        except IdentityError:
            return False
        return True

    requests = [make_keys().request(secret) for _ in range(both)]
    with ThreadPoolExecutor(both) as pool:
        assert sum(pool.map(race, requests)) == 1
    assert listed(store) == [("shop", True)]


def test_a_look_is_quick(store: Enrolment, make_keys: MakeKeys) -> None:
    keys = make_keys()
    store.admit(keys.request(store.invite("shop")))
    began = time.perf_counter()
    for _ in range(1000):
        assert store.admitted(keys.node_key)
    assert time.perf_counter() - began < 1.0  # of seconds for a thousand; 0.02 on a laptop


def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "platforms.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(IdentityError, match="cannot be read or written"):
        Enrolment(tmp_path / "platforms.sqlite").platforms()
