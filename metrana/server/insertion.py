"""Points batches on their way into the store as one part, each once however often it is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from metrana import _native
from metrana.server.sessions import SealedBatch, WriterSession

if TYPE_CHECKING:
    from metrana.server.points import PointsStore

Batches: TypeAlias = list[tuple[WriterSession, SealedBatch]]


class Insertion:
    """One insert of batches, of one writer or of many. Not thread-safe.

    Args:
        points: The store.
        decode: Gives the columns of batches; None if nothing is left of them.
        batches: What is inserted.
        columns: Theirs, if they have been decoded.
        may_be_stored: They were tried before.
    """

    def __init__(
        self,
        points: PointsStore,
        decode: Callable[[Batches], Any],
        batches: Batches,
        *,
        columns: dict[str, Any] | None = None,
        may_be_stored: bool = False,
    ) -> None:
        self.batches = batches
        self._points = points
        self._decode = decode
        self._missing = batches
        self._columns = decode(batches) if columns is None else columns
        self._may_be_stored = may_be_stored
        self.row_count = 0 if self._columns is None else len(self._columns["run_no"])

    def attempt(self) -> None:
        """Inserts what is not stored yet.

        A failed insert may have happened: the part was renamed into place and only a sync of the
        directory, or the answer, failed. The store is asked, never guessed at.
        """
        if self._columns is None:
            return
        if self._may_be_stored:
            self._leave_out_what_is_stored()
        self._may_be_stored = True
        if self._columns is not None:
            self._points.insert(self._columns)

    def _leave_out_what_is_stored(self) -> None:
        missing: Batches = []
        for session, batches in by_writer(self._missing):
            first = batches[0][1].seq
            stored: set[int] = set()
            if self._points.max_seq(session.run_no, session.writer_no, first) is not None:
                stored = set(self._points.seqs(session.run_no, session.writer_no).tolist())
            missing += [pair for pair in batches if pair[1].seq not in stored]
        if len(missing) < len(self._missing):
            self._columns = self._decode(missing)
        self._missing = missing


def by_writer(batches: Batches) -> list[tuple[WriterSession, Batches]]:
    """Groups batches by writer, in order."""
    writers: dict[int, Batches] = {}
    for pair in batches:
        writers.setdefault(pair[0].writer_no, []).append(pair)
    return [(own[0][0], own) for own in writers.values()]


def rows_of(batches: Batches) -> dict[str, Any]:
    """Decodes batches into columns of the points table.

    Raises:
        ValueError: A payload is not what it claims to be, or uses what was not declared.
    """
    return _native.decode_points(
        [(batch.payload, session.number_map(batch.seq)) for session, batch in batches]
    )
