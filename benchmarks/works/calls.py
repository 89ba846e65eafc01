"""The calls of metrana beside the plain scalar, while its server receives what they log."""

from __future__ import annotations

import math
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
from benchmarks.timing import percentile_us, percentiles, sample
from benchmarks.works.training import busy_step

_SECONDS = 10.0
_WARM_UP_SECONDS = 0.5
_DISK_SECONDS = 30.0
_BESIDE_SECONDS = 2.0
_SCALAR = 'metrana.log("loss", x)'
_NEW_SCALAR = "x = 0.25 * i"
# More than the caches hold.
_POOL_BYTES = 64 << 20
_ENV_COUNT = 4096
_BLOCK_STEPS = 128
_CALLS_PER_STEP = 20
_DD_MEGABYTES = 1024
_BLOCK_BURST = 5


def measure_scalar_step(place: Place) -> Figures:
    """Times scalars as a training logs them: its own work has taken the caches in between."""
    return _timed(
        place,
        _SCALAR,
        {},
        setup=_NEW_SCALAR,
        more=_first_and_rest,
        burst=_CALLS_PER_STEP,
        between=busy_step(),
    )


def measure_scalar_dd(place: Place) -> Figures:
    """Times scalars while another process writes the same disk as fast as it can."""
    refuse_memory(place.folder)
    logger = logger_of(place.logger)
    with (
        opened(logger, place.folder) as names,
        _full_disk_load(place.folder / "dd", 16 if place.is_quick else _DD_MEGABYTES),
    ):
        samples = _sampled(_SCALAR, names, place.seconds(_DISK_SECONDS), _NEW_SCALAR, {})
        return {**percentiles(samples), **logger.dropped()}


def measure_block_8(place: Place) -> Figures:
    """Times a block of 8 environments."""
    return _timed_block(place, 8)


def measure_block_64(place: Place) -> Figures:
    """Times a block of 64 environments, and what merely copying its values takes."""
    return {**_timed_block(place, 64), **_timed_copy(place, 64)}


def measure_envs_same(place: Place) -> Figures:
    """Times one step of 4,096 environments whose ids come in the same list each time."""
    return _timed_envs(place, "same")


def measure_envs_fresh(place: Place) -> Figures:
    """Times the same with ids that are built anew before each call; building is not timed."""
    return _timed_envs(place, "fresh", "fresh = [f'env-{number}' for number in numbers]")


def measure_torch(place: Place) -> Figures:
    """Times a loss as a training step has it: a new tensor each time, made before the call."""
    import torch

    names = {"weight": torch.tensor(0.5, requires_grad=True)}
    return _timed(place, 'metrana.log("loss", loss)', names, setup="loss = weight * i")


def _timed_block(place: Place, env_count: int) -> Figures:
    # Each block is made right before its call, as a rollout makes it: of values that no call has
    # seen, with the same episodes in an array of its own.
    blocks = _pool(env_count, _BLOCK_STEPS)
    episodes = np.broadcast_to(np.arange(env_count)[:, None], blocks[0].shape)
    names: dict[str, Any] = {
        "pool": [(block, episodes.copy()) for block in blocks],
        "ids": [f"env-{number}" for number in range(env_count)],
    }
    call = 'metrana.log_rl_environment_step("{}", block, i, ids, episodes)'
    pace = _paced(episodes.size)
    logger = logger_of(place.logger)
    with opened(logger, place.folder) as own:
        names |= own
        made = f"pool[i % {len(blocks)}]"
        setup = f"block, episodes = (part.copy() for part in {made})"
        samples = _sampled(call.format("reward"), names, place.seconds(_SECONDS), setup, pace)
        # Of one that was made long ago, and is in no cache any more.
        setup = f"block, episodes = {made}"
        cold = _sampled(call.format("old"), names, place.seconds(_BESIDE_SECONDS), setup, pace)
        return {**percentiles(samples), "cold_p50_us": percentile_us(cold, 2), **logger.dropped()}


def _timed_copy(place: Place, env_count: int) -> Figures:
    # NumPy copies such blocks to the next place of as many, at the same pace, with nothing else at
    # work.
    blocks = _pool(env_count, _BLOCK_STEPS)
    # Written once: the first time takes a page fault, which a ring has behind it.
    places = [np.ones_like(block) for block in blocks]
    names = {"copy": np.copyto, "pool": list(zip(places, blocks, strict=True))}
    setup = f"to, block = pool[i % {len(blocks)}]; block = block.copy()"
    pace = _paced(blocks[0].size)
    samples = _sampled("copy(to, block)", names, place.seconds(_BESIDE_SECONDS), setup, pace)
    return {"copy_p50_us": percentile_us(samples, 2)}


def _pool(*shape: int) -> list[np.ndarray]:
    # Values for one call after the other, which no call finds where the one before left its own.
    count = _POOL_BYTES // (math.prod(shape) * np.dtype(np.float32).itemsize)
    return list(np.random.default_rng(0).standard_normal((count, *shape), dtype=np.float32))


def _timed_envs(place: Place, ids: str, building: str = "pass") -> Figures:
    pool = _pool(_ENV_COUNT)
    setup = f"rewards = pool[i % {len(pool)}].copy(); {building}"
    names = {
        "pool": pool,
        "numbers": range(_ENV_COUNT),
        "same": [f"env-{number}" for number in range(_ENV_COUNT)],
    }
    call = f'metrana.log_rl_environment_step("reward", rewards, i, {ids})'
    return _timed(place, call, names, setup=setup, **_paced(_ENV_COUNT))


def _first_and_rest(samples: np.ndarray) -> Figures:
    steps = samples[: len(samples) // _CALLS_PER_STEP * _CALLS_PER_STEP]
    calls = steps.reshape(-1, _CALLS_PER_STEP)
    return {
        "first_p50_us": percentile_us(calls[:, 0], 2),
        "rest_p99_us": percentile_us(calls[:, 1:], 100),
    }


def _timed(
    place: Place,
    call: str,
    names: dict[str, Any],
    *,
    setup: str,
    more: Callable[[np.ndarray], Figures] = lambda _: {},
    **pace: Any,
) -> Figures:
    logger = logger_of(place.logger)
    with opened(logger, place.folder) as own:
        samples = _sampled(call, {**own, **names}, place.seconds(_SECONDS), setup, pace)
        return {**percentiles(samples), **more(samples), **logger.dropped()}


def _sampled(
    call: str, names: dict[str, Any], seconds: float, setup: str, pace: dict[str, Any]
) -> np.ndarray:
    warm_up = sample(call, names, min(seconds, _WARM_UP_SECONDS), setup=setup, **pace)
    # An rl_step must not go back, so the counter goes on where the warm-up ended.
    call = call.replace(", i,", f", i + {len(warm_up)},")
    return sample(call, names, seconds, setup=setup, **pace)


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
