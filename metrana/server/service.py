"""The gRPC face of ingestion: opening runs, and streams of batches.

`proto/metrana/v1/ingestion.proto` is the contract. One asyncio loop serves all streams. It touches
batches, never points: whatever blocks (the catalog, the points store, a full ingestor) runs in
threads, and acknowledgements come back by callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from sqlalchemy.exc import SQLAlchemyError

from metrana.server._proto import ingestion_pb2 as pb
from metrana.server._proto import ingestion_pb2_grpc as pb_grpc
from metrana.server.catalog import (
    Catalog,
    CatalogError,
    OpenedRun,
    OpenRun,
    RunRefusal,
    WriterOpening,
    WriterRecord,
)
from metrana.server.cursors import cursor_pages
from metrana.server.ingest import Ingestor
from metrana.server.points import PointsError
from metrana.server.sessions import IngestRefusedError, SealedBatch, WriterSession
from metrana.server.store_faults import refusal_of
from metrana.server.version import SERVER_VERSION

_log = logging.getLogger(__name__)

PROTOCOL_VERSION: Final = 1
_KINDS: Final = {
    pb.BATCH_KIND_POINTS: "points",
    pb.BATCH_KIND_ATTRIBUTES: "attributes",
    pb.BATCH_KIND_RENDERINGS: "renderings",
}


class IngestionService(pb_grpc.IngestionServicer):
    """Serves writers on one asyncio loop.

    Args:
        catalog: The catalog of runs.
        ingestor: Where batches go.
    """

    def __init__(self, catalog: Catalog, ingestor: Ingestor) -> None:
        self._catalog = catalog
        self._ingestor = ingestor
        self._streams: set[_Stream] = set()
        # Writers that the catalog met in OpenRun and that have not streamed yet.
        self._new_writers: set[str] = set()
        # Streams that are over and not yet cleared away; a task that nobody holds may be collected.
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def stream_count(self) -> int:
        """Streams that are open or not yet cleared away."""
        return len(self._streams) + len(self._leaving)

    def ask_to_reconnect(self) -> None:
        """Tells every stream that the server is going away. On the loop only."""
        for stream in self._streams:
            stream.send_reconnect()

    async def OpenRun(  # noqa: N802 - the name is the contract's
        self, request: pb.OpenRunRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.OpenRunResponse]:
        """Creates, joins, resumes or refuses a run for one writer."""
        refusal = _check_version(request)
        if refusal is not None:
            yield pb.OpenRunResponse(refused=refusal)
            return
        try:
            opened = await asyncio.to_thread(self._catalog.open_run, _open_run(request))
        except (CatalogError, ValueError) as error:
            yield pb.OpenRunResponse(refused=_refused("INVALID", str(error)))
            return
        except SQLAlchemyError as error:
            yield pb.OpenRunResponse(refused=_told(refusal_of(error)))
            return
        if isinstance(opened, RunRefusal):
            yield pb.OpenRunResponse(refused=_refused(opened.code.name, opened.message))
            return
        if opened.new_writer:
            self._new_writers.add(request.writer.writer_id.hex())
        yield pb.OpenRunResponse(opened=_opened(opened))
        if request.want_cursors and not opened.created:
            async for page in _pages(cursor_pages(self._catalog, self._ingestor.points, opened)):
                yield pb.OpenRunResponse(cursors=page)

    async def StreamBatches(  # noqa: N802 - the name is the contract's
        self,
        requests: AsyncIterator[pb.ClientMessage],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Takes one writer's batches and acknowledges them."""
        # At once: the client's call does not return before the headers are there.
        await context.send_initial_metadata(())
        stream = _Stream(context)
        self._streams.add(stream)
        writing = asyncio.create_task(stream.write())
        try:
            await self._serve(stream, requests)
        except IngestRefusedError as refusal:
            stream.refused(refusal)
        except (CatalogError, PointsError, SQLAlchemyError, OSError) as error:
            stream.refused(refusal_of(error))
        finally:
            self._streams.discard(stream)
            stream.finish()
            # A client that is gone cancels this call, but what it leaves behind is ended all the
            # same, and it has to be before the call is: the writer may be back by then.
            leaving = asyncio.create_task(self._leave(stream, writing))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            await asyncio.shield(leaving)

    async def _leave(self, stream: _Stream, writing: asyncio.Task[None]) -> None:
        """Ends a stream's session, and waits until its last answers are written."""
        if stream.opening is not None:
            with contextlib.suppress(Exception):  # it was told already, if anybody is there to hear
                session = await stream.opening
                await asyncio.to_thread(self._ingestor.close_session, session)
        await writing

    async def _serve(self, stream: _Stream, requests: AsyncIterator[pb.ClientMessage]) -> None:
        session = await self._welcome(stream, await anext(requests, None))
        async for message in requests:
            session.heard_at = time.monotonic()
            kind = message.WhichOneof("body")
            if kind == "batch":
                await self._take(session, message.batch)
            elif kind == "declarations":
                declarations = message.declarations
                await asyncio.to_thread(
                    session.declare,
                    self._catalog,
                    declarations.payload,
                    declarations.payload_crc32c,
                )
            elif kind == "end":
                await asyncio.to_thread(self._ingestor.end, session, died=message.end.died)
            elif kind != "heartbeat":
                raise IngestRefusedError("MALFORMED", f"a message of unknown kind ({kind})")
            if stream.is_over:
                return

    async def _welcome(self, stream: _Stream, message: pb.ClientMessage | None) -> WriterSession:
        if message is None or message.WhichOneof("body") != "hello":
            raise IngestRefusedError("MALFORMED", "a stream begins with a hello")
        hello = message.hello
        refusal = _check_version(hello)
        if refusal is not None:
            raise IngestRefusedError("VERSION", refusal.message)
        writer_id = hello.writer_id.hex()
        writer: WriterRecord | None = await asyncio.to_thread(self._catalog.writer, writer_id)
        if writer is None:
            raise IngestRefusedError("RUN_NOT_FOUND", f"no run was opened for writer {writer_id}")
        if writer.run_deleted:
            raise IngestRefusedError("RUN_DELETED", f"run {writer.run_id} was deleted")
        new = writer_id in self._new_writers
        lost = [(gap.first, gap.last) for gap in hello.lost]
        stream.opening = asyncio.create_task(
            asyncio.to_thread(
                self._ingestor.open_session, writer, stream, max(hello.first_seq, 1), lost, new=new
            )
        )
        # A call that is cancelled meanwhile still has to close what the thread opens.
        session = await asyncio.shield(stream.opening)
        self._new_writers.discard(writer_id)
        stream.session = session
        welcome = pb.Welcome(
            version=PROTOCOL_VERSION,
            server_version=SERVER_VERSION,
            stored_seq=session.stored_seq,
        )
        stream.send(pb.ServerMessage(welcome=welcome))
        return session

    async def _take(self, session: WriterSession, batch: pb.Batch) -> None:
        kind = _KINDS.get(batch.kind)
        if kind is None:
            raise IngestRefusedError(
                "MALFORMED", f"batch {batch.seq} is of unknown kind {batch.kind}"
            )
        sealed = SealedBatch(batch.seq, kind, batch.payload, batch.payload_crc32c, batch.urgent)
        if not session.admit(sealed):
            return
        if self._ingestor.is_full_for(sealed):
            await asyncio.to_thread(self._ingestor.submit, session, sealed)
        else:
            self._ingestor.submit(session, sealed)


class _Stream:
    """What goes back to one client. What a `Listener` hears may come from any thread."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.opening: asyncio.Task[WriterSession] | None = None
        self.session: WriterSession | None = None
        self.is_over = False
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._outbox: list[pb.ServerMessage] = []
        self._lock = threading.Lock()
        self._acked = 0
        self._finished = False

    def send(self, message: pb.ServerMessage) -> None:
        """Queues a message. On the loop only."""
        self._outbox.append(message)
        self._wake.set()

    def send_reconnect(self) -> None:
        """Asks the client for a new stream. On the loop only."""
        self.send(pb.ServerMessage(reconnect=pb.Reconnect()))

    def durable(self, seq: int) -> None:
        """Acknowledges up to `seq`; of several that wait to be sent the last one goes."""
        with self._lock:
            self._acked = seq
        self._on_loop(self._wake.set)

    def ended(self) -> None:
        """Answers the client's end."""
        self._on_loop(self.send, pb.ServerMessage(ended=pb.Ended()))

    def damaged(self, problem: str) -> None:
        """Says on the server what is not kept: its client has nothing better to send."""
        if self.session is not None:
            _log.warning("writer %d: %s", self.session.writer_no, problem)

    def refused(self, refusal: IngestRefusedError) -> None:
        """Ends the stream with a refusal."""
        self.is_over = True
        if not refusal.retryable and self.session is not None:
            # Once: a client takes it as final.
            _log.warning("writer %d was refused: %s", self.session.writer_no, refusal.message)
        self._on_loop(self.send, pb.ServerMessage(refused=_told(refusal)))
        self._on_loop(self.finish)

    def finish(self) -> None:
        """Sends what is queued, then nothing more. On the loop only."""
        self._finished = True
        self._wake.set()

    async def write(self) -> None:
        """Writes messages until finished, or until the client is gone."""
        sent = 0
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                with self._lock:
                    acked = self._acked
                if acked > sent:
                    sent = acked
                    await self._context.write(pb.ServerMessage(ack=pb.Ack(seq=acked)))
                while self._outbox:
                    await self._context.write(self._outbox.pop(0))
                if self._finished and not self._outbox:
                    return
        except Exception:  # noqa: BLE001 - gRPC raises one of its core's own, which it does not export
            # The client is gone: it keeps what is not acknowledged, and comes again.
            _log.debug("a stream ended while it was being answered", exc_info=True)

    def _on_loop(self, action: Any, *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(action, *arguments)
        except RuntimeError:
            # The loop is closed: the server has stopped and nobody reads this any more.
            _log.debug("an answer came after the loop had closed")


async def _pages(pages: Iterable[pb.CursorPage]) -> AsyncIterator[pb.CursorPage]:
    """Draws pages in a thread, one at a time."""
    iterator = iter(pages)
    while (page := await asyncio.to_thread(next, iterator, None)) is not None:
        yield page


def _check_version(message: Any) -> pb.Refused | None:
    if message.min_version <= PROTOCOL_VERSION <= message.max_version:
        return None
    newer = message.min_version > PROTOCOL_VERSION
    return _refused(
        "VERSION",
        f"the client speaks protocol {message.min_version} to {message.max_version}, this server "
        f"({SERVER_VERSION}) {PROTOCOL_VERSION}: upgrade the {'server' if newer else 'client'}",
    )


def _told(refusal: IngestRefusedError) -> pb.Refused:
    return _refused(refusal.code, refusal.message, retryable=refusal.retryable)


def _refused(code: str, message: str, *, retryable: bool = False) -> pb.Refused:
    return pb.Refused(code=f"REFUSAL_CODE_{code}", message=message, retryable=retryable)


def _opened(opened: OpenedRun) -> pb.Opened:
    return pb.Opened(
        version=PROTOCOL_VERSION,
        run_id=bytes.fromhex(opened.run_id),
        workspace_name=opened.workspace_name,
        project_name=opened.project_name,
        run_name=opened.run_name,
        created=opened.created,
        requested_name=opened.requested_name or "",
        server_version=SERVER_VERSION,
    )


def _open_run(request: pb.OpenRunRequest) -> OpenRun:
    rename = request.name_conflict == pb.NAME_CONFLICT_RENAME
    allow = request.resume_strategy == pb.RESUME_STRATEGY_ALLOW
    return OpenRun(
        run_id=request.run_id.hex(),
        writer=_writer(request.writer),
        created_at_ms=request.created_at_ms,
        workspace_name=request.workspace_name,
        project_name=request.project_name,
        run_name=request.run_name,
        experiment_name=request.experiment_name,
        orchestration_id=request.orchestration_id,
        resume_strategy="allow" if allow else "never",
        name_conflict="rename" if rename else "refuse",
        create_project_if_missing=request.create_project_if_missing,
        by_run_id=request.by_run_id,
        earlier_writers=[_writer(writer) for writer in request.earlier_writers],
    )


def _writer(writer: pb.Writer) -> WriterOpening:
    return WriterOpening(
        writer_id=writer.writer_id.hex(),
        number=writer.number,
        opened_at_ms=writer.opened_at_ms,
        logger_id=writer.logger_id,
        host=writer.host,
        pid=writer.pid,
        client_version=writer.client_version,
        alive=False if writer.dead else None,
    )
