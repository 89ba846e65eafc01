"""`metrana server`: one process that takes batches over gRPC, keeps them, and is read over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import uvicorn

from metrana.server._proto import ingestion_pb2_grpc as pb_grpc
from metrana.server.app import create_app
from metrana.server.auth import TokenAuth, TokenInterceptor, new_token
from metrana.server.embedded import Stores, open_stores
from metrana.server.ingest import Ingestor
from metrana.server.leases import LeaseKeeper
from metrana.server.points.engine import import_for_inserts
from metrana.server.service import IngestionService
from metrana.server.spools import SpoolDelivery
from metrana.server.state import remove_state, write_state

_log = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES: Final = 16 << 20
_GRPC_OPTIONS: Final = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # The client's ping interval is its own business: a quiet run must not be cut for asking.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # A second server must get an error, not half of the connections.
    ("grpc.so_reuseport", 0),
]
# Streams end by themselves soon after they were asked to reconnect.
_GRACE_S: Final = 3.0


class PortInUseError(RuntimeError):
    """Something else listens there; the message names address and flag."""


class AddressError(RuntimeError):
    """The host is no address of this machine; the message names it and the flag."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What `metrana server` is started with.

    Attributes:
        data_dir: The data directory: its stores, its spools.
        host: Address to listen on.
        port: For HTTP; 0 is any free one.
        grpc_port: For writers; 0 is any free one.
        token: What everyone has to show; None makes a random one.
        ask_token: False lets in everyone who reaches the ports.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 7670
    grpc_port: int = 7671
    token: str | None = None
    ask_token: bool = True


def serve(options: ServerOptions, on_ready: Callable[[str, str, str | None], None]) -> None:
    """Runs the server until SIGTERM or SIGINT. Blocks; for the main thread.

    A first signal ends it in order: what was taken is committed and acknowledged. A second one ends
    it at once, which loses nothing either, since writers keep what is not acknowledged.

    Args:
        options: Where to listen and what to serve.
        on_ready: Called once with the HTTP URL, the gRPC URL and the token.

    Raises:
        PortInUseError: A port is taken.
        AddressError: The host is no address of this machine.
        StoreInUseError: Another process has the data directory's store open.
        NetworkFileSystemError: The data directory is on a network file system.
    """
    with (
        contextlib.closing(_listen(options.host, options.port, "--port")) as http_socket,
        open_stores(options.data_dir) as stores,
    ):
        asyncio.run(_serve(options, stores, http_socket, on_ready))


async def _serve(
    options: ServerOptions,
    stores: Stores,
    http_socket: socket.socket,
    on_ready: Callable[[str, str, str | None], None],
) -> None:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    token = (options.token or new_token()) if options.ask_token else None
    auth = TokenAuth(token)
    ingestor = Ingestor(stores.catalog, stores.points, stores.media)
    service = IngestionService(stores.catalog, ingestor)
    grpc_server = grpc.aio.server(interceptors=[TokenInterceptor(auth)], options=_GRPC_OPTIONS)
    pb_grpc.add_IngestionServicer_to_server(service, grpc_server)
    grpc_port = _bind(grpc_server, options)
    delivery = SpoolDelivery(options.data_dir, ingestor)
    leases = LeaseKeeper(stores.catalog, ingestor)
    http = _HttpServer(create_app(stores, ingestor, auth, [delivery, leases, ingestor.renderings]))

    await grpc_server.start()
    http_task = asyncio.create_task(http.serve(sockets=[http_socket]))
    with _threads(delivery, leases, _Warmup()):
        try:
            http_url = f"http://{_host(options)}:{http_socket.getsockname()[1]}"
            grpc_url = f"http://{_host(options)}:{grpc_port}"
            write_state(options.data_dir, http_url, grpc_url, token)
            on_ready(http_url, grpc_url, token)
            await stopping.wait()
        finally:
            remove_state(options.data_dir)
            service.ask_to_reconnect()
            # Before batches are handed back: that is no news of a delivery that ends itself.
            delivery.stop()
            await _stop_taking(grpc_server, ingestor)
            http.should_exit = True
            await http_task
    await asyncio.to_thread(ingestor.close)


async def _stop_taking(grpc_server: grpc.aio.Server, ingestor: Ingestor) -> None:
    """Ends all streams; those that a failing store keeps waiting too, which keep their batches."""
    stopped = asyncio.ensure_future(grpc_server.stop(_GRACE_S))
    await asyncio.wait({stopped}, timeout=_GRACE_S)
    ingestor.begin_close()
    await stopped


class _Warmup:
    """Does, once the server serves, what its first commit would otherwise be kept waiting for."""

    def run(self) -> None:
        """Imports what inserts need. Blocks."""
        import_for_inserts()

    def stop(self) -> None:
        """An import cannot be broken off; the server's end waits for it."""


class _HttpServer(uvicorn.Server):
    """uvicorn on a loop and with signals that are not its own."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, lifespan="off")
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `serve`, which has more to end than HTTP."""
        yield


@contextmanager
def _threads(*workers: Any) -> Iterator[None]:
    """Runs each worker's `run` in a thread of its own; stops and joins them at the end."""
    threads = [
        threading.Thread(target=worker.run, name=f"metrana-{type(worker).__name__}", daemon=True)
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join()


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _listen(host: str, port: int, flag: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise AddressError(
                f"cannot listen on {host}: {error.strerror}; pass --host with an address of this "
                "machine: 127.0.0.1 for itself, 0.0.0.0 for every network it is in"
            ) from error
        raise PortInUseError(
            f"cannot listen on {host} port {port}: {error.strerror}; pass {flag} with another "
            "port, or 0 for any free one"
        ) from error
    listener.listen(128)
    return listener


def _bind(server: grpc.aio.Server, options: ServerOptions) -> int:
    # gRPC says little of why it cannot bind: ask the system first.
    _listen(options.host, options.grpc_port, "--grpc-port").close()
    return server.add_insecure_port(f"{_host(options)}:{options.grpc_port}")


def _host(options: ServerOptions) -> str:
    return f"[{options.host}]" if ":" in options.host else options.host
