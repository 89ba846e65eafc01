"""How many points a second become durable, the logging process and the server on the same cores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

import metrana
from benchmarks.loggers.metrana_logger import dropped_by
from benchmarks.place import Figures, Place
from benchmarks.processes import cpu_s
from benchmarks.walks import Walks
from metrana.query import Client
from tests.local_server import LocalServer

_SECONDS = 30.0
_FLUSH_S = 120.0
_ARRAY_SERIES = 100
_ARRAY_POINTS = 1000
_ENVS = 100
_SINGLE_SERIES = 10_000
# What a server at work holds: a group of a million that is inserted, one that is decoded, one that
# gathers. More would wait in the spool, and the seconds would be those of logging, not of storing.
_IN_FLIGHT_POINTS = 4_000_000
_POLL_S = 0.005


def measure_ingest_blocks(place: Place) -> Figures:
    """Logs 100 series as arrays and 100 as one block of environments, other walks each time."""
    walks = Walks(_ARRAY_POINTS)
    names = [f"metric-{number}" for number in range(_ARRAY_SERIES)]
    ids = [f"env-{number}" for number in range(_ENVS)]

    def log_once(run: metrana.Run, turn: int) -> int:
        for name, walk in zip(names, walks.take(_ARRAY_SERIES), strict=True):
            run.log(name, walk)
        block = walks.take(_ENVS)
        run.log_rl_environment_step("reward", block, turn, ids, turn)
        return len(names) * _ARRAY_POINTS + block.size

    return _to_durable(place, log_once)


def measure_ingest_series(place: Place) -> Figures:
    """Logs 10,000 series, each a walk of its own, a call a point."""
    rng = np.random.default_rng(0)
    names = [f"metric-{number}" for number in range(_SINGLE_SERIES)]
    values = np.zeros(_SINGLE_SERIES, dtype=np.float32)

    def log_once(run: metrana.Run, _turn: int) -> int:
        # Made while the clock runs, for a hundredth of what logging them takes.
        np.add(values, rng.standard_normal(_SINGLE_SERIES, dtype=np.float32), out=values)
        for name, value in zip(names, values.tolist(), strict=True):
            run.log(name, value)
        return len(names)

    return _to_durable(place, log_once)


def _to_durable(place: Place, log_once: Callable[[metrana.Run, int], int]) -> Figures:
    place.folder.mkdir(parents=True, exist_ok=True)
    with LocalServer(place.folder) as server:
        run = metrana.init(
            mode="online",
            data_dir=place.folder,
            run_name="ingest",
            backpressure_strategy="block",
            enqueue_timeout_secs=60.0,
        )
        logged = turn = 0
        server_cpu_s, client_cpu_s = cpu_s(server.process.pid), cpu_s(os.getpid())
        start = time.perf_counter()
        while time.perf_counter() - start < place.seconds(_SECONDS):
            logged += log_once(run, turn)
            turn += 1
            while _in_flight(run) > _IN_FLIGHT_POINTS:
                time.sleep(_POLL_S)
        run.flush(_FLUSH_S)
        took_s = time.perf_counter() - start
        server_cpu_s = cpu_s(server.process.pid) - server_cpu_s
        client_cpu_s = cpu_s(os.getpid()) - client_cpu_s
        dropped = dropped_by(run)
        run.close()
        with Client(server.http_url, data_dir=place.folder) as client:
            stored = int(client.runs()["point_count"].sum())
    if stored + dropped["dropped"] != logged:
        raise RuntimeError(f"{logged:,} points were logged, {stored:,} are stored")
    return {
        "mega_points_per_s": logged / took_s / 1e6,
        "points": float(logged),
        "took_s": took_s,
        "server_cpu_s": server_cpu_s / logged * 1e6,
        "client_cpu_s": client_cpu_s / logged * 1e6,
        "busy_cores": (server_cpu_s + client_cpu_s) / took_s,
        **dropped,
    }


def _in_flight(run: metrana.Run) -> int:
    metrics = run.get_metrics()
    enqueued = metrics.float_points_enqueued + metrics.rl_float_points_enqueued
    return enqueued - metrics.float_points_sent - metrics.rl_float_points_sent
