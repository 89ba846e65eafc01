"""Pieces of renderings on their way into the media store, beside points and attributes.

They have a thread of their own: to force a video to the disk, and to read it once more when it is
whole, takes long, and points do not wait for that. What gathers meanwhile is one group: each file
in it is forced to the disk once, each writer has one transaction in the catalog.

Nothing depends on what was taken before. A piece says where it belongs, so it may come again; the
last one says what the whole is, so whatever is missing shows then. A video that did not come whole
is reported, not kept, and acknowledged: its writer has nothing better.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, TypeAlias

from metrana import _native
from metrana.server.catalog import Catalog, NewRendering, RunDeletedError
from metrana.server.media import MediaName, MediaStore
from metrana.server.retrying import Patience
from metrana.server.sessions import IngestRefusedError, SealedBatch, WriterSession
from metrana.server.store_faults import Verdict, judge, refusal_of

_log = logging.getLogger(__name__)

_MAX_WAITING_BYTES: Final = 32 << 20
# No video; and far beyond it no file system has places.
_MAX_VIDEO_BYTES: Final = 1 << 40

Refuse: TypeAlias = Callable[[WriterSession, IngestRefusedError], None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A batch of a session, or what is done when all before it are durable."""

    session: WriterSession
    batch: SealedBatch | None
    then: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A decoded batch."""

    rendering_id: str
    offset: int
    data: memoryview
    last: Any | None


class RenderingIntake:
    """Stores pieces of renderings and acknowledges them. Thread-safe.

    It runs a thread of its own until `close`.

    Args:
        catalog: Where complete renderings are registered.
        media: Where their files go.
        refuse: Ends a session.
    """

    def __init__(self, catalog: Catalog, media: MediaStore, refuse: Refuse) -> None:
        self._catalog = catalog
        self._media = media
        self._refuse = refuse
        self._patience = Patience()
        # Guards all that follows; notified when something arrives, is taken, or ends.
        self._changed = threading.Condition()
        self._items: list[_Waiting] = []
        self._bytes = 0
        # By writer: how much of it, in sessions that are over too, waits or is being stored.
        self._counts: dict[int, int] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="metrana-media", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """Why no rendering can be stored at present; None if all is well."""
        return self._patience.fault

    @property
    def is_full(self) -> bool:
        """Whether `put` would wait."""
        return self._bytes >= _MAX_WAITING_BYTES

    def put(self, session: WriterSession, batch: SealedBatch) -> None:
        """Takes a batch. Blocks while too many bytes wait.

        Raises:
            IngestRefusedError: The session is over, or the server is going away.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self.is_full or self._closing or session.closed)
            if self._closing or session.closed:
                raise IngestRefusedError("UNAVAILABLE", "the server is going away", retryable=True)
            self._add(_Waiting(session, batch))

    def do_after(self, session: WriterSession, action: Callable[[], None]) -> bool:
        """Does something when all of a session is durable; False: nothing of its writer is here."""
        with self._changed:
            if session.writer_no not in self._counts:
                return False
            self._add(_Waiting(session, None, action))
            return True

    def remove_unfinished(self, session: WriterSession) -> None:
        """Removes what a writer that ends has begun to send. Blocks."""
        try:
            self._media.end_writer(session.run_id, session.writer_id)
        except OSError as error:
            # It takes room, and nobody will ever read it: no reason to keep points waiting.
            _log.warning("writer %d: what it left is not removed: %s", session.writer_no, error)

    def begin_close(self) -> None:
        """Ends waiting for a store that fails. Later calls of `put` are refused. Does not block."""
        self._patience.end()
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stores what waits and stops. Blocks."""
        self.begin_close()
        self._thread.join()

    def _add(self, item: _Waiting) -> None:
        self._items.append(item)
        self._bytes += _byte_count(item)
        writer_no = item.session.writer_no
        self._counts[writer_no] = self._counts.get(writer_no, 0) + 1
        self._changed.notify_all()

    def _run(self) -> None:
        while (group := self._take()) is not None:
            for session, items in _by_session(group):
                self._serve(session, items)

    def _take(self) -> list[_Waiting] | None:
        """Waits for something and takes all that there is; None when closing and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closing)
            if not self._items:
                return None
            group, self._items = self._items, []
            self._bytes = 0
            self._changed.notify_all()
            return group

    def _serve(self, session: WriterSession, items: list[_Waiting]) -> None:
        try:
            if not session.closed:
                self._store(session, [item.batch for item in items if item.batch is not None])
            for item in items:
                if item.then is not None and not session.closed:
                    item.then()
        except BaseException as error:  # noqa: BLE001 - one writer's fault must not end this thread
            self._give_up(session, error)
        finally:
            with self._changed:
                self._counts[session.writer_no] -= len(items)
                if not self._counts[session.writer_no]:
                    del self._counts[session.writer_no]

    def _give_up(self, session: WriterSession, error: BaseException) -> None:
        if isinstance(error, RunDeletedError):
            # What came behind the deletion would be there for ever.
            with contextlib.suppress(OSError):
                self._media.remove_run(session.run_id)
        known = isinstance(error, Exception) and judge(error) is not Verdict.UNKNOWN
        if not known and not isinstance(error, IngestRefusedError):
            _log.error("writer %d has to come again", session.writer_no, exc_info=error)
        if not session.closed:
            refusal = (
                refusal_of(error)
                if isinstance(error, Exception)
                else IngestRefusedError("UNAVAILABLE", str(error), retryable=True)
            )
            self._refuse(session, refusal)

    def _store(self, session: WriterSession, batches: list[SealedBatch]) -> None:
        """Stores batches and acknowledges them; of bytes that are no pieces, those before them.

        Raises:
            IngestRefusedError: Some bytes are no piece.
        """
        pieces: list[_Piece] = []
        refusal = None
        for batch in batches:
            try:
                pieces.append(_decoded(batch))
            except IngestRefusedError as error:
                refusal = error
                break
        if stored := batches[: len(pieces)]:
            arrived = [
                video for each in _by_rendering(pieces) if (video := self._put_in(session, each))
            ]
            self._patience.repeat(
                "register renderings",
                lambda: self._catalog.add_renderings(session.writer_no, stored[-1].seq, arrived),
            )
            if not session.closed:
                session.acknowledge(stored)
        if refusal is not None:
            raise refusal

    def _put_in(self, session: WriterSession, pieces: list[_Piece]) -> NewRendering | None:
        """Writes pieces of one rendering; gives what to register if it is complete now."""
        rendering_id, last = pieces[0].rendering_id, pieces[-1].last
        name = MediaName(session.run_id, session.writer_id, rendering_id)
        if self._media.is_complete(name) and self._patience.repeat(
            "look for renderings", lambda: self._catalog.has_rendering(rendering_id)
        ):
            return None
        places = [(piece.offset, piece.data) for piece in pieces]
        self._patience.repeat("store renderings", lambda: self._media.write(name, places))
        if last is None:
            return None
        is_whole = self._patience.repeat(
            "complete renderings", lambda: self._media.complete(name, last.size, last.sha256)
        )
        if not is_whole:
            session.listener.damaged(
                f"the rendering of episode {last.episode} of environment {last.env_id!r} "
                f"(rendering_id {rendering_id}) is not kept, for what arrived is not what was "
                f"encoded: of {last.size:,} bytes some were damaged or lost on the way, or went to "
                "another store"
            )
            return None
        return _described(rendering_id, last)


def _decoded(batch: SealedBatch) -> _Piece:
    try:
        rendering_id, offset, data, last = _native.decode_rendering(batch.payload)
    except ValueError as error:
        raise IngestRefusedError("MALFORMED", f"batch {batch.seq}: {error}") from error
    if offset + len(data) > _MAX_VIDEO_BYTES:
        raise IngestRefusedError(
            "MALFORMED",
            f"batch {batch.seq} is a piece of a rendering at {offset:,}, which is beyond "
            f"{_MAX_VIDEO_BYTES:,} bytes",
        )
    return _Piece(rendering_id.hex(), offset, data, last)


def _described(rendering_id: str, last: Any) -> NewRendering:
    return NewRendering(
        rendering_id=rendering_id,
        env_id=last.env_id,
        episode=last.episode,
        rl_step=last.rl_step,
        part=last.part,
        # 0 says that it is not known.
        frame_count=last.frame_count or None,
        width=last.width,
        height=last.height,
        fps=last.fps,
        size_bytes=last.size,
        sha256=last.sha256.hex(),
    )


def _by_rendering(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Groups pieces that follow each other, up to the last piece of a rendering."""
    for _, same in groupby(pieces, key=lambda piece: piece.rendering_id):
        group: list[_Piece] = []
        for piece in same:
            group.append(piece)
            if piece.last is not None:
                yield group
                group = []
        if group:
            yield group


def _by_session(items: list[_Waiting]) -> list[tuple[WriterSession, list[_Waiting]]]:
    sessions: dict[int, tuple[WriterSession, list[_Waiting]]] = {}
    for item in items:
        sessions.setdefault(id(item.session), (item.session, []))[1].append(item)
    return list(sessions.values())


def _byte_count(item: _Waiting) -> int:
    return len(item.batch.payload) if item.batch is not None else 0
