"""Writers of a run: leases, ends, and what is known of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from metrana.server.catalog.engine import chunks
from metrana.server.catalog.errors import NotFoundError
from metrana.server.catalog.records import EndStatus, WriterRecord
from metrana.server.catalog.status import lock_run, refresh
from metrana.server.catalog.tables import loggers, rendering_progress, runs, writers


def find(
    connection: sa.Connection,
    *,
    writer_id: str | None = None,
    run_no: int | None = None,
    writer_nos: Collection[int] | None = None,
) -> list[WriterRecord]:
    """Writers by rising number: the one of an id, those of a run, or those of some numbers."""
    query = (
        sa.select(
            *writers.c["writer_no", "writer_id", "run_no", "number", "logger_no", "alias_run_id"],
            *writers.c["host", "pid", "client_version", "created_run", "is_lead", "lives"],
            *writers.c["close_status", "attr_seq"],
            writers.c.opened_at.label("opened_at_ms"),
            writers.c.closed_at.label("closed_at_ms"),
            writers.c.lease_until.label("lease_until_ms"),
            sa.func.coalesce(rendering_progress.c.seq, 0).label("rendering_seq"),
            loggers.c.logger_id,
            *runs.c["run_id", "project_id"],
            runs.c.deleted_at.is_not(None).label("run_deleted"),
        )
        .join_from(writers, runs, runs.c.run_no == writers.c.run_no)
        .join(loggers, loggers.c.logger_no == writers.c.logger_no)
        .outerjoin(rendering_progress, rendering_progress.c.writer_no == writers.c.writer_no)
        .order_by(writers.c.writer_no)
    )
    if writer_id is not None:
        query = query.where(writers.c.writer_id == writer_id)
    if run_no is not None:
        query = query.where(writers.c.run_no == run_no)
    if writer_nos is None:
        return [WriterRecord(**row) for row in connection.execute(query).mappings()]
    return [
        WriterRecord(**row)
        for chunk in chunks(sorted(set(writer_nos)))
        for row in connection.execute(query.where(writers.c.writer_no.in_(chunk))).mappings()
    ]


@contextmanager
def changing_run(
    connection: sa.Connection, run_no: int, now_ms: int
) -> Iterator[sa.Row[int, str, int | None]]:
    """Lock a run, let the block change its writers, and work out the status that follows."""
    run = lock_run(connection, run_no)
    yield run
    refresh(connection, run_no, now_ms)


def run_of(connection: sa.Connection, writer_no: int) -> int:
    """The run of a writer.

    Raises:
        NotFoundError: If there is no such writer.
    """
    run_no: int | None = connection.scalar(
        sa.select(writers.c.run_no).where(writers.c.writer_no == writer_no)
    )
    if run_no is None:
        raise NotFoundError(f"no writer has the number {writer_no}")
    return run_no


def renew_leases(
    connection: sa.Connection, writer_nos: Collection[int] | None, now_ms: int, until_ms: int
) -> list[int]:
    """Extend leases; a writer that was given up because its lease ran out lives again.

    Args:
        connection: In a write transaction.
        writer_nos: Who was heard from. None: everyone who lives gets time, without being heard.
        now_ms: The server's time.
        until_ms: When the leases end.

    Returns:
        Those whose run was deleted: they have to stop.
    """
    if writer_nos is None:
        everyone = sa.update(writers).where(writers.c.lives)
        connection.execute(everyone.values(lease_until=until_ms))
        return []
    stopped: list[int] = []
    for chunk in chunks(sorted(set(writer_nos))):
        named = writers.c.writer_no.in_(chunk)
        # Runs before writers, as everywhere: whoever needs both then never waits in a circle.
        connection.execute(
            sa.update(runs)
            .where(
                runs.c.run_no.in_(sa.select(writers.c.run_no).where(named)),
                runs.c.deleted_at.is_(None),
            )
            .values(lease_until=until_ms, updated_at=now_ms)
        )
        heard_at = sa.case((writers.c.delivered, writers.c.heard_at), else_=now_ms)
        connection.execute(
            sa.update(writers)
            .where(named, writers.c.lives)
            .values(lease_until=until_ms, heard_at=heard_at)
        )
        given_up = sa.select(writers.c.writer_no, writers.c.run_no).where(
            named, ~writers.c.lives, writers.c.close_status == "lost", ~writers.c.delivered
        )
        for writer_no, run_no in connection.execute(given_up).all():
            _revive(connection, writer_no, run_no, now_ms, until_ms)
        deleted = (
            sa.select(writers.c.writer_no)
            .join(runs, runs.c.run_no == writers.c.run_no)
            .where(named, runs.c.deleted_at.is_not(None))
        )
        stopped += connection.scalars(deleted)
    return stopped


def expired_runs(connection: sa.Connection, now_ms: int) -> list[int]:
    """Runs that have a writer whose lease ran out, by rising number."""
    return list(
        connection.scalars(
            sa.select(writers.c.run_no)
            .distinct()
            .where(writers.c.lives, writers.c.lease_until < now_ms)
            .order_by(writers.c.run_no)
        )
    )


def expire_leases(connection: sa.Connection, run_no: int, now_ms: int) -> list[int]:
    """Give up the writers of a run whose lease ran out; returns their numbers."""
    with changing_run(connection, run_no, now_ms):
        expired = list(
            connection.scalars(
                sa.select(writers.c.writer_no).where(
                    writers.c.run_no == run_no, writers.c.lives, writers.c.lease_until < now_ms
                )
            )
        )
        _give_up(connection, writers.c.writer_no.in_(expired), now_ms)
    return expired


def end_writer(connection: sa.Connection, writer_no: int, now_ms: int, *, died: bool) -> None:
    """Note that a writer has no more data. Without a close record: lost if it died."""
    with changing_run(connection, run_of(connection, writer_no), now_ms):
        this = writers.c.writer_no == writer_no
        if died:
            _give_up(connection, this, now_ms)
        else:
            _close(connection, this & writers.c.close_status.is_(None), "finished", now_ms, now_ms)
        connection.execute(sa.update(writers).where(this).values(lives=False))


def close_writer(
    connection: sa.Connection, writer_no: int, status: EndStatus, closed_at_ms: int, now_ms: int
) -> None:
    """Apply a writer's close record; the caller works out the run's status."""
    _close(connection, writers.c.writer_no == writer_no, status, closed_at_ms, now_ms)


def end_writers_of(connection: sa.Connection, run_no: int, now_ms: int) -> None:
    """Give every writer of a run its final status; the caller works out the run's."""
    _give_up(connection, writers.c.run_no == run_no, now_ms)


def _give_up(connection: sa.Connection, which: sa.ColumnElement[bool], now_ms: int) -> None:
    connection.execute(
        sa.update(writers)
        .where(which, writers.c.close_status.is_(None))
        .values(lives=False, close_status="lost", closed_at=writers.c.heard_at, ended_at=now_ms)
    )


def _close(
    connection: sa.Connection,
    which: sa.ColumnElement[bool],
    status: EndStatus,
    closed_at_ms: int,
    now_ms: int,
) -> None:
    connection.execute(
        sa.update(writers)
        .where(which)
        .values(lives=False, close_status=status, closed_at=closed_at_ms, ended_at=now_ms)
    )


def _revive(
    connection: sa.Connection, writer_no: int, run_no: int, now_ms: int, until_ms: int
) -> None:
    with changing_run(connection, run_no, now_ms) as run:
        if run.deleted_at is None:
            connection.execute(
                sa.update(writers)
                .where(writers.c.writer_no == writer_no, writers.c.close_status == "lost")
                .values(
                    lives=True,
                    close_status=None,
                    closed_at=None,
                    ended_at=None,
                    heard_at=now_ms,
                    lease_until=until_ms,
                )
            )
