"""The one way into the stores: every batch, from a stream or a spool, is committed here.

Batches wait until the oldest is 250 ms old (more where commits take long), a million rows have
gathered, or somebody waits for one (flush, close). Then all that wait, of all writers, become one
insert: one block, one atomic part. While it is inserted the next group is decoded.
Attributes follow in the catalog, each writer's in one transaction that also notes how far it is.
Pieces of renderings go to the media store meanwhile (`rendering_intake.py`). A writer is told how
far everything of it is durable, in every store.

A store that is full, locked or gone holds everybody up until it works again. A store that will not
take what one writer sent refuses that writer, and the others go on (`store_faults.py`).

Nothing here keeps a watermark of its own. What is stored says what is stored: rows carry their
writer and seq, and the catalog its `attr_seq` and the gaps. A session that opens asks both and what
is there already is acknowledged without being stored again.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from metrana import _native
from metrana.server.catalog import Catalog, WriterRecord
from metrana.server.gap_filling import GapFilling
from metrana.server.groups import Backlog, Group, Waiting, by_session
from metrana.server.insertion import Batches, Insertion, by_writer, rows_of
from metrana.server.media import MediaStore
from metrana.server.points import PointsStore
from metrana.server.rendering_intake import RenderingIntake
from metrana.server.retrying import Patience
from metrana.server.sessions import IngestRefusedError, Listener, SealedBatch, WriterSession
from metrana.server.store_faults import Verdict, judge, refusal_of
from metrana.server.stored import begin

_log = logging.getLogger(__name__)


class Ingestor:
    """Commits batches of all writers in groups. Thread-safe.

    It runs two threads of its own until `close`. The stores are the caller's and are not closed.

    Args:
        catalog: Where names, attributes and writers are.
        points: Where points are.
        media: Where renderings are.

    Attributes:
        renderings: Where pieces of renderings go, beside the groups.
    """

    def __init__(self, catalog: Catalog, points: PointsStore, media: MediaStore) -> None:
        self.catalog = catalog
        self.points = points
        self.renderings = RenderingIntake(catalog, media, self._refuse)
        self._patience = Patience()
        self._filling = GapFilling(catalog)
        # Guards all that follows; notified when something arrives, is committed, or ends.
        self._changed = threading.Condition()
        self._backlog = Backlog(self._changed)
        self._sessions: dict[int, WriterSession] = {}
        # By writer: the session, closed or not, of each group taken that has batches of it.
        self._committing: dict[int, list[WriterSession]] = {}
        # Decoded and not yet being committed.
        self._next: Group | None = None
        self._decoding_ended = False
        # Who is being asked about by `open_session`, and who ever had a session here.
        self._opening: set[int] = set()
        self._met: set[int] = set()
        self._closing = False
        self._committed_rows = 0
        self._threads = [
            threading.Thread(target=self._decode_groups, name="metrana-decode", daemon=True),
            threading.Thread(target=self._commit_groups, name="metrana-commit", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def fault(self) -> str | None:
        """Why nothing can be committed at present; None if all is well."""
        return self._patience.fault or self._filling.fault

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
        is_new = new and writer.writer_no not in self._met
        stored = begin(self.catalog, self.points, writer, first_seq, is_new=is_new)
        return WriterSession(
            run_no=writer.run_no,
            run_id=writer.run_id,
            project_id=writer.project_id,
            writer_no=writer.writer_no,
            writer_id=writer.writer_id,
            logger_no=writer.logger_no,
            listener=listener,
            first_seq=first_seq,
            next_seq=first_seq,
            lost=tuple(lost),
            points_seqs=stored.points_seqs,
            attr_seq=stored.attr_seq,
            stored_seq=stored.before_seq,
            gaps=stored.gaps,
            fill=functools.partial(self._filling.fill, writer.writer_no),
        )

    def close_session(self, session: WriterSession) -> None:
        """Drops what still waits of a session and returns when no commit touches it. Blocks."""
        with self._changed:
            session.closed = True
            if self._sessions.get(session.writer_no) is session:
                del self._sessions[session.writer_no]
            self._changed.wait_for(
                lambda: all(
                    other is not session for other in self._committing.get(session.writer_no, ())
                )
            )

    def is_full_for(self, batch: SealedBatch) -> bool:
        """Whether `submit` would wait."""
        return (self.renderings if batch.kind == "renderings" else self._backlog).is_full

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
        session.expect(batch)
        if batch.kind == "renderings":
            self.renderings.put(session, batch)
            return
        rows = info.float_point_count + info.rl_point_count
        self._put(Waiting(session, batch, rows, time.monotonic()))

    def end(self, session: WriterSession, *, died: bool) -> None:
        """Records the writer's end once everything submitted before is durable.

        Args:
            session: The writer's session; nothing may be submitted to it afterwards.
            died: It ended without a close record.
        """

        def put() -> None:
            self._put(Waiting(session, None, 0, time.monotonic(), died))

        if not self.renderings.do_after(session, put):
            put()

    def begin_close(self) -> None:
        """Ends waiting for a store that fails: commits what can be, refuses the rest to come again.

        Later calls of `submit` are refused. Does not block.
        """
        self._patience.end()
        self._filling.end()
        self.renderings.begin_close()
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Commits what waits and stops. Blocks; later calls of `submit` are refused."""
        self.begin_close()
        self.renderings.close()
        for thread in self._threads:
            thread.join()

    def _put(self, item: Waiting) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: not self._backlog.is_full or self._closing or item.session.closed
            )
            if self._closing or item.session.closed:
                raise IngestRefusedError("UNAVAILABLE", "the server is going away", retryable=True)
            self._backlog.add(item)

    # ── the decoding thread ────────────────────────────────────────────────────────────────────

    def _decode_groups(self) -> None:
        try:
            while self._decode_next():
                pass
        finally:
            with self._changed:
                self._decoding_ended = True
                self._changed.notify_all()

    def _decode_next(self) -> bool:
        """Decodes the next group for the commit thread; False when there will be none."""
        items = self._take_group()
        if items is None:
            return False
        group = self._decoded(items)
        with self._changed:
            self._next = group
            self._changed.notify_all()
        return True

    def _take_group(self) -> list[Waiting] | None:
        """Waits for a group and takes what is of sessions that go on."""
        with self._changed:
            # No earlier than its commit can follow: until then more may join it.
            self._changed.wait_for(lambda: self._next is None)
            taken = self._backlog.take_group(lambda: self._closing)
            if taken is None:
                return None
            items = [item for item in taken if self._goes_on(item.session)]
            for session, _ in by_session(items):
                self._committing.setdefault(session.writer_no, []).append(session)
            return items

    def _goes_on(self, session: WriterSession) -> bool:
        return not session.closed and self._sessions.get(session.writer_no) is session

    def _decoded(self, items: list[Waiting]) -> Group:
        new = [
            (item.session, item.batch)
            for item in items
            if item.batch is not None
            and item.batch.kind == "points"
            and not item.session.has(item.batch)
        ]
        try:
            columns = rows_of(new)
        except BaseException:  # noqa: BLE001 - a panic of the decoder must not end this thread
            # Whose fault it is is found out, and said, when those before are committed.
            columns = None
        return Group(items, new, columns)

    # ── the commit thread ──────────────────────────────────────────────────────────────────────

    def _commit_groups(self) -> None:
        while self._commit_next():
            pass

    def _commit_next(self) -> bool:
        """Commits the next group, whose rows are let go of on return; False: there is none."""
        group = self._next_group()
        if group is None:
            return False
        begun = time.monotonic()
        try:
            self._commit(group)
        except BaseException as error:  # noqa: BLE001 - a fault in one group must not end all others
            self._give_up(group, error)
        finally:
            with self._changed:
                self._backlog.pace(time.monotonic() - begun)
                for session, _ in by_session(group.items):
                    self._committed(session)
                self._changed.notify_all()
        return True

    def _next_group(self) -> Group | None:
        """Waits for a decoded group; None when closing and there is none left."""
        with self._changed:
            self._changed.wait_for(lambda: self._next is not None or self._decoding_ended)
            group, self._next = self._next, None
            self._changed.notify_all()
            return group

    def _committed(self, session: WriterSession) -> None:
        """Notes that a group with batches of a session is done, under the lock."""
        sessions = self._committing[session.writer_no]
        # Groups end in the order in which they were taken.
        sessions.pop(0)
        if not sessions:
            del self._committing[session.writer_no]

    def _give_up(self, group: Group, error: BaseException) -> None:
        """Hands a group back to its writers, who keep what is not acknowledged and come again."""
        if not self._closing:
            _log.error("%d batches were not committed", len(group.items), exc_info=error)
        refusal = IngestRefusedError(
            "UNAVAILABLE", f"the server could not commit: {error}", retryable=True
        )
        for session, _ in by_session(group.items):
            if not session.closed:
                self._refuse(session, refusal)

    def _commit(self, group: Group) -> None:
        self._insert_points(group)
        for session, items in by_session(group.items):
            batches = [item.batch for item in items if item.batch is not None]
            if session.closed or not self._apply_attributes(session, batches):
                continue
            session.acknowledge(batches)
            if items[-1].batch is None:
                self._end(session, died=items[-1].died)

    def _insert_points(self, group: Group) -> None:
        # A session that ended since, because of an earlier group perhaps, must leave no gap.
        new = [pair for pair in group.new if not pair[0].closed]
        columns = group.columns if len(new) == len(group.new) else None
        try:
            self._insert(Insertion(self.points, self._decode, new, columns=columns))
        except Exception as error:  # whatever it is, `judge` says whose it is
            if judge(error) is Verdict.PASSING:
                raise
            # Somebody's rows are the reason: each writer's by themselves, and only theirs fail.
            for session, batches in by_writer(new):
                alone = Insertion(self.points, self._decode, batches, may_be_stored=True)
                self._try_for(session, functools.partial(self._insert, alone))

    def _insert(self, insertion: Insertion) -> None:
        self._patience.repeat("insert points", insertion.attempt)
        self._committed_rows += insertion.row_count

    def _decode(self, batches: Batches) -> Any:
        """Columns of all batches but those of writers whose bytes are wrong; these are refused."""
        while batches := [pair for pair in batches if not pair[0].closed]:
            try:
                return rows_of(batches)
            except ValueError:
                self._refuse_undecodable(batches)
        return None

    def _refuse_undecodable(self, batches: Batches) -> None:
        for session, batch in batches:
            if session.closed:
                continue
            try:
                rows_of([(session, batch)])
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
                    session.acknowledge(batches)

        return self._try_for(session, apply)

    def _apply(self, session: WriterSession, batches: list[SealedBatch]) -> None:
        decoded = [(b.seq, session.operations(b)) for b in batches]
        first_seq = session.since(batches[-1].seq)
        self._patience.repeat(
            "apply attributes",
            lambda: self.catalog.apply_attributes(session.writer_no, decoded, first_seq=first_seq),
        )
        session.attr_seq = batches[-1].seq

    def _end(self, session: WriterSession, *, died: bool) -> None:
        def end() -> None:
            # Also what needed no storing, of which nothing was acknowledged.
            session.note_stored(session.next_seq - 1)
            self._patience.repeat(
                "end a writer", lambda: self.catalog.end_writer(session.writer_no, died=died)
            )

        # First: of a writer that has ended nobody comes to do it.
        self.renderings.remove_unfinished(session)
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
