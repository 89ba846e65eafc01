"""What it takes to open and close a run."""

from __future__ import annotations

import statistics
import time

from benchmarks.loggers import logger_of, prepared
from benchmarks.place import Figures, Place

_RUNS = 20


def measure_startup(place: Place) -> Figures:
    """Times runs of one process one after the other; the first makes files and is left out."""
    logger = logger_of(place.logger)
    times_ms = []
    with prepared(logger, place.folder):
        for _ in range(1 + place.count(_RUNS)):
            start = time.perf_counter()
            logger.open(place.folder)
            logger.close()
            times_ms.append((time.perf_counter() - start) * 1000)
    first_ms, *later_ms = times_ms
    return {
        "first_ms": first_ms,
        "median_ms": statistics.median(later_ms),
        "min_ms": min(later_ms),
    }
