"""What `import metrana` adds to a process that has NumPy already."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.place import Figures, Place

_PROCESSES = 20
_SCRIPT = """
import time, numpy
start = time.perf_counter()
import metrana
print((time.perf_counter() - start) * 1000)
"""


def measure_import(place: Place) -> Figures:
    """Times the import in processes of their own; the first fills the caches and is left out."""
    times_ms = [
        float(subprocess.check_output([sys.executable, "-c", _SCRIPT]))
        for _ in range(1 + place.count(_PROCESSES))
    ][1:]
    return {"median_ms": statistics.median(times_ms), "min_ms": min(times_ms)}
