"""What importing a logger adds to a process that has NumPy already."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.loggers import logger_of
from benchmarks.place import Figures, Place

_PROCESSES = 10
_SCRIPT = """
import time, numpy
start = time.perf_counter()
{imports}
end = time.perf_counter()
print()
print((end - start) * 1000)
"""


def measure_import(place: Place) -> Figures:
    """Times the import in processes of their own; the first fills the caches and is left out."""
    script = _SCRIPT.format(imports=logger_of(place.logger).imports)
    times_ms = [_last_line(script) for _ in range(1 + place.count(_PROCESSES))][1:]
    return {"median_ms": statistics.median(times_ms), "min_ms": min(times_ms)}


def _last_line(script: str) -> float:
    # What an import prints comes before.
    output = subprocess.check_output([sys.executable, "-c", script], text=True)
    return float(output.splitlines()[-1])
