"""The SuperLink: Flower's Fleet API on one encrypted port, for enrolled platforms alone.

    SuperNode ─TLS→ Calls: admission, Flower's node authentication ─→ Fleet ─→ LinkState (SQLite)
    atoll-client join ─TLS→ Calls ─→ Enrolment

What Flower serves beside it is left out: its Control API, which starts any code for whoever reaches
it, and the HTTP API and processes of its ServerApp, which runs in this process (server/grid.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from flwr.app import Context, RecordDict
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.proto.fleet_pb2_grpc import add_FleetServicer_to_server
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager

from server.calls import FLEET, Calls, Collected, NameOf, Refused
from server.fleet import ONLINE, Fleet
from server.grid import Counter, LinkGrid
from server.listener import Credentials, Listener
from shared.bundle import Bundle
from shared.files import unwritable

PULSE = 10.0  # seconds between two signs of life of a run's task, which Flower ends after 60

Config = dict[str, bool | float | int | str]


class SuperLink:
    """The port, and the state behind it. Start it, run ServerApps on its Grids, stop it."""

    def __init__(
        self,
        *,
        listen: str,
        database: Path,
        credentials: Credentials,
        name_of: NameOf,
        whose: NameOf | None = None,
        refused: Refused = lambda _method, _host, _key: None,
        handlers: Sequence[grpc.GenericRpcHandler] = (),
    ) -> None:
        """Open nothing yet.

        Args:
            listen: HOST:PORT, port 0 for any.
            database: file of Flower's state, for its owner alone.
            credentials: the server's, read anew each second.
            name_of: the platform of a node key, while it is admitted.
            whose: what a log calls the owner of a node key, an evicted one too.
            refused: is told of each call that is turned away.
            handlers: of further services on this port, whose methods take no message.

        Raises:
            ConfigError: the port is in use, or a file cannot be written.
        """
        self.counter, self.name_of, self.whose = Counter(), name_of, whose or name_of
        private(database)
        self.states = LinkStateFactory(str(database), NoOpFederationManager(), ObjectStoreFactory())
        self.fleet, collected = Fleet(self.states, name_of, self.counter), Collected()
        add_FleetServicer_to_server(self.fleet, collected)
        self.calls = Calls(
            collected.handlers,
            {f"{FLEET}PullMessages": self.fleet.pull},
            states=self.states,
            name_of=name_of,
            refused=refused,
            too_large=self.fleet.too_large,
            services=handlers,
        )
        self.listener = Listener(listen, credentials, self.calls)
        self.port = self.listener.port

    @property
    def state(self) -> LinkState:
        """Flower's state."""
        return self.states.state()

    def start(self) -> None:
        """Open the port."""
        self.state.get_node_info()  # made, or brought to this version, before anybody comes
        self.listener.start()

    def stop(self, grace: float = 2.0) -> None:
        """Close the port; calls under way have so many seconds."""
        self.fleet.close()
        self.listener.stop(grace)
        self.calls.close()

    def platform_of(self, node: int) -> str | None:
        """The enrolled platform behind a node."""
        found = self.state.get_node_info(node_ids=[node])
        return self.name_of(bytes(found[0].public_key)) if found else None

    def called(self, node: int) -> str | None:
        """What a log calls the platform behind a node, also if it is evicted."""
        found = self.state.get_node_info(node_ids=[node])
        return self.whose(bytes(found[0].public_key)) if found else None

    def online(self) -> list[str]:
        """Platforms whose nodes give signs of life."""
        names = (
            self.name_of(bytes(it.public_key)) for it in self.state.get_node_info(statuses=[ONLINE])
        )
        return sorted({name for name in names if name is not None})

    @contextmanager
    def run(self, bundle: Bundle, config: Config) -> Iterator[tuple[LinkGrid, Context]]:
        """A run that asks platforms to run this bundle; whatever an earlier process ran is ended.

        Args:
            bundle: what platforms are sent.
            config: of the ServerApp; platforms are not told.

        Returns:
            What a ServerApp is called with.
        """
        state = self.state
        for old in state.get_run_info(statuses=["pending", "starting", "running"]):
            if old.primary_task_id is not None:
                state.finish_task(old.primary_task_id, SubStatus.FAILED, "the server was stopped")
        state.store_fab(Fab(bundle.digest, bundle.content, {}))
        run_id = state.create_run(
            fab_id="atoll/atoll",
            fab_version=bundle.version,
            fab_hash=bundle.digest,
            override_config={},
            federation_id=NOOP_FEDERATION_ID,
            federation_config=None,
            flwr_aid=NOOP_FLWR_AID,
            primary_task_type=TaskType.SERVER_APP,
        )
        task = state.get_run_info(run_ids=[run_id])[0].primary_task_id
        assert task is not None
        state.claim_task(task)
        state.activate_task(task)
        ended = threading.Event()
        pulse = threading.Thread(target=beat, args=(state, task, ended), daemon=True)
        pulse.start()
        TaskIdentity.run_id, TaskIdentity.node_id = run_id, SUPERLINK_NODE_ID
        TaskIdentity.task_id = task
        status = SubStatus.FAILED
        try:
            grid = LinkGrid(
                state, run_id, self.counter, name_of=self.platform_of, called=self.called
            )
            yield grid, Context(run_id, SUPERLINK_NODE_ID, {}, RecordDict(), config)
            status = SubStatus.COMPLETED
        finally:
            ended.set()
            pulse.join()
            state.finish_task(task, status, "")
            state.object_store.delete_objects_in_run(run_id)


def private(database: Path) -> None:
    """Make a database its owner's alone before SQLite does; its journals take after it.

    Raises:
        ConfigError: it cannot be.
    """
    try:
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        for path in database.parent.glob(f"{database.name}*"):
            path.chmod(0o600)
    except OSError as fault:
        raise unwritable(database, fault) from fault


def beat(state: LinkState, task: int, ended: threading.Event) -> None:
    """Tell Flower that the run is alive, until it has ended."""
    while not ended.wait(PULSE):
        state.acknowledge_task_heartbeat(task)
