"""How much longer a training step takes because it logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.loggers import logger_of, prepared
from benchmarks.place import Figures, Place

_STEP_S = 0.003
_SCALARS = 20
# Six rounds of each kind, 10.8 s of steps. What runs before them lasts longer than what any logger
# gathers before it works on it, so a round pays for as much as it causes.
_ROUNDS = 6
_ROUND_STEPS = 600
_WARM_UP_S = 1.2
_WARM_UP_STEPS = 20
_ROUNDS_TRIED = 100
_LOOP = """
def steps(first, end, step):
    for i in range(first, end):
        step()
        {statement}
"""


def busy_step() -> Callable[[], None]:
    """Returns a fixed amount of NumPy work that takes about 3 ms of one core, undisturbed."""
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    out = np.empty_like(matrix)

    def work(rounds: int) -> None:
        # Element-wise, so that no BLAS takes the second core.
        for _ in range(rounds):
            np.multiply(matrix, 1.0001, out=out)
            np.tanh(out, out=out)

    def tried() -> None:
        work(_ROUNDS_TRIED)

    rounds = max(1, round(_ROUNDS_TRIED * _STEP_S / min(_timed(tried) for _ in range(20))))
    return lambda: work(rounds)


def measure_training(place: Place) -> Figures:
    """Logs what a step has measured as one mapping."""
    return _slow_down(place, logger_of(place.logger).mapping)


def measure_training_calls(place: Place) -> Figures:
    """Logs what a step has measured one by one."""
    return _slow_down(place, "for name, value in values.items(): metrana.log(name, value)")


def _slow_down(place: Place, statement: str) -> Figures:
    # Rounds without any run open and rounds with one that logs take turns, and their sums count:
    # what a logger does on threads and in processes of its own takes its time of the same cores.
    # The step itself keeps one of them busy.
    step = busy_step()
    logger = logger_of(place.logger)
    plain, logged, closing, dropped = [], [], [], 0.0
    for number in range(place.count(_ROUNDS)):
        # Which comes first changes, so that a drift of the machine favours neither.
        if number % 2 == 0:
            plain.append(_round_s(place, "pass", {}, step))
        with prepared(logger, place.folder):
            values = {f"metric/{index}": 0.25 * index for index in range(_SCALARS)}
            names = {**logger.open(place.folder), "values": values}
            logged.append(_round_s(place, statement, names, step))
            dropped += logger.dropped().get("dropped", 0.0)
            closing.append(_timed(logger.close))
        if number % 2:
            plain.append(_round_s(place, "pass", {}, step))
    slower = [(ours / bare - 1) * 100 for ours, bare in zip(logged, plain, strict=True)]
    return {
        "slower_percent": (sum(logged) / sum(plain) - 1) * 100,
        "lowest_percent": min(slower),
        "highest_percent": max(slower),
        "noise_percent": (max(plain) / min(plain) - 1) * 100,
        "close_ms": float(np.median(closing)) * 1000,
        "step_ms": sum(plain) / len(plain) / place.count(_ROUND_STEPS) * 1000,
        "steps": float(place.count(_ROUND_STEPS) * len(plain)),
        "dropped": dropped,
    }


def _round_s(
    place: Place, statement: str, names: dict[str, Any], step: Callable[[], None]
) -> float:
    scope = dict(names)
    exec(_LOOP.format(statement=statement), scope)
    first, until = 0, time.perf_counter() + place.seconds(_WARM_UP_S)
    while time.perf_counter() < until:
        scope["steps"](first, first + _WARM_UP_STEPS, step)
        first += _WARM_UP_STEPS
    return _timed(lambda: scope["steps"](first, first + place.count(_ROUND_STEPS), step))


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
