"""What the engine takes of the memory of the process that it is in."""

from __future__ import annotations

import os
import time

import metrana
from benchmarks.loggers import logger_of, prepared
from benchmarks.place import Figures, Place
from benchmarks.processes import memory_mb
from benchmarks.walks import Walks

_IDLE_S = 3.0
_BUSY_S = 15.0
_SERIES = 100
_ARRAY_POINTS = 100
_TICK_S = 0.01  # one array a series each: a million points a second


def measure_memory(place: Place) -> Figures:
    """Reports by how much the private memory grows over that before `init`, at its highest."""
    walks = Walks(_ARRAY_POINTS)
    names = [f"metric-{number}" for number in range(_SERIES)]
    logger = logger_of(place.logger)
    with prepared(logger, place.folder):
        before = _private_mb()
        logger.open(place.folder)
        idle = [_private_mb()]
        end = time.monotonic() + place.seconds(_IDLE_S)
        while time.monotonic() < end:
            time.sleep(_TICK_S)
            idle.append(_private_mb())
        busy, logged, start = [], 0, time.monotonic()
        while (passed := time.monotonic() - start) < place.seconds(_BUSY_S):
            for name, walk in zip(names, walks.take(_SERIES), strict=True):
                metrana.log(name, walk)
            logged += _SERIES * _ARRAY_POINTS
            busy.append(_private_mb())
            time.sleep(max(0.0, logged / 1e6 - passed))
        reached = logged / (time.monotonic() - start)
        dropped = logger.dropped()
        logger.close()
    return {
        "idle_mb": max(idle) - before,
        "busy_mb": max(busy) - before,
        "mega_points_per_s": reached / 1e6,
        **dropped,
    }


def _private_mb() -> float:
    # The ring is shared memory, which is counted on its own; so is what is left of files.
    return memory_mb([os.getpid()], ("RssAnon", "RssFile"))
