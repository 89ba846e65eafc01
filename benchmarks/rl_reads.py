"""What the reads of reinforcement learning take, as a `Client` on the embedded store sees them.

Run with `python -m benchmarks.rl_reads [--points 80000000]`; prints a table. One run has 4,096
environments with 20 metrics a step; another has 5 metrics of 1,024,000 of their episodes, fewer if
there are fewer points. Ratios matter, absolutes drift with the machine. CPU is that of the process,
all threads.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.points_store import CLOCK_MS, insert_all, measure
from metrana.query import Client
from metrana.server.catalog import Catalog, OpenedRun, OpenRun, WriterOpening
from metrana.server.embedded import open_stores
from metrana.server.points import MAX_INSERT_ROWS, SCHEMA, PointsStore

ENVS = 4096
STEP_METRICS = ("reward", *(f"info-{number}" for number in range(19)))
EPISODE_METRICS = ("episode_return", "episode_length", "terminated", "truncated", "success")
EPISODE_STEPS = 100
POINTS_AN_EPISODE = (
    320_000  # of the first run, for each episode that environments of the second have
)
SETTLED_S = 5.0
STEPS_RUN, EPISODES_RUN = "steps", "episodes"


def open_run(catalog: Catalog, name: str, number: int) -> OpenedRun:
    """Makes a run, still running, and the writer that its points are from."""
    writer = WriterOpening(writer_id=f"{number:032x}", number=1, opened_at_ms=CLOCK_MS)
    request = OpenRun(run_id=f"{number:032x}", writer=writer, created_at_ms=CLOCK_MS, run_name=name)
    opened = catalog.open_run(request)
    assert isinstance(opened, OpenedRun), opened
    return opened


def declare(catalog: Catalog, run: OpenedRun, scale: str, names: tuple[str, ...]) -> np.ndarray:
    """Gives the numbers of metrics without labels."""
    entries = [("metric", number, scale, name, {}) for number, name in enumerate(names)]
    return np.array(catalog.declare(run.project_id, entries), np.uint32)


def declare_envs(catalog: Catalog, run: OpenedRun) -> np.ndarray:
    """Gives the numbers of the environments."""
    entries = [("environment", number, f"env-{number}") for number in range(ENVS)]
    return np.array(catalog.declare(run.project_id, entries), np.uint32)


def rows_of(run: OpenedRun, seq: int, **columns: np.ndarray) -> dict[str, np.ndarray]:
    """Gives an insert: columns of one shape, the table's other columns filled."""
    count = columns["metric_no"].size
    rows = {name: np.zeros(count, dtype) for name, dtype in SCHEMA.items()}
    rows["run_no"][:], rows["writer_no"][:], rows["seq"][:] = run.run_no, run.writer_no, seq
    for name, column in columns.items():
        rows[name][:] = column.ravel()
    rows["timestamp_ms"][:] = CLOCK_MS + rows["rl_step"] * 1000
    return rows


def env_steps(run: OpenedRun, metrics: np.ndarray, envs: np.ndarray, count: int) -> Iterator[dict]:
    """Gives points of every metric and environment, as many rl_steps at a time as fit an insert."""
    per_insert = MAX_INSERT_ROWS // (len(metrics) * len(envs))
    rng = np.random.default_rng(0)
    for first in range(0, count, per_insert):
        rl_steps = np.arange(first, min(first + per_insert, count))
        metric, env, rl_step = np.meshgrid(metrics, envs, rl_steps, indexing="ij")
        yield rows_of(
            run,
            1 + first // per_insert,
            metric_no=metric,
            env_no=env,
            rl_step=rl_step,
            episode=rl_step // EPISODE_STEPS,
            step=rl_step % EPISODE_STEPS,
            value=rng.normal(size=metric.shape).astype(np.float32),
        )


def episodes(run: OpenedRun, metrics: np.ndarray, envs: np.ndarray, count: int) -> Iterator[dict]:
    """Gives the metrics of finished episodes, as many a time as fit an insert."""
    per_insert = MAX_INSERT_ROWS // (len(metrics) * len(envs))
    rng = np.random.default_rng(0)
    for first in range(0, count, per_insert):
        numbers = np.arange(first, min(first + per_insert, count))
        metric, env, episode = np.meshgrid(metrics, envs, numbers, indexing="ij")
        yield rows_of(
            run,
            1 + first // per_insert,
            metric_no=metric,
            env_no=env,
            rl_step=(episode + 1) * EPISODE_STEPS + env % EPISODE_STEPS,
            episode=episode,
            step=np.full(metric.shape, -1),
            value=rng.integers(0, 2, metric.shape).astype(np.float64),
        )


def wait_for_merges(store: PointsStore) -> None:
    """Waits until no part has been merged for a while: merges take the cores that reads need."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        time.sleep(0.1)
        if (found := store.stats().part_count) != count:
            count, since = found, time.monotonic()


def fill(data_dir: Path, point_count: int) -> None:
    """Makes the stores of a data directory, with both runs in them."""
    with open_stores(data_dir) as stores:
        run = open_run(stores.catalog, STEPS_RUN, 1)
        envs = declare_envs(stores.catalog, run)
        metrics = declare(stores.catalog, run, "ENVIRONMENT_STEP", STEP_METRICS)
        rl_steps = max(point_count // (len(envs) * len(metrics)), 1)
        insert_all(stores.points, "env steps", env_steps(run, metrics, envs, rl_steps))
        run = open_run(stores.catalog, EPISODES_RUN, 2)
        metrics = declare(stores.catalog, run, "EPISODE", EPISODE_METRICS)
        per_env = max(point_count // POINTS_AN_EPISODE, 1)
        insert_all(stores.points, "episodes", episodes(run, metrics, envs, per_env))
        wait_for_merges(stores.points)
        stats = stores.points.stats()
        space = stats.bytes_on_disk / stats.row_count
        print(f"{stats.row_count:,} points, {stats.part_count} parts, {space:.2f} bytes a point")


def benchmark_reads(client: Client) -> None:
    """Reports what a dashboard and a notebook ask."""
    quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)
    one_env = {"env_id": "env-7", "x": "rl_step", "as_": "arrow"}
    measure(
        "quantile band of a metric by rl_step",
        lambda: client.aggregate(STEPS_RUN, "reward", quantiles=quantiles, as_="arrow"),
    )
    measure(
        "mean, std, min, max of a metric by rl_step",
        lambda: client.aggregate(STEPS_RUN, "reward", as_="arrow"),
    )
    measure(
        "the band by episode",
        lambda: client.aggregate(
            STEPS_RUN, "reward", by="episode", quantiles=quantiles, as_="arrow"
        ),
    )
    measure("buckets of one environment", lambda: client.buckets(STEPS_RUN, "reward", **one_env))
    measure(
        "env_steps of one episode",
        lambda: client.env_steps(STEPS_RUN, "reward", "env-7", 0, as_="arrow"),
    )
    measure("episodes from env steps alone", lambda: client.episodes(STEPS_RUN, as_="arrow"))
    measure(
        "episodes of one environment",
        lambda: client.episodes(STEPS_RUN, env_id="env-7", as_="arrow"),
    )
    count = client.episodes(EPISODES_RUN, as_="arrow").num_rows
    label = f"{count:,} episodes of {len(EPISODE_METRICS)} metrics"
    measure(label, lambda: client.episodes(EPISODES_RUN, as_="arrow"))
    measure("the same as pandas", lambda: client.episodes(EPISODES_RUN))


def main() -> None:
    """Runs every benchmark on new stores in a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=80_000_000, help="of the run with env steps")
    parser.add_argument("--data-dir", type=Path, help="where; default: the system's temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.data_dir) as folder:
        fill(Path(folder), args.points)
        with Client(data_dir=folder) as client, client.hold():
            benchmark_reads(client)
    print("load average {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
