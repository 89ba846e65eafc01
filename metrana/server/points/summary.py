"""Summaries and cursors of series, from the projection that every part carries.

The projection is by logger and writer as well, because that is what shows whether a series needs
deduplication: it has a rewound point, or two writers of one logger wrote overlapping positions.
Such series are summarised once more by a scan of their deduplicated points.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metrana.server.points.engine import Engine
from metrana.server.points.filters import mean_within_range, newest, series_filter
from metrana.server.points.schema import (
    FINITE,
    POSITION,
    SERIES_KEY,
    SORT_KEY,
    SUMMARY,
    SUMMARY_KEY,
    low_bits,
    unpacked,
)
from metrana.server.points.types import Cursors

Columns = dict[str, npt.NDArray[Any]]

SUMMARY_SCHEMA: Final = pa.schema(
    [
        ("run_no", pa.uint32()),
        ("metric_no", pa.uint32()),
        ("env_no", pa.uint32()),
        ("point_count", pa.uint64()),
        ("nonfinite_count", pa.uint64()),
        ("logger_count", pa.uint32()),
        ("last_value", pa.float64()),
        ("min_value", pa.float64()),
        ("max_value", pa.float64()),
        ("mean_value", pa.float64()),
        *((f"{end}_{name}", pa.int64()) for end in ("first", "last") for name in POSITION),
    ]
)

_MEANS_SCHEMA: Final = pa.schema(
    [*((name, pa.uint32()) for name in SERIES_KEY), ("mean", pa.float64())]
)

SERIES_CURSOR_SCHEMA: Final = pa.schema(
    [
        ("metric_no", pa.uint32()),
        ("env_no", pa.uint32()),
        *((name, pa.int64()) for name in POSITION),
    ]
)

ENVIRONMENT_CURSOR_SCHEMA: Final = pa.schema(
    [
        ("env_no", pa.uint32()),
        ("rl_step", pa.int64()),
        ("episode", pa.int64()),
        ("ended_episode", pa.int64()),
    ]
)

# The exact IN list of series is text; beyond so many, a superset is read and thrown away.
_MAX_LISTED_SERIES: Final = 2_000

_ENDS: Final = tuple(f"{end}_{name}" for end in ("first", "last") for name in POSITION)


_PARTIAL_COLUMNS: Final = (
    *SUMMARY_KEY,
    *("row_count", "finite_count", "finite_sum", "finite_min", "finite_max"),
    *("any_rewound", "last_value"),
    *(f"{sql} AS first_{name}" for name, sql in unpacked("min_position").items()),
    *(f"{sql} AS last_{name}" for name, sql in unpacked("max_position").items()),
    "max_episode AS cursor_episode",
    # Where there are episodes, the greatest step inside the greatest of them.
    f"if(max_episode < 0 OR max_step < 0, max_step, "
    f"toInt64(bitAnd(max_episode_step, {low_bits(40)}))) AS cursor_step",
)

_PARTIAL_SCHEMA: Final = pa.schema(
    [
        *((name, pa.uint32()) for name in SUMMARY_KEY),
        ("row_count", pa.uint64()),
        ("finite_count", pa.uint64()),
        ("finite_sum", pa.float64()),
        ("finite_min", pa.float64()),
        ("finite_max", pa.float64()),
        ("any_rewound", pa.uint8()),
        ("last_value", pa.float64()),
        *((name, pa.int64()) for name in _ENDS),
        ("cursor_episode", pa.int64()),
        ("cursor_step", pa.int64()),
    ]
)


# What says where series lie and whether they need deduplication, without their statistics.
_SHAPE_AGGREGATES: Final = (
    "row_count",
    "any_rewound",
    "min_position",
    "max_position",
    "max_episode",
    "max_step",
)
_SHAPE_SCHEMA: Final = pa.schema(
    [
        field
        for field in _PARTIAL_SCHEMA
        if field.name in (*SUMMARY_KEY, "row_count", "any_rewound", *_ENDS)
    ]
)
_SHAPE_COLUMNS: Final = tuple(
    column for column in _PARTIAL_COLUMNS if column.split(" AS ")[-1] in _SHAPE_SCHEMA.names
)


def _partials_sql(
    source: str,
    columns: Collection[str] = _PARTIAL_COLUMNS,
    names: Collection[str] = tuple(SUMMARY),
) -> str:
    aggregates = ", ".join(f"{SUMMARY[name]} AS {name}" for name in names)
    keys = ", ".join(SUMMARY_KEY)
    return (
        f"SELECT {', '.join(columns)} FROM "
        f"(SELECT {keys}, {aggregates} FROM {source} GROUP BY {keys}) "
        f"ORDER BY {', '.join((*SERIES_KEY, 'logger_no', 'writer_no'))}"
    )


def _columns(table: Any) -> Columns:
    return {name: table.column(name).to_numpy() for name in table.column_names}


@dataclass(frozen=True)
class SeriesProfile:
    """What is stored, by logger and writer, of the series that match a filter, sorted by series.

    Attributes:
        columns: The columns, a row for each (series, logger, writer): row counts, positions, and
            from `profile` the statistics.
        starts: Index of the first row of each series.
        dirty: By series: it needs deduplication.
    """

    columns: Columns
    starts: npt.NDArray[np.intp]
    dirty: npt.NDArray[np.bool_]

    @property
    def any_dirty(self) -> bool:
        """Whether any series needs deduplication."""
        return bool(self.dirty.any())

    @property
    def several_loggers(self) -> bool:
        """Whether the points of any series are from several loggers."""
        return bool((_logger_counts(self.columns, self.starts) > 1).any())

    def own_axis(self) -> str:
        """Returns the running coordinate of the series' scales, an expression if they differ."""
        has_step = self.columns["last_step"] >= 0
        if has_step.all():
            return "step"
        return "if(step >= 0, step, episode)" if has_step.any() else "episode"

    def span(self, name: str) -> tuple[int, int] | None:
        """Returns the least and the greatest of a coordinate; None if positions do not tell.

        They do of the one that positions are ordered by, if all series use it.
        """
        if name not in POSITION or not len(self.starts):
            return None
        before = POSITION[: POSITION.index(name)]
        least, greatest = self.columns[f"first_{name}"], self.columns[f"last_{name}"]
        if least.min() < 0 or any((self.columns[f"last_{each}"] >= 0).any() for each in before):
            return None  # some points may have none, or the ends of positions are not its ends
        return int(least.min()), int(greatest.max())

    def varying(self) -> tuple[str, ...]:
        """Returns the coordinates in which points of one series differ."""
        if not len(self.starts):
            return ()
        first, last = (
            [ufunc.reduceat(self.columns[f"{end}_{name}"], self.starts) for name in POSITION]
            for end, ufunc in (("first", np.minimum), ("last", np.maximum))
        )
        for index in range(len(POSITION)):
            # Positions are ordered by coordinate, so those behind one that varies may vary too.
            if (first[index] != last[index]).any():
                return tuple(
                    name
                    for name, greatest in zip(POSITION[index:], last[index:], strict=True)
                    if (greatest >= 0).any()
                )
        return ()


def profile(
    engine: Engine, run_nos: Collection[int], metric_nos: Collection[int] | None = None
) -> SeriesProfile:
    """Returns the summaries by logger and writer, from the projection."""
    where = series_filter(run_nos, metric_nos)
    return _profiled(engine.read(_partials_sql(f"points WHERE {where}"), _PARTIAL_SCHEMA))


def shape(
    engine: Engine,
    run_no: int,
    metric_nos: Collection[int] | None,
    env_nos: Collection[int] | None,
) -> SeriesProfile:
    """Returns the same without statistics, which takes half the time."""
    where = series_filter((run_no,), metric_nos, env_nos)
    sql = _partials_sql(f"points WHERE {where}", _SHAPE_COLUMNS, _SHAPE_AGGREGATES)
    return _profiled(engine.read(sql, _SHAPE_SCHEMA))


def _profiled(table: Any) -> SeriesProfile:
    columns = _columns(table)
    starts = _starts(columns, SERIES_KEY)
    return SeriesProfile(columns, starts, _dirty(columns, starts))


def summaries(
    engine: Engine, run_nos: Collection[int], metric_nos: Collection[int] | None = None
) -> Any:
    """Returns a row a series, as `PointsStore.summaries` documents."""
    stored = profile(engine, run_nos, metric_nos)
    shown = stored.columns
    if stored.any_dirty:
        shown = _with_deduplicated(engine, stored)
    return _with_means(engine, _merged(stored, shown))


def cursors(engine: Engine, run_no: int, episode_metric_nos: Collection[int]) -> Cursors:
    """Returns the greatest positions, as `PointsStore.cursors` documents."""
    stored = profile(engine, (run_no,))
    columns, starts = stored.columns, stored.starts
    if not len(starts):
        return Cursors(SERIES_CURSOR_SCHEMA.empty_table(), ENVIRONMENT_CURSOR_SCHEMA.empty_table())
    rl_steps = np.maximum.reduceat(columns["last_rl_step"], starts)
    episodes = np.maximum.reduceat(columns["cursor_episode"], starts)
    in_last_episode = columns["cursor_episode"] == np.repeat(episodes, _lengths(columns, starts))
    steps = np.maximum.reduceat(np.where(in_last_episode, columns["cursor_step"], -1), starts)
    metrics, envs = columns["metric_no"][starts], columns["env_no"][starts]
    series = pa.table([metrics, envs, rl_steps, episodes, steps], schema=SERIES_CURSOR_SCHEMA)
    is_episode_metric = np.isin(metrics, np.fromiter(episode_metric_nos, np.uint32))
    ended = np.where(is_episode_metric, episodes, -1)
    return Cursors(series, _environment_cursors(envs, rl_steps, episodes, ended))


def _environment_cursors(
    envs: npt.NDArray[Any],
    rl_steps: npt.NDArray[Any],
    episodes: npt.NDArray[Any],
    ended: npt.NDArray[Any],
) -> Any:
    """Returns the greatest coordinates by environment; 0 is no environment, so it has no row."""
    env_nos, which = np.unique(envs, return_inverse=True)
    greatest = []
    for values in (rl_steps, episodes, ended):
        of_env = np.full(len(env_nos), -1, np.int64)
        np.maximum.at(of_env, which, values)
        greatest.append(of_env)
    table = pa.table([env_nos, *greatest], schema=ENVIRONMENT_CURSOR_SCHEMA)
    return table.filter(pa.array(env_nos != 0))


def _starts(columns: Columns, keys: Collection[str]) -> npt.NDArray[np.intp]:
    """Returns where a new value of `keys` begins in sorted columns."""
    count = len(next(iter(columns.values())))
    changes = np.zeros(count, np.bool_)
    changes[:1] = True
    for key in keys:
        changes[1:] |= columns[key][1:] != columns[key][:-1]
    return np.flatnonzero(changes)


def _lengths(columns: Columns, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return np.diff(starts, append=len(columns["run_no"]))


def _ranks(columns: Columns, prefixes: Collection[str]) -> list[npt.NDArray[np.int64]]:
    """Returns for each of the position columns the rank of each position among all of them."""
    coordinates = [
        np.concatenate([columns[f"{prefix}_{name}"] for prefix in prefixes]) for name in POSITION
    ]
    order = np.lexsort(coordinates[::-1])
    changes = np.zeros(len(order), np.int64)
    for coordinate in coordinates:
        ordered = coordinate[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.cumsum(changes)
    return np.split(ranks, len(prefixes))


def _dirty(columns: Columns, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Returns for each series whether a position may have been logged twice by one logger."""
    if not len(starts):
        return np.zeros(0, np.bool_)
    dirty = np.maximum.reduceat(columns["any_rewound"], starts) > 0
    several = np.repeat(_lengths(columns, starts) > 1, _lengths(columns, starts))
    if not several.any():
        return dirty
    rows = np.flatnonzero(several)
    chosen = {name: column[rows] for name, column in columns.items()}
    first, last = _ranks(chosen, ("first", "last"))
    series = np.repeat(np.arange(len(starts)), _lengths(columns, starts))[rows]
    order = np.lexsort((first, chosen["logger_no"], series))
    first, last, series = first[order], last[order], series[order]
    logger = chosen["logger_no"][order]
    group = np.cumsum(np.append(False, (series[1:] != series[:-1]) | (logger[1:] != logger[:-1])))
    # A running maximum that starts anew with every group: ranks are below `span`.
    span = 2 * len(rows) + 1
    reached = np.maximum.accumulate(group * span + last)
    dirty[series[1:][(group * span + first)[1:] <= reached[:-1]]] = True
    return dirty


def _with_deduplicated(engine: Engine, stored: SeriesProfile) -> Columns:
    """Returns the profile's columns with every dirty series' rows from a deduplicating scan."""
    columns, starts = stored.columns, stored.starts
    dirty = {key: columns[key][starts[stored.dirty]] for key in SERIES_KEY}
    where = series_filter(*(np.unique(dirty[key]).tolist() for key in SERIES_KEY))
    if len(dirty["run_no"]) <= _MAX_LISTED_SERIES:
        listed = zip(*(dirty[key].tolist() for key in SERIES_KEY), strict=True)
        where += f" AND ({', '.join(SERIES_KEY)}) IN ({', '.join(map(str, listed))})"
    source = newest(("*",), (*SORT_KEY, "logger_no"), where)
    scanned = _columns(engine.read(_partials_sql(f"({source})"), _PARTIAL_SCHEMA))
    in_dirty = np.repeat(stored.dirty, _lengths(columns, starts))
    wanted = np.isin(_series_ids(scanned), _series_ids(dirty))
    both = {
        name: np.concatenate([column[~in_dirty], scanned[name][wanted]])
        for name, column in columns.items()
    }
    order = np.lexsort([both[key] for key in reversed(SUMMARY_KEY)])
    return {name: column[order] for name, column in both.items()}


def _series_ids(columns: Columns) -> npt.NDArray[Any]:
    """Returns series as single comparable values."""
    ids = np.empty(len(columns["run_no"]), [(key, np.uint32) for key in SERIES_KEY])
    for key in SERIES_KEY:
        ids[key] = columns[key]
    return ids


def _logger_counts(columns: Columns, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Returns the number of loggers of each series."""
    if not len(starts):
        return np.zeros(0, np.int64)
    is_new = np.zeros(len(columns["run_no"]), np.int64)
    is_new[_starts(columns, (*SERIES_KEY, "logger_no"))] = 1
    return np.add.reduceat(is_new, starts)


def _merged(stored: SeriesProfile, shown: Columns) -> Any:
    """Returns the summary table: counts of what is stored, statistics of what is shown."""
    starts = stored.starts
    if not len(starts):
        return SUMMARY_SCHEMA.empty_table()
    shown_starts = _starts(shown, SERIES_KEY)
    row_count = np.add.reduceat(stored.columns["row_count"], starts)
    nonfinite = row_count - np.add.reduceat(stored.columns["finite_count"], starts)
    finite_count = np.add.reduceat(shown["finite_count"], shown_starts)
    none_finite = finite_count == 0
    # The engine answers 0 for the extremes of nothing.
    no_finite_rows = shown["finite_count"] == 0
    least = np.where(no_finite_rows, np.inf, shown["finite_min"])
    greatest = np.where(no_finite_rows, -np.inf, shown["finite_max"])
    with np.errstate(over="ignore", invalid="ignore"):  # see `_with_means`
        sums = np.add.reduceat(shown["finite_sum"], shown_starts)
    ends, last_value = _merged_ends(shown, shown_starts)
    return pa.table(
        [
            *(stored.columns[key][starts] for key in SERIES_KEY),
            row_count,
            nonfinite,
            _logger_counts(stored.columns, starts).astype(np.uint32),
            last_value,
            pa.array(np.minimum.reduceat(least, shown_starts), mask=none_finite),
            pa.array(np.maximum.reduceat(greatest, shown_starts), mask=none_finite),
            pa.array(sums / np.maximum(finite_count, 1), mask=none_finite),
            *(pa.array(ends[name], mask=ends[name] < 0) for name in _ENDS),
        ],
        schema=SUMMARY_SCHEMA,
    )


def _merged_ends(
    shown: Columns, starts: npt.NDArray[np.intp]
) -> tuple[Columns, npt.NDArray[np.float64]]:
    """Returns each series' first and last position, and the mean over loggers of the last value."""
    if len(starts) == len(shown["run_no"]):  # one logger and writer a series: nothing to merge
        return {name: shown[name] for name in _ENDS}, shown["last_value"]
    lengths = _lengths(shown, starts)
    first, last = _ranks(shown, ("first", "last"))
    ends: Columns = {}
    for prefix, rank, ufunc in (("first", first, np.minimum), ("last", last, np.maximum)):
        is_end = rank == np.repeat(ufunc.reduceat(rank, starts), lengths)
        # Any of the rows at the end will do: they agree on the position.
        rows = np.flatnonzero(is_end)
        row = rows[np.searchsorted(rows, starts)]
        for name in POSITION:
            ends[f"{prefix}_{name}"] = shown[f"{prefix}_{name}"][row]
    return ends, _means_at(is_end, shown["last_value"], starts)


def _means_at(
    chosen: npt.NDArray[np.bool_], values: npt.NDArray[Any], starts: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Returns the mean of the chosen values of each series."""
    counts = np.add.reduceat(chosen.astype(np.int64), starts)
    # inf of one logger and -inf of another are NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.add.reduceat(np.where(chosen, values, 0.0), starts) / counts
        if np.isfinite(means).all():
            return means
        scaled = np.add.reduceat(np.where(chosen, values / 2.0**64, 0.0), starts) / counts
        # Rounding must not push the mean of the greatest floats beyond them.
        greatest = np.finfo(np.float64).max / 2.0**64
        within = np.where(np.isfinite(scaled), np.clip(scaled, -greatest, greatest), scaled)
        return np.where(np.isfinite(means), means, within * 2.0**64)


def _with_means(engine: Engine, table: Any) -> Any:
    """Replaces means whose sum is beyond the range of a float, which are infinite or NaN till here.

    The projection adds values as they are: what it stores cannot be scaled afterwards, and it is
    not worth a change of what lies on the disk. Such series are scanned.
    """
    means = table["mean_value"]
    beyond = table.filter(pc.invert(pc.is_finite(means)))
    if not beyond.num_rows:
        return table
    where = series_filter(*(set(beyond[key].to_pylist()) for key in SERIES_KEY))
    source = newest(("*",), (*SORT_KEY, "logger_no"), where)
    keys = ", ".join(SERIES_KEY)
    scanned = engine.read(
        f"SELECT {keys}, {mean_within_range('value', FINITE)} FROM ({source}) GROUP BY {keys}",
        _MEANS_SCHEMA,
    )
    found = {tuple(row[:-1]): row[-1] for row in zip(*scanned.to_pydict().values(), strict=True)}
    series = zip(*(table[key].to_pylist() for key in SERIES_KEY), strict=True)
    replaced = [
        mean if mean is None or math.isfinite(mean) else found[key]
        for key, mean in zip(series, means.to_pylist(), strict=True)
    ]
    column = table.column_names.index("mean_value")
    return table.set_column(column, "mean_value", pa.array(replaced, pa.float64()))
