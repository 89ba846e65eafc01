"""What the points store costs: inserting, small commits, space, and the reads of a dashboard.

Run with `python -m benchmarks.points_store [--millions 5]`; prints a table. Ratios matter,
absolutes drift with the machine. CPU is that of the process, all threads.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from metrana.server.points import (
    SCHEMA,
    BucketsQuery,
    PointsQuery,
    PointsStore,
    XAxis,
    open_points,
)

BATCHES = 10  # of one insert: what a group commit gathers
CLOCK_MS = 1_764_000_000_000


def random_walks(row_count: int, series_count: int, first: int, run_no: int, seq: int) -> dict:
    """Returns one group commit of ML_STEP points: batches one after the other, each by series."""
    rng = np.random.default_rng(seq)
    per_series = row_count // BATCHES // series_count
    metric_no, step = np.divmod(np.arange(per_series * series_count), per_series)
    rows = {name: np.zeros(len(step) * BATCHES, dtype) for name, dtype in SCHEMA.items()}
    batch_no = np.repeat(np.arange(BATCHES), len(step))
    rows["run_no"][:], rows["writer_no"][:] = run_no, 1
    rows["metric_no"][:] = np.tile(metric_no + 1, BATCHES)
    rows["rl_step"][:] = rows["episode"][:] = -1
    rows["step"][:] = first + batch_no * per_series + np.tile(step, BATCHES)
    rows["timestamp_ms"][:] = CLOCK_MS + rows["step"] * 50 + rng.integers(0, 5, len(batch_no))
    walk = np.cumsum(rng.normal(size=len(batch_no)))
    rows["value"][:] = walk.astype(np.float32)
    rows["seq"][:] = seq * BATCHES + batch_no
    return rows


def env_steps(env_count: int, metric_count: int, step_count: int, run_no: int, seq: int) -> dict:
    """Returns one group commit of ENVIRONMENT_STEP points: one rl_step of many environments."""
    rng = np.random.default_rng(seq)
    shape = (metric_count, env_count, step_count)
    metric, env, step = (axis.ravel() for axis in np.indices(shape))
    rows = {name: np.zeros(step.size, dtype) for name, dtype in SCHEMA.items()}
    rows["run_no"][:], rows["writer_no"][:], rows["seq"][:] = run_no, 1, seq
    rows["metric_no"][:], rows["env_no"][:] = metric + 1, env + 1
    rows["rl_step"][:], rows["episode"][:], rows["step"][:] = seq, seq, step
    rows["timestamp_ms"][:] = CLOCK_MS + seq * 1000
    rows["value"][:] = rng.normal(size=step.size).astype(np.float32)
    return rows


def cpu_s() -> float:
    """Returns the CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(label: str, wall_s: float, used_s: float) -> None:
    """Prints a row of the table."""
    print(f"{label:50} {wall_s * 1e3:9.1f} ms {used_s * 1e3:9.1f} ms CPU", flush=True)


def measure(label: str, call: Callable[[], object], repeats: int = 3) -> None:
    """Reports the fastest of some calls."""
    best = (float("inf"), 0.0)
    for _ in range(repeats):
        wall, used = time.perf_counter(), cpu_s()
        call()
        best = min(best, (time.perf_counter() - wall, cpu_s() - used))
    report(label, *best)


def insert_all(store: PointsStore, label: str, groups: Iterator[dict]) -> None:
    """Reports the cost of inserting, per million rows."""
    wall = used = rows = 0.0
    for group in groups:
        wall_0, used_0 = time.perf_counter(), cpu_s()
        store.insert(group)
        wall, used = wall + time.perf_counter() - wall_0, used + cpu_s() - used_0
        rows += len(group["step"]) / 1e6
    report(f"insert, a million rows: {label}", wall / rows, used / rows)


def benchmark_inserts(store: PointsStore, millions: int) -> None:
    """Fills the store: run 1 with 200 series, run 2 with one, run 3 with 82,000 of environments."""
    size = 1_000_000
    insert_all(
        store, "200 series", (random_walks(size, 200, i * 5000, 1, i) for i in range(millions))
    )
    insert_all(store, "1 series", (random_walks(size, 1, i * size, 2, i) for i in range(millions)))
    insert_all(
        store, "82,000 series", (env_steps(4096, 20, 12, run_no=3, seq=i) for i in range(millions))
    )
    stats = store.stats()
    space = stats.bytes_on_disk / stats.row_count
    print(f"{stats.row_count:,} rows, {stats.part_count} parts, {space:.2f} bytes a point")


def benchmark_small_commits(store: PointsStore) -> None:
    """Reports group commits of 2,500 rows, whose cost is per insert and not per row."""
    groups = [random_walks(2500, 50, i * 5, 4, i) for i in range(40)]
    measure("40 inserts of 2,500 rows", lambda: [store.insert(group) for group in groups], 1)


def benchmark_reads(store: PointsStore, millions: int) -> None:
    """Reports what a dashboard and a notebook ask."""
    last = millions * BATCHES - 1
    measure("max_seq of a writer, 200 series", lambda: store.max_seq(1, 1, last))
    measure("max_seq of a writer, 82,000 series", lambda: store.max_seq(3, 1, 0))
    measure("cursors, 82,000 series", lambda: store.cursors(3, [1]))
    measure("summaries, 200 series", lambda: store.summaries([1]))
    measure("summaries, 82,000 series", lambda: store.summaries([3]))
    measure("summaries, 2 metrics of all runs", lambda: store.summaries([1, 2, 3], [1, 2]))
    for run_no, label in ((1, f"{millions * 5_000:,} points"), (2, f"{millions}M points")):
        query = BucketsQuery(run_no, metric_nos=(1,))
        measure(f"1,000 buckets of a series of {label}", lambda q=query: store.buckets(q))
    by_time = BucketsQuery(2, metric_nos=(1,), x=XAxis.TIMESTAMP)
    measure(f"the same by timestamp, {millions}M points", lambda: store.buckets(by_time))
    over_envs = BucketsQuery(3, metric_nos=(1,), x=XAxis.RL_STEP)
    measure("buckets by rl_step of 4,096 environments", lambda: store.buckets(over_envs))
    one_env = BucketsQuery(3, metric_nos=(1,), env_nos=(7,), x=XAxis.RL_STEP)
    measure("buckets by rl_step of one environment", lambda: store.buckets(one_env))
    measure(
        "points of one environment", lambda: store.points(PointsQuery(3, (1,), (7,))).read_all()
    )
    measure(
        f"{millions}M points, streamed",
        lambda: sum(b.num_rows for b in store.points(PointsQuery(2))),
    )
    measure("episode sums of 4,096 environments", lambda: store.episode_sums(3, [1]))


def benchmark_rewound_reads(store: PointsStore, millions: int) -> None:
    """Reports the reads that deduplicate: one point of run 2 is logged again."""
    again = {name: column[:1].copy() for name, column in random_walks(10, 1, 5, 2, 9**6).items()}
    again["rewound"][:] = 1
    store.insert(again)
    measure(f"summary, rewound, {millions}M points", lambda: store.summaries([2]))
    query = BucketsQuery(2, metric_nos=(1,))
    measure(f"1,000 buckets, rewound, {millions}M points", lambda: store.buckets(query))


def main() -> None:
    """Runs every benchmark on a new store in a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=5, help="rows of each of three runs")
    parser.add_argument("--data-dir", type=Path, help="where; default: the system's temporary one")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=args.data_dir) as folder,
        open_points(f"chdb://{folder}/points") as store,
    ):
        benchmark_inserts(store, args.millions)
        benchmark_small_commits(store)
        benchmark_reads(store, args.millions)
        benchmark_rewound_reads(store, args.millions)
        measure("delete of 82,000 series", lambda: store.delete_run(3), 1)


if __name__ == "__main__":
    main()
