"""The table of points: columns, codecs, sort order and the summary kept inside every part.

The text here is what lies on a user's disk, so it is pinned by a golden test: a change needs a new
`SCHEMA_VERSION` and a migration. What a ClickHouse older than projections and codecs would need
otherwise is this file's DDL, `order_key`, and the inserting and summarising statements; all other
SQL of the package is portable.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

SCHEMA_VERSION: Final = 1

MAX_INSERT_ROWS: Final = 1_000_000
"""The most rows of one insert: what the engine writes as one block, so as one atomic part."""

SCHEMA: Final[dict[str, np.dtype]] = {
    "run_no": np.dtype(np.uint32),
    "metric_no": np.dtype(np.uint32),
    "env_no": np.dtype(np.uint32),
    "rl_step": np.dtype(np.int64),
    "episode": np.dtype(np.int64),
    "step": np.dtype(np.int64),
    "timestamp_ms": np.dtype(np.int64),
    "value": np.dtype(np.float64),
    "logger_no": np.dtype(np.uint32),
    "writer_no": np.dtype(np.uint32),
    "seq": np.dtype(np.uint64),
    "ordinal": np.dtype(np.uint16),
    "rewound": np.dtype(np.uint8),
}
"""The columns of an insert, in the table's order. A position that a scale does not use is -1."""

_TYPE_NAMES = {"u": "UInt", "i": "Int", "f": "Float"}

_INTEGERS = "CODEC(DoubleDelta, LZ4)"  # counters and clocks: nearly constant second differences
_CODECS = {
    "rl_step": _INTEGERS,
    "episode": _INTEGERS,
    "step": _INTEGERS,
    "timestamp_ms": _INTEGERS,
    "value": "CODEC(Gorilla, ZSTD(1))",
    "seq": _INTEGERS,
}

POSITION: Final = ("rl_step", "episode", "step")

SERIES_KEY: Final = ("run_no", "metric_no", "env_no")

SORT_KEY: Final = (*SERIES_KEY, *POSITION)

SUMMARY_KEY: Final = (*SERIES_KEY, "logger_no", "writer_no")

VERSION: Final = ("writer_no", "seq", "ordinal")
"""What decides between points of one position: the greatest is shown. Never a client's clock."""


def order_key(columns: Sequence[str]) -> str:
    """Returns an expression that sorts like the tuple of `columns`, each at least -1.

    Packed into one wide integer, because aggregating by a tuple costs ten times as much (every
    comparison goes through boxed fields). 64 bits a column hold every value of an Int64.
    """
    if len(columns) == 1:
        return columns[0]
    bits = {2: 128, 3: 256, 4: 256}[len(columns)]
    shifts = range(64 * (len(columns) - 1), -1, -64)
    terms = [f"toUInt{bits}({column} + 1)" for column in columns]
    return " + ".join(
        f"bitShiftLeft({term}, {shift})" if shift else term
        for term, shift in zip(terms, shifts, strict=True)
    )


_POSITION_KEY = order_key(POSITION)

FINITE: Final = "isFinite(value)"

SUMMARY: Final[dict[str, str]] = {
    "row_count": "count()",
    "finite_count": f"countIf({FINITE})",
    "finite_sum": f"sumIf(value, {FINITE})",
    "finite_min": f"minIf(value, {FINITE})",
    "finite_max": f"maxIf(value, {FINITE})",
    "any_rewound": "max(rewound)",
    "max_seq": "max(seq)",
    "min_position": f"min({_POSITION_KEY})",
    "max_position": f"max({_POSITION_KEY})",
    "last_value": f"argMax(value, {_POSITION_KEY})",
    "max_episode_step": f"max({order_key(('episode', 'step'))})",
}
"""The projection's aggregates. A query uses the projection only if it spells them like this."""


def projection() -> str:
    """Returns the definition of the summary that every part carries.

    Not a materialised view: that would be a second part, and a crash between the two leaves the
    view short for ever.
    """
    keys = ", ".join(SUMMARY_KEY)
    return f"SELECT {keys}, {', '.join(SUMMARY.values())} GROUP BY {keys}"


def create_points() -> str:
    """Returns the statement that creates the table of points."""
    columns = [
        f"{name} {_TYPE_NAMES[dtype.kind]}{dtype.itemsize * 8} {_CODECS.get(name, '')}".rstrip()
        for name, dtype in SCHEMA.items()
    ]
    columns.append(f"PROJECTION summary ({projection()})")
    return (
        f"CREATE TABLE IF NOT EXISTS points ({', '.join(columns)}) ENGINE = MergeTree "
        f"ORDER BY ({', '.join(SORT_KEY)}) SETTINGS {', '.join(_DURABLE)}"
    )


# An acknowledged insert is on the disk, its directory too. A merged part is synced as well: a clean
# shutdown removes the parts it was made of at once, without waiting for the kernel to write it.
_DURABLE = (
    "fsync_after_insert = 1",
    "fsync_part_directory = 1",
    "min_compressed_bytes_to_fsync_after_merge = 1",
)

CREATE_META: Final = (
    "CREATE TABLE IF NOT EXISTS meta (schema_version UInt32) ENGINE = MergeTree "
    "ORDER BY schema_version SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
)

CREATE_PAIRING: Final = (
    "CREATE TABLE IF NOT EXISTS pairing (points_id String, catalog_id String) ENGINE = MergeTree "
    "ORDER BY points_id SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
)
"""One row: this store's id, and that of the catalog whose numbers its points carry."""
