"""The SuperLink: Flower's Fleet API on one encrypted port, for enrolled platforms alone.

    SuperNode ─TLS→ Admission ─→ Flower's node authentication ─→ Fleet ─→ LinkState (SQLite)
    atoll-client join ─TLS→ Enrolment

What Flower serves beside it is left out: its Control API, which starts any code for whoever reaches
it, and the HTTP API and processes of its ServerApp, which runs in this process (server/grid.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
from flwr.app import Context, RecordDict
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.proto.fleet_pb2_grpc import add_FleetServicer_to_server
from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import (
    NodeAuthServerInterceptor,
)
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import (
    RpcErrorTranslationServerInterceptor,
    create_fleet_runtime_version_server_interceptor,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager

from server.fleet import ONLINE, Admission, Fleet, NameOf, Refused
from server.grid import Counter, LinkGrid
from shared.bundle import Bundle
from shared.errors import ConfigError
from shared.files import unwritable

LARGEST = 64 * 2**20  # bytes of one message on the wire; an Adapter is a few hundred kB
THREADS = 256  # each held question takes one
PULSE = 10.0  # seconds between two signs of life of a run's task, which Flower ends after 60

Config = dict[str, bool | float | int | str]
Credentials = Callable[[], tuple[bytes, bytes]]  # key and certificate chain, PEM


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
            credentials: the server's, read anew at each handshake.
            name_of: the platform of a node key, while it is admitted.
            whose: what a log calls the owner of a node key, an evicted one too.
            refused: is told of each call that is turned away.
            handlers: of further services on this port.
        """
        self.counter, self.name_of, self.whose = Counter(), name_of, whose or name_of
        private(database)
        self.states = LinkStateFactory(str(database), NoOpFederationManager(), ObjectStoreFactory())
        self.server = grpc.server(
            ThreadPoolExecutor(THREADS),
            interceptors=[
                RpcErrorTranslationServerInterceptor(),
                Admission(name_of, refused),
                NodeAuthServerInterceptor(self.states),
                create_fleet_runtime_version_server_interceptor(),
            ],
            options=[
                ("grpc.max_send_message_length", LARGEST),
                ("grpc.max_receive_message_length", LARGEST),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.so_reuseport", 0),  # two servers on one port would share the platforms
            ],
        )
        add_FleetServicer_to_server(Fleet(self.states, name_of, self.counter), self.server)
        self.server.add_generic_rpc_handlers(tuple(handlers))
        try:
            self.port = self.server.add_secure_port(listen, rotating(credentials))
        except RuntimeError as fault:
            raise ConfigError(
                "cannot listen there (in use, or not this machine's)",
                where=listen,
                todo="stop what listens there, or set listen in server.toml",
            ) from fault

    @property
    def state(self) -> LinkState:
        """Flower's state."""
        return self.states.state()

    def start(self) -> None:
        """Open the port."""
        self.state.get_node_info()  # made, or brought to this version, before anybody comes
        self.server.start()

    def stop(self, grace: float = 2.0) -> None:
        """Close the port; calls under way have so many seconds."""
        self.counter.asked.ring()
        self.server.stop(grace).wait(grace + 1)

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


def rotating(credentials: Credentials) -> grpc.ServerCredentials:
    """The server's certificate, read at each handshake: rotating it ends no connection."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        key, chain = credentials()
        return grpc.ssl_server_certificate_configuration([(key, chain)])

    return grpc.dynamic_ssl_server_credentials(
        configuration(), configuration, require_client_authentication=False
    )
