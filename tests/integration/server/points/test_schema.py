"""What lies on a user's disk is pinned, and a store of the future is refused."""

from pathlib import Path

import pytest

from metrana.server.points import PointsStore, PointsVersionError, open_points
from metrana.server.points.schema import SCHEMA_VERSION, create_points, order_key
from metrana.server.points.summary import profile
from tests.integration.server.points.reference import Point, columns

CREATE_POINTS_1 = (
    "CREATE TABLE IF NOT EXISTS points ("
    "run_no UInt32, metric_no UInt32, env_no UInt32, "
    "rl_step Int64 CODEC(DoubleDelta, LZ4), episode Int64 CODEC(DoubleDelta, LZ4), "
    "step Int64 CODEC(DoubleDelta, LZ4), timestamp_ms Int64 CODEC(DoubleDelta, LZ4), "
    "value Float64 CODEC(Gorilla, ZSTD(1)), logger_no UInt32, writer_no UInt32, "
    "seq UInt64 CODEC(DoubleDelta, LZ4), ordinal UInt16, rewound UInt8, "
    "PROJECTION summary (SELECT run_no, metric_no, env_no, logger_no, writer_no, count(), "
    "countIf(isFinite(value)), sumIf(value, isFinite(value)), minIf(value, isFinite(value)), "
    "maxIf(value, isFinite(value)), max(rewound), max(seq), "
    "min(bitShiftLeft(toUInt256(rl_step + 1), 128) + bitShiftLeft(toUInt256(episode + 1), 64)"
    " + toUInt256(step + 1)), "
    "max(bitShiftLeft(toUInt256(rl_step + 1), 128) + bitShiftLeft(toUInt256(episode + 1), 64)"
    " + toUInt256(step + 1)), "
    "argMax(value, bitShiftLeft(toUInt256(rl_step + 1), 128)"
    " + bitShiftLeft(toUInt256(episode + 1), 64) + toUInt256(step + 1)), "
    "max(bitShiftLeft(toUInt128(episode + 1), 64) + toUInt128(step + 1)) "
    "GROUP BY run_no, metric_no, env_no, logger_no, writer_no)) "
    "ENGINE = MergeTree ORDER BY (run_no, metric_no, env_no, rl_step, episode, step) "
    "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, "
    "min_compressed_bytes_to_fsync_after_merge = 1"
)


def test_table_of_version_1_is_what_it_was() -> None:
    assert SCHEMA_VERSION == 1
    assert create_points() == CREATE_POINTS_1


def test_summary_is_read_from_the_projection(store: PointsStore) -> None:
    store.insert(columns([Point(step=step) for step in range(10)]))
    plans = []
    engine = store._engine
    read = engine.read

    def explaining(sql: str, schema: object) -> object:
        connection = store._engine._keeper
        plans.append(connection.query(f"EXPLAIN {sql}", "TSV").bytes().decode())
        return read(sql, schema)

    engine.read = explaining
    profile(engine, [1])
    store.max_seq(1, 1, 1)
    store.point_counts([1])
    assert len(plans) == 3
    assert all("ReadFromMergeTree (summary)" in plan for plan in plans), plans


def test_order_key_sorts_like_the_tuple(store: PointsStore) -> None:
    greatest = 2**63 - 2
    edges = (-1, 0, 1, greatest)
    positions = [(rl, episode, step) for rl in edges for episode in edges for step in edges]
    store.insert(columns([Point(rl_step=a, episode=b, step=c) for a, b, c in positions]))
    sql = (
        "SELECT rl_step, episode, step FROM points ORDER BY "
        f"{order_key(('rl_step', 'episode', 'step'))}"
    )
    rows = store._engine._keeper.query(sql, "TSV").bytes().decode().splitlines()
    assert [tuple(map(int, row.split())) for row in rows] == sorted(positions)


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    with open_points(url) as store:
        store._engine.command(f"INSERT INTO meta VALUES ({SCHEMA_VERSION + 1})")
    with pytest.raises(PointsVersionError, match=r"upgrade metrana\[server\]"):
        open_points(url)
    # Refusing it does not keep it.
    with open_points(f"chdb://{tmp_path}/other") as store:
        assert store.stats().row_count == 0


def test_opening_again_writes_no_second_version(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    for _ in range(3):
        with open_points(url) as store:
            rows = store._engine._keeper.query("SELECT * FROM meta", "TSV").bytes()
    assert rows.decode().split() == [str(SCHEMA_VERSION)]
