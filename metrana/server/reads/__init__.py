"""What is asked of the stores by name, answered as Arrow tables: the one set of queries.

The catalog turns names into numbers, the points store answers by number, and the numbers become
names again here. HTTP and the embedded client both call this and nothing else.
"""

from metrana.server.reads.facade import Reads
from metrana.server.reads.requests import (
    AggregateRequest,
    BucketsRequest,
    InvalidRequestError,
    PointsRequest,
    RunName,
    SeriesFilter,
)

__all__ = [
    "AggregateRequest",
    "BucketsRequest",
    "InvalidRequestError",
    "PointsRequest",
    "Reads",
    "RunName",
    "SeriesFilter",
]
