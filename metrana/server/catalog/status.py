"""Which writer leads a run, and what status follows.

The lead is the writer that opened the run while no other lived. A run is running while any writer
lives; else the latest lead decides: finished or failed by its close record, lost without one.

Whether an earlier writer lived when a later one opened is known for certain only afterwards, so
leads are worked out anew at every change. A writer lived until

- now, if it lives;
- its close record, by the writers' own clocks if somebody else delivered it (the server then got it
  long after), else by the server's;
- the server last heard from it itself, if it was lost: a process that was restarted before the
  lease of the dead one ran out is the new lead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from metrana.server.catalog.records import EndStatus, RunStatus
from metrana.server.catalog.tables import runs, writers


class WriterLife(NamedTuple):
    """What is known of when a writer lived; times as in the table."""

    writer_no: int
    lives: bool
    delivered: bool
    opened_at: int
    registered_at: int
    heard_at: int
    closed_at: int | None
    ended_at: int | None
    close_status: EndStatus | None
    is_lead: bool


def leads(lives: Iterable[WriterLife]) -> list[bool]:
    """For each writer, by rising number, whether it opened the run while no other lived.

    A writer comes in with `is_lead` set. What was decided when it opened also settles the case of
    another that closed in the same millisecond: the times cannot say which was first.
    """
    result: list[bool] = []
    heard_at = ended_at = closed_at = -math.inf
    for life in lives:
        in_time = ended_at < life.registered_at or (ended_at == life.registered_at and life.is_lead)
        result.append(in_time and heard_at <= life.registered_at and closed_at <= life.opened_at)
        if life.lives:
            heard_at = math.inf
        elif life.close_status not in ("finished", "failed"):
            heard_at = max(heard_at, life.heard_at)
        elif life.delivered and life.closed_at is not None:
            closed_at = max(closed_at, life.closed_at)
        else:
            ended_at = max(ended_at, life.ended_at or life.heard_at)
    return result


def run_status(lives: Sequence[WriterLife]) -> RunStatus:
    """The status that follows from the writers, whose `is_lead` is up to date."""
    if any(life.lives for life in lives):
        return "running"
    lead = next((life for life in reversed(lives) if life.is_lead), None)
    return (lead.close_status if lead else None) or "lost"


def lock_run(connection: sa.Connection, run_no: int) -> sa.Row[int, str, int | None]:
    """Take the run for this transaction, so that changes of its writers come one after the other.

    Returns:
        `run_no`, `run_id`, `deleted_at`.
    """
    return connection.execute(
        sa.select(runs.c.run_no, runs.c.run_id, runs.c.deleted_at)
        .where(runs.c.run_no == run_no)
        .with_for_update()
    ).one()


def refresh(connection: sa.Connection, run_no: int, now_ms: int) -> None:
    """Work out leads and status of a run that the caller has locked, after its writers changed."""
    columns = [writers.c[name] for name in WriterLife._fields]
    rows = connection.execute(
        sa.select(*columns).where(writers.c.run_no == run_no).order_by(writers.c.writer_no)
    )
    before = [WriterLife(*row) for row in rows]
    now = [life._replace(is_lead=lead) for life, lead in zip(before, leads(before), strict=True)]
    changed = [(b, n) for b, n in zip(before, now, strict=True) if b.is_lead != n.is_lead]
    for is_lead in (True, False):
        numbers = [life.writer_no for _, life in changed if life.is_lead is is_lead]
        if numbers:
            connection.execute(
                sa.update(writers).where(writers.c.writer_no.in_(numbers)).values(is_lead=is_lead)
            )
    status = run_status(now)
    closed_at = max((life.closed_at for life in now if life.closed_at is not None), default=None)
    leases = sa.select(sa.func.max(writers.c.lease_until)).where(
        writers.c.run_no == run_no, writers.c.lives
    )
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run_no)
        .values(
            status=status,
            finished_at=None if status == "running" else closed_at,
            lease_until=leases.scalar_subquery(),
            updated_at=now_ms,
        )
    )
