"""The reads themselves: names to numbers, the points store's answer, numbers to names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from metrana.server.catalog import NotFoundError
from metrana.server.points import (
    AggregateQuery,
    BucketsQuery,
    LoggerRule,
    PointsQuery,
    XAxis,
    level_name,
)
from metrana.server.reads.episodes import episodes
from metrana.server.reads.names import Names, timestamps
from metrana.server.reads.renderings import rendering_row, rendering_table
from metrana.server.reads.requests import (
    AggregateRequest,
    BucketsRequest,
    ByChoice,
    InvalidRequestError,
    PointsRequest,
    RunName,
    SeriesFilter,
)
from metrana.server.reads.schemas import (
    BUCKETS_SCHEMA,
    ENV_STEPS_SCHEMA,
    POINTS_SCHEMA,
    RUNS_SCHEMA,
    SERIES_SCHEMA,
    aggregates_schema,
)
from metrana.server.reads.selection import Selection, select

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, RunFilter, RunRecord
    from metrana.server.media import MediaStore
    from metrana.server.points import PointsStore

# What points of a scale have, its own axis first.
_AXES: Final[dict[str, tuple[ByChoice, ...]]] = {
    "ML_STEP": ("step",),
    "EPISODE": ("episode", "rl_step"),
    "ENVIRONMENT_STEP": ("step", "episode", "rl_step"),
}


class Reads:
    """Answers questions about runs. Thread-safe; every call may block.

    Args:
        catalog: Names, attributes.
        points: Values.
        media: Files of renderings.
    """

    def __init__(self, catalog: Catalog, points: PointsStore, media: MediaStore) -> None:
        self._catalog = catalog
        self._points = points
        self._media = media

    def runs(self, wanted: RunFilter) -> Any:
        """Gives one row a run, newest first: `RUNS_SCHEMA`."""
        records = self._catalog.runs(wanted)
        counts = self._points.point_counts([record.run_no for record in records])
        rows = [run_row(record, counts[record.run_no]) for record in records]
        return pa.Table.from_pylist(rows, RUNS_SCHEMA)

    def run(self, name: RunName) -> dict[str, Any]:
        """Gives a run's row with `config` (nested) and `attributes` (flat path → value).

        Raises:
            NotFoundError: Naming the nearest names.
        """
        record = self._run(name)
        count = self._points.point_counts([record.run_no])[record.run_no]
        return {
            **run_row(record, count),
            "config": self._catalog.config(record.run_no),
            "attributes": self._catalog.attributes(record.run_no),
        }

    def series(self, name: RunName, wanted: SeriesFilter) -> Any:
        """Gives one row a series with its statistics, ordered by metric and environment.

        Raises:
            NotFoundError: No such run or metric.
        """
        record = self._run(name)
        selection = select(self._catalog, self._points, record, wanted)
        table = self._points.summaries([record.run_no], selection.metric_nos)
        names = Names(self._catalog, record.run_no)
        columns = {
            "series_id": pa.array(
                [
                    f"{metric}-{env}"
                    for metric, env in zip(
                        table["metric_no"].to_pylist(), table["env_no"].to_pylist(), strict=True
                    )
                ],
                pa.string(),
            ),
            **names.metric_columns(table["metric_no"]),
            "env_id": names.env_ids(table["env_no"]),
            "point_count": table["point_count"].cast(pa.int64()),
            "first_step": _own_axis(table, "first"),
            "last_step": _own_axis(table, "last"),
            **{
                column: table[column]
                for column in ("last_value", "min_value", "max_value", "mean_value")
            },
            "nonfinite_count": table["nonfinite_count"].cast(pa.int64()),
        }
        return pa.table(columns, SERIES_SCHEMA)

    def points(self, name: RunName, request: PointsRequest) -> Iterator[Any]:
        """Gives points as record batches of `POINTS_SCHEMA`, ordered by series, then position.

        Raises:
            NotFoundError: No such run or metric; at once, not at the first batch.
        """
        record = self._run(name)
        selection = select(self._catalog, self._points, record, request.series)
        query = PointsQuery(
            run_no=record.run_no,
            metric_nos=selection.metric_nos,
            env_nos=selection.env_nos,
            episode=request.episode,
            start=request.start,
            end=request.end,
            limit=request.limit,
            duplicates=request.duplicates,
        )
        return self._named_points(record, query)

    def buckets(self, name: RunName, request: BucketsRequest) -> Any:
        """Gives curves reduced to buckets, a row a bucket.

        Raises:
            NotFoundError: No such run or metric.
        """
        record = self._run(name)
        selection = select(self._catalog, self._points, record, request.series)
        table = self._points.buckets(
            BucketsQuery(
                run_no=record.run_no,
                metric_nos=selection.metric_nos,
                env_nos=selection.env_nos,
                x=XAxis(request.x),
                bucket_count=request.bucket_count,
                loggers=LoggerRule(request.loggers),
                episode=request.episode,
                start=request.start,
                end=request.end,
            )
        )
        names = Names(self._catalog, record.run_no)
        return pa.table(
            {
                **names.metric_columns(table["metric_no"]),
                "env_id": names.env_ids(table["env_no"]),
                "logger_id": names.logger_ids(table["logger_no"]),
                "bucket": table["bucket"].cast(pa.int64()),
                "x_min": table["x_min"],
                "x_max": table["x_max"],
                "count": table["point_count"].cast(pa.int64()),
                **{column: table[column] for column in ("min", "max", "mean", "first", "last")},
                "nonfinite_count": table["nonfinite_count"].cast(pa.int64()),
            },
            BUCKETS_SCHEMA,
        )

    def aggregate(self, name: RunName, request: AggregateRequest) -> Any:
        """Gives statistics over the environments of one metric: `aggregates_schema`.

        Raises:
            NotFoundError: No such run or metric.
            InvalidRequestError: The metric's points have no such axis, or several metrics match.
        """
        record = self._run(name)
        wanted = request.series
        selection = select(self._catalog, self._points, record, wanted)
        query = AggregateQuery(
            run_no=record.run_no,
            metric_no=self._one_metric(wanted, selection, axis=request.by),
            by=request.by,
            statistics=tuple(dict.fromkeys(request.stats)),
            quantiles=tuple(dict.fromkeys(request.quantiles)),
            start=request.start,
            end=request.end,
        )
        statistics = (*query.statistics, *map(level_name, query.quantiles))
        return self._points.aggregate(query).cast(aggregates_schema(query.by, statistics))

    def episodes(self, name: RunName, env_id: str | None) -> Any:
        """Gives a row an episode: `EPISODES_SCHEMA` and a column for each further EPISODE metric.

        Raises:
            NotFoundError: No such run or environment.
        """
        record = self._run(name)
        selection = select(self._catalog, self._points, record, SeriesFilter(env_id=env_id))
        return episodes(self._catalog, self._points, record, selection.env_nos)

    def env_steps(self, name: RunName, wanted: SeriesFilter, episode: int) -> Any:
        """Gives one episode's points of one series, ordered by step.

        Args:
            name: The run.
            wanted: Names metric and environment, and labels if several have them.
            episode: The episode.

        Raises:
            NotFoundError: No such run, metric or environment.
            InvalidRequestError: Metrics of several labels match.
        """
        record = self._run(name)
        wanted = dataclasses.replace(wanted, scale="ENVIRONMENT_STEP")
        selection = select(self._catalog, self._points, record, wanted)
        metric_no = self._one_metric(wanted, selection)
        ((env_no,),) = (selection.env_nos or (),)
        table = self._points.env_steps(record.run_no, metric_no, env_no, episode)
        columns = {
            "step": table["step"],
            "rl_step": table["rl_step"],
            "timestamp": timestamps(table["timestamp_ms"]),
            "value": table["value"],
        }
        return pa.table(columns, ENV_STEPS_SCHEMA)

    def env_attributes(self, name: RunName, env_id: str | None, episode: int | None) -> list[Any]:
        """Gives attributes of environments and episodes as `(env_id, episode, path, value)` rows.

        Raises:
            NotFoundError: No such run.
        """
        record = self._run(name)
        found = self._catalog.env_attributes(record.run_no, env_id=env_id, episode=episode)
        return [
            {"env_id": a.env_id, "episode": a.episode, "path": a.path, "value": a.value}
            for a in found
        ]

    def renderings(self, name: RunName, env_id: str | None) -> Any:
        """Gives one row a rendering, by env_id, episode and part: `RENDERINGS_SCHEMA`.

        Raises:
            NotFoundError: No such run or environment.
        """
        return rendering_table(self._catalog, self._run(name), env_id)

    def rendering(self, rendering_id: str) -> dict[str, Any]:
        """Gives a rendering's row by its id alone.

        Raises:
            NotFoundError: No such rendering.
        """
        return rendering_row(self._catalog.rendering(rendering_id))

    def rendering_file(self, rendering_id: str) -> Path:
        """Gives where a rendering's file is.

        Raises:
            NotFoundError: No such rendering, or its file is gone.
        """
        record = self._catalog.rendering(rendering_id)
        path = self._media.path(record.run_id, rendering_id)
        if not path.is_file():
            raise NotFoundError(f"the file of rendering {rendering_id} is gone: {path}")
        return path

    def _run(self, name: RunName) -> RunRecord:
        return self._catalog.run(
            name.run_name,
            project_name=name.project_name,
            workspace_name=name.workspace_name,
            run_id=name.run_id,
        )

    def _one_metric(
        self, wanted: SeriesFilter, selection: Selection, axis: ByChoice = "step"
    ) -> int:
        """Gives the only metric of a selection that has an axis.

        Of several it is the one that has no labels beyond those that are asked for.
        """
        found = self._catalog.metrics(metric_nos=selection.metric_nos)
        metrics = [metric for metric in found if axis in _AXES[metric.scale]]
        if not metrics:
            scales = " and ".join(sorted({metric.scale for metric in found}))
            raise InvalidRequestError(
                f"by: metric {wanted.metric_name!r} has scale {scales}, whose points have no "
                f"{axis}; one of {', '.join(_AXES[found[0].scale])} would do"
            )
        exact = [metric for metric in metrics if metric.labels == dict(wanted.labels or {})]
        (chosen, *others) = exact or metrics
        if any(other.labels != chosen.labels for other in others):
            raise InvalidRequestError(
                f"labels: must choose one of the metrics {wanted.metric_name!r}, which have "
                + ", ".join(str(dict(metric.labels)) for metric in metrics)
            )
        if others:
            raise InvalidRequestError(
                f"scale: must choose one of the metrics {wanted.metric_name!r}, which have "
                + ", ".join(metric.scale for metric in (chosen, *others))
            )
        return chosen.metric_no

    def _named_points(self, record: RunRecord, query: PointsQuery) -> Iterator[Any]:
        names = Names(self._catalog, record.run_no)
        with self._points.points(query) as batches:
            for batch in batches:
                yield pa.record_batch(
                    {
                        **names.metric_columns(batch["metric_no"]),
                        "env_id": names.env_ids(batch["env_no"]),
                        **{column: batch[column] for column in ("rl_step", "episode", "step")},
                        "timestamp": timestamps(batch["timestamp_ms"]),
                        "value": batch["value"],
                        "writer_id": names.writer_ids(batch["writer_no"]),
                        "logger_id": names.logger_ids(batch["logger_no"]),
                    },
                    schema=POINTS_SCHEMA,
                )


def run_row(record: RunRecord, point_count: int) -> dict[str, Any]:
    """Gives a run as a row of `RUNS_SCHEMA`; times are Unix milliseconds."""
    return {
        "run_id": record.run_id,
        "workspace_name": record.workspace_name,
        "project_name": record.project_name,
        "run_name": record.run_name,
        "experiment_name": record.experiment_name,
        "status": record.status,
        "created_at": record.created_at_ms,
        "updated_at": record.updated_at_ms,
        "finished_at": record.finished_at_ms,
        "tags": list(record.tags),
        "description": record.description,
        "git_sha": record.git_sha,
        "point_count": point_count,
    }


def _own_axis(table: Any, end: str) -> Any:
    """Gives the first or last position on the scale's own axis: step, or episode without one."""
    return pc.coalesce(table[f"{end}_step"], table[f"{end}_episode"])
