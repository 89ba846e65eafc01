"""The calls of metrana beside the plain scalar, while its server receives what they log."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.disk import refuse_memory
from benchmarks.loggers import logger_of, opened
from benchmarks.place import Figures, Place
from benchmarks.timing import percentiles, sample
from benchmarks.works.training import busy_step

_SECONDS = 10.0
_DISK_SECONDS = 40.0
_COPY_SECONDS = 5.0
_COPIES_BYTES = 64 << 20
_ENV_COUNT = 4096
_BLOCK_STEPS = 128
_CALLS_PER_STEP = 20
_DD_MEGABYTES = 1024
_BLOCK_BURST = 5


def measure_scalar_step(place: Place) -> Figures:
    """Times scalars as a training logs them: its own work has taken the caches in between."""
    return _timed(
        place,
        'metrana.log("loss", x)',
        {},
        more=_first_and_rest,
        burst=_CALLS_PER_STEP,
        between=busy_step(),
    )


def measure_scalar_dd(place: Place) -> Figures:
    """Times scalars while another process writes the same disk as fast as it can."""
    refuse_memory(place.folder)
    call = 'metrana.log("loss", x)'
    logger = logger_of(place.logger)
    with (
        opened(logger, place.folder) as names,
        _full_disk_load(place.folder / "dd", 16 if place.is_quick else _DD_MEGABYTES),
    ):
        sample(call, names, place.seconds(0.5))
        figures = percentiles(sample(call, names, place.seconds(_DISK_SECONDS)))
        return {**figures, **logger.dropped()}


def measure_block_8(place: Place) -> Figures:
    """Times a block of 8 environments."""
    return _timed_block(place, 8)


def measure_block_64(place: Place) -> Figures:
    """Times a block of 64 environments, and what merely copying it takes."""
    figures = {**_timed_block(place, 64), **_timed_copy(place, 64)}
    return {**figures, "copy_percent": figures["copy_p50_us"] / figures["p50_us"] * 100}


def measure_envs_same(place: Place) -> Figures:
    """Times one step of 4,096 environments whose ids come in the same list each time."""
    return _timed_envs(place, "same")


def measure_envs_fresh(place: Place) -> Figures:
    """Times the same with ids that are built anew before each call; building is not timed."""
    return _timed_envs(place, "fresh", setup='fresh = [f"env-{number}" for number in numbers]')


def measure_torch(place: Place) -> Figures:
    """Times a loss as a training step has it."""
    import torch

    loss = torch.tensor(0.5, requires_grad=True) * 2
    return _timed(place, 'metrana.log("loss", loss)', {"loss": loss})


def _timed_block(place: Place, env_count: int) -> Figures:
    block = _block(env_count)
    names = {
        "block": block,
        "ids": [f"env-{number}" for number in range(env_count)],
        "episodes": np.broadcast_to(np.arange(env_count)[:, None], block.shape).copy(),
    }
    call = 'metrana.log_rl_environment_step("reward", block, i, ids, episodes)'
    return _timed(place, call, names, **_paced(block.size))


def _timed_copy(place: Place, env_count: int) -> Figures:
    # The floor of any call that keeps the values: NumPy copies them to the next place of a buffer
    # too large for the caches, at the same pace, with nothing else at work.
    block = _block(env_count)
    places = np.zeros((_COPIES_BYTES // block.nbytes, *block.shape), dtype=block.dtype)
    names = {"copy": np.copyto, "places": list(places), "block": block}
    call = f"copy(places[i % {len(places)}], block)"
    pace = _paced(block.size)
    sample(call, names, place.seconds(0.5), **pace)
    figures = percentiles(sample(call, names, place.seconds(_COPY_SECONDS), **pace))
    return {f"copy_{name}": value for name, value in figures.items()}


def _block(env_count: int) -> np.ndarray:
    shape = (env_count, _BLOCK_STEPS)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _timed_envs(place: Place, ids: str, setup: str = "pass") -> Figures:
    names = {
        "rewards": np.ones(_ENV_COUNT, dtype=np.float32),
        "numbers": range(_ENV_COUNT),
        "same": [f"env-{number}" for number in range(_ENV_COUNT)],
    }
    call = f'metrana.log_rl_environment_step("reward", rewards, i, {ids})'
    return _timed(place, call, names, setup=setup, **_paced(_ENV_COUNT))


def _first_and_rest(samples: np.ndarray) -> Figures:
    steps = samples[: len(samples) // _CALLS_PER_STEP * _CALLS_PER_STEP]
    calls = steps.reshape(-1, _CALLS_PER_STEP)
    return {
        "first_p50_us": percentiles(calls[:, 0])["p50_us"],
        "rest_p99_us": percentiles(calls[:, 1:].ravel())["p99_us"],
    }


def _timed(
    place: Place,
    call: str,
    names: dict[str, Any],
    *,
    more: Callable[[np.ndarray], Figures] = lambda _: {},
    **pace: Any,
) -> Figures:
    logger = logger_of(place.logger)
    with opened(logger, place.folder) as own:
        names = {**own, **names}
        warm_up = sample(call, names, place.seconds(0.5), **pace)
        # An rl_step must not go back, so the counter goes on where the warm-up ended.
        call = call.replace(", i,", f", i + {len(warm_up)},")
        samples = sample(call, names, place.seconds(_SECONDS), **pace)
        return {**percentiles(samples), **more(samples), **logger.dropped()}


def _paced(point_count: int) -> dict[str, Any]:
    # A million points a second on average, so that no call waits for room in the queue.
    return {
        "burst": _BLOCK_BURST,
        "between": lambda: time.sleep(_BLOCK_BURST * point_count / 1e6),
    }


@contextmanager
def _full_disk_load(path: Path, megabytes: int) -> Iterator[None]:
    # dd itself is bounded, so that it ends whatever becomes of this process.
    command = ["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={megabytes}", "conv=fsync"]
    is_over = threading.Event()

    def write_on() -> None:
        while not is_over.is_set():
            subprocess.run(command, stderr=subprocess.DEVNULL, check=True)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_on)
        try:
            yield
        finally:
            is_over.set()
            writing.result()
            path.unlink(missing_ok=True)
