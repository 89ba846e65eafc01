"""How many points a second become durable, the logging process and the server on the same cores."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import metrana
from benchmarks.place import Figures, Place
from metrana.query import Client
from tests.local_server import LocalServer

_SECONDS = 30.0
_FLUSH_S = 120.0
_ARRAY_SERIES = 100
_ARRAY_POINTS = 1000
_ENVS = 100
_SINGLE_SERIES = 10_000


def measure_ingest_blocks(place: Place) -> Figures:
    """Logs 100 series as arrays and 100 as one block of environments."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=_ARRAY_POINTS)).astype(np.float32)
    block = rng.normal(size=(_ENVS, _ARRAY_POINTS)).astype(np.float32)
    names = [f"metric-{number}" for number in range(_ARRAY_SERIES)]
    ids = [f"env-{number}" for number in range(_ENVS)]

    def log_once(run: metrana.Run, turn: int) -> int:
        for name in names:
            run.log(name, walk)
        run.log_rl_environment_step("reward", block, turn, ids, turn)
        return len(names) * _ARRAY_POINTS + block.size

    return _to_durable(place, log_once)


def measure_ingest_series(place: Place) -> Figures:
    """Logs 10,000 series, a call a point."""
    names = [f"metric-{number}" for number in range(_SINGLE_SERIES)]

    def log_once(run: metrana.Run, turn: int) -> int:
        value = float(turn)
        for name in names:
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
        start = time.perf_counter()
        while time.perf_counter() - start < place.seconds(_SECONDS):
            logged += log_once(run, turn)
            turn += 1
        run.flush(_FLUSH_S)
        took_s = time.perf_counter() - start
        run.close()
        with Client(server.http_url, data_dir=place.folder) as client:
            stored = int(client.runs()["point_count"].sum())
    if stored != logged:
        raise RuntimeError(f"{logged:,} points were logged, {stored:,} are stored")
    return {"mega_points_per_s": logged / took_s / 1e6, "points": float(logged), "took_s": took_s}
