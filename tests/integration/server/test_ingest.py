"""The one way into the stores: groups, exactly once, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import metrana
from metrana import _native
from metrana.server.catalog import OpenRun, RunRefusal, WriterOpening, WriterRecord
from metrana.server.embedded import Stores, open_stores
from metrana.server.ingest import Ingestor
from metrana.server.points import PointsQuery
from metrana.server.sessions import IngestRefusedError, SealedBatch, WriterSession
from tests.local_server import wait_until

WRITER_ID = "ab" * 16


class Heard:
    """What a writer's sender would hear."""

    def __init__(self) -> None:
        self.acked = 0
        self.is_ended = False
        self.refusal: IngestRefusedError | None = None

    def durable(self, seq: int) -> None:
        self.acked = seq

    def ended(self) -> None:
        self.is_ended = True

    def refused(self, refusal: IngestRefusedError) -> None:
        self.refusal = refusal


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Everything a real engine sealed: declarations, three points batches, attributes."""
    data_dir = tmp_path_factory.mktemp("sealed")
    with metrana.init(mode="offline", data_dir=data_dir, run_name="r", config={"lr": 0.1}) as run:
        for part in range(3):
            for step in range(10):
                run.log("loss", float(part), step=part * 10 + step)
            run.flush()
    (folder,) = (data_dir / "spool").iterdir()
    return list(_native.SpoolFollower(folder / "000001").read(1 << 20))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(tmp_path) as opened:
        yield opened


@pytest.fixture
def ingestor(stores: Stores) -> Iterator[Ingestor]:
    ingestor = Ingestor(stores.catalog, stores.points)
    yield ingestor
    ingestor.close()


def open_writer(stores: Stores) -> WriterRecord:
    writer = WriterOpening(writer_id=WRITER_ID, number=1, opened_at_ms=1)
    request = OpenRun(run_id="cd" * 16, writer=writer, created_at_ms=1, run_name="r")
    assert not isinstance(stores.catalog.open_run(request), RunRefusal)
    record = stores.catalog.writer(WRITER_ID)
    assert record is not None
    return record


def batch_of(message: object) -> SealedBatch:
    return SealedBatch(message.seq, message.kind, message.payload, message.crc)  # type: ignore[attr-defined]


def submit_all(ingestor: Ingestor, session: WriterSession, messages: list[object]) -> int:
    last = 0
    for message in messages:
        if message.kind == "declarations":  # type: ignore[attr-defined]
            session.declare(ingestor.catalog, message.payload, message.crc)  # type: ignore[attr-defined]
        elif session.admit(batch_of(message)):
            ingestor.submit(session, batch_of(message))
            last = message.seq  # type: ignore[attr-defined]
    return last


def stored_steps(stores: Stores, writer: WriterRecord) -> list[int]:
    query = PointsQuery(run_no=writer.run_no, duplicates="all")
    steps: list[int] = stores.points.points(query).read_all()["step"].to_pylist()
    return steps


def test_batches_that_come_again_are_acknowledged_and_stored_once(
    stores: Stores, ingestor: Ingestor, sealed: list[object]
) -> None:
    writer = open_writer(stores)
    for _ in range(3):
        heard = Heard()
        session = ingestor.open_session(stores.catalog.writer(WRITER_ID) or writer, heard, 1)
        last = submit_all(ingestor, session, sealed)
        wait_until(lambda heard=heard, last=last: heard.acked == last, what="the acknowledgement")
    assert stored_steps(stores, writer) == list(range(30))
    assert stores.catalog.config(writer.run_no) == {"lr": 0.1}


def test_an_acknowledged_batch_is_in_both_stores(
    stores: Stores, ingestor: Ingestor, sealed: list[object]
) -> None:
    writer, heard = open_writer(stores), Heard()
    last = submit_all(ingestor, ingestor.open_session(writer, heard, 1, new=True), sealed)
    wait_until(lambda: heard.acked == last, what="the acknowledgement")
    assert stored_steps(stores, writer) == list(range(30))
    assert stores.catalog.run("r").status == "finished"


def test_a_gap_is_refused_unless_it_was_announced(
    stores: Stores, ingestor: Ingestor, sealed: list[object]
) -> None:
    batches = [message for message in sealed if message.kind != "declarations"]  # type: ignore[attr-defined]
    writer = open_writer(stores)
    session = ingestor.open_session(writer, Heard(), 1)
    assert session.admit(batch_of(batches[0]))
    with pytest.raises(IngestRefusedError, match="batch 2 is missing before batch 3"):
        session.admit(batch_of(batches[2]))

    announced = ingestor.open_session(writer, Heard(), 1, lost=[(2, 2)])
    assert announced.admit(batch_of(batches[0]))
    assert announced.admit(batch_of(batches[2]))


def test_a_batch_with_a_wrong_checksum_is_refused(
    stores: Stores, ingestor: Ingestor, sealed: list[object]
) -> None:
    session = ingestor.open_session(open_writer(stores), Heard(), 1)
    batch = next(batch_of(m) for m in sealed if m.kind != "declarations")  # type: ignore[attr-defined]
    with pytest.raises(IngestRefusedError, match="wrong checksum"):
        session.admit(replace(batch, crc=batch.crc ^ 1))


def test_bytes_that_cannot_be_decoded_are_refused_and_others_go_on(
    stores: Stores, ingestor: Ingestor, sealed: list[object]
) -> None:
    first, second = Heard(), Heard()
    writer = open_writer(stores)
    # Not declared: its numbers mean nothing.
    lost = ingestor.open_session(writer, first, 1)
    points = next(batch_of(m) for m in sealed if m.kind == "points")  # type: ignore[attr-defined]
    other = replace_writer(stores)
    session = ingestor.open_session(other, second, 1)
    ingestor.submit(lost, points)
    last = submit_all(ingestor, session, sealed)
    wait_until(lambda: first.refusal is not None and second.acked == last, what="both answers")
    assert first.refusal is not None
    assert first.refusal.code == "MALFORMED"
    assert first.acked == 0
    assert stored_steps(stores, other) == list(range(30))


def replace_writer(stores: Stores) -> WriterRecord:
    """Another writer of another run."""
    writer = WriterOpening(writer_id="ef" * 16, number=1, opened_at_ms=1)
    stores.catalog.open_run(
        OpenRun(run_id="01" * 16, writer=writer, created_at_ms=1, run_name="other")
    )
    record = stores.catalog.writer("ef" * 16)
    assert record is not None
    return record


def test_a_newer_stream_of_a_writer_takes_over(
    stores: Stores, ingestor: Ingestor, sealed: list[object]
) -> None:
    writer, older = open_writer(stores), Heard()
    session = ingestor.open_session(writer, older, 1)
    ingestor.open_session(writer, Heard(), 1)
    assert older.refusal is not None
    assert older.refusal.code == "SUPERSEDED"
    batch = next(batch_of(m) for m in sealed if m.kind != "declarations")  # type: ignore[attr-defined]
    with pytest.raises(IngestRefusedError):
        ingestor.submit(session, batch)


def test_an_end_follows_everything_before_it(
    stores: Stores, ingestor: Ingestor, sealed: list[object]
) -> None:
    writer, heard = open_writer(stores), Heard()
    session = ingestor.open_session(writer, heard, 1)
    last = submit_all(ingestor, session, sealed)
    ingestor.end(session, died=True)
    wait_until(lambda: heard.is_ended, what="the end")
    assert heard.acked == last
    # Its close record came, so it did not die.
    assert stores.catalog.run("r").status == "finished"


def test_what_waits_is_committed_when_the_ingestor_closes(
    stores: Stores, sealed: list[object]
) -> None:
    writer, heard = open_writer(stores), Heard()
    ingestor = Ingestor(stores.catalog, stores.points)
    last = submit_all(ingestor, ingestor.open_session(writer, heard, 1), sealed)
    ingestor.close()
    assert heard.acked == last
    assert stored_steps(stores, writer) == list(range(30))
