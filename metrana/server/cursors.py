"""The cursors of a run that is resumed: numbers from the points store, names from the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from metrana.server._proto import ingestion_pb2 as pb

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, MetricRecord, OpenedRun
    from metrana.server.points import PointsStore

# About a quarter of a megabyte: far below any limit on a message's size.
_PAGE_ROWS: Final = 4096


def cursor_pages(
    catalog: Catalog, points: PointsStore, opened: OpenedRun
) -> Iterator[pb.CursorPage]:
    """Gives the greatest positions of a run's series and environments, in pages. Blocks.

    Args:
        catalog: Where the names are.
        points: Where the positions are.
        opened: The run.
    """
    episode_metrics = catalog.metrics(project_id=opened.project_id, scale="EPISODE")
    cursors = points.cursors(opened.run_no, [metric.metric_no for metric in episode_metrics])
    series, environments = cursors.series.to_pylist(), cursors.environments.to_pylist()
    known = catalog.metrics(metric_nos={row["metric_no"] for row in series})
    metrics = {metric.metric_no: metric for metric in known}
    env_ids = catalog.env_ids({row["env_no"] for row in series + environments})
    for rows in _pages(series):
        yield pb.CursorPage(
            series=[_series(row, metrics[row["metric_no"]], env_ids) for row in rows]
        )
    for rows in _pages(environments):
        yield pb.CursorPage(environments=[_environment(row, env_ids) for row in rows])


def _pages(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), _PAGE_ROWS):
        yield rows[start : start + _PAGE_ROWS]


def _series(row: dict[str, Any], metric: MetricRecord, env_ids: dict[int, str]) -> pb.SeriesCursor:
    return pb.SeriesCursor(
        metric_name=metric.name,
        scale=f"SCALE_{metric.scale}",
        labels=metric.labels,
        env_id=env_ids.get(row["env_no"], ""),
        rl_step=row["rl_step"],
        episode=row["episode"],
        step=row["step"],
    )


def _environment(row: dict[str, Any], env_ids: dict[int, str]) -> pb.EnvironmentCursor:
    return pb.EnvironmentCursor(
        env_id=env_ids[row["env_no"]],
        rl_step=row["rl_step"],
        episode=row["episode"],
        ended_episode=row["ended_episode"],
    )
