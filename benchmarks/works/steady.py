"""What a logger takes of a process that logs a thousand points a second: CPU and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from benchmarks.confidence import with_interval
from benchmarks.loggers import logger_of, prepared
from benchmarks.place import Figures, Place
from benchmarks.processes import cpu_s, memory_mb, started_by

_IDLE_S = 2.0
_WARM_UP_S = 2.0
_ROUND_S = 1.5
_ROUNDS = 10
_TURN_S = 0.02
_SCALARS = 20  # a turn: a thousand points a second
_TICK_S = 0.05
# The ring is shared memory, and part of what metrana takes.
_KINDS = ("RssAnon", "RssFile", "RssShmem")
_LOG = """
def log(i, values):
    {statement}
"""


def measure_steady(place: Place) -> Figures:
    """Reports CPU in rounds, and memory above that of a process that has not imported the logger.

    The CPU is that of the calls, on the thread that logs, and of all other threads. The loop around
    the calls is left out by measuring, not by subtracting what it takes alone: that is more than a
    logger takes, and not the same each time.
    """
    before_mb = memory_mb([os.getpid()], _KINDS)
    logger = logger_of(place.logger)
    with prepared(logger, place.folder):
        scope = logger.open(place.folder)
        exec(_LOG.format(statement=logger.mapping), scope)
        idle_mb = _idle_mb(place.seconds(_IDLE_S))
        turns = _Turns(scope["log"])
        turns.go_on(place.seconds(_WARM_UP_S))
        others = started_by(os.getpid())
        others_cpu_s, logged, start = sum(map(cpu_s, others)), turns.logged, time.monotonic()
        rounds, memory = [], []
        for _ in range(place.count(_ROUNDS)):
            rounds.append(turns.go_on(place.seconds(_ROUND_S)))
            memory.append(memory_mb([os.getpid()], _KINDS))
        took_s = time.monotonic() - start
        others_cpu_s = sum(map(cpu_s, others)) - others_cpu_s
        others_mb = memory_mb(others, _KINDS)
        dropped = logger.dropped()
        logger.close()
    return {
        **with_interval("core_percent", rounds),
        "others_percent": others_cpu_s / took_s * 100,
        "points_per_s": (turns.logged - logged) / took_s,
        "idle_mb": idle_mb - before_mb,
        "steady_mb": max(memory) - before_mb,
        "others_mb": others_mb,
        **dropped,
    }


class _Turns:
    # The loop of a process that logs: it waits most of the time.
    def __init__(self, log: Callable[[int, dict[str, float]], object]) -> None:
        self.logged = 0
        self._log = log
        self._names = [f"metric/{number}" for number in range(_SCALARS)]

    def go_on(self, seconds: float) -> float:
        # Returns what the logger took, in percent of a core.
        calls_s, first = 0.0, self.logged
        process_s, thread_s, start = time.process_time(), time.thread_time(), time.monotonic()
        while (passed_s := time.monotonic() - start) < seconds:
            turn = self.logged // _SCALARS
            values = {name: turn + 0.25 * index for index, name in enumerate(self._names)}
            began_s = time.thread_time()
            self._log(turn, values)
            calls_s += time.thread_time() - began_s
            self.logged += _SCALARS
            time.sleep(max(0.0, (self.logged - first) / _SCALARS * _TURN_S - passed_s))
        took_s = time.monotonic() - start
        thread_s = time.thread_time() - thread_s
        threads_s = time.process_time() - process_s - thread_s
        return (calls_s + threads_s) / took_s * 100


def _idle_mb(seconds: float) -> float:
    highest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        highest = max(highest, memory_mb([os.getpid()], _KINDS))
        time.sleep(_TICK_S)
    return highest
