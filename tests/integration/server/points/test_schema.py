"""What lies on a user's disk is pinned, and a store of the future is refused."""

from pathlib import Path

import pytest

from metrana.server.points import PointsStore, PointsVersionError, open_points
from metrana.server.points.schema import (
    POSITION,
    PROJECTION,
    SCHEMA_VERSION,
    create_points,
    order_key,
)
from metrana.server.points.summary import profile
from tests.integration.server.points.plans import explained, versions
from tests.integration.server.points.reference import Point, columns

CREATE_POINTS_3 = (
    "CREATE TABLE IF NOT EXISTS points ("
    "run_no UInt32 CODEC(ZSTD(1)), metric_no UInt32 CODEC(ZSTD(1)), env_no UInt32, "
    "rl_step Int64 CODEC(DoubleDelta, ZSTD(1)), episode Int64 CODEC(DoubleDelta, ZSTD(1)), "
    "step Int64 CODEC(DoubleDelta, ZSTD(1)), timestamp_ms Int64 CODEC(DoubleDelta, ZSTD(1)), "
    "value Float64 CODEC(Gorilla, ZSTD(1)), logger_no UInt32, writer_no UInt32, "
    "seq UInt64 CODEC(DoubleDelta, ZSTD(1)), ordinal UInt16, rewound UInt8, "
    "PROJECTION summary_2 (SELECT run_no, metric_no, env_no, logger_no, writer_no, count(), "
    "countIf(isFinite(value)), sumIf(value, isFinite(value)), minIf(value, isFinite(value)), "
    "maxIf(value, isFinite(value)), max(rewound), max(seq), "
    "min({key}), max({key}), argMax(value, {key}), "
    "max(bitAnd({key}, toUInt128('1208925819614629174706175'))), max(episode), max(step) "
    "GROUP BY run_no, metric_no, env_no, logger_no, writer_no)) "
    "ENGINE = MergeTree ORDER BY (run_no, metric_no, env_no, rl_step, episode, step) "
    "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, "
    "min_compressed_bytes_to_fsync_after_merge = 1, merge_use_batch_sorting_queue = 1, "
    "vertical_merge_algorithm_min_columns_to_activate = 1, merge_max_block_size = 32768, "
    "merge_selector_base = 10, ratio_of_defaults_for_sparse_serialization = 1, "
    "auto_statistics_types = '', materialize_statistics_on_merge = 0"
).format(
    key="bitShiftLeft(toUInt128(if(step >= 0, bitShiftLeft(toUInt64(greatest(rl_step, 0)), 16)"
    " + bitShiftRight(toUInt64(greatest(episode, 0)), 24), toUInt64(rl_step + 1))), 64)"
    " + toUInt128(if(step >= 0, bitShiftLeft(toUInt64(greatest(episode, 0)), 40)"
    " + toUInt64(step), toUInt64(greatest(episode, 0))))"
)


def test_table_of_version_3_is_what_it_was() -> None:
    assert SCHEMA_VERSION == 3
    assert create_points() == CREATE_POINTS_3


# The extremes of each scale, and what a packed position must tell apart.
ML_STEPS = [(-1, -1, step) for step in (0, 1, 2**40 - 1, 2**40, 2**53 - 1)]
EPISODES = [
    (rl_step, episode, -1)
    for rl_step in (-1, 0, 1, 2**48 - 1)
    for episode in (0, 1, 2**24, 2**40 - 1)
]
ENVIRONMENT_STEPS = [
    (rl_step, episode, step)
    for rl_step in (0, 1, 2**48 - 1)
    for episode in (0, 2**24 - 1, 2**24, 2**40 - 1)
    for step in (0, 2**40 - 1)
]


@pytest.mark.parametrize("positions", [ML_STEPS, EPISODES, ENVIRONMENT_STEPS])
def test_packed_positions_sort_and_unpack_like_tuples(
    store: PointsStore, positions: list[tuple[int, int, int]]
) -> None:
    pairs = [(a, b) for a in positions for b in positions]
    points = []
    for metric_no, pair in enumerate(pairs, 1):
        for at in pair:
            value = float(at == max(pair))
            rl_step, episode, step = at
            points.append(Point(1, metric_no, 0, rl_step, episode, step, value=value))
    store.insert(columns(points))
    summary = profile(store._engine, [1]).columns
    found = [
        [
            tuple(map(int, at))
            for at in zip(*(summary[f"{end}_{name}"] for name in POSITION), strict=True)
        ]
        for end in ("first", "last")
    ]
    assert found[0] == [min(pair) for pair in pairs]
    assert found[1] == [max(pair) for pair in pairs]
    assert summary["last_value"].tolist() == [1.0] * len(pairs)
    greatest_episodes = [max(a[1], b[1]) for a, b in pairs]
    assert summary["cursor_episode"].tolist() == greatest_episodes
    assert summary["cursor_step"].tolist() == [
        max(at[2] for at in pair if at[1] == episode)
        for pair, episode in zip(pairs, greatest_episodes, strict=True)
    ]


def test_summary_is_read_from_the_projection(store: PointsStore) -> None:
    store.insert(columns([Point(step=step) for step in range(10)]))
    for read in (
        lambda: profile(store._engine, [1]),
        lambda: store.max_seq(1, 1, 1),
        lambda: store.point_counts([1]),
    ):
        assert f"ReadFromMergeTree ({PROJECTION})" in explained(store, read)


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
            assert versions(store) == [str(SCHEMA_VERSION)]
