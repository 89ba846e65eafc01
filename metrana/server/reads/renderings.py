"""Renderings: the rows of the catalog, and the files behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from metrana.server.catalog import NotFoundError
from metrana.server.catalog.naming import nearest
from metrana.server.reads.schemas import RENDERINGS_SCHEMA

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, RenderingRecord, RunRecord


def rendering_table(catalog: Catalog, record: RunRecord, env_id: str | None) -> Any:
    """Gives one row a rendering, by env_id, episode and part: `RENDERINGS_SCHEMA`.

    Raises:
        NotFoundError: An environment that the project does not have; with the nearest names.
    """
    found = catalog.renderings(record.run_no, env_id=env_id)
    if not found and env_id is not None and not catalog.env_nos(record.project_id, [env_id]):
        raise NotFoundError(
            f"run {record.run_name!r} has no environment {env_id!r}",
            nearest(env_id, sorted({each.env_id for each in catalog.renderings(record.run_no)})),
        )
    return pa.Table.from_pylist([rendering_row(each) for each in found], RENDERINGS_SCHEMA)


def rendering_row(record: RenderingRecord) -> dict[str, Any]:
    """Gives a rendering as a row of `RENDERINGS_SCHEMA`."""
    return {name: getattr(record, name) for name in RENDERINGS_SCHEMA.names}
