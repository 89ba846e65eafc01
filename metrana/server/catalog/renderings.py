"""Renderings: what there is to know of each video that is complete in the media store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa

from metrana.server.catalog.engine import insert
from metrana.server.catalog.errors import RunDeletedError
from metrana.server.catalog.records import NewRendering, RenderingRecord
from metrana.server.catalog.status import lock_run
from metrana.server.catalog.tables import rendering_progress, renderings, runs
from metrana.server.catalog.writers import run_of

_RENDERING = (
    sa.select(
        *renderings.c["rendering_id", "run_no", "env_id", "episode", "rl_step", "part"],
        *renderings.c["frame_count", "width", "height", "fps", "size_bytes", "sha256"],
        renderings.c.created_at.label("created_at_ms"),
        runs.c.run_id,
    )
    .join_from(renderings, runs, runs.c.run_no == renderings.c.run_no)
    .where(runs.c.deleted_at.is_(None))
)


def add(
    connection: sa.Connection,
    writer_no: int,
    seq: int,
    complete: Sequence[NewRendering],
    now_ms: int,
) -> None:
    """Register renderings, each once, and note how far their writer's pieces are stored.

    Raises:
        RunDeletedError: If the run was deleted.
        NotFoundError: If there is no such writer.
    """
    run = lock_run(connection, run_of(connection, writer_no))
    if run.deleted_at is not None:
        raise RunDeletedError(run.run_no)
    if complete:
        rows = [
            {**asdict(one), "run_no": run.run_no, "writer_no": writer_no, "created_at": now_ms}
            for one in complete
        ]
        connection.execute(insert(connection, renderings).on_conflict_do_nothing(), rows)
    progress = insert(connection, rendering_progress).values(writer_no=writer_no, seq=seq)
    connection.execute(
        progress.on_conflict_do_update(
            index_elements=[rendering_progress.c.writer_no],
            set_={"seq": seq},
            where=rendering_progress.c.seq < seq,
        )
    )


def exists(connection: sa.Connection, rendering_id: str) -> bool:
    """Whether a rendering is registered, be its run deleted or not."""
    found = sa.select(renderings.c.run_no).where(renderings.c.rendering_id == rendering_id)
    return connection.execute(found).first() is not None


def find(
    connection: sa.Connection,
    *,
    rendering_id: str | None = None,
    run_no: int | None = None,
    env_id: str | None = None,
) -> list[RenderingRecord]:
    """Renderings of runs that are not deleted, by environment, episode and part."""
    query = _RENDERING.order_by(
        *renderings.c["env_id", "episode", "part", "created_at", "rendering_id"]
    )
    if rendering_id is not None:
        query = query.where(renderings.c.rendering_id == rendering_id)
    if run_no is not None:
        query = query.where(renderings.c.run_no == run_no)
    if env_id is not None:
        query = query.where(renderings.c.env_id == env_id)
    return [RenderingRecord(**row) for row in connection.execute(query).mappings()]
