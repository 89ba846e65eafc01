"""What it takes to open and close a run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from benchmarks.loggers import PEERS, Logger, logger_of, prepared
from benchmarks.place import Figures, Place

_PROCESSES = 7
_PEER_PROCESSES = 3  # most of their time is that of the imports
_RUNS = 4
# What a user's script has at that point, and nothing more: what opening a run imports is part of
# what the first one takes.
_SCRIPT = """
import sys, time, numpy
{imports}
folder, first, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
times_ms = []
for number in range(first, end):
    start = time.perf_counter()
    {opening}
    {closing}
    times_ms.append((time.perf_counter() - start) * 1000)
print()
print(times_ms)
"""


def measure_startup(place: Place) -> Figures:
    """Times the first run of a process and the later ones, in several processes and one folder.

    Before them a process of its own makes what a folder has from its first run on.
    """
    logger = logger_of(place.logger)
    process_count = place.count(_PEER_PROCESSES if place.logger in PEERS else _PROCESSES)
    with prepared(logger, place.folder):
        _, *processes = (_times_ms(logger, place, number) for number in range(1 + process_count))
    firsts = [times_ms[0] for times_ms in processes]
    later = [time_ms for times_ms in processes for time_ms in times_ms[1:]]
    return {
        "first_ms": statistics.median(firsts),
        "median_ms": statistics.median(later),
        "min_ms": min(later),
        "processes": float(len(processes)),
    }


def _times_ms(logger: Logger, place: Place, number: int) -> list[float]:
    script = _SCRIPT.format(imports=logger.imports, opening=logger.opening, closing=logger.closing)
    numbers = [str(number * _RUNS), str((number + 1) * _RUNS)]
    command = [sys.executable, "-c", script, str(place.folder), *numbers]
    # What a logger says comes before.
    last_line = subprocess.check_output(command, text=True).splitlines()[-1]
    times_ms: list[float] = json.loads(last_line)
    return times_ms
