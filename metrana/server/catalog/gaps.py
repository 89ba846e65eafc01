"""Gaps: ranges of a writer's batches that are not stored, though batches behind them are.

A session takes a writer's batches without a gap, from its first one on. So one can come about only
where a session begins, and is noted there, before anything of the session is stored. It is filled
by a session that has what is missing, and noted to be before that session's writer may forget it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import sqlalchemy as sa

from metrana.server.catalog.status import lock_run
from metrana.server.catalog.tables import gaps
from metrana.server.catalog.writers import run_of

SeqRanges: TypeAlias = tuple[tuple[int, int], ...]
"""Ranges of seqs, both ends included, rising and apart."""


def without(ranges: Iterable[tuple[int, int]], first: int, last: int) -> SeqRanges:
    """What is left of ranges when all from `first` to `last` is taken out."""
    left: list[tuple[int, int]] = []
    for begin, end in ranges:
        parts = ((begin, min(end, first - 1)), (max(begin, last + 1), end))
        left += [part for part in dict.fromkeys(parts) if part[0] <= part[1]]
    return tuple(left)


def contain(ranges: Iterable[tuple[int, int]], seq: int) -> bool:
    """Whether a seq lies in one of some ranges."""
    return any(first <= seq <= last for first, last in ranges)


def of(connection: sa.Connection, writer_no: int) -> SeqRanges:
    """The gaps of a writer."""
    query = sa.select(gaps.c.first_seq, gaps.c.last_seq).where(gaps.c.writer_no == writer_no)
    return tuple((first, last) for first, last in connection.execute(query.order_by("first_seq")))


def add(connection: sa.Connection, writer_no: int, first: int, last: int) -> None:
    """Note a gap; what is part of another already stays there.

    Raises:
        NotFoundError: If there is no such writer.
    """
    lock_run(connection, run_of(connection, writer_no))
    before = of(connection, writer_no)
    _replace(connection, writer_no, before, sorted([*without(before, first, last), (first, last)]))


def fill(connection: sa.Connection, writer_no: int, first: int, last: int) -> None:
    """Note that all from `first` to `last` is stored.

    Raises:
        NotFoundError: If there is no such writer.
    """
    lock_run(connection, run_of(connection, writer_no))
    before = of(connection, writer_no)
    _replace(connection, writer_no, before, without(before, first, last))


def _replace(
    connection: sa.Connection,
    writer_no: int,
    before: Sequence[tuple[int, int]],
    after: Sequence[tuple[int, int]],
) -> None:
    if gone := [first for first, last in before if (first, last) not in after]:
        connection.execute(
            sa.delete(gaps).where(gaps.c.writer_no == writer_no, gaps.c.first_seq.in_(gone))
        )
    new = [one for one in after if one not in before]
    if new:
        rows = [{"writer_no": writer_no, "first_seq": a, "last_seq": b} for a, b in new]
        connection.execute(gaps.insert(), rows)
