"""What threads that log at once achieve together."""

from __future__ import annotations

import threading
import time

import numpy as np

import metrana
from benchmarks.loggers.metrana_logger import dropped_by
from benchmarks.place import Figures, Place
from metrana.query import Client

_THREADS = 4
_CALLS = 2_000_000
_ROUNDS = 3
# Values tell the thread and the count: both stay exact in a float.
_THREAD_STRIDE = 1 << 32


def measure_threads(place: Place) -> Figures:
    """Compares the rate of four threads with that of one; the order is read back afterwards."""
    per_thread = place.count(_CALLS) // _THREADS
    singles, together = [], []
    with metrana.init(
        mode="offline", data_dir=place.folder, run_name="threads", backpressure_strategy="block"
    ) as run:
        for number in range(place.count(_ROUNDS)):
            singles.append(_rate(run, f"one-{number}", 1, per_thread * _THREADS))
            together.append(_rate(run, f"four-{number}", _THREADS, per_thread))
        dropped = dropped_by(run)
    with Client(data_dir=place.folder) as client:
        found = [client.points("threads", f"four-{number}") for number in range(len(together))]
    wrong = sum(_out_of_order(frame["value"].to_numpy(), per_thread) for frame in found)
    single, four = float(np.median(singles)), float(np.median(together))
    return {
        "ratio_percent": four / single * 100,
        "single_per_s": single,
        "together_per_s": four,
        "out_of_order": float(wrong),
        **dropped,
    }


def _rate(run: metrana.Run, metric_name: str, thread_count: int, calls: int) -> float:
    began: list[float] = []
    # One of the threads runs the action when all are there, before any goes on.
    start = threading.Barrier(thread_count, lambda: began.append(time.perf_counter()))

    def log(thread_no: int) -> None:
        first = thread_no * _THREAD_STRIDE
        start.wait()
        for value in range(first, first + calls):
            run.log(metric_name, value)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(thread_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = thread_count * calls / (time.perf_counter() - began[0])
    # The next one starts with an empty ring.
    run.flush()
    return rate


def _out_of_order(values: np.ndarray, per_thread: int) -> int:
    wrong = abs(len(values) - per_thread * _THREADS)
    thread_nos, counts = np.divmod(values.astype(np.int64), _THREAD_STRIDE)
    for thread_no in range(_THREADS):
        own = counts[thread_nos == thread_no]
        wrong += int(np.count_nonzero(own != np.arange(len(own))))
    return wrong
