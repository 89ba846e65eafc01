"""The points store: every logged value, by number; it knows no name.

One table in ClickHouse's MergeTree, embedded (chDB) or on a cluster; docs/decisions/002 says why it
looks as it does. `open_points` opens it by URL, `PointsStore` writes and reads it, and everything
that comes back is Arrow. Names, labels, environments and loggers are the catalog's business.
"""

from metrana.server.points.aggregate import STATISTICS, level_name
from metrana.server.points.engine import ChdbLimits
from metrana.server.points.errors import (
    PointsClosedError,
    PointsError,
    PointsInUseError,
    PointsRefusedError,
    PointsVersionError,
)
from metrana.server.points.schema import MAX_INSERT_ROWS, SCHEMA, SCHEMA_VERSION
from metrana.server.points.store import PointsStore, open_points
from metrana.server.points.types import (
    AggregateQuery,
    BucketsQuery,
    Cursors,
    LoggerRule,
    PointsQuery,
    StoreStats,
    XAxis,
)

__all__ = [
    "MAX_INSERT_ROWS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "STATISTICS",
    "AggregateQuery",
    "BucketsQuery",
    "ChdbLimits",
    "Cursors",
    "LoggerRule",
    "PointsClosedError",
    "PointsError",
    "PointsInUseError",
    "PointsQuery",
    "PointsRefusedError",
    "PointsStore",
    "PointsVersionError",
    "StoreStats",
    "XAxis",
    "level_name",
    "open_points",
]
