"""Points as they were logged, in order."""

from typing import Final

import pyarrow as pa

from metrana.server.points.engine import Batches, Engine
from metrana.server.points.filters import in_own_range, in_range, newest, series_filter
from metrana.server.points.schema import EPISODE_VERSION, POSITION, SORT_KEY, VERSION
from metrana.server.points.summary import shape
from metrana.server.points.types import PointsQuery

POINTS_SCHEMA: Final = pa.schema(
    [
        ("metric_no", pa.uint32()),
        ("env_no", pa.uint32()),
        *((name, pa.int64()) for name in POSITION),
        ("timestamp_ms", pa.int64()),
        ("value", pa.float64()),
        ("logger_no", pa.uint32()),
        ("writer_no", pa.uint32()),
    ]
)

STEPS_SCHEMA: Final = pa.schema(
    [
        ("step", pa.int64()),
        ("rl_step", pa.int64()),
        ("timestamp_ms", pa.int64()),
        ("value", pa.float64()),
        ("writer_no", pa.uint32()),
    ]
)

# The columns of the answer; a position that the scale does not use is -1 in the table.
_SELECTED: Final = tuple(
    f"nullIf({name}, -1)" if name in POSITION else name for name in POINTS_SCHEMA.names
)


def points(engine: Engine, query: PointsQuery) -> Batches:
    """Returns points as `PointsStore.points` documents."""
    where = " AND ".join(
        [
            series_filter((query.run_no,), query.metric_nos, query.env_nos),
            *(
                []
                if query.episode is None
                else in_range("episode", query.episode, query.episode + 1)
            ),
            *in_own_range(query.start, query.end),
        ]
    )
    limit = "" if query.limit is None else f" LIMIT {int(query.limit)}"
    key = (*SORT_KEY, "logger_no")
    if query.duplicates == "last" and _may_repeat(engine, query):
        sql = newest(_SELECTED, key, where)
    else:
        order = ", ".join((*key, *VERSION))
        sql = f"SELECT {', '.join(_SELECTED)} FROM points WHERE {where} ORDER BY {order}"
    return engine.stream(sql + limit, POINTS_SCHEMA)


def _may_repeat(engine: Engine, query: PointsQuery) -> bool:
    return shape(engine, query.run_no, query.metric_nos, query.env_nos).any_dirty


def env_steps(engine: Engine, run_no: int, metric_no: int, env_no: int, episode: int) -> pa.Table:
    """Returns one episode's points as `PointsStore.env_steps` documents."""
    where = " AND ".join(
        [
            series_filter((run_no,), (metric_no,), (env_no,)),
            *in_range("episode", episode, episode + 1),
        ]
    )
    columns = ("step", "nullIf(rl_step, -1)", "timestamp_ms", "value", "writer_no")
    return engine.read(newest(columns, ("step",), where, EPISODE_VERSION), STEPS_SCHEMA)
