"""What a server says that it has of a writer: in its welcome, and of the stores themselves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from metrana.server._proto import ingestion_pb2 as pb
from metrana.server._proto import ingestion_pb2_grpc as pb_grpc
from metrana.server.embedded import Stores
from metrana.server.ingest import Ingestor
from metrana.server.points.schema import PROJECTION
from metrana.server.service import PROTOCOL_VERSION
from metrana.server.stored import stored_of
from tests.integration.server.points.plans import explained
from tests.integration.server.writing import (
    OTHER_ID,
    WRITER_ID,
    Heard,
    batch_of,
    open_writer,
    stored_steps,
    submit_all,
)
from tests.local_server import LocalServer, wait_until

_KINDS = {"points": "BATCH_KIND_POINTS", "attributes": "BATCH_KIND_ATTRIBUTES"}
_VERSIONS = {"min_version": PROTOCOL_VERSION, "max_version": PROTOCOL_VERSION}
_RUN_ID, _WRITER_ID = bytes(range(16)), bytes.fromhex(WRITER_ID)


class Caller:
    """Speaks to a running server for one writer."""

    def __init__(self, server: LocalServer) -> None:
        state = json.loads((server.data_dir / "server" / "state.json").read_text())
        self.metadata = [("authorization", f"Bearer {state['token']}")]
        self.channel = grpc.insecure_channel(server.grpc_url.removeprefix("http://"))
        self.stub = pb_grpc.IngestionStub(self.channel)

    def __enter__(self) -> Caller:
        writer = pb.Writer(writer_id=_WRITER_ID, number=1, opened_at_ms=1, dead=True)
        request = pb.OpenRunRequest(
            **_VERSIONS,
            run_id=_RUN_ID,
            workspace_name="default",
            project_name="default",
            run_name="r",
            create_project_if_missing=True,
            created_at_ms=1,
            writer=writer,
        )
        (answer,) = self.stub.OpenRun(request, metadata=self.metadata)
        assert answer.WhichOneof("body") == "opened", answer
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def say(self, *messages: pb.ClientMessage, first_seq: int, until: str) -> pb.ServerMessage:
        """Says hello and then this; gives the first answer of a kind."""
        hello = pb.Hello(**_VERSIONS, run_id=_RUN_ID, writer_id=_WRITER_ID, first_seq=first_seq)
        is_answered = threading.Event()

        def said() -> Iterator[pb.ClientMessage]:
            yield pb.ClientMessage(hello=hello)
            yield from messages
            is_answered.wait(30)

        answers = self.stub.StreamBatches(said(), metadata=self.metadata)
        try:
            return next(answer for answer in answers if answer.WhichOneof("body") == until)
        finally:
            is_answered.set()

    def stored(self, first_seq: int) -> int:
        """What a welcome says is stored of the batches before the first."""
        welcome = self.say(first_seq=first_seq, until="welcome").welcome
        assert welcome.HasField("stored_seq")
        return int(welcome.stored_seq)


def messages_of(sealed: list[object], upto: int) -> list[pb.ClientMessage]:
    """What was sealed, as it travels; ends the writer behind the last one."""
    messages = []
    for message in sealed:
        if message.kind == "declarations":  # type: ignore[attr-defined]
            declarations = pb.Declarations(payload=message.payload, payload_crc32c=message.crc)  # type: ignore[attr-defined]
            messages.append(pb.ClientMessage(declarations=declarations))
        elif message.seq <= upto:  # type: ignore[attr-defined]
            batch = batch_of(message)
            sent = pb.Batch(
                seq=batch.seq,
                kind=_KINDS[batch.kind],
                payload=batch.payload,
                payload_crc32c=batch.crc,
                urgent=True,
            )
            messages.append(pb.ClientMessage(batch=sent))
    end = pb.WriterEnd(last_seq=upto, died=True)
    return [*messages, pb.ClientMessage(end=end)]


def last_of(sealed: list[object]) -> int:
    return max(message.seq for message in sealed)  # type: ignore[attr-defined]


def test_a_welcome_says_what_is_stored_also_after_a_restart(
    tmp_path: Path, sealed: list[object]
) -> None:
    last = last_of(sealed)
    with LocalServer(tmp_path) as server, Caller(server) as caller:
        assert caller.stored(first_seq=1) == 0
        assert caller.stored(first_seq=5) == 0
        caller.say(*messages_of(sealed, last - 1), first_seq=1, until="ended")
        before = [caller.stored(first_seq) for first_seq in (1, 3, last, last + 1, last + 7)]
    with LocalServer(tmp_path) as server, Caller(server) as caller:
        after = [caller.stored(first_seq) for first_seq in (1, 3, last, last + 1, last + 7)]
    assert before == after == [0, 2, last - 1, last - 1, last - 1]


def test_a_welcome_has_these_bytes() -> None:
    welcome = pb.Welcome(version=1, server_version="v", stored_seq=0)
    assert welcome.SerializeToString() == bytes.fromhex("0801 120176 1800")
    older = pb.Welcome.FromString(bytes.fromhex("0801 120176"))
    assert not older.HasField("stored_seq")


# ── of the stores ──────────────────────────────────────────────────────────────────────────────


# The first window seals points as batch 1 and what init() was given as 2; the last is the close.
@pytest.mark.parametrize(
    ("seqs", "first_seq", "before_seq"),
    [
        ([], 3, 0),
        ([1], 2, 1),
        ([1], 3, 1),
        ([2], 2, 0),
        ([2], 3, 0),
        ([1, 2, 3], 4, 3),
        ([1, 2, 3], 3, 2),
        ([3], 3, 0),
        ([3, 5], 3, 0),
        ([5], 5, 0),
        ([1, 3], 3, 1),
        ([1, 3], 5, 1),
        ([3, 1], 3, 1),
        ([3, 1, 2], 5, 3),
    ],
)
def test_what_is_stored_behind_a_gap_does_not_hide_it(
    stores: Stores, sealed: list[object], seqs: list[int], first_seq: int, before_seq: int
) -> None:
    kinds = {m.seq: m.kind for m in sealed if m.kind != "declarations"}  # type: ignore[attr-defined]
    assert kinds == {1: "points", 2: "attributes", 3: "points", 4: "points", 5: "attributes"}
    writer, ingestor = open_writer(stores), Ingestor(stores.catalog, stores.points, stores.media)
    for seq in seqs:
        heard = Heard()
        session = ingestor.open_session(stores.catalog.writer(WRITER_ID) or writer, heard, seq)
        wanted = [m for m in sealed if m.kind == "declarations" or m.seq == seq]  # type: ignore[attr-defined]
        submit_all(ingestor, session, wanted)
        wait_until(lambda heard=heard, seq=seq: heard.acked == seq, what="the acknowledgement")
    ingestor.close()
    record = stores.catalog.writer(WRITER_ID) or writer
    assert stored_of(stores.catalog, stores.points, record, first_seq).before_seq == before_seq


def test_a_writer_that_comes_again_is_told_without_reading_its_points(
    stores: Stores, sealed: list[object]
) -> None:
    writer, heard = open_writer(stores), Heard()
    ingestor = Ingestor(stores.catalog, stores.points, stores.media)
    last = submit_all(ingestor, ingestor.open_session(writer, heard, 1), sealed)
    wait_until(lambda: heard.acked == last, what="the acknowledgement")
    ingestor.close()
    record = stores.catalog.writer(WRITER_ID) or writer
    seen = []
    plan = explained(
        stores.points,
        lambda: seen.append(stored_of(stores.catalog, stores.points, record, last + 1).before_seq),
    )
    assert seen == [last]
    assert plan.count("ReadFromMergeTree") == 1
    assert f"ReadFromMergeTree ({PROJECTION})" in plan


def test_what_a_store_lacks_in_between_is_taken_when_it_comes(
    stores: Stores, sealed: list[object]
) -> None:
    writer, ingestor = open_writer(stores), Ingestor(stores.catalog, stores.points, stores.media)
    last = last_of(sealed)
    # As of a store that was restored from a backup while the writer went on.
    for first_seq, end in ((1, 1), (4, 4), (1, last)):
        heard = Heard()
        session = ingestor.open_session(writer, heard, first_seq)
        brought = [m for m in sealed if m.kind == "declarations" or first_seq <= m.seq <= end]  # type: ignore[attr-defined]
        submit_all(ingestor, session, brought)
        wait_until(lambda heard=heard, end=end: heard.acked == end, what="the commit")
    ingestor.close()
    steps = stored_steps(stores, writer)
    whole = open_writer(stores, OTHER_ID)
    ingestor, heard = Ingestor(stores.catalog, stores.points, stores.media), Heard()
    submit_all(ingestor, ingestor.open_session(whole, heard, 1), sealed)
    wait_until(lambda: heard.acked == last, what="the commit")
    ingestor.close()
    assert steps == stored_steps(stores, whole)
    assert stores.catalog.gaps(writer.writer_no) == ()


def bring(stores: Stores, sealed: list[object], first_seq: int, end: int) -> None:
    """Stores some of what was sealed, in a session of its own."""
    writer = stores.catalog.writer(WRITER_ID) or open_writer(stores)
    ingestor, heard = Ingestor(stores.catalog, stores.points, stores.media), Heard()
    session = ingestor.open_session(writer, heard, first_seq)
    wanted = [m for m in sealed if m.kind == "declarations" or first_seq <= m.seq <= end]  # type: ignore[attr-defined]
    submit_all(ingestor, session, wanted)
    wait_until(lambda: heard.acked == end, what="the acknowledgement")
    ingestor.close()


def gaps_of(stores: Stores) -> tuple[tuple[int, int], ...]:
    writer = stores.catalog.writer(WRITER_ID)
    assert writer is not None
    return stores.catalog.gaps(writer.writer_no)


def test_what_was_acknowledged_is_no_gap_any_more(stores: Stores, sealed: list[object]) -> None:
    open_writer(stores)
    noted = []
    for first_seq, end in ((5, 5), (1, 1), (3, 3), (2, 2), (4, 4)):
        bring(stores, sealed, first_seq, end)
        noted.append(gaps_of(stores))
    assert noted == [((1, 4),), ((2, 4),), ((2, 2), (4, 4)), ((4, 4),), ()]


def test_what_will_never_come_stays_a_gap(stores: Stores, sealed: list[object]) -> None:
    writer = open_writer(stores)
    bring(stores, sealed, 5, 5)
    ingestor, heard = Ingestor(stores.catalog, stores.points, stores.media), Heard()
    session = ingestor.open_session(writer, heard, 1, [(3, 3)])
    submit_all(ingestor, session, [m for m in sealed if m.kind == "declarations" or m.seq != 3])  # type: ignore[attr-defined]
    wait_until(lambda: heard.acked == 5, what="the acknowledgement")
    ingestor.close()
    assert gaps_of(stores) == ((3, 3),)


def test_a_gap_of_which_all_is_stored_but_not_noted_ends_with_the_writer(
    stores: Stores, sealed: list[object]
) -> None:
    writer = open_writer(stores)
    bring(stores, sealed, 1, 5)
    # As if the process had died between the two.
    stores.catalog.add_gap(writer.writer_no, 3, 4)
    ingestor, heard = Ingestor(stores.catalog, stores.points, stores.media), Heard()
    session = ingestor.open_session(writer, heard, 3)
    for message in sealed:
        if message.kind == "declarations":  # type: ignore[attr-defined]
            session.declare(stores.catalog, message.payload, message.crc)  # type: ignore[attr-defined]
        elif message.seq in {3, 4}:  # type: ignore[attr-defined]
            assert session.admit(batch_of(message))
            assert session.has(batch_of(message))
    ingestor.end(session, died=True)
    wait_until(lambda: heard.is_ended, what="the end")
    ingestor.close()
    assert gaps_of(stores) == ()
