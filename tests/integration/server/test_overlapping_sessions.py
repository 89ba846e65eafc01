"""Two deliverers of one writer at a time: whoever comes first, everything is stored once."""

from __future__ import annotations

import threading
from pathlib import Path

from metrana.server.points import PointsRefusedError
from metrana.server.sessions import IngestRefusedError
from tests.integration.server.gating import Gate, gated
from tests.integration.server.writing import Heard, open_writer, stored_steps, submit_all
from tests.local_server import wait_until

_STEPS = list(range(30))


class Meeting:
    """Holds whoever comes until two are there, or until it is clear that only one can come."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)

    def __call__(self) -> None:
        try:
            self._barrier.wait(0.5)
        except threading.BrokenBarrierError:
            return


def test_two_that_open_at_once_store_everything_once(tmp_path: Path, sealed: list[object]) -> None:
    with gated(tmp_path) as (stores, points, ingestor):
        writer = open_writer(stores)
        points.after_max_seq = Meeting()
        both = [Heard(), Heard()]

        def deliver(heard: Heard) -> None:
            session = ingestor.open_session(writer, heard, 1)
            try:
                submit_all(ingestor, session, sealed)
            except IngestRefusedError:
                return  # the other one took over

        threads = [threading.Thread(target=deliver, args=(heard,)) for heard in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = sealed[-1].seq  # type: ignore[attr-defined]
        wait_until(lambda: any(heard.acked == last for heard in both), what="one to be done")
        assert [h.refusal.code for h in both if h.refusal is not None] == ["SUPERSEDED"]
        assert stored_steps(stores, writer) == _STEPS
        assert ingestor.committed_rows == len(_STEPS)


def test_a_stream_cut_in_its_commit_and_a_deliverer_store_everything_once(
    tmp_path: Path, sealed: list[object]
) -> None:
    with gated(tmp_path) as (stores, points, ingestor):
        writer = open_writer(stores)
        points.before_insert = gate = Gate()
        stream = ingestor.open_session(writer, Heard(), 1)
        submit_all(ingestor, stream, sealed)
        gate.wait()
        cut = threading.Thread(target=ingestor.close_session, args=(stream,))
        cut.start()
        wait_until(lambda: stream.closed, what="the cut")
        heard = Heard()
        sessions = []
        opening = threading.Thread(
            target=lambda: sessions.append(ingestor.open_session(writer, heard, 1))
        )
        opening.start()
        # Time enough to get ahead of the insert, for one that does not wait for it.
        opening.join(0.5)
        gate.open()
        opening.join()
        cut.join()
        last = submit_all(ingestor, sessions[0], sealed)
        wait_until(lambda: heard.acked == last, what="the acknowledgement")
        assert stored_steps(stores, writer) == _STEPS
        assert stores.points.summaries([writer.run_no])["mean_value"].to_pylist() == [1.0]


def test_a_writer_new_to_the_catalog_is_asked_about_if_it_had_a_session(
    tmp_path: Path, sealed: list[object]
) -> None:
    with gated(tmp_path) as (stores, _, ingestor):
        writer = open_writer(stores)
        # The spool's deliverer and the stream both come for a writer that the stream opened.
        for new in (False, True):
            heard = Heard()
            session = ingestor.open_session(writer, heard, 1, new=new)
            last = submit_all(ingestor, session, sealed)
            wait_until(lambda heard=heard, last=last: heard.acked == last, what="the answer")
        assert stored_steps(stores, writer) == _STEPS


def test_a_group_decoded_ahead_leaves_no_gap_when_the_one_before_it_is_refused(
    tmp_path: Path, sealed: list[object]
) -> None:
    with gated(tmp_path) as (stores, points, ingestor):
        writer = open_writer(stores)
        gate = Gate()
        # The first group by itself, and then its writer's part of it.
        refusals = iter(range(2))

        def refuse() -> None:
            gate()
            if next(refusals, None) is not None:
                raise PointsRefusedError("Code: 53. the first group will never do")

        points.before_insert = refuse
        heard = Heard()
        session = ingestor.open_session(writer, heard, 1)
        points_at = [i for i, m in enumerate(sealed) if m.kind == "points"]  # type: ignore[attr-defined]
        submit_all(ingestor, session, sealed[: points_at[1]])
        gate.wait()
        submit_all(ingestor, session, sealed[points_at[1] :])
        wait_until(lambda: ingestor._next is not None, what="the next group's decoding")
        gate.open()
        wait_until(lambda: heard.refusal is not None, what="the refusal")
        # Opening waits for the group that was decoded ahead.
        ingestor.open_session(writer, Heard(), 1)
        assert stored_steps(stores, writer) == []
        again = Heard()
        last = submit_all(ingestor, ingestor.open_session(writer, again, 1), sealed)
        wait_until(lambda: again.acked == last, what="the second delivery")
        assert stored_steps(stores, writer) == _STEPS
