"""What a platform's calls may take of the port: their size, and how often they come."""

from __future__ import annotations

import grpc
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest

from clients.link import linked
from server import calls
from server.calls import FLEET, PUBLIC_KEY, SMALL
from shared.enrolment import node_public
from simulations.lagoon import BUNDLE, Lagoon, ask, echo, here


def test_a_question_for_work_may_not_be_as_large_as_a_reply(lagoon: Lagoon) -> None:
    with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as link:
        request = PullMessagesRequest(node=link.node, message_ids=["x" * SMALL])
        with pytest.raises(grpc.RpcError) as caught:
            link.held.PullMessages(request, timeout=5.0)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stranger_is_refused_at_once_however_often_it_calls(
    lagoon: Lagoon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("PACE", 60.0), ("BEHIND", 0.1), ("REST", 60.0)):
        monkeypatch.setattr(calls, name, seconds)
    credentials = grpc.ssl_channel_credentials(lagoon.roots)
    with grpc.secure_channel(lagoon.address, credentials) as channel:
        call = channel.unary_unary(f"{FLEET}PushObject")
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", timeout=20.0, metadata=((PUBLIC_KEY, b"stranger"),))
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert not lagoon.link.calls.due  # nothing is kept of whoever comes


def test_whoever_calls_too_often_is_refused_and_others_are_served(
    lagoon: Lagoon, monkeypatch: pytest.MonkeyPatch
) -> None:
    lagoon.node("a", echo)
    here(lagoon, "a")
    code, credentials = grpc.StatusCode, grpc.ssl_channel_credentials(lagoon.roots)
    found = list[grpc.StatusCode]()
    with grpc.secure_channel(lagoon.address, credentials) as channel:
        call = channel.unary_unary(f"{FLEET}PushObject")
        with monkeypatch.context() as patched:
            for name, seconds in (("PACE", 60.0), ("BEHIND", 0.1), ("REST", 0.0)):
                patched.setattr(calls, name, seconds)
            for name in ("b", "b", "c"):
                key = node_public(lagoon.keys[name].public_key())  # without its signature
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"", timeout=20.0, metadata=((PUBLIC_KEY, key),))
                found.append(caught.value.code())
    assert found == [code.UNAUTHENTICATED, code.RESOURCE_EXHAUSTED, code.UNAUTHENTICATED]
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        assert len(ask(grid)) == 1
