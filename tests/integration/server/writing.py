"""What a writer is to the ingestor, for suites that bring it batches themselves."""

from __future__ import annotations

from metrana.server.catalog import OpenRun, RunRefusal, WriterOpening, WriterRecord
from metrana.server.embedded import Stores
from metrana.server.ingest import Ingestor
from metrana.server.points import PointsQuery
from metrana.server.sessions import Progress, SealedBatch, WriterSession

WRITER_ID = "ab" * 16
OTHER_ID = "ef" * 16


class Heard(Progress):
    """What a writer's sender would hear."""


def open_writer(stores: Stores, writer_id: str = WRITER_ID) -> WriterRecord:
    """Opens a run for one writer, named `r` for the usual one."""
    writer = WriterOpening(writer_id=writer_id, number=1, opened_at_ms=1)
    run_name = "r" if writer_id == WRITER_ID else writer_id
    request = OpenRun(run_id=writer_id[::-1], writer=writer, created_at_ms=1, run_name=run_name)
    assert not isinstance(stores.catalog.open_run(request), RunRefusal)
    record = stores.catalog.writer(writer_id)
    assert record is not None
    return record


def batch_of(message: object) -> SealedBatch:
    """A batch as a sender would bring it."""
    return SealedBatch(message.seq, message.kind, message.payload, message.crc)  # type: ignore[attr-defined]


def submit_all(ingestor: Ingestor, session: WriterSession, messages: list[object]) -> int:
    """Brings everything that was sealed; returns the last seq."""
    last = 0
    for message in messages:
        if message.kind == "declarations":  # type: ignore[attr-defined]
            session.declare(ingestor.catalog, message.payload, message.crc)  # type: ignore[attr-defined]
        elif session.admit(batch_of(message)):
            ingestor.submit(session, batch_of(message))
            last = message.seq  # type: ignore[attr-defined]
    return last


def stored_steps(stores: Stores, writer: WriterRecord) -> list[int]:
    """Every stored step of a writer's run, repeats too."""
    query = PointsQuery(run_no=writer.run_no, duplicates="all")
    steps: list[int] = stores.points.points(query).read_all()["step"].to_pylist()
    return steps
