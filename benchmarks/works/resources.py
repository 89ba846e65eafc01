"""What the engine takes of the process that it is in: memory and CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import metrana
from benchmarks.loggers import logger_of, prepared
from benchmarks.place import Figures, Place
from benchmarks.walks import Walks

_IDLE_S = 3.0
_BUSY_S = 15.0
_SERIES = 100
_ARRAY_POINTS = 100
_TICK_S = 0.01  # one array a series each: a million points a second
_CPU_S = 20.0
_STEP_S = 0.02
_SCALARS = 20  # a step: a thousand points a second


def measure_memory(place: Place) -> Figures:
    """Reports by how much the private memory grows over that before `init`, at its highest."""
    walks = Walks(_ARRAY_POINTS)
    names = [f"metric-{number}" for number in range(_SERIES)]
    logger = logger_of(place.logger)
    with prepared(logger, place.folder):
        before = _private_kb()
        logger.open(place.folder)
        idle = [_private_kb()]
        end = time.monotonic() + place.seconds(_IDLE_S)
        while time.monotonic() < end:
            time.sleep(_TICK_S)
            idle.append(_private_kb())
        busy, logged, start = [], 0, time.monotonic()
        while (passed := time.monotonic() - start) < place.seconds(_BUSY_S):
            for name, walk in zip(names, walks.take(_SERIES), strict=True):
                metrana.log(name, walk)
            logged += _SERIES * _ARRAY_POINTS
            busy.append(_private_kb())
            time.sleep(max(0.0, logged / 1e6 - passed))
        reached = logged / (time.monotonic() - start)
        dropped = logger.dropped()
        logger.close()
    return {
        "idle_mb": (max(idle) - before) / 1024,
        "busy_mb": (max(busy) - before) / 1024,
        "mega_points_per_s": reached / 1e6,
        **dropped,
    }


def measure_cpu(place: Place) -> Figures:
    """Reports the CPU of all threads of this process, and that of the same loop without logging."""
    names = [f"metric-{number}" for number in range(_SCALARS)]
    seconds = place.seconds(_CPU_S)
    empty = _core_percent(seconds, lambda: None)
    logger = logger_of(place.logger)
    with prepared(logger, place.folder):
        logger.open(place.folder)

        def log_step() -> None:
            for name in names:
                metrana.log(name, 0.5)

        whole = _core_percent(seconds, log_step)
        dropped = logger.dropped()
        logger.close()
    return {
        "core_percent": whole - empty,
        "whole_percent": whole,
        "loop_percent": empty,
        **dropped,
    }


def _core_percent(seconds: float, step: Callable[[], object]) -> float:
    cpu_s, start = time.process_time(), time.monotonic()
    count = 0
    while (passed := time.monotonic() - start) < seconds:
        step()
        count += 1
        time.sleep(max(0.0, count * _STEP_S - passed))
    return (time.process_time() - cpu_s) / (time.monotonic() - start) * 100


def _private_kb() -> int:
    # The ring is shared memory, which is counted on its own; so is what is left of files.
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile"))
