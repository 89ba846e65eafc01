"""Aggregates by episode, the ground of the reinforcement-learning reads.

An episode's rows are told apart by (environment, episode[, step]), not by rl_step: where a resumed
writer logged an episode anew at another rl_step, the newest writer's row is the one that counts.
"""

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metrana.server.points.engine import Engine
from metrana.server.points.filters import newest, series_filter
from metrana.server.points.schema import EPISODE_VERSION, FINITE

_SUMS: Final = (
    ("metric_no", pa.uint32()),
    ("env_no", pa.uint32()),
    ("episode", pa.int64()),
    ("first_rl_step", pa.int64()),
    ("last_rl_step", pa.int64()),
    ("point_count", pa.uint64()),
    ("nonfinite_count", pa.uint64()),
    ("value_sum", pa.float64()),
)

EPISODE_SUMS_SCHEMA: Final = pa.schema(_SUMS)

_CHECKED_SUMS_SCHEMA: Final = pa.schema([*_SUMS, ("may_repeat", pa.uint8())])

EPISODE_VALUES_SCHEMA: Final = pa.schema(
    [
        ("metric_no", pa.uint32()),
        ("env_no", pa.uint32()),
        ("episode", pa.int64()),
        ("rl_step", pa.int64()),
        ("value", pa.float64()),
    ]
)

_KEY: Final = ("metric_no", "env_no", "episode")


def _squares(greatest: str) -> str:
    """Returns six times the sum of squares of 0 … `greatest`."""
    return f"toInt128({greatest}) * ({greatest} + 1) * (2 * {greatest} + 1)"


# Whether a step may be in an episode twice. A writer numbers the steps of an episode anew when it
# comes back to it. So they may not, if all points are of one writer that never went back, as many
# as there are numbers from the least to the greatest, and with the sum and the sum of squares of
# these. Sums wrap around where they are beyond an Int64, on both sides alike.
_MAY_REPEAT: Final = (
    "NOT (min(writer_no) = max(writer_no) AND max(rewound) = 0 "
    "AND toInt64(count()) = max(step) - min(step) + 1 "
    "AND 2 * sum(step) = (min(step) + max(step)) * toInt64(count()) "
    "AND 6 * sum(step * step) = "
    f"toInt64({_squares('max(step)')} - {_squares('(min(step) - 1)')}))"
)

_SUMS_SQL: Final = (
    f"{', '.join(_KEY)}, nullIf(min(rl_step), -1), nullIf(max(rl_step), -1), "
    f"count(), countIf(NOT {FINITE}), sumIf(value, {FINITE})"
)


def episode_sums(
    engine: Engine, run_no: int, metric_nos: Collection[int], env_nos: Collection[int] | None
) -> pa.Table:
    """Returns sums over episodes as `PointsStore.episode_sums` documents."""
    where = f"{series_filter((run_no,), metric_nos, env_nos)} AND episode >= 0 AND step >= 0"
    key = ", ".join(_KEY)
    checked = engine.read(
        f"SELECT {_SUMS_SQL}, {_MAY_REPEAT} FROM points WHERE {where} "
        f"GROUP BY {key} ORDER BY {key}",
        _CHECKED_SUMS_SCHEMA,
    )
    table = checked.drop_columns("may_repeat")
    if not pc.any(checked["may_repeat"].cast(pa.bool_())).as_py():
        return table
    # Sorting to find the newest takes five times as long, so it is done for those episodes alone.
    repeating = f"SELECT {key} FROM points WHERE {where} GROUP BY {key} HAVING {_MAY_REPEAT}"
    source = newest(
        (*_KEY, "rl_step", "step", "value"),
        (*_KEY, "step"),
        f"{where} AND ({key}) IN ({repeating})",
        EPISODE_VERSION,
    )
    shown = engine.read(f"SELECT {_SUMS_SQL} FROM ({source}) GROUP BY {key}", EPISODE_SUMS_SCHEMA)
    # Points may have come between the two: only what the second says is replaced.
    others = table.join(shown.select(_KEY), list(_KEY), join_type="left anti")
    both = pa.concat_tables([others.select(EPISODE_SUMS_SCHEMA.names), shown])
    return both.sort_by([(name, "ascending") for name in _KEY])


def episode_values(
    engine: Engine, run_no: int, metric_nos: Collection[int], env_nos: Collection[int] | None
) -> pa.Table:
    """Returns values of episodes as `PointsStore.episode_values` documents."""
    where = f"{series_filter((run_no,), metric_nos, env_nos)} AND episode >= 0"
    # The newest of each is the last of its neighbours: choosing it here takes a third of the time
    # that `LIMIT 1 BY` does.
    table = engine.read(
        f"SELECT {', '.join(_KEY)}, nullIf(rl_step, -1), value FROM points WHERE {where} "
        f"ORDER BY {', '.join((*_KEY, *EPISODE_VERSION))}",
        EPISODE_VALUES_SCHEMA,
    )
    is_last = _is_last(table, _KEY)
    return table if is_last.all() else table.filter(pa.array(is_last))


def _is_last(table: Any, key: Collection[str]) -> np.ndarray:
    """Returns for each row of a sorted table whether the next one has another key."""
    is_last = np.ones(table.num_rows, np.bool_)
    if table.num_rows:
        is_last[:-1] = False
        for name in key:
            column = table[name].to_numpy()
            is_last[:-1] |= column[1:] != column[:-1]
    return is_last
