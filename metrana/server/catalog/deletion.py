"""Deleting runs: a tombstone at once, what is behind it later."""

from __future__ import annotations

import sqlalchemy as sa

from metrana.server.catalog.status import lock_run
from metrana.server.catalog.tables import attributes, env_attributes, renderings, runs, tags
from metrana.server.catalog.writers import changing_run, end_writers_of


def delete_run(connection: sa.Connection, run_no: int, now_ms: int) -> None:
    """Put up the tombstone: the name is free, its writers end and are refused from now on."""
    with changing_run(connection, run_no, now_ms):
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_no == run_no, runs.c.deleted_at.is_(None))
            .values(deleted_at=now_ms)
        )
        end_writers_of(connection, run_no, now_ms)


def unpurged_runs(connection: sa.Connection) -> list[int]:
    """Deleted runs whose points and attributes are still there."""
    return list(
        connection.scalars(
            sa.select(runs.c.run_no)
            .where(runs.c.deleted_at.is_not(None), runs.c.purged_at.is_(None))
            .order_by(runs.c.run_no)
        )
    )


def purge_run(connection: sa.Connection, run_no: int, now_ms: int) -> None:
    """Remove what was written about a deleted run, once its points and files are gone.

    The run and its writers stay: that is how a writer that comes late is recognised.

    Raises:
        ValueError: If the run was not deleted.
    """
    run = lock_run(connection, run_no)
    if run.deleted_at is None:
        raise ValueError(f"run {run_no} was not deleted")
    for table in (attributes, env_attributes, renderings, tags):
        connection.execute(sa.delete(table).where(table.c.run_no == run_no))
    connection.execute(
        sa.update(runs).where(runs.c.run_no == run_no).values(purged_at=now_ms, description=None)
    )
