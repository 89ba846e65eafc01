"""The reads by the names of their routes: what HTTP and the embedded client have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from metrana.server.catalog import RunFilter
from metrana.server.reads.facade import Reads
from metrana.server.reads.requests import (
    AggregateRequest,
    BucketsRequest,
    PointsRequest,
    RunName,
    SeriesFilter,
    listed,
    listed_numbers,
)
from metrana.server.reads.schemas import POINTS_SCHEMA

_RUN = ("run_name", "project_name", "workspace_name", "run_id")
_SERIES = ("metric_name", "scale", "labels", "env_id")
_RANGE = ("episode", "start", "end")


def answer_frame(reads: Reads, route: str, arguments: Mapping[str, Any]) -> Any:
    """Gives the Arrow table that a route answers with.

    Args:
        reads: Who answers.
        route: Its name under `/api/v1`.
        arguments: By name; None is as if not given.
    """
    if route == "runs":
        return reads.runs(RunFilter(**_given(arguments, ("project_name", "tags", "status"))))
    name = RunName(**_given(arguments, _RUN))
    series = SeriesFilter(**_given(arguments, _SERIES))
    if route == "series":
        return reads.series(name, series)
    if route == "points":
        return pa.Table.from_batches(point_batches(reads, arguments), POINTS_SCHEMA)
    if route == "buckets":
        wanted = _given(arguments, ("x", "bucket_count", "loggers", *_RANGE))
        return reads.buckets(name, BucketsRequest(series=series, **wanted))
    if route == "env_steps":
        return reads.env_steps(name, series, arguments["episode"])
    if route == "episodes":
        return reads.episodes(name, arguments.get("env_id"))
    if route == "aggregate":
        return reads.aggregate(name, aggregate_request(series, arguments))
    if route == "renderings":
        return reads.renderings(name, arguments.get("env_id"))
    raise LookupError(route)


def aggregate_request(series: SeriesFilter, arguments: Mapping[str, Any]) -> AggregateRequest:
    """Gives the question of the `aggregate` route, whose lists travel as texts.

    Raises:
        InvalidRequestError: It has no answer as it is put.
    """
    wanted = _given(arguments, ("by", "start", "end"))
    if arguments.get("stats") is not None:
        wanted["stats"] = listed(arguments["stats"])
    if arguments.get("quantiles") is not None:
        wanted["quantiles"] = listed_numbers("quantiles", arguments["quantiles"])
    return AggregateRequest(series=series, **wanted)


def answer_value(reads: Reads, route: str, arguments: Mapping[str, Any]) -> Any:
    """Gives the plain values that a route answers with; arguments as for `answer_frame`."""
    if route == "rendering":
        return reads.rendering(arguments["rendering_id"])
    name = RunName(**_given(arguments, _RUN))
    if route == "run":
        return reads.run(name)
    if route == "env_attributes":
        return reads.env_attributes(name, arguments.get("env_id"), arguments.get("episode"))
    raise LookupError(route)


def point_batches(reads: Reads, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """Gives the points of the `points` route batch by batch; fails at once if it fails."""
    wanted = _given(arguments, ("limit", "duplicates", *_RANGE))
    series = SeriesFilter(**_given(arguments, _SERIES))
    return reads.points(RunName(**_given(arguments, _RUN)), PointsRequest(series=series, **wanted))


def _given(arguments: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: arguments[name] for name in names if arguments.get(name) is not None}
