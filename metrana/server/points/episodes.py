"""Aggregates by episode, the ground of the reinforcement-learning reads.

An episode's rows are told apart by (environment, episode[, step]), not by rl_step: where a resumed
writer logged an episode anew at another rl_step, the newest writer's row is the one that counts.
"""

from collections.abc import Collection
from typing import Final

import pyarrow as pa

from metrana.server.points.engine import Engine
from metrana.server.points.filters import newest, series_filter
from metrana.server.points.schema import FINITE

EPISODE_SUMS_SCHEMA: Final = pa.schema(
    [
        ("metric_no", pa.uint32()),
        ("env_no", pa.uint32()),
        ("episode", pa.int64()),
        ("first_rl_step", pa.int64()),
        ("last_rl_step", pa.int64()),
        ("point_count", pa.uint64()),
        ("nonfinite_count", pa.uint64()),
        ("value_sum", pa.float64()),
    ]
)

EPISODE_VALUES_SCHEMA: Final = pa.schema(
    [
        ("metric_no", pa.uint32()),
        ("env_no", pa.uint32()),
        ("episode", pa.int64()),
        ("rl_step", pa.int64()),
        ("timestamp_ms", pa.int64()),
        ("value", pa.float64()),
        ("writer_no", pa.uint32()),
    ]
)

_KEY: Final = ("metric_no", "env_no", "episode")


def episode_sums(
    engine: Engine, run_no: int, metric_nos: Collection[int], env_nos: Collection[int] | None
) -> pa.Table:
    """Returns sums over episodes as `PointsStore.episode_sums` documents."""
    where = f"{series_filter((run_no,), metric_nos, env_nos)} AND episode >= 0 AND step >= 0"
    columns = (*_KEY, "rl_step", "step", "value")
    source = newest(columns, (*_KEY, "step"), where)
    sql = (
        f"SELECT {', '.join(_KEY)}, nullIf(min(rl_step), -1), nullIf(max(rl_step), -1), "
        f"count(), countIf(NOT {FINITE}), sum(value) FROM ({source}) "
        f"GROUP BY {', '.join(_KEY)} ORDER BY {', '.join(_KEY)}"
    )
    return engine.read(sql, EPISODE_SUMS_SCHEMA)


def episode_values(
    engine: Engine, run_no: int, metric_nos: Collection[int], env_nos: Collection[int] | None
) -> pa.Table:
    """Returns values of episodes as `PointsStore.episode_values` documents."""
    where = f"{series_filter((run_no,), metric_nos, env_nos)} AND episode >= 0"
    columns = (*_KEY, "nullIf(rl_step, -1)", "timestamp_ms", "value", "writer_no")
    return engine.read(newest(columns, _KEY, where), EPISODE_VALUES_SCHEMA)
