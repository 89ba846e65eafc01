"""What the stores hold of a writer already: asked when a session of it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, SeqRanges, WriterRecord
    from metrana.server.points import PointsStore


@dataclass(frozen=True, slots=True)
class Stored:
    """What there is of a writer, seen from the first batch that is still to be had of it.

    Attributes:
        points_seqs: The seqs of its points from that batch on, in order. Not all up to the last are
            points, and not all points need be there: a spool without its beginning may have been
            delivered before one that has it. Shape: (batches,).
        attr_seq: Of its attributes from that batch on, those up to here need not come again.
        before_seq: Of the batches before that one, all up to here are stored; 0: none.
        last_seq: The last one that is stored; all before it are, but for the gaps.
        gaps: What of that batch and those behind it is missing before others, in ranges.
    """

    points_seqs: np.ndarray
    attr_seq: int
    before_seq: int
    last_seq: int
    gaps: SeqRanges


_NONE: Final = np.zeros(0, np.uint64)
_NOTHING: Final = Stored(_NONE, 0, 0, 0, ())


def begin(
    catalog: Catalog, points: PointsStore, writer: WriterRecord, first_seq: int, *, is_new: bool
) -> Stored:
    """Asks both stores, and notes what will be missing once anything more is stored. Blocks.

    Args:
        catalog: Where its attributes are, and what is known of gaps.
        points: Where its points are.
        writer: The writer.
        first_seq: The first batch that is still to be had, from 1.
        is_new: Nothing of it can be stored.

    Raises:
        PointsError: The points store could not be asked.
    """
    stored = _NOTHING if is_new else stored_of(catalog, points, writer, first_seq)
    if stored.last_seq + 1 < first_seq:
        catalog.add_gap(writer.writer_no, stored.last_seq + 1, first_seq - 1)
    return stored


def stored_of(
    catalog: Catalog, points: PointsStore, writer: WriterRecord, first_seq: int
) -> Stored:
    """Asks both stores. Blocks.

    Args:
        catalog: Where its attributes are, and what is known of gaps.
        points: Where its points are.
        writer: The writer.
        first_seq: The first batch that is still to be had, from 1.

    Raises:
        PointsError: The points store could not be asked.
    """
    # Again: an older session may have stored more since the writer was looked up.
    writer = catalog.writer(writer.writer_id) or writer
    gaps = catalog.gaps(writer.writer_no)
    # Of all its points, for that is told without reading them, and mostly nothing more is to know.
    last_points_seq = points.max_seq(writer.run_no, writer.writer_no, 0) or 0
    points_seqs = _NONE
    if last_points_seq >= first_seq:
        seqs = points.seqs(writer.run_no, writer.writer_no)
        points_seqs = seqs[np.searchsorted(seqs, np.uint64(first_seq)) :]
    last_seq = max(last_points_seq, writer.attr_seq, writer.rendering_seq)
    ahead = tuple(gap for gap in gaps if gap[1] >= first_seq)
    return Stored(
        points_seqs=points_seqs,
        # Attributes that come late are followed by all behind them, so that the last one counts.
        attr_seq=min([writer.attr_seq, *(max(gap[0], first_seq) - 1 for gap in ahead)]),
        before_seq=min([first_seq - 1, last_seq, *(gap[0] - 1 for gap in gaps)]),
        last_seq=last_seq,
        gaps=ahead,
    )
