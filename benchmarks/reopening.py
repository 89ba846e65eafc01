"""What opening and closing the embedded store leaves in a process: threads and memory.

Run with `python -m benchmarks.reopening [--openings 100]`; prints a table. chDB keeps the pools of
background threads of what it has closed, so an opening that merges leaves some, each time.
"""

import argparse
import multiprocessing
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.points_store import random_walks
from metrana.server.points import ChdbLimits, open_points

WARM_UP = 10  # openings after which the engine's own caches and idle threads have grown


def thread_count() -> int:
    """Returns how many threads this process has."""
    return len(list(Path("/proc/self/task").iterdir()))


def resident_bytes() -> int:
    """Returns the memory that is this process's own."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def reopen(url: str, opening_count: int, *, merging: bool) -> tuple[float, float, float]:
    """Returns the threads, the bytes that an opening left, and its median time in seconds."""
    took_s: list[float] = []
    before = (0, 0)
    for number in range(WARM_UP + opening_count):
        if number == WARM_UP:
            before = thread_count(), resident_bytes()
        began = perf_counter()
        with open_points(url, ChdbLimits(merging=merging)) as store:
            store.summaries([1])
        took_s.append(perf_counter() - began)
    threads = (thread_count() - before[0]) / opening_count
    return threads, (resident_bytes() - before[1]) / opening_count, median(took_s[WARM_UP:])


def main() -> None:
    """Measures both ways to open in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openings", type=int, default=100)
    opening_count = parser.parse_args().openings
    spawning = multiprocessing.get_context("spawn")
    print("| opened | threads left | KiB left | ms |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        url = f"chdb://{folder}/points"
        with open_points(url) as store:
            store.insert(random_walks(100_000, 200, 0, 1, 1))
        for name, merging in (("merging (a server)", True), ("for a moment (Client)", False)):
            with spawning.Pool(1) as alone:
                left = alone.apply(reopen, (url, opening_count), {"merging": merging})
            threads, left_bytes, took_s = left
            print(f"| {name} | {threads:.1f} | {left_bytes / 1024:,.0f} | {took_s * 1e3:.0f} |")


if __name__ == "__main__":
    main()
