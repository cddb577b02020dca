"""What a platform's calls may take of the port: their size, and how often they come."""

from __future__ import annotations

import grpc
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest

from clients.link import linked
from server import calls
from server.calls import FLEET, PUBLIC_KEY, SMALL
from simulations.lagoon import BUNDLE, Lagoon, ask, echo, here


def test_a_question_for_work_may_not_be_as_large_as_a_reply(lagoon: Lagoon) -> None:
    with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as link:
        request = PullMessagesRequest(node=link.node, message_ids=["x" * SMALL])
        with pytest.raises(grpc.RpcError) as caught:
            link.held.PullMessages(request, timeout=5.0)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


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
            for key in (b"one", b"one", b"other"):
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"", timeout=20.0, metadata=((PUBLIC_KEY, key),))
                found.append(caught.value.code())
    assert found == [code.UNAUTHENTICATED, code.RESOURCE_EXHAUSTED, code.UNAUTHENTICATED]
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        assert len(ask(grid)) == 1
