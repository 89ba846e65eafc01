"""What the stores hold of a writer already: asked when a session of it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from metrana.server.catalog import WriterRecord
    from metrana.server.points import PointsStore


@dataclass(frozen=True, slots=True)
class Stored:
    """What there is of a writer, seen from the first batch that is still to be had of it.

    Attributes:
        points_seqs: The seqs of its points from that batch on, in order. Not all up to the last are
            points, and not all points need be there: a spool without its beginning may have been
            delivered before one that has it. Shape: (batches,).
        before_seq: Of the batches before that one, all up to here are stored; 0: none.
    """

    points_seqs: np.ndarray
    before_seq: int


_NONE: Final = np.zeros(0, np.uint64)
NOTHING: Final = Stored(_NONE, 0)


def stored_of(writer: WriterRecord, points: PointsStore, first_seq: int) -> Stored:
    """Asks both stores. Blocks.

    Args:
        writer: The writer, as the catalog has it.
        points: Where its points are.
        first_seq: The first batch that is still to be had, from 1.

    Raises:
        PointsError: The points store could not be asked.
    """
    # Of all its points, for that is told without reading them, and mostly nothing more is to know.
    before_seq = points.max_seq(writer.run_no, writer.writer_no, 0) or 0
    points_seqs = _NONE
    if before_seq >= first_seq:
        seqs = points.seqs(writer.run_no, writer.writer_no)
        before, points_seqs = np.split(seqs, [np.searchsorted(seqs, np.uint64(first_seq))])
        before_seq = int(before[-1]) if len(before) else 0
    # What is stored came in order, so before its last attributes or rendering nothing is missing;
    # unless all of it came behind the gap, from an earlier delivery of a spool that begins there.
    is_in_order = before_seq > 0 or not len(points_seqs)
    for other_seq in (writer.attr_seq, writer.rendering_seq):
        if other_seq < first_seq or is_in_order:
            before_seq = max(before_seq, min(other_seq, first_seq - 1))
    return Stored(points_seqs, before_seq)
