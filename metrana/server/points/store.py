"""The store's face: what ingestion writes and the reads ask for."""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from metrana.server.points import aggregate, buckets, episodes, reads, summary
from metrana.server.points.engine import Batches, ChdbEngine, ChdbLimits, Engine
from metrana.server.points.errors import PointsVersionError
from metrana.server.points.filters import integers, series_filter
from metrana.server.points.schema import (
    CREATE_META,
    CREATE_PAIRING,
    MAX_INSERT_ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    SUMMARY_KEY,
    create_points,
    upgrade_from,
)
from metrana.server.points.types import (
    AggregateQuery,
    BucketsQuery,
    Cursors,
    PointsQuery,
    StoreStats,
)

_log = logging.getLogger(__name__)

_EXISTS_SCHEMA: Final = pa.schema([("exists", pa.uint8())])
_VERSION_SCHEMA: Final = pa.schema([("schema_version", pa.uint32()), ("row_count", pa.uint64())])
_MAX_SEQ_SCHEMA: Final = pa.schema([("max_seq", pa.uint64()), ("row_count", pa.uint64())])
_SEQS_SCHEMA: Final = pa.schema([("seq", pa.uint64())])
_COUNTS_SCHEMA: Final = pa.schema([("run_no", pa.uint32()), ("point_count", pa.uint64())])
_PAIRING_SCHEMA: Final = pa.schema([("points_id", pa.string()), ("catalog_id", pa.string())])
_SERIES_SCHEMA: Final = pa.schema([("metric_no", pa.uint32()), ("env_no", pa.uint32())])
_NUMBERS_SCHEMA: Final = pa.schema([(key, pa.uint32()) for key in SUMMARY_KEY])
_HEX: Final = re.compile("[0-9a-f]+")
_BACKLOG_SCHEMA: Final = pa.schema([("part_count", pa.uint64()), ("mutation_count", pa.uint64())])
# More than merging leaves of a large store, and few enough to be read without being merged.
_MANY_PARTS: Final = 64
_STATS_SCHEMA: Final = pa.schema(
    [
        ("row_count", pa.uint64()),
        ("bytes_on_disk", pa.uint64()),
        ("part_count", pa.uint64()),
        ("version", pa.string()),
    ]
)


def open_points(url: str, limits: ChdbLimits | None = None) -> "PointsStore":
    """Opens the points store that `url` names.

    Args:
        url: `chdb:///absolute/path` for the embedded engine.
        limits: What the embedded engine may take of the machine.

    Raises:
        ValueError: The URL names no engine that there is.
        PointsInUseError: The embedded store is open elsewhere, or another one is open here.
        PointsVersionError: A newer metrana wrote the store.
    """
    parts = urlsplit(url)
    if parts.scheme != "chdb" or parts.netloc or not parts.path.startswith("/"):
        raise ValueError(f"the points store is chdb:///absolute/path, not {url!r}")
    engine = ChdbEngine(Path(unquote(parts.path)), limits)
    try:
        return PointsStore(engine)
    except BaseException:  # whatever it is, the engine goes first: a process has one at a time
        engine.close()
        raise


class PointsStore:
    """All points of all runs, by number.

    Every method may block and may be called from any thread. Reads see every insert that returned
    before they began. An unused position is null in what comes back.

    Args:
        engine: Where the points are; closed with the store.

    Raises:
        PointsVersionError: A newer metrana wrote the store.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._prepare()
        self._unmerged_count = self._catch_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for running calls, cancels open `Batches` and lets go of the engine."""
        self._engine.close()

    def insert(self, columns: Mapping[str, np.ndarray]) -> None:
        """Inserts points: all of them or, after an error or a crash, none. Durable on return.

        Args:
            columns: The columns of `SCHEMA`, with its types. Shape of each: (rows,), at most
                MAX_INSERT_ROWS. None inserts nothing.

        Raises:
            ValueError: Columns are missing, unknown, of another type, or not equally long.
            PointsError: The engine failed; nothing of it is stored.
        """
        checked = _checked(columns)
        if len(checked["run_no"]):
            if self._unmerged_count >= _MANY_PARTS:
                self._engine.start_merging()
            self._engine.insert(checked)
            self._unmerged_count += 1

    def max_seq(self, run_no: int, writer_no: int, from_seq: int) -> int | None:
        """Returns the greatest seq of a writer's stored points, None if none is ≥ `from_seq`."""
        sql = (
            "SELECT max(seq), count() FROM points "
            f"WHERE run_no = {integers([run_no])} AND writer_no = {integers([writer_no])}"
        )
        (row,) = self._engine.read(sql, _MAX_SEQ_SCHEMA).to_pylist()
        found = bool(row["row_count"]) and row["max_seq"] >= from_seq
        return int(row["max_seq"]) if found else None

    def seqs(self, run_no: int, writer_no: int) -> np.ndarray:
        """Returns the seqs of a writer's stored points, each once, in order; reads all its points.

        Shape of the result: (batches,).
        """
        sql = (
            "SELECT DISTINCT seq FROM points "
            f"WHERE run_no = {integers([run_no])} AND writer_no = {integers([writer_no])}"
        )
        return np.sort(self._engine.read(sql, _SEQS_SCHEMA)["seq"].to_numpy())

    def cursors(self, run_no: int, episode_metric_nos: Collection[int] = ()) -> Cursors:
        """Returns the greatest positions of a run's series and environments.

        Args:
            run_no: The run.
            episode_metric_nos: The metrics of EPISODE scale, whose points end an episode.
        """
        return summary.cursors(self._engine, run_no, episode_metric_nos)

    def summaries(self, run_nos: Collection[int], metric_nos: Collection[int] | None = None) -> Any:
        """Returns a row a series, ordered by run, metric, environment.

        The counts are of stored points. The statistics are of shown ones, so not of points that a
        later one of the same position (and logger) replaced: min, max and mean over finite values,
        null if there is none; the last value is the one at the greatest position, finite or not,
        the mean if several loggers reached it.

        Args:
            run_nos: The runs.
            metric_nos: Only these metrics; None for all.

        Returns:
            An Arrow table of `summary.SUMMARY_SCHEMA`.
        """
        return summary.summaries(self._engine, run_nos, metric_nos)

    def series(
        self,
        run_no: int,
        metric_nos: Collection[int] | None = None,
        env_nos: Collection[int] | None = None,
    ) -> Any:
        """Returns which series a run has points of: a tenth of the time that summaries take.

        Args:
            run_no: The run.
            metric_nos: Only these metrics; None for all.
            env_nos: Only these environments, 0 being none; None for all.

        Returns:
            An Arrow table `metric_no, env_no`, ordered by these.
        """
        where = series_filter((run_no,), metric_nos, env_nos)
        sql = (
            f"SELECT metric_no, env_no FROM points WHERE {where} "
            "GROUP BY metric_no, env_no ORDER BY metric_no, env_no"
        )
        return self._engine.read(sql, _SERIES_SCHEMA)

    def points(self, query: PointsQuery) -> Batches:
        """Returns points ordered by metric, environment, position, logger.

        Points that replace others while the call runs may appear beside them.

        Returns:
            Record batches of `reads.POINTS_SCHEMA`; close them unless read to the end.
        """
        return reads.points(self._engine, query)

    def buckets(self, query: BucketsQuery) -> Any:
        """Returns curves reduced to buckets, ordered by metric, environment, logger, bucket.

        Empty buckets have no row. `first` and `last` are the values at the least and greatest x
        (then position) and may be non-finite; min, max and mean are over finite values, null if
        there is none. Points merged over loggers count once a position, as non-finite if any
        of them is; their value is that of the finite ones.

        Returns:
            An Arrow table of `buckets.BUCKETS_SCHEMA`; `logger_no` is 0 unless each has its curve.
        """
        return buckets.buckets(self._engine, query)

    def aggregate(self, query: AggregateQuery) -> Any:
        """Returns statistics over the environments of a metric, a row a value of `query.by`.

        Each environment counts once at a value, by the mean of its finite points there; a metric
        without environments counts as one. `std` is the population's (divided by the number of
        environments). Quantiles are exact, between two values linearly interpolated (type 7, as
        `numpy.quantile` by default). `count` is of the finite points. Where no environment has a
        finite point, statistics are null.

        Returns:
            An Arrow table: `query.by`, the statistics, the quantiles (`q0.25`), `env_count`;
            ordered by the first.
        """
        return aggregate.aggregate(self._engine, query)

    def env_steps(self, run_no: int, metric_no: int, env_no: int, episode: int) -> Any:
        """Returns one episode's points ordered by step, the newest of each.

        Returns:
            An Arrow table of `reads.STEPS_SCHEMA`.
        """
        return reads.env_steps(self._engine, run_no, metric_no, env_no, episode)

    def episode_sums(
        self, run_no: int, metric_nos: Collection[int], env_nos: Collection[int] | None = None
    ) -> Any:
        """Returns the sum of ENVIRONMENT_STEP metrics over each episode, of its finite values.

        Returns:
            An Arrow table of `episodes.EPISODE_SUMS_SCHEMA`, ordered by metric, environment,
            episode.
        """
        return episodes.episode_sums(self._engine, run_no, metric_nos, env_nos)

    def episode_values(
        self, run_no: int, metric_nos: Collection[int], env_nos: Collection[int] | None = None
    ) -> Any:
        """Returns the newest value of EPISODE metrics for each episode.

        Returns:
            An Arrow table of `episodes.EPISODE_VALUES_SCHEMA`, ordered by metric, environment,
            episode.
        """
        return episodes.episode_values(self._engine, run_no, metric_nos, env_nos)

    def point_counts(self, run_nos: Collection[int]) -> dict[int, int]:
        """Returns the number of stored points of each run, 0 for one without any."""
        counts = dict.fromkeys(run_nos, 0)
        if counts:
            sql = (
                "SELECT run_no, count() FROM points "
                f"WHERE run_no IN ({integers(run_nos)}) GROUP BY run_no"
            )
            for row in self._engine.read(sql, _COUNTS_SCHEMA).to_pylist():
                counts[row["run_no"]] = row["point_count"]
        return counts

    def delete_run(self, run_no: int) -> None:
        """Removes a run's points, rewriting the parts that hold some; returns when that is done.

        Inserts and reads go on beside it. If the process dies meanwhile, the engine goes on with it
        when the store is opened again.
        """
        self._engine.start_merging()
        # Not the lightweight DELETE: that fails on a table with a projection.
        self._engine.command(
            f"ALTER TABLE points DELETE WHERE run_no = {integers([run_no])} "
            "SETTINGS mutations_sync = 1"
        )

    def pairing(self) -> tuple[str, str] | None:
        """Returns this store's id and its catalog's; None before it met one."""
        sql = "SELECT points_id, catalog_id FROM pairing LIMIT 1"
        for row in self._engine.read(sql, _PAIRING_SCHEMA).to_pylist():
            return row["points_id"], row["catalog_id"]
        return None

    def pair(self, points_id: str, catalog_id: str) -> tuple[str, str]:
        """Notes this store's id and its catalog's, both of hex digits, for good; returns them."""
        if not all(_HEX.fullmatch(value) for value in (points_id, catalog_id)):
            raise ValueError(f"ids are hex digits, not {points_id!r} and {catalog_id!r}")
        self._engine.command(f"INSERT INTO pairing VALUES ('{points_id}', '{catalog_id}')")
        return points_id, catalog_id

    def greatest_numbers(self) -> dict[str, int]:
        """Returns the greatest of the catalog's numbers that a point carries, 0 without points."""
        keys = ", ".join(SUMMARY_KEY)
        # By the summary's keys, so that the projection answers and not the points.
        sql = (
            f"SELECT {', '.join(f'max({key})' for key in SUMMARY_KEY)} "
            f"FROM (SELECT {keys} FROM points GROUP BY {keys})"
        )
        (row,) = self._engine.read(sql, _NUMBERS_SCHEMA).to_pylist()
        return {key: int(number) for key, number in row.items()}

    def stats(self) -> StoreStats:
        """Returns how large the store is."""
        sql = (
            "SELECT sum(rows), sum(bytes_on_disk), count(), version() FROM system.parts "
            "WHERE database = currentDatabase() AND table = 'points' AND active"
        )
        (row,) = self._engine.read(sql, _STATS_SCHEMA).to_pylist()
        return StoreStats(**row)

    def _prepare(self) -> None:
        self._engine.command(CREATE_META)
        sql = "SELECT max(schema_version), count() FROM meta"
        (row,) = self._engine.read(sql, _VERSION_SCHEMA).to_pylist()
        if row["schema_version"] > SCHEMA_VERSION:
            raise PointsVersionError(
                f"the points store has schema {row['schema_version']}, this metrana knows up to "
                f"{SCHEMA_VERSION}: upgrade metrana[server]"
            )
        # One that died between its first two statements has points and no version.
        (found,) = self._engine.read("EXISTS TABLE points", _EXISTS_SCHEMA).to_pylist()
        self._engine.command(create_points())
        self._engine.command(CREATE_PAIRING)
        if found["exists"] and row["schema_version"] < SCHEMA_VERSION:
            version = max(row["schema_version"], 1)
            _log.warning(
                "the points store is brought from schema %d to %d; this may take minutes",
                version,
                SCHEMA_VERSION,
            )
            self._engine.start_merging()
            for statement in upgrade_from(version):
                self._engine.command(statement)
        if row["schema_version"] < SCHEMA_VERSION:
            self._engine.command(f"INSERT INTO meta VALUES ({SCHEMA_VERSION})")

    def _catch_up(self) -> int:
        """Has merged what is much, and mutations done that were cut short; returns the parts."""
        table = "database = currentDatabase() AND table = 'points'"
        sql = (
            f"SELECT (SELECT count() FROM system.parts WHERE {table} AND active), "
            f"(SELECT count() FROM system.mutations WHERE {table} AND NOT is_done)"
        )
        (row,) = self._engine.read(sql, _BACKLOG_SCHEMA).to_pylist()
        if row["part_count"] >= _MANY_PARTS or row["mutation_count"]:
            self._engine.start_merging()
        return int(row["part_count"])


def _checked(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the columns in the table's order, or says what is wrong with them."""
    if columns.keys() != SCHEMA.keys():
        wrong = ", ".join(sorted(columns.keys() ^ SCHEMA.keys()))
        raise ValueError(f"an insert has the columns of SCHEMA; missing or unknown: {wrong}")
    row_count = len(columns["run_no"])
    if row_count > MAX_INSERT_ROWS:
        raise ValueError(f"an insert has at most {MAX_INSERT_ROWS} rows, not {row_count}")
    for name, dtype in SCHEMA.items():
        column = columns[name]
        if column.dtype != dtype or column.shape != (row_count,):
            raise ValueError(
                f"column {name} must be {dtype} of shape ({row_count},), "
                f"not {column.dtype} of shape {column.shape}"
            )
    return {name: columns[name] for name in SCHEMA}
