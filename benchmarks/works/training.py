"""How much longer a training step takes because it logs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.confidence import with_interval
from benchmarks.loggers import PEERS, logger_of, prepared
from benchmarks.place import Figures, Place

_STEP_S = 0.003
_SCALARS = 20
# Pairs of rounds, 2.4 s of steps each: as many as it takes to see half a percent. A peer takes so
# much that a few show it.
_PAIRS = 14
_PEER_PAIRS = 4
_ROUND_STEPS = 800
# What runs before the steps that count lasts longer than what any logger gathers before it works on
# it, so a round pays for as much as it causes. Without a run there are only the caches to warm.
_WARM_UP_S = 1.2
_PLAIN_WARM_UP_S = 0.3
_WARM_UP_STEPS = 20
_ROUNDS_TRIED = 100
_LOOP = """
def steps(first, end, step, keys, clock, append):
    append(clock())
    for i in range(first, end):
        step()
        values = {{key: i + 0.25 * index for index, key in enumerate(keys)}}
        {statement}
        append(clock())
"""
_KEYS = [f"metric/{index}" for index in range(_SCALARS)]


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
    pair_count = place.count(_PEER_PAIRS if place.logger in PEERS else _PAIRS)
    plain, logged, closing, dropped = [], [], [], 0.0
    for number in range(pair_count):
        # Which comes first changes, so that a drift of the machine favours neither.
        if number % 2 == 0:
            plain.append(_steps_s(place, "pass", {}, step, _PLAIN_WARM_UP_S))
        with prepared(logger, place.folder):
            names = logger.open(place.folder)
            logged.append(_steps_s(place, statement, names, step, _WARM_UP_S))
            dropped += logger.dropped().get("dropped", 0.0)
            closing.append(_timed(logger.close))
        if number % 2:
            plain.append(_steps_s(place, "pass", {}, step, _PLAIN_WARM_UP_S))
    steps_s = np.array([plain, logged])
    # Of all steps together, and of the middle ones: half of a round's steps take longer. The middle
    # ones are quiet, but only the sums have all that a logger takes.
    sums, middles = steps_s.sum(axis=2), np.median(steps_s, axis=2)
    return {
        **with_interval("slower_percent", _log_ratios(sums), _percent),
        **with_interval("middle_percent", _log_ratios(middles), _percent),
        "close_ms": float(np.median(closing)) * 1000,
        "step_ms": float(steps_s[0].mean()) * 1000,
        "steps": float(steps_s[0].size),
        "pairs": float(pair_count),
        "dropped": dropped,
    }


def _log_ratios(rounds_s: np.ndarray) -> list[float]:
    # Of each pair, whose rounds share what the machine was like. As logarithms: twice as long and
    # half as long are equally far from as long.
    plain, logged = rounds_s
    ratios: list[float] = np.log(logged / plain).tolist()
    return ratios


def _percent(log_ratio: float) -> float:
    return math.expm1(log_ratio) * 100


def _steps_s(
    place: Place,
    statement: str,
    names: dict[str, Any],
    step: Callable[[], None],
    warm_up_s: float,
) -> np.ndarray:
    # The seconds of each step of a round. Shape: (step_count,).
    scope = dict(names)
    exec(_LOOP.format(statement=statement), scope)

    def go_on(first: int, step_count: int) -> np.ndarray:
        times: list[float] = []
        end = first + step_count
        scope["steps"](first, end, step, _KEYS, time.perf_counter, times.append)
        return np.diff(times)

    first, until = 0, time.perf_counter() + place.seconds(warm_up_s)
    while time.perf_counter() < until:
        go_on(first, _WARM_UP_STEPS)
        first += _WARM_UP_STEPS
    return go_on(first, place.count(_ROUND_STEPS))


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
