"""The one way into the stores: every batch, from a stream or a spool, is committed here.

Batches wait until the oldest is 250 ms old, a million rows have gathered, or somebody waits for one
(flush, close). Then all that wait, of all writers, become one insert: one block, one atomic part.
Attributes follow in the catalog, each writer's in one transaction that also notes how far it is.
Only then are they acknowledged, so an acknowledgement means durable in both stores.

A store that is full, locked or gone holds everybody up until it works again. A store that will not
take what one writer sent refuses that writer, and the others go on (`store_faults.py`).

Nothing here keeps a watermark of its own. What is stored says what is stored: rows carry their
writer and seq, and the catalog its `attr_seq`. A session that opens asks both and what is there
already is acknowledged without being stored again.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from metrana import _native
from metrana.server.catalog import Catalog, WriterRecord
from metrana.server.insertion import Batches, Insertion, by_writer
from metrana.server.points import MAX_INSERT_ROWS, PointsStore
from metrana.server.sessions import IngestRefusedError, Listener, SealedBatch, WriterSession
from metrana.server.store_faults import Verdict, judge, refusal_of

_log = logging.getLogger(__name__)

_GROUP_AGE_S: Final = 0.25
_MAX_WAITING_BYTES: Final = 64 << 20
_RETRY_S: Final = (0.1, 0.5, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A batch, or the end of a writer, on its way to the stores."""

    session: WriterSession
    batch: SealedBatch | None
    row_count: int
    arrived: float
    died: bool = False

    @property
    def urgent(self) -> bool:
        return self.batch is None or self.batch.urgent

    @property
    def byte_count(self) -> int:
        return len(self.batch.payload) if self.batch is not None else 0


class Ingestor:
    """Commits batches of all writers in groups. Thread-safe.

    It runs a thread of its own until `close`. The stores are the caller's and are not closed.

    Args:
        catalog: Where names, attributes and writers are.
        points: Where points are.
    """

    def __init__(self, catalog: Catalog, points: PointsStore) -> None:
        self.catalog = catalog
        self.points = points
        # Guards all that follows; notified when something arrives, is committed, or ends.
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._waiting_rows = 0
        self._urgent_count = 0
        self._sessions: dict[int, WriterSession] = {}
        # By writer, as all that follow: whose batches the commit thread works on, closed or not.
        self._committing: dict[int, WriterSession] = {}
        # Who is being asked about by `open_session`, and who ever had a session here.
        self._opening: set[int] = set()
        self._met: set[int] = set()
        self._closing = False
        self._fault: str | None = None
        self._committed_rows = 0
        self._thread = threading.Thread(target=self._run, name="metrana-commit", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """Why nothing can be committed at present; None if all is well."""
        return self._fault

    @property
    def committed_rows(self) -> int:
        """Points stored since the start."""
        return self._committed_rows

    def writers_heard_since(self, moment: float) -> list[int]:
        """Gives the numbers of writers with an open session heard of after `moment` (monotonic)."""
        with self._changed:
            return [no for no, session in self._sessions.items() if session.heard_at >= moment]

    def refuse_deleted(self, writer_nos: Iterable[int]) -> None:
        """Ends the sessions of writers whose run was deleted."""
        for writer_no in writer_nos:
            with self._changed:
                session = self._sessions.get(writer_no)
            if session is not None:
                self._refuse(session, IngestRefusedError("RUN_DELETED", "the run was deleted"))

    def open_session(
        self,
        writer: WriterRecord,
        listener: Listener,
        first_seq: int,
        lost: Iterable[tuple[int, int]] = (),
        *,
        new: bool = False,
    ) -> WriterSession:
        """Begins to take a writer's batches, after what an older session of it commits. Blocks.

        Args:
            writer: The writer, which the catalog knows.
            listener: Told what becomes of the batches.
            first_seq: The first batch its sender holds no acknowledgement for, from 1.
            lost: Ranges of seqs, both ends included, that will never come.
            new: The catalog met it only now, so nothing of it can have been stored before this
                server started.

        Raises:
            PointsError: The points store could not be asked what it holds.
        """
        writer_no = writer.writer_no
        with self._changed:
            # One at a time: two that asked what is stored before either registers would both go on.
            self._changed.wait_for(lambda: writer_no not in self._opening)
            self._opening.add(writer_no)
        try:
            self._supersede(writer_no)
            session = self._ask(writer, listener, first_seq, lost, new=new)
            with self._changed:
                self._sessions[writer_no] = session
                self._met.add(writer_no)
            return session
        finally:
            with self._changed:
                self._opening.discard(writer_no)
                self._changed.notify_all()

    def _supersede(self, writer_no: int) -> None:
        """Ends a writer's older session and waits for the last commit of any that it had."""
        with self._changed:
            older = self._sessions.pop(writer_no, None)
            if older is not None:
                older.closed = True
            # Also that of a session which its own side has closed meanwhile.
            self._changed.wait_for(lambda: writer_no not in self._committing)
        if older is not None:
            older.listener.refused(
                IngestRefusedError(
                    "SUPERSEDED", "a newer stream of this writer took over", retryable=True
                )
            )

    def _ask(
        self,
        writer: WriterRecord,
        listener: Listener,
        first_seq: int,
        lost: Iterable[tuple[int, int]],
        *,
        new: bool,
    ) -> WriterSession:
        """Makes a session that knows what is stored of its writer."""
        stored = None
        if not new or writer.writer_no in self._met:
            stored = self.points.max_seq(writer.run_no, writer.writer_no, first_seq)
        return WriterSession(
            run_no=writer.run_no,
            project_id=writer.project_id,
            writer_no=writer.writer_no,
            logger_no=writer.logger_no,
            listener=listener,
            next_seq=first_seq,
            lost=tuple(lost),
            points_seq=stored or 0,
            attr_seq=writer.attr_seq,
        )

    def close_session(self, session: WriterSession) -> None:
        """Drops what still waits of a session and returns when no commit touches it. Blocks."""
        with self._changed:
            session.closed = True
            if self._sessions.get(session.writer_no) is session:
                del self._sessions[session.writer_no]
            self._changed.wait_for(lambda: self._committing.get(session.writer_no) is not session)

    @property
    def is_full(self) -> bool:
        """Whether `submit` would wait."""
        return self._waiting_bytes >= _MAX_WAITING_BYTES

    def submit(self, session: WriterSession, batch: SealedBatch) -> None:
        """Takes a batch that `session.admit` let through. Blocks while too many bytes wait.

        Raises:
            IngestRefusedError: The payload is not what it claims to be, or the session is over.
        """
        try:
            info = _native.batch_info(batch.payload)
        except ValueError as error:
            raise IngestRefusedError("MALFORMED", f"batch {batch.seq}: {error}") from error
        if info.kind != batch.kind:
            raise IngestRefusedError(
                "MALFORMED", f"batch {batch.seq} holds {info.kind}, not {batch.kind} as announced"
            )
        rows = info.float_point_count + info.rl_point_count
        self._put(_Waiting(session, batch, rows, time.monotonic()))

    def end(self, session: WriterSession, *, died: bool) -> None:
        """Records the writer's end once everything submitted before is durable.

        Args:
            session: The writer's session; nothing may be submitted to it afterwards.
            died: It ended without a close record.
        """
        self._put(_Waiting(session, None, 0, time.monotonic(), died))

    def begin_close(self) -> None:
        """Ends waiting for a store that fails: commits what can be, refuses the rest to come again.

        Later calls of `submit` are refused. Does not block.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Commits what waits and stops. Blocks; later calls of `submit` are refused."""
        self.begin_close()
        self._thread.join()

    def _put(self, item: _Waiting) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self.is_full or self._closing or item.session.closed)
            if self._closing or item.session.closed:
                raise IngestRefusedError("UNAVAILABLE", "the server is going away", retryable=True)
            self._waiting.append(item)
            self._waiting_bytes += item.byte_count
            self._waiting_rows += item.row_count
            self._urgent_count += item.urgent
            self._changed.notify_all()

    # ── the commit thread ──────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            try:
                self._commit(group)
            except Exception as error:  # noqa: BLE001 - a fault in one group must not end all others
                self._give_up(group, error)
            finally:
                with self._changed:
                    self._committing.clear()
                    self._changed.notify_all()

    def _give_up(self, group: list[_Waiting], error: Exception) -> None:
        """Hands a group back to its writers, who keep what is not acknowledged and come again."""
        if not self._closing:
            _log.error("a group of %d batches was not committed", len(group), exc_info=error)
        refusal = IngestRefusedError(
            "UNAVAILABLE", f"the server could not commit: {error}", retryable=True
        )
        for session, _ in _by_session(group):
            if not session.closed:
                self._refuse(session, refusal)

    def _next_group(self) -> list[_Waiting] | None:
        """Waits until a group is due and takes it; None when closing and nothing waits."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                age = time.monotonic() - self._waiting[0].arrived
                full = self._waiting_rows >= MAX_INSERT_ROWS or self.is_full
                if full or self._urgent_count or self._closing or age >= _GROUP_AGE_S:
                    return self._take()
                self._changed.wait(_GROUP_AGE_S - age)

    def _take(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        rows = 0
        while self._waiting:
            item = self._waiting[0]
            if group and rows + item.row_count > MAX_INSERT_ROWS:
                break
            self._waiting.popleft()
            self._waiting_bytes -= item.byte_count
            self._waiting_rows -= item.row_count
            self._urgent_count -= item.urgent
            session = item.session
            if not session.closed and self._sessions.get(session.writer_no) is session:
                rows += item.row_count
                self._committing[session.writer_no] = session
                group.append(item)
        self._changed.notify_all()
        return group

    def _commit(self, group: list[_Waiting]) -> None:
        self._insert_points(group)
        for session, items in _by_session(group):
            batches = [item.batch for item in items if item.batch is not None]
            if session.closed or not self._apply_attributes(session, batches):
                continue
            _acknowledge(session, batches)
            if items[-1].batch is None:
                self._end(session, died=items[-1].died)

    def _insert_points(self, group: list[_Waiting]) -> None:
        new = [
            (item.session, item.batch)
            for item in group
            if item.batch is not None
            and item.batch.kind == "points"
            and item.batch.seq > item.session.points_seq
        ]
        try:
            self._insert(Insertion(self.points, self._decode, new))
        except Exception as error:  # whatever it is, `judge` says whose it is
            if judge(error) is Verdict.PASSING:
                raise
            # Somebody's rows are the reason: each writer's by themselves, and only theirs fail.
            for session, batches in by_writer(new):
                alone = Insertion(self.points, self._decode, batches, may_be_stored=True)
                self._try_for(session, functools.partial(self._insert, alone))

    def _insert(self, insertion: Insertion) -> None:
        self._retry("insert points", insertion.attempt)
        self._committed_rows += insertion.row_count
        for session, batch in insertion.batches:
            if not session.closed:
                session.points_seq = batch.seq

    def _decode(self, batches: Batches) -> Any:
        """Columns of all batches but those of writers whose bytes are wrong; these are refused."""
        while batches := [pair for pair in batches if not pair[0].closed]:
            try:
                return _native.decode_points(
                    [(batch.payload, session.number_map(batch.seq)) for session, batch in batches]
                )
            except ValueError:
                self._refuse_undecodable(batches)
        return None

    def _refuse_undecodable(self, batches: Batches) -> None:
        for session, batch in batches:
            if session.closed:
                continue
            try:
                _native.decode_points([(batch.payload, session.number_map(batch.seq))])
            except ValueError as error:
                self._refuse(session, IngestRefusedError("MALFORMED", str(error)))

    def _apply_attributes(self, session: WriterSession, batches: list[SealedBatch]) -> bool:
        """Applies a session's attribute operations; False if it was refused."""
        pending = [b for b in batches if b.kind == "attributes" and b.seq > session.attr_seq]
        if not pending:
            return True

        def apply() -> None:
            try:
                self._apply(session, pending)
            except Exception as error:  # whatever it is, `judge` says whose it is
                if judge(error) is not Verdict.REFUSED:
                    raise
                # One of them is the reason. Those before it count, and their writer hears of it.
                try:
                    for batch in pending:
                        self._apply(session, [batch])
                finally:
                    _acknowledge(session, batches)

        return self._try_for(session, apply)

    def _apply(self, session: WriterSession, batches: list[SealedBatch]) -> None:
        decoded = [(b.seq, _operations(session, b)) for b in batches]
        self._retry(
            "apply attributes",
            lambda: self.catalog.apply_attributes(session.writer_no, decoded),
        )
        session.attr_seq = batches[-1].seq

    def _end(self, session: WriterSession, *, died: bool) -> None:
        def end() -> None:
            self._retry(
                "end a writer", lambda: self.catalog.end_writer(session.writer_no, died=died)
            )

        if not self._try_for(session, end):
            return
        self._forget(session)
        session.listener.ended()

    def _try_for(self, session: WriterSession, action: Callable[[], None]) -> bool:
        """Does what concerns one writer only; an error that is not the store's ends its session."""
        try:
            action()
        except Exception as error:  # whatever it is, `judge` says whose it is
            verdict = judge(error)
            if verdict is Verdict.PASSING:
                raise
            if verdict is Verdict.UNKNOWN:
                _log.error("writer %d has to come again", session.writer_no, exc_info=error)
            self._refuse(session, refusal_of(error))
            return False
        return True

    def _refuse(self, session: WriterSession, refusal: IngestRefusedError) -> None:
        self._forget(session)
        session.listener.refused(refusal)

    def _forget(self, session: WriterSession) -> None:
        with self._changed:
            session.closed = True
            if self._sessions.get(session.writer_no) is session:
                del self._sessions[session.writer_no]

    def _retry(self, what: str, action: Callable[[], object]) -> None:
        """Repeats an action on the stores until it succeeds: there is nowhere else to put data.

        Only a fault that passes is waited for. Writers keep everything that is not acknowledged, so
        waiting loses nothing; the fault is logged once and shown by `fault` until it is over. When
        the server is closing the first failure is raised: the batches stay with their writers.
        """
        for attempt in range(1 << 30):
            try:
                action()
            except Exception as error:  # whatever it is, `judge` says whether it passes
                if judge(error) is not Verdict.PASSING:
                    self._fault = None
                    raise
                if self._fault is None:
                    _log.error("cannot %s, trying again until it works: %s", what, error)
                self._fault = f"cannot {what}: {error}"
                with self._changed:
                    delay = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                    if self._changed.wait_for(lambda: self._closing, delay):
                        raise
            else:
                if self._fault is not None:
                    _log.warning("could %s after %d failures", what, attempt)
                    self._fault = None
                return


def _by_session(group: list[_Waiting]) -> list[tuple[WriterSession, list[_Waiting]]]:
    sessions: dict[int, tuple[WriterSession, list[_Waiting]]] = {}
    for item in group:
        sessions.setdefault(id(item.session), (item.session, []))[1].append(item)
    return list(sessions.values())


def _acknowledge(session: WriterSession, batches: list[SealedBatch]) -> None:
    """Tells a writer how far it is durable: up to the first attributes that were not applied."""
    durable = 0
    for batch in batches:
        if batch.kind == "attributes" and batch.seq > session.attr_seq:
            break
        durable = batch.seq
    if durable:
        session.listener.durable(durable)


def _operations(session: WriterSession, batch: SealedBatch) -> list[tuple[Any, ...]]:
    """Decodes attribute operations, environments by the catalog's numbers."""
    try:
        operations = _native.decode_attributes(batch.payload)
    except ValueError as error:
        raise IngestRefusedError("MALFORMED", f"batch {batch.seq}: {error}") from error
    return [
        ("set_env", session.env_no(operation[1]), *operation[2:])
        if operation[0] == "set_env"
        else operation
        for operation in operations
    ]
