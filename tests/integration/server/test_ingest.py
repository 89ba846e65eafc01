"""The one way into the stores: groups, exactly once, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metrana.server import ingest
from metrana.server.embedded import Stores
from metrana.server.ingest import Ingestor
from metrana.server.insertion import Batches, rows_of
from metrana.server.sessions import IngestRefusedError
from tests.integration.server.writing import (
    OTHER_ID,
    WRITER_ID,
    Heard,
    batch_of,
    open_writer,
    stored_steps,
    submit_all,
)
from tests.local_server import wait_until


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


def test_a_decoder_that_fails_once_holds_nothing_up(
    stores: Stores, ingestor: Ingestor, sealed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([MemoryError("no room for a group")])

    def decode(batches: Batches) -> dict[str, object]:
        for error in errors:
            raise error
        return rows_of(batches)

    monkeypatch.setattr(ingest, "rows_of", decode)
    writer, heard = open_writer(stores), Heard()
    last = submit_all(ingestor, ingestor.open_session(writer, heard, 1, new=True), sealed)
    wait_until(lambda: heard.acked == last, what="the acknowledgement")
    assert stored_steps(stores, writer) == list(range(30))


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
    other = open_writer(stores, OTHER_ID)
    session = ingestor.open_session(other, second, 1)
    ingestor.submit(lost, points)
    last = submit_all(ingestor, session, sealed)
    wait_until(lambda: first.refusal is not None and second.acked == last, what="both answers")
    assert first.refusal is not None
    assert first.refusal.code == "MALFORMED"
    assert first.acked == 0
    assert stored_steps(stores, other) == list(range(30))


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
    ingestor = Ingestor(stores.catalog, stores.points, stores.media)
    last = submit_all(ingestor, ingestor.open_session(writer, heard, 1), sealed)
    ingestor.close()
    assert heard.acked == last
    assert stored_steps(stores, writer) == list(range(30))
