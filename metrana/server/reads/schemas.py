"""The columns of every frame, by the contract's names and in its order.

A field that is not nullable never holds a null, whatever was logged: clients choose by it between
plain and nullable integers, so that a frame's types do not depend on its values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

TEXT: Final = pa.dictionary(pa.int32(), pa.string())
TIMESTAMP: Final = pa.timestamp("ms", tz="UTC")


def _always(name: str, kind: Any) -> Any:
    return pa.field(name, kind, nullable=False)


_METRIC: Final = (
    _always("metric_name", TEXT),
    _always("scale", TEXT),
    # A JSON object with sorted keys; clients make mappings of it.
    _always("labels", TEXT),
    pa.field("env_id", TEXT),
)

RUNS_SCHEMA: Final = pa.schema(
    [
        _always("run_id", pa.string()),
        _always("workspace_name", pa.string()),
        _always("project_name", pa.string()),
        _always("run_name", pa.string()),
        pa.field("experiment_name", pa.string()),
        _always("status", pa.string()),
        _always("created_at", TIMESTAMP),
        _always("updated_at", TIMESTAMP),
        pa.field("finished_at", TIMESTAMP),
        _always("tags", pa.list_(pa.string())),
        pa.field("description", pa.string()),
        pa.field("git_sha", pa.string()),
        _always("point_count", pa.int64()),
    ]
)

SERIES_SCHEMA: Final = pa.schema(
    [
        _always("series_id", pa.string()),
        *_METRIC,
        _always("point_count", pa.int64()),
        _always("first_step", pa.int64()),
        _always("last_step", pa.int64()),
        _always("last_value", pa.float64()),
        pa.field("min_value", pa.float64()),
        pa.field("max_value", pa.float64()),
        pa.field("mean_value", pa.float64()),
        _always("nonfinite_count", pa.int64()),
    ]
)

POINTS_SCHEMA: Final = pa.schema(
    [
        *_METRIC,
        pa.field("rl_step", pa.int64()),
        pa.field("episode", pa.int64()),
        pa.field("step", pa.int64()),
        _always("timestamp", TIMESTAMP),
        _always("value", pa.float64()),
        _always("writer_id", TEXT),
        pa.field("logger_id", TEXT),
    ]
)

BUCKETS_SCHEMA: Final = pa.schema(
    [
        *_METRIC,
        pa.field("logger_id", TEXT),
        _always("bucket", pa.int64()),
        _always("x_min", pa.int64()),
        _always("x_max", pa.int64()),
        _always("count", pa.int64()),
        pa.field("min", pa.float64()),
        pa.field("max", pa.float64()),
        pa.field("mean", pa.float64()),
        _always("first", pa.float64()),
        _always("last", pa.float64()),
        _always("nonfinite_count", pa.int64()),
    ]
)

ENV_STEPS_SCHEMA: Final = pa.schema(
    [
        _always("step", pa.int64()),
        pa.field("rl_step", pa.int64()),
        _always("timestamp", TIMESTAMP),
        _always("value", pa.float64()),
    ]
)

RENDERINGS_SCHEMA: Final = pa.schema(
    [
        _always("rendering_id", pa.string()),
        _always("env_id", TEXT),
        _always("episode", pa.int64()),
        _always("rl_step", pa.int64()),
        pa.field("frame_count", pa.int64()),
        _always("width", pa.int64()),
        _always("height", pa.int64()),
        _always("fps", pa.float64()),
        _always("size_bytes", pa.int64()),
        _always("sha256", pa.string()),
        _always("part", pa.int64()),
    ]
)

# Followed by a column for each further EPISODE metric.
EPISODES_SCHEMA: Final = pa.schema(
    [
        _always("env_id", TEXT),
        _always("episode", pa.int64()),
        pa.field("first_rl_step", pa.int64()),
        pa.field("last_rl_step", pa.int64()),
        pa.field("episode_length", pa.float64()),
        pa.field("episode_return", pa.float64()),
        pa.field("end", TEXT),
        pa.field("rendering_id", pa.string()),
        _always("evaluation", pa.bool_()),
    ]
)


def aggregates_schema(by: str, statistics: Iterable[str]) -> Any:
    """Gives the columns of `aggregate`: the axis, each statistic, and how many are behind it."""
    fields = [
        _always(name, pa.int64()) if name == "count" else pa.field(name, pa.float64())
        for name in statistics
    ]
    return pa.schema([_always(by, pa.int64()), *fields, _always("env_count", pa.int64())])
