"""What many environments cost to log: `python -m benchmarks.rl_writes [--env-steps 1000000]`.

4,096 environments, 20 metrics a step, each metric of a step by one call with an array; episodes end
at different steps. One process logs, a server on the same cores stores. As fast as it is stored, so
that neither the spool nor the queue grows. Memory is private to the process and the ring, the
greatest in each tenth of the loop, so that what grows shows. Ratios matter, absolutes drift with
the machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

import metrana
from benchmarks.points_store import cpu_s
from benchmarks.processes import memory_mb
from metrana.query import Client
from tests.local_server import LocalServer

ENVS = 4096
METRICS = ("reward", *(f"info-{number}" for number in range(19)))
EPISODE_STEPS = 100
_IN_FLIGHT_POINTS = 4_000_000
_POLL_S = 0.002


def in_flight(run: metrana.Run) -> int:
    """Returns how many points wait to be stored."""
    metrics = run.get_metrics()
    return metrics.rl_float_points_enqueued - metrics.rl_float_points_sent


def log_steps(run: metrana.Run, step_count: int, server_pid: int) -> dict[str, list[float]]:
    """Logs so many steps of every environment.

    Returns:
        For each step: the microseconds of its calls, and the MB of this process, of its ring and
        of the server.
    """
    rng = np.random.default_rng(0)
    env_ids = [f"env-{number}" for number in range(ENVS)]
    started = rng.integers(-EPISODE_STEPS, 0, ENVS)
    taken: dict[str, list[float]] = {"call_us": [], "client": [], "ring": [], "server": []}
    for step in range(step_count):
        values = rng.normal(size=(len(METRICS), ENVS)).astype(np.float32)
        episode = (step - started) // EPISODE_STEPS
        start = time.perf_counter()
        for name, value in zip(METRICS, values, strict=True):
            run.log_rl_environment_step(name, value, step * ENVS, env_ids, episode)
        taken["call_us"].append((time.perf_counter() - start) / len(METRICS) * 1e6)
        taken["client"].append(memory_mb([os.getpid()], ["RssAnon"]))
        taken["ring"].append(memory_mb([os.getpid()], ["RssShmem"]))
        taken["server"].append(memory_mb([server_pid], ["RssAnon"]))
        while in_flight(run) > _IN_FLIGHT_POINTS:
            time.sleep(_POLL_S)
    return taken


def main() -> None:
    """Logs against a server of its own, on new stores in a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-steps", type=int, default=1_000_000, help="of all environments")
    parser.add_argument("--data-dir", type=Path, help="where; default: the system's temporary one")
    arguments = parser.parse_args()
    step_count = -(-arguments.env_steps // ENVS)
    with (
        tempfile.TemporaryDirectory(dir=arguments.data_dir) as folder,
        LocalServer(Path(folder)) as server,
    ):
        run = metrana.init(
            mode="online",
            data_dir=folder,
            run_name="writes",
            backpressure_strategy="block",
            enqueue_timeout_secs=60.0,
        )
        cpu, start = cpu_s(), time.perf_counter()
        taken = log_steps(run, step_count, server.process.pid)
        run.flush(120.0)
        took_s, cpu = time.perf_counter() - start, cpu_s() - cpu
        run.close()
        points = step_count * ENVS * len(METRICS)
        with Client(server.http_url, data_dir=folder) as client:
            stored = int(client.runs()["point_count"].sum())
    if stored != points:
        raise SystemExit(f"{points:,} points were logged, {stored:,} are stored")
    print(
        f"{points:,} points, {points / took_s / 1e6:.2f} M/s until stored; "
        f"{cpu / points * 1e6:.2f} s CPU a million of them in this process"
    )
    print("a call of 4,096: p50 {:.0f} us, p99 {:.0f} us".format(*_p50_p99(taken["call_us"])))
    for kind in ("client", "ring", "server"):
        tenths = [max(part) for part in np.array_split(taken[kind], 10)]
        print(f"MB, {kind:7} by tenths: {' '.join(f'{tenth:.0f}' for tenth in tenths)}")
    print("load average {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


def _p50_p99(numbers: list[float]) -> tuple[float, float]:
    return float(np.percentile(numbers, 50)), float(np.percentile(numbers, 99))


if __name__ == "__main__":
    main()
