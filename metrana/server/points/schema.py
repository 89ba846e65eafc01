"""The table of points: columns, codecs, sort order and the summary kept inside every part.

The text here is what lies on a user's disk, so it is pinned by a golden test: a change needs a new
`SCHEMA_VERSION` and a migration. What a ClickHouse older than projections and codecs would need
otherwise is this file's DDL, `order_key`, and the inserting and summarising statements; all other
SQL of the package is portable.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

SCHEMA_VERSION: Final = 3

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

_INTEGERS = "CODEC(DoubleDelta, ZSTD(1))"  # counters and clocks: nearly constant second differences
# Long runs of one number, for which the default, LZ4, takes six times the bytes. The other
# columns of such runs are left at it: each would cost half a percent of storing.
_KEYS = "CODEC(ZSTD(1))"
_CODECS = {
    "run_no": _KEYS,
    "metric_no": _KEYS,
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


EPISODE_VERSION: Final = ("writer_no", "seq", "rl_step", "ordinal")
"""The same between points of one step or episode, whatever their rl_step: within a batch the later
one has the greater, for a writer's rl_steps do not go back."""


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


def low_bits(count: int) -> str:
    """Returns a mask of the low bits of 128."""
    return f"toUInt128('{(1 << count) - 1}')"


# A position of one series in 128 bits, which aggregate in a third of the time of 256. The points of
# a series use the same coordinates, so each scale has a layout of its own:
# - ML_STEP: the step;
# - EPISODE: rl_step + 1 in the upper half, the episode in the lower;
# - ENVIRONMENT_STEP: rl_step (48 bits), episode (40), step (40).
# The halves are put together from 64-bit integers, which are cheaper still.
_EPISODE = "toUInt64(greatest(episode, 0))"
_HIGH = (
    "if(step >= 0, "
    f"bitShiftLeft(toUInt64(greatest(rl_step, 0)), 16) + bitShiftRight({_EPISODE}, 24), "
    "toUInt64(rl_step + 1))"
)
_LOW = f"if(step >= 0, bitShiftLeft({_EPISODE}, 40) + toUInt64(step), {_EPISODE})"
_POSITION_KEY = f"bitShiftLeft(toUInt128({_HIGH}), 64) + toUInt128({_LOW})"
# Of an ENVIRONMENT_STEP series, without its rl_step.
_EPISODE_STEP_KEY = f"bitAnd({_POSITION_KEY}, {low_bits(80)})"


def unpacked(position: str) -> dict[str, str]:
    """Returns expressions of the coordinates of a packed position, -1 for an unused one.

    They read the aggregates `max_episode` and `max_step` too, which tell the scale.
    """
    is_ml_step, is_episode = "max_episode < 0", "max_step < 0"
    rl_step = f"toInt64(bitShiftRight({position}, 80))"
    rl_step_of_episode = f"toInt64(bitShiftRight({position}, 64)) - 1"
    episode = f"toInt64(bitAnd(bitShiftRight({position}, 40), {low_bits(40)}))"
    episode_alone = f"toInt64(bitAnd({position}, {low_bits(64)}))"
    return {
        "rl_step": f"multiIf({is_ml_step}, -1, {is_episode}, {rl_step_of_episode}, {rl_step})",
        "episode": f"multiIf({is_ml_step}, -1, {is_episode}, {episode_alone}, {episode})",
        "step": f"multiIf({is_ml_step}, toInt64({position}), {is_episode}, -1, "
        f"toInt64(bitAnd({position}, {low_bits(40)})))",
    }


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
    "max_episode_step": f"max({_EPISODE_STEP_KEY})",
    "max_episode": "max(episode)",
    "max_step": "max(step)",
}
"""The projection's aggregates. A query uses the projection only if it spells them like this."""


# Named by the version it came with, so that an upgrade that was cut short never drops what it was
# making: the engine refuses that while the making is not finished.
PROJECTION: Final = "summary_2"


def projection() -> str:
    """Returns the definition of the summary that every part carries.

    Not a materialised view: that would be a second part, and a crash between the two leaves the
    view short for ever.
    """
    keys = ", ".join(SUMMARY_KEY)
    return f"SELECT {keys}, {', '.join(SUMMARY.values())} GROUP BY {keys}"


def _columns() -> list[str]:
    return [
        f"{name} {_TYPE_NAMES[dtype.kind]}{dtype.itemsize * 8} {_CODECS.get(name, '')}".rstrip()
        for name, dtype in SCHEMA.items()
    ]


def create_points() -> str:
    """Returns the statement that creates the table of points."""
    return (
        f"CREATE TABLE IF NOT EXISTS points ({', '.join(_columns())}, "
        f"PROJECTION {PROJECTION} ({projection()})) ENGINE = MergeTree "
        f"ORDER BY ({', '.join(SORT_KEY)}) SETTINGS {_settings()}"
    )


_SETTINGS = {
    # An acknowledged insert is on the disk, its directory too. A merged part is synced as well: a
    # clean shutdown removes the parts it was made of at once, without waiting for the kernel to
    # write it.
    "fsync_after_insert": "1",
    "fsync_part_directory": "1",
    "min_compressed_bytes_to_fsync_after_merge": "1",
    # Merging is half of what storing costs. Series are long runs of rows, so runs are merged and
    # not rows, the columns outside the key by themselves, in larger blocks.
    "merge_use_batch_sorting_queue": "1",
    "vertical_merge_algorithm_min_columns_to_activate": "1",
    "merge_max_block_size": "32768",
    # A part is merged once ten times its rows have come, not five: a fifth of all storing less, for
    # a few parts more to read.
    "merge_selector_base": "10",
    # Columns that are mostly zeros are stored as such: leaving zeros out costs more than it saves,
    # for they compress to nothing.
    "ratio_of_defaults_for_sparse_serialization": "1",
    # No query's plan depends on statistics of columns, which are made anew by each merge.
    "auto_statistics_types": "''",
    "materialize_statistics_on_merge": "0",
}


def _settings() -> str:
    return ", ".join(f"{name} = {value}" for name, value in _SETTINGS.items())


def upgrade_from(version: int) -> tuple[str, ...]:
    """Returns the statements that turn a table of an older schema into today's.

    Each may be run again, so an upgrade that was cut short begins anew; on a table of today's they
    change nothing. What parts hold is rewritten for the projection only; the codecs are those of
    parts to come.
    """
    modified = ", ".join(f"MODIFY COLUMN {column}" for column in _columns() if "CODEC" in column)
    codecs = f"ALTER TABLE points {modified}"
    if version == 2:
        return (codecs,)
    return (
        codecs,
        f"ALTER TABLE points MODIFY SETTING {_settings()}",
        "ALTER TABLE points DROP PROJECTION IF EXISTS summary SETTINGS mutations_sync = 1",
        f"ALTER TABLE points ADD PROJECTION IF NOT EXISTS {PROJECTION} ({projection()})",
        f"ALTER TABLE points MATERIALIZE PROJECTION {PROJECTION} SETTINGS mutations_sync = 1",
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
