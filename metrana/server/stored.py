"""What the stores hold of a writer already: asked when a session of it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from metrana.server.catalog import WriterRecord
    from metrana.server.points import PointsStore


@dataclass(frozen=True, slots=True)
class Stored:
    """What there is of a writer, seen from the first batch that is still to be had of it.

    Attributes:
        points_seq: The greatest seq of its points from that batch on; 0: there are none.
        before_seq: Of the batches before that one, all up to here are stored; 0: none.
    """

    points_seq: int
    before_seq: int


NOTHING: Final = Stored(0, 0)


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
    newest = points.max_seq(writer.run_no, writer.writer_no, 0) or 0
    points_seq = newest if newest >= first_seq else 0
    if first_seq == 1:
        return Stored(points_seq, 0)
    before_seq = newest
    if points_seq:
        before_seq = points.max_seq_below(writer.run_no, writer.writer_no, first_seq)
    # What is stored came in order, so before its last attributes nothing is missing; unless all of
    # it came behind the gap, from an earlier delivery of a spool that begins there.
    if writer.attr_seq < first_seq or before_seq or not points_seq:
        before_seq = max(before_seq, min(writer.attr_seq, first_seq - 1))
    return Stored(points_seq, before_seq)
