"""How much longer a training step takes because it logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.loggers import logger_of, opened
from benchmarks.place import Figures, Place

_STEP_S = 0.003
_SCALARS = 20
_BLOCK_STEPS = 100
_BLOCK_PAIRS = 40
_ROUNDS_TRIED = 100
_LOOP = """
def logged(steps, step):
    for i in range(*steps):
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
    # Blocks of steps with and without logging follow each other.
    step = busy_step()
    ratios, plain = [], []
    with opened(logger_of(place.logger), place.folder) as names:
        values = {f"metric/{number}": 0.25 * number for number in range(_SCALARS)}
        scope: dict[str, Any] = {**names, "values": values}
        exec(_LOOP.format(statement=statement), scope)
        count = place.count(_BLOCK_STEPS)
        for pair in range(place.count(_BLOCK_PAIRS)):
            steps = (pair * count, (pair + 1) * count)

            def with_logging(steps: tuple[int, int] = steps) -> None:
                scope["logged"](steps, step)

            def without() -> None:
                for _ in range(count):
                    step()

            # Which comes first changes, so that a drift of the machine favours neither.
            if pair % 2:
                logged_s, plain_s = _timed(with_logging), _timed(without)
            else:
                plain_s, logged_s = _timed(without), _timed(with_logging)
            ratios.append(logged_s / plain_s)
            plain.append(plain_s / count)
    return {
        "slower_percent": (float(np.median(ratios)) - 1) * 100,
        "step_ms": float(np.median(plain)) * 1000,
        "steps": float(count * len(ratios) * 2),
    }


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
