"""Curves for charts: every series reduced to buckets that hide no spike.

A bucket carries least, greatest, mean, first and last value and how many points it stands for, so a
chart drawn from it shows every extreme whatever its width in pixels.
"""

from collections.abc import Callable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from metrana.server.points.engine import Engine
from metrana.server.points.filters import in_range, mean_within_range, newest, series_filter
from metrana.server.points.schema import FINITE, POSITION, SORT_KEY, order_key
from metrana.server.points.summary import SeriesProfile, shape
from metrana.server.points.types import BucketsQuery, LoggerRule, XAxis

BUCKETS_SCHEMA: Final = pa.schema(
    [
        ("metric_no", pa.uint32()),
        ("env_no", pa.uint32()),
        ("logger_no", pa.uint32()),
        ("bucket", pa.uint32()),
        ("x_min", pa.int64()),
        ("x_max", pa.int64()),
        ("point_count", pa.uint64()),
        ("nonfinite_count", pa.uint64()),
        ("min", pa.float64()),
        ("max", pa.float64()),
        ("mean", pa.float64()),
        ("first", pa.float64()),
        ("last", pa.float64()),
    ]
)

_X_COLUMNS: Final = {
    XAxis.STEP: "step",
    XAxis.RL_STEP: "rl_step",
    XAxis.EPISODE: "episode",
    XAxis.TIMESTAMP: "timestamp_ms",
}

_LOGGER_AGGREGATES: Final = {
    LoggerRule.MEAN: mean_within_range,
    LoggerRule.MIN: "minIf({}, {})".format,
    LoggerRule.MAX: "maxIf({}, {})".format,
}

_RANGE_SCHEMA: Final = pa.schema(
    [("low", pa.int64()), ("high", pa.int64()), ("row_count", pa.uint64())]
)


def buckets(engine: Engine, query: BucketsQuery) -> pa.Table:
    """Returns curves as `PointsStore.buckets` documents."""
    stored = shape(engine, query.run_no, query.metric_nos, query.env_nos)
    x = stored.own_axis() if query.x is XAxis.OWN else _X_COLUMNS[query.x]
    conditions, window = _conditions(query, x), in_range(x, query.start, query.end)
    x_range = _x_range(engine, query, x, stored, [*conditions, *window])
    if x_range is None:
        return BUCKETS_SCHEMA.empty_table()
    low, high = x_range
    # Rounded up, so there are never more buckets than asked for; integers, so no edge is fuzzy.
    width = -(-(high - low + 1) // query.bucket_count)
    if query.x is XAxis.TIMESTAMP:
        # The time is no part of what makes points one: choosing by it has to wait until the newest
        # point of a position is chosen, or an older one would step into its place.
        curves = f"({_curves(query, stored, x, conditions)}) WHERE x BETWEEN {low} AND {high}"
    else:
        curves = f"({_curves(query, stored, x, [*conditions, *window])})"
    order = "x" if stored.varying() == (x,) else order_key((f"x - ({low})", *POSITION))
    table = engine.read(
        _bucketed(curves, low, width, order, "avgIf({}, {})".format), BUCKETS_SCHEMA
    )
    if pc.all(pc.is_finite(table["mean"])).as_py() is False:
        # Sums beyond the range of a float: so rare that only then the slower mean is asked for.
        table = engine.read(_bucketed(curves, low, width, order, mean_within_range), BUCKETS_SCHEMA)
    return table


def _conditions(query: BucketsQuery, x: str) -> list[str]:
    conditions = [series_filter((query.run_no,), query.metric_nos, query.env_nos)]
    if query.episode is not None:
        conditions += in_range("episode", query.episode, query.episode + 1)
    if query.x is not XAxis.TIMESTAMP:
        conditions.append(f"{x} >= 0")
    return conditions


def _x_range(
    engine: Engine, query: BucketsQuery, x: str, stored: SeriesProfile, conditions: list[str]
) -> tuple[int, int] | None:
    """Returns the least and the greatest x to divide, None if there is no point."""
    if query.start is not None and query.end is not None:
        return (query.start, query.end - 1) if query.start < query.end else None
    span = stored.span(x) if query.episode is query.start is query.end is None else None
    if span is not None:
        return span
    where = " AND ".join(conditions)
    (row,) = engine.read(
        f"SELECT min({x}), max({x}), count() FROM points WHERE {where}", _RANGE_SCHEMA
    ).to_pylist()
    if not row["row_count"]:
        return None
    low = row["low"] if query.start is None else query.start
    high = row["high"] if query.end is None else query.end - 1
    return low, high


def _curves(query: BucketsQuery, stored: SeriesProfile, x: str, conditions: list[str]) -> str:
    """Returns a query for the points that are shown: `y` at `x`, one a position of each curve."""
    where = " AND ".join(conditions)
    source = f"points WHERE {where}"
    if stored.any_dirty:
        source = f"({newest(('*',), (*SORT_KEY, 'logger_no'), where)})"
    if query.loggers is not LoggerRule.EACH and stored.several_loggers:
        return _merged_curves(x, _LOGGER_AGGREGATES[query.loggers], source)
    curve = "logger_no" if query.loggers is LoggerRule.EACH else "toUInt32(0)"
    return (
        f"SELECT metric_no, env_no, {curve} AS curve, {', '.join(POSITION)}, "
        f"{x} AS x, value AS y, NOT {FINITE} AS nonfinite FROM {source}"
    )


def _merged_curves(x: str, aggregate: Callable[[str, str], str], source: str) -> str:
    # A lone value stays what it is. The aggregate of nothing would be 0 or NaN, depending on which
    # it is. Loggers reach a position at different times: the last completes it.
    several = f"if(countIf({FINITE}) = 0, nan, {aggregate('value', FINITE)})"
    y = f"if(count() = 1, any(value), {several})"
    return (
        f"SELECT metric_no, env_no, toUInt32(0) AS curve, {', '.join(POSITION)}, max({x}) AS x, "
        f"{y} AS y, max(NOT {FINITE}) AS nonfinite FROM {source} "
        f"GROUP BY metric_no, env_no, {', '.join(POSITION)}"
    )


def _bucketed(
    curves: str, low: int, width: int, order: str, mean: Callable[[str, str], str]
) -> str:
    finite = "isFinite(y)"
    statistics = ", ".join(
        f"if(countIf({finite}) = 0, NULL, {statistic})"
        for statistic in (f"minIf(y, {finite})", f"maxIf(y, {finite})", mean("y", finite))
    )
    key = "metric_no, env_no, curve, bucket"
    return (
        f"SELECT metric_no, env_no, curve, toUInt32(intDiv(x - ({low}), {width})) AS bucket, "
        f"min(x), max(x), count(), sum(nonfinite), {statistics}, "
        f"argMin(y, {order}), argMax(y, {order}) FROM {curves} GROUP BY {key} ORDER BY {key}"
    )
