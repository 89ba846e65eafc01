"""What one statement takes, call by call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.place import Figures

# As timeit does it: compiled into the loop, a statement costs what it costs its user, and no more.
# Only what is between the two clocks counts.
_LOOP = """
def loop(first, last, until, clock, append):
    for i in range(first, last):
        {setup}
        start = clock()
        {statement}
        end = clock()
        append(end - start)
        if end >= until:
            break
"""
_BURST = 1000
_PAUSE_S = 0.01
# Of so many calls one takes longer.
_PERCENTILES = {"p50_us": 2, "p99_us": 100, "p999_us": 1000, "p9999_us": 10_000}
_LONGER_CALLS = 10


def sample(
    statement: str,
    names: dict[str, Any],
    seconds: float,
    *,
    setup: str = "pass",
    burst: int = _BURST,
    between: Callable[[], object] = lambda: time.sleep(_PAUSE_S),
) -> np.ndarray:
    """Runs a statement again and again in bursts; `i` in it counts the calls.

    Args:
        statement: One line of Python.
        names: What it uses.
        seconds: How long to go on, pauses included.
        setup: One line that is done before each call and not timed; may set names for it.
        burst: Calls without a pause.
        between: Called after each burst.

    Returns:
        The nanoseconds of each call, the timer's own included. Shape: (call_count,).
    """
    scope = dict(names)
    exec(_LOOP.format(setup=setup, statement=statement), scope)
    samples: list[int] = []
    until = time.perf_counter_ns() + int(seconds * 1e9)
    while time.perf_counter_ns() < until:
        first = len(samples)
        scope["loop"](first, first + burst, until, time.perf_counter_ns, samples.append)
        between()
    return np.array(samples, dtype=np.int64)


def percentile_us(samples: np.ndarray, one_in: int) -> float:
    """Returns the microseconds that one call in so many takes longer than."""
    return float(np.percentile(samples, 100 - 100 / one_in, method="higher")) / 1000


def percentiles(samples: np.ndarray) -> Figures:
    """Returns the exact percentiles in microseconds, and `net_…` without what timing costs.

    The median is always among them, another only if at least ten of the calls took longer: the
    p99 of a thousand calls, the p99.9 of ten thousand.
    """
    timer_us = float(np.median(sample("pass", {}, 0.1, between=lambda: None))) / 1000
    figures: Figures = {"calls": len(samples), "timer_us": timer_us}
    for name, one_in in _PERCENTILES.items():
        if name != "p50_us" and len(samples) < one_in * _LONGER_CALLS:
            continue
        value = percentile_us(samples, one_in)
        figures[name] = value
        figures[f"net_{name}"] = max(0.0, value - timer_us)
    return figures
