"""Which series of a run a question is about: names to the numbers of the points store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metrana.server.catalog import NotFoundError
from metrana.server.catalog.naming import nearest

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, RunRecord
    from metrana.server.points import PointsStore
    from metrana.server.reads.requests import SeriesFilter


@dataclass(frozen=True, slots=True)
class Selection:
    """Series of a run, by number; None does not restrict.

    Attributes:
        metric_nos: The metrics.
        env_nos: The environments.
    """

    metric_nos: tuple[int, ...] | None = None
    env_nos: tuple[int, ...] | None = None


def select(
    catalog: Catalog, points: PointsStore, record: RunRecord, wanted: SeriesFilter
) -> Selection:
    """Finds the series that a filter chooses, which may be none unless it names one.

    Raises:
        NotFoundError: The filter names a metric or environment that the run does not have, or not
            as the rest of the filter asks; with the nearest names.
    """
    if wanted.is_open:
        return Selection()
    metric_nos = _metric_nos(catalog, record, wanted)
    env_no = _env_no(catalog, record, wanted)
    # An environment that nobody knows is in no series.
    env_nos = None if wanted.env_id is None else [env_no for env_no in (env_no,) if env_no]
    chosen = points.series(record.run_no, metric_nos, env_nos)
    if not chosen.num_rows and (wanted.metric_name is not None or wanted.env_id is not None):
        raise _not_found(catalog, record, wanted, points.series(record.run_no))
    return Selection(
        None if metric_nos is None else tuple(sorted(set(chosen["metric_no"].to_pylist()))),
        None if env_no is None else (env_no,),
    )


def _metric_nos(catalog: Catalog, record: RunRecord, wanted: SeriesFilter) -> set[int] | None:
    if wanted.metric_name is None and wanted.scale is None and wanted.labels is None:
        return None
    found = catalog.metrics(
        project_id=record.project_id,
        name=wanted.metric_name,
        scale=wanted.scale,
        labels=wanted.labels,
    )
    return {metric.metric_no for metric in found}


def _env_no(catalog: Catalog, record: RunRecord, wanted: SeriesFilter) -> int | None:
    if wanted.env_id is None:
        return None
    return catalog.env_nos(record.project_id, [wanted.env_id]).get(wanted.env_id)


def _not_found(
    catalog: Catalog, record: RunRecord, wanted: SeriesFilter, in_run: Any
) -> NotFoundError:
    """Says which of the names is to blame: what the run has by itself is not."""
    run = f"run {record.run_name!r} has no"
    metrics = catalog.metrics(metric_nos=set(in_run["metric_no"].to_pylist()))
    names = {metric.name for metric in metrics}
    if wanted.metric_name is not None and wanted.metric_name not in names:
        return NotFoundError(
            f"{run} metric {wanted.metric_name!r}", nearest(wanted.metric_name, sorted(names))
        )
    env_ids = catalog.env_ids(set(in_run["env_no"].to_pylist())).values()
    if wanted.env_id is not None and wanted.env_id not in env_ids:
        return NotFoundError(
            f"{run} environment {wanted.env_id!r}", nearest(wanted.env_id, sorted(env_ids))
        )
    return NotFoundError(f"{run} {wanted.described()}")
