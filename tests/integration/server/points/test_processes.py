"""What holds when a process is killed, and when processes or stores meet."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from metrana.server.points import PointsInUseError, PointsQuery, PointsStore, open_points
from tests.integration.server.points import killed_writer
from tests.integration.server.points.reference import Point, columns

ROWS = 20_000


def run_until_killed(url: str, first_seq: int, insert_count: int, moment_s: float) -> int:
    """Returns the last seq that a writer acknowledged before SIGKILL met it.

    Args:
        url: The store's.
        first_seq: The writer's first.
        insert_count: The least inserts before it is killed.
        moment_s: How far into what follows.
    """
    root = Path(__file__).parents[4]
    command = [sys.executable, "-m", killed_writer.__name__, url, str(first_seq), str(ROWS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as writer:
        assert writer.stdout is not None
        for _ in range(insert_count):
            assert writer.stdout.readline()
        time.sleep(moment_s)  # waits for nothing: it chooses where in an insert the process dies
        writer.kill()
        # What it still wrote into the pipe was acknowledged too.
        rest = writer.stdout.read().split()
    return max([first_seq + insert_count - 1, *map(int, rest)])


def rows_by_seq(store: PointsStore) -> dict[int, int]:
    steps = store.points(PointsQuery(1, duplicates="all")).read_all()["step"].to_numpy()
    counts: dict[int, int] = {}
    for seq in (steps // ROWS).tolist():
        counts[seq] = counts.get(seq, 0) + 1
    return counts


@pytest.mark.timeout(300)  # four processes, each of which has to load the engine
def test_killed_process_loses_nothing_acknowledged_and_leaves_nothing_partial(
    tmp_path: Path,
) -> None:
    url = f"chdb://{tmp_path}/points"
    next_seq = 1
    for insert_count, moment_s in ((1, 0.005), (5, 0.01), (3, 0.02), (2, 0.04)):
        acknowledged = run_until_killed(url, next_seq, insert_count, moment_s)
        with open_points(url) as store:
            last = store.max_seq(1, 1, next_seq)
            assert last is not None
            # The insert in flight is there whole or not at all.
            assert last in (acknowledged, acknowledged + 1)
            assert rows_by_seq(store) == dict.fromkeys(range(1, last + 1), ROWS)
            summaries = store.summaries([1])
            assert sum(summaries["point_count"].to_pylist()) == last * ROWS
        next_seq = last + 1


def test_another_store_in_the_process_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    first, second = (f"chdb://{tmp_path}/{name}" for name in ("first", "second"))
    with open_points(first) as store:
        store.insert(columns([Point()]))
        with pytest.raises(PointsInUseError, match="another points store"):
            open_points(second)
        assert store.stats().row_count == 1
    with open_points(second) as store:
        assert store.stats().row_count == 0
    with open_points(first) as store:
        assert store.stats().row_count == 1


def test_store_open_in_another_process_is_refused_naming_it(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    command = [sys.executable, "-m", killed_writer.__name__, url, "1", "10"]
    root = Path(__file__).parents[4]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        with pytest.raises(PointsInUseError, match=f"PID: {holder.pid}"):
            open_points(url)
        holder.kill()
    with open_points(url) as store:
        assert store.max_seq(1, 1, 1) is not None


def test_other_urls_are_refused() -> None:
    for url in ("clickhouse://host/db", "chdb://relative/path", "/path", "chdb:"):
        with pytest.raises(ValueError, match="chdb:///absolute/path"):
            open_points(url)
