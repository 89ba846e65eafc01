"""The ingestor's two threads: what becomes of a group while the one before it is committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from metrana.server import ingest
from metrana.server.catalog import WriterRecord
from metrana.server.embedded import Stores
from metrana.server.ingest import Ingestor
from metrana.server.insertion import Batches, rows_of
from metrana.server.points import PointsError
from metrana.server.sessions import IngestRefusedError, WriterSession
from tests.integration.server.gating import Gate, gated
from tests.integration.server.writing import (
    OTHER_ID,
    Heard,
    batch_of,
    open_writer,
    stored_steps,
    submit_all,
)
from tests.local_server import wait_until

_STEPS = list(range(30))
# Those of the first group.
_FIRST_STEPS = _STEPS[:10]


class Told(Heard):
    """Remembers every acknowledgement."""

    def __init__(self) -> None:
        super().__init__()
        self.acks: list[int] = []

    def durable(self, seq: int) -> None:
        """Everything up to `seq` is in every store."""
        super().durable(seq)
        self.acks.append(seq)


@dataclass
class Commit:
    """An ingestor whose commit thread is in the insert of a writer's first group.

    Attributes:
        gate: Where the commit thread stands; it opens for all inserts.
        first: The seq of the group's only batch.
        rest: What the writer has sealed besides.
    """

    stores: Stores
    ingestor: Ingestor
    writer: WriterRecord
    session: WriterSession
    heard: Told
    gate: Gate
    first: int
    rest: list[object]

    def submit_rest(self) -> int:
        """Brings the rest; returns the last seq."""
        return submit_all(self.ingestor, self.session, self.rest)

    def wait_for_next(self) -> None:
        """Waits until the next group is decoded, well or not."""
        wait_until(lambda: self.ingestor._next is not None, what="the next group")

    def deliver_again(self, sealed: list[object]) -> None:
        """Brings everything in a new session, as the writer's sender would."""
        heard = Heard()
        last = submit_all(self.ingestor, self.ingestor.open_session(self.writer, heard, 1), sealed)
        wait_until(lambda: heard.acked == last, what="the second delivery")

    def close(self) -> threading.Thread:
        """Begins to close the ingestor."""
        closing = threading.Thread(target=self.ingestor.close)
        closing.start()
        wait_until(lambda: self.ingestor._closing, what="the beginning of the close")
        return closing


@pytest.fixture
def commit(tmp_path: Path, sealed: list[object]) -> Iterator[Commit]:
    gate = Gate()
    with gated(tmp_path) as (stores, points, ingestor):
        points.before_insert = gate
        writer, heard = open_writer(stores), Told()
        session = ingestor.open_session(writer, heard, 1)
        cut = 1 + next(i for i, m in enumerate(sealed) if m.kind == "points")  # type: ignore[attr-defined]
        first = submit_all(ingestor, session, sealed[:cut])
        gate.wait()
        yield Commit(stores, ingestor, writer, session, heard, gate, first, sealed[cut:])
        gate.open()


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Lets the decoding thread do something of a test's before it decodes."""

    def before_decoding(action: Callable[[], object]) -> None:
        def decode(batches: Batches) -> dict[str, object]:
            if threading.current_thread().name == "metrana-decode":
                action()
            return rows_of(batches)

        monkeypatch.setattr(ingest, "rows_of", decode)

    return before_decoding


def test_a_group_decoded_during_a_commit_is_acknowledged_after_it(commit: Commit) -> None:
    last = commit.submit_rest()
    commit.wait_for_next()
    assert commit.heard.acks == []
    commit.gate.open()
    wait_until(lambda: commit.heard.acked == last, what="the acknowledgement")
    assert commit.heard.acks[0] == commit.first
    assert commit.heard.acks == sorted(commit.heard.acks)
    assert stored_steps(commit.stores, commit.writer) == _STEPS
    assert commit.ingestor.committed_rows == len(_STEPS)


@pytest.mark.parametrize("error", [MemoryError("no room for a group"), ValueError("not now")])
def test_a_group_that_cannot_be_decoded_during_a_commit_is_decoded_after_it(
    commit: Commit, decoding: Callable[[Callable[[], object]], None], error: Exception
) -> None:
    errors = iter([error])

    def fail() -> None:
        for one in errors:
            raise one

    decoding(fail)
    last = commit.submit_rest()
    commit.wait_for_next()
    assert next(errors, None) is None
    assert (commit.heard.acks, commit.heard.refusal) == ([], None)
    commit.gate.open()
    wait_until(lambda: commit.heard.acked == last, what="the acknowledgement")
    assert commit.heard.refusal is None
    assert stored_steps(commit.stores, commit.writer) == _STEPS
    assert commit.ingestor.committed_rows == len(_STEPS)


def test_bytes_that_cannot_be_decoded_during_a_commit_are_refused_after_it_to_their_writer_alone(
    commit: Commit,
) -> None:
    bad = Heard()
    # Not declared: its numbers mean nothing.
    lost = commit.ingestor.open_session(open_writer(commit.stores, OTHER_ID), bad, 1)
    points = next(batch_of(m) for m in commit.rest if m.kind == "points")  # type: ignore[attr-defined]
    with commit.ingestor._changed:
        # In one group with what is right.
        commit.ingestor.submit(lost, points)
        last = commit.submit_rest()
    commit.wait_for_next()
    assert (bad.refusal, commit.heard.acks) == (None, [])
    commit.gate.open()
    wait_until(lambda: bad.refusal and commit.heard.acked == last, what="both answers")
    assert bad.refusal is not None
    assert (bad.refusal.code, bad.acked) == ("MALFORMED", 0)
    assert commit.heard.acks[0] == commit.first
    assert stored_steps(commit.stores, commit.writer) == _STEPS
    assert commit.ingestor.committed_rows == len(_STEPS)


def test_a_close_commits_the_group_in_its_insert_the_one_decoded_and_what_waits(
    commit: Commit,
) -> None:
    submit_all(commit.ingestor, commit.session, commit.rest[:1])
    commit.wait_for_next()
    commit.rest = commit.rest[1:]
    last = commit.submit_rest()
    closing = commit.close()
    with pytest.raises(IngestRefusedError, match="going away"):
        commit.ingestor.end(commit.session, died=False)
    assert commit.heard.acks == []
    commit.gate.open()
    closing.join()
    assert commit.heard.acks[0] == commit.first
    assert commit.heard.acked == last
    assert commit.heard.refusal is None
    assert stored_steps(commit.stores, commit.writer) == _STEPS


def test_a_close_waits_for_a_group_that_is_being_decoded(
    commit: Commit, decoding: Callable[[Callable[[], object]], None]
) -> None:
    decoder = Gate()
    decoding(decoder)
    last = commit.submit_rest()
    decoder.wait()
    closing = commit.close()
    commit.gate.open()
    wait_until(lambda: commit.heard.acks == [commit.first], what="the first commit")
    assert closing.is_alive()
    decoder.open()
    closing.join()
    assert commit.heard.acked == last
    assert stored_steps(commit.stores, commit.writer) == _STEPS


def test_a_close_hands_the_group_in_its_insert_and_the_one_decoded_back_if_the_store_fails(
    commit: Commit, sealed: list[object]
) -> None:
    beside = Heard()
    session = commit.ingestor.open_session(open_writer(commit.stores, OTHER_ID), beside, 1)
    with commit.ingestor._changed:
        # In one group with the rest of the first.
        submit_all(commit.ingestor, session, sealed)
        commit.submit_rest()
    commit.wait_for_next()
    commit.gate.failure = PointsError("Code: 243. no room")
    commit.gate.open()
    wait_until(lambda: commit.ingestor.fault, what="the fault")
    commit.close().join()
    for heard in (commit.heard, beside):
        assert heard.refusal is not None
        assert (heard.refusal.code, heard.refusal.retryable) == ("UNAVAILABLE", True)
        assert heard.acked == 0


def test_a_session_closed_in_its_commit_ends_with_it_and_what_was_decoded_is_dropped(
    commit: Commit, sealed: list[object]
) -> None:
    commit.submit_rest()
    commit.wait_for_next()
    cut = threading.Thread(target=commit.ingestor.close_session, args=(commit.session,))
    cut.start()
    wait_until(lambda: commit.session.closed, what="the cut")
    assert cut.is_alive()
    commit.gate.open()
    cut.join()
    # Whoever closed it may go away: nothing of it is touched any more.
    assert stored_steps(commit.stores, commit.writer) == _FIRST_STEPS
    assert commit.heard.refusal is None
    commit.deliver_again(sealed)
    assert stored_steps(commit.stores, commit.writer) == _STEPS


def test_a_new_session_waits_for_both_groups_of_the_older_one(
    commit: Commit, sealed: list[object]
) -> None:
    commit.submit_rest()
    commit.wait_for_next()
    heard = Heard()
    sessions: list[WriterSession] = []
    opening = threading.Thread(
        target=lambda: sessions.append(commit.ingestor.open_session(commit.writer, heard, 1))
    )
    opening.start()
    wait_until(lambda: commit.session.closed, what="the end of the older session")
    assert opening.is_alive()
    commit.gate.open()
    opening.join()
    assert commit.heard.refusal is not None
    assert commit.heard.refusal.code == "SUPERSEDED"
    last = submit_all(commit.ingestor, sessions[0], sealed)
    wait_until(lambda: heard.acked == last, what="the acknowledgement")
    assert stored_steps(commit.stores, commit.writer) == _STEPS
    assert commit.ingestor.committed_rows == len(_STEPS)
