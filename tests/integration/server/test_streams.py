"""Streams of batches over real gRPC that end in the middle of something."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import grpc

from metrana.server._proto import ingestion_pb2 as pb
from metrana.server._proto import ingestion_pb2_grpc as pb_grpc
from metrana.server.service import PROTOCOL_VERSION, IngestionService
from tests.integration.server.gating import gated
from tests.integration.server.writing import WRITER_ID, open_writer


async def until(condition: Callable[[], object], what: str) -> None:
    """Polls on the loop until a condition holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


def writing_tasks() -> list[str]:
    """The tasks that answer streams."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    return [name for coro in coroutines if "_Stream" in (name := coro.__qualname__)]  # type: ignore[union-attr]


async def cut_while_opening(
    service: IngestionService, asked: threading.Event, go_on: threading.Event
) -> None:
    """Says hello, and is gone before the server knows what is stored of the writer."""
    server = grpc.aio.server()
    pb_grpc.add_IngestionServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = pb_grpc.IngestionStub(channel).StreamBatches()
        hello = pb.Hello(
            writer_id=bytes.fromhex(WRITER_ID),
            first_seq=1,
            min_version=PROTOCOL_VERSION,
            max_version=PROTOCOL_VERSION,
        )
        await call.write(pb.ClientMessage(hello=hello))
        await until(asked.is_set, "the question what is stored")
        call.cancel()
        await until(lambda: not service._streams, "the server to notice")
        go_on.set()
        await until(lambda: not service.stream_count, "the end of the stream")
        await until(lambda: not writing_tasks(), "the end of what answers it")
    await server.stop(None)


def test_a_stream_that_is_cut_while_it_opens_leaves_nothing_behind(tmp_path: Path) -> None:
    with gated(tmp_path) as (stores, points, ingestor):
        open_writer(stores)
        asked, go_on = threading.Event(), threading.Event()

        def gate() -> None:
            asked.set()
            assert go_on.wait(30)

        points.after_max_seq = gate
        service = IngestionService(stores.catalog, ingestor)
        # It ends with every thread that it used.
        asyncio.run(cut_while_opening(service, asked, go_on))
        assert ingestor.writers_heard_since(0) == []
