"""The ServerApp: read the run configuration, find where to start, run the rounds.

The same object is deployed on Flower's SuperLink and driven by the harness.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from server.aggregate import Algorithm, ServerState, algorithm, sums
from server.config import Run, run_from
from server.registry import Registry
from server.rounds import federate
from shared import wire
from shared.adapter import Adapter
from shared.backbone import load_backbone, read_slots
from shared.errors import ReplyError, RoundError
from shared.pairs import load_pairs
from shared.records import Content
from shared.signing import signing_key
from shared.tasks import co_visitation, next_item

# What a resumed run may set anew. With more rounds, those to come follow the longer schedule.
MAY_CHANGE = ("rounds", "quorum", "patience", "timeout", "grace")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation from the untrained state, or from the last recorded round."""
    run = run_from(context.run_config)
    if run.pairs is None:
        rule = algorithm(run.federation.algorithm, run.federation.server_learning_rate)
    else:
        rule = sums()
    registry = Registry(run.folder, signing_key(run.signing) if run.signing else None)
    state = first_state(run, rule, registry)
    registry.settle(
        {name: value for name, value in asdict(run.federation).items() if name not in MAY_CHANGE}
    )
    federate(GridNodes(grid), state, run.federation, rule, registry)


def first_state(run: Run, rule: Algorithm, registry: Registry) -> ServerState:
    """Where the run begins.

    Raises:
        RoundError: rounds are there but not to be resumed, or they belong to another backbone.
    """
    untrained = start_of(run)
    rounds = registry.rounds()
    if not rounds:
        return rule.init(untrained)
    if not run.resume:
        raise RoundError(
            f"rounds 0 to {rounds[-1]} are already recorded",
            where=registry.folder,
            todo="use --resume to go on, or another folder",
        )
    state, _report = registry.load(rounds[-1])
    if state.adapter.backbone != untrained.backbone:
        raise RoundError(
            f"the rounds recorded belong to {state.adapter.backbone[:12]}…",
            where=registry.folder,
            todo="use that backbone or list of pairs, or another folder",
        )
    if state.moments.keys() != rule.init(untrained).moments.keys():
        raise RoundError(
            "the rounds recorded are of another algorithm",
            where=registry.folder,
            todo=f"set algorithm to what it was, not {run.federation.algorithm!r}",
        )
    return state


def start_of(run: Run) -> Adapter:
    """The state of which nothing was learnt yet."""
    if run.pairs is not None:
        return co_visitation.untrained(load_pairs(run.pairs))
    assert run.backbone is not None  # one of the two is there
    backbone = load_backbone(run.backbone)
    return read_slots(backbone, digest=backbone.digest, task=next_item.NAME)


class GridNodes:
    """The platforms' nodes behind Flower's Grid; a `server.answers.Nodes`."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def present(self) -> Sequence[int]:
        """Nodes that the SuperLink, or the harness, knows now."""
        return list(self.grid.get_node_ids())

    def called(self, node: int) -> str | None:
        """The platform behind a node; only the deployed Grid knows whom it enrolled."""
        known: Callable[[int], str | None] | None = getattr(self.grid, "called", None)
        return known(node) if known else None

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterator[tuple[int, Content | ReplyError] | None]:
        """Send one content to several nodes; what did not come in time is left out."""
        messages = [
            Message(content, node, kind, ttl=timeout, group_id=str(round_)) for node in nodes
        ]
        # A grid that says now and then that nothing came lets `server.answers.ask` stop early.
        replies: Iterable[Message | None] = self.grid.send_and_receive(messages, timeout=timeout)
        with stopping(replies):
            for reply in replies:
                if reply is None:
                    yield None
                    continue
                node = reply.metadata.src_node_id
                if reply.has_error():
                    # A platform's error text could hold anything; only its code is repeated.
                    yield node, wire.refused(reply.error.code)
                else:
                    yield node, reply.content


@contextmanager
def stopping(replies: Iterable[object]) -> Iterator[None]:
    """Close what waits for replies when nobody wants more, where it is a generator."""
    try:
        yield
    finally:
        if isinstance(replies, Generator):
            replies.close()
