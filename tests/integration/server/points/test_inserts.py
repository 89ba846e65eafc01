"""What is inserted is there, whole, and nothing else."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from metrana.server.points import (
    MAX_INSERT_ROWS,
    SCHEMA,
    PointsClosedError,
    PointsError,
    PointsQuery,
    PointsRefusedError,
    PointsStore,
    open_points,
)
from metrana.server.points.engine import ChdbEngine, ChdbLimits
from tests.integration.server.points.reference import Point, columns


def test_insert_becomes_one_part_at_the_greatest_size(store: PointsStore) -> None:
    rows = {name: np.zeros(MAX_INSERT_ROWS, dtype) for name, dtype in SCHEMA.items()}
    rows["metric_no"][:] = np.arange(MAX_INSERT_ROWS) % 100
    store.insert(rows)
    assert store.stats().part_count == 1
    assert store.stats().row_count == MAX_INSERT_ROWS


def test_values_come_back_bit_for_bit(store: PointsStore) -> None:
    values = [0.0, -0.0, 5e-324, -5e-324, 1.7976931348623157e308, np.nan, np.inf, -np.inf, 1 / 3]
    store.insert(columns([Point(step=step, value=value) for step, value in enumerate(values)]))
    table = store.points(PointsQuery(1)).read_all()
    assert table["value"].to_numpy().tobytes() == np.array(values).tobytes()


def test_greatest_numbers_come_back(store: PointsStore) -> None:
    greatest = Point(
        run_no=2**32 - 1,
        metric_no=2**32 - 1,
        env_no=2**32 - 1,
        rl_step=2**48 - 1,
        episode=2**40 - 1,
        step=2**40 - 1,
        timestamp_ms=2**63 - 1,
        value=1.0,
        logger_no=2**32 - 1,
        writer_no=2**32 - 1,
        seq=2**64 - 1,
        ordinal=2**16 - 1,
    )
    store.insert(columns([greatest]))
    (row,) = store.points(PointsQuery(2**32 - 1)).read_all().to_pylist()
    assert row == {name: getattr(greatest, name) for name in row}
    assert store.max_seq(2**32 - 1, 2**32 - 1, 2**64 - 1) == 2**64 - 1
    (summary,) = store.summaries([2**32 - 1]).to_pylist()
    last = (summary["last_rl_step"], summary["last_episode"], summary["last_step"])
    assert last == greatest.position
    (cursor,) = store.cursors(2**32 - 1).series.to_pylist()
    assert (cursor["rl_step"], cursor["episode"], cursor["step"]) == greatest.position


def test_greatest_ml_step_comes_back(store: PointsStore) -> None:
    store.insert(columns([Point(step=2**53 - 1), Point(step=0)]))
    (summary,) = store.summaries([1]).to_pylist()
    assert (summary["first_step"], summary["last_step"]) == (0, 2**53 - 1)
    assert summary["last_episode"] is None
    (cursor,) = store.cursors(1).series.to_pylist()
    assert (cursor["rl_step"], cursor["episode"], cursor["step"]) == (-1, -1, 2**53 - 1)


def test_nothing_is_inserted_without_rows(store: PointsStore) -> None:
    store.insert(columns([]))
    assert store.stats().part_count == 0


def test_read_only_and_strided_columns_are_taken(store: PointsStore) -> None:
    rows = columns([Point(step=step, value=step) for step in range(10)])
    rows["step"].flags.writeable = False
    rows["value"] = np.repeat(rows["value"], 2)[::2]
    store.insert(rows)
    assert store.points(PointsQuery(1)).read_all()["value"].to_pylist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("step", np.zeros(2, np.int32), "step must be int64"),
        ("step", np.zeros(3, np.int64), r"shape \(2,\)"),
        ("step", np.zeros((2, 1), np.int64), r"shape \(2,\)"),
        ("other", np.zeros(2), "unknown: other"),
    ],
)
def test_insert_refuses_wrong_columns(
    store: PointsStore, name: str, column: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.insert({**columns([Point(), Point()]), name: column})
    assert store.stats().row_count == 0


def test_insert_refuses_more_rows_than_one_part_takes(store: PointsStore) -> None:
    rows = {name: np.zeros(MAX_INSERT_ROWS + 1, dtype) for name, dtype in SCHEMA.items()}
    with pytest.raises(ValueError, match="at most 1000000"):
        store.insert(rows)


def test_max_seq_is_of_the_writer_and_from_the_seq_on(store: PointsStore) -> None:
    assert store.max_seq(1, 1, 0) is None
    store.insert(
        columns([Point(step=1, seq=7), Point(step=2, seq=5), Point(step=3, writer_no=2, seq=90)])
    )
    store.insert(columns([Point(run_no=2, step=1, seq=50)]))
    assert store.max_seq(1, 1, 1) == 7
    assert store.max_seq(1, 1, 7) == 7
    assert store.max_seq(1, 1, 8) is None
    assert store.max_seq(1, 2, 8) == 90
    assert store.max_seq(3, 1, 0) is None


def test_points_are_there_after_reopening(tmp_path) -> None:
    url = f"chdb://{tmp_path}/points"
    with open_points(url) as store:
        store.insert(columns([Point(step=step) for step in range(5)]))
    with open_points(url) as store:
        assert store.point_counts([1, 2]) == {1: 5, 2: 0}


def test_calls_after_close_are_refused(store: PointsStore) -> None:
    store.close()
    store.close()
    for call in (
        lambda: store.insert(columns([Point()])),
        lambda: store.points(PointsQuery(1)),
        lambda: store.summaries([1]),
    ):
        with pytest.raises(PointsClosedError, match="closed"):
            call()


def test_delete_removes_the_run_alone(store: PointsStore) -> None:
    for run_no in (1, 2):
        store.insert(columns([Point(run_no=run_no, step=step) for step in range(10)]))
    store.insert(columns([Point(run_no=run_no, step=20) for run_no in (1, 2)]))
    store.delete_run(1)
    assert store.point_counts([1, 2]) == {1: 0, 2: 11}
    assert store.summaries([1, 2])["point_count"].to_pylist() == [11]
    assert store.points(PointsQuery(1)).read_all().num_rows == 0


def test_stats_count_rows_bytes_and_parts(store: PointsStore) -> None:
    assert store.stats().row_count == 0
    store.insert(columns([Point(step=step) for step in range(10)]))
    stats = store.stats()
    assert (stats.row_count, stats.part_count) == (10, 1)
    assert stats.bytes_on_disk > 0
    assert stats.version


def test_inserts_wait_while_merges_would_lack_room_and_reads_go_on(tmp_path: Path) -> None:
    with open_points(f"chdb://{tmp_path}/points") as store:
        store.insert(columns([Point(step=1)]))
    # More than any disk has: this one is as good as full.
    engine = ChdbEngine(tmp_path / "points", ChdbLimits(free_disk_bytes=1 << 60))
    with closing(PointsStore(engine)) as full:
        with pytest.raises(PointsError, match="enough free space") as refusal:
            full.insert(columns([Point(step=2)]))
        assert not isinstance(refusal.value, PointsRefusedError)
        assert full.points(PointsQuery(1)).read_all()["step"].to_pylist() == [1]
