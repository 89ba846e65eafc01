"""How many bytes a point takes on disk in what a logger keeps in its usual local mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.loggers import logger_of, prepared
from benchmarks.place import Figures, Place
from benchmarks.works.kill import read_back

_SERIES = 200
_STEPS = 150
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's are
# One of the series is what can be read back: bytes of points that are not there would be few.
_NAMES = ["loss", *(f"metric/{number}" for number in range(1, _SERIES))]
_LOOP = """
def log(rows, names):
    for i, row in enumerate(rows):
        values = dict(zip(names, row))
        {statement}
"""


def measure_files(place: Place) -> Figures:
    """Logs random walks, each step of all series as one mapping, closes, and adds up the files.

    What a run of a single step leaves is not counted: tables without rows are not bytes of points.
    """
    few = _logged(place, "few", 1)
    many = _logged(place, "many", place.count(_STEPS))
    points = many["points"] - few["points"]
    return {
        "kept_bytes": (many["bytes"] - few["bytes"]) / points,
        "dropped": few["dropped"] + many["dropped"],
    }


def _logged(place: Place, name: str, steps: int) -> Figures:
    # By a process of its own, at whose end all is written.
    folder = place.folder / name
    folder.mkdir()
    command = [sys.executable, "-m", __name__, place.logger, str(folder), str(steps)]
    output = subprocess.check_output(command, text=True)
    kept = float(_disk_bytes(folder))
    found = read_back(place.logger, folder)
    expected = [row[0] for row in _rows(steps)]
    if sorted(found) != sorted(expected):
        raise RuntimeError(f"of {steps} points of a series {len(found)} are found")
    figures: Figures = json.loads(output.splitlines()[-1])
    return {"bytes": kept, **figures}


def _log(logger_name: str, folder: Path, steps: int) -> Figures:
    logger = logger_of(logger_name)
    with prepared(logger, folder):
        scope = logger.open(folder)
        exec(_LOOP.format(statement=logger.mapping), scope)
        scope["log"](_rows(steps), _NAMES)
        dropped = logger.dropped().get("dropped", 0.0)
        logger.close()
    return {"points": float(steps * _SERIES), "dropped": dropped}


def _rows(steps: int) -> list[list[float]]:
    walks = np.cumsum(np.random.default_rng(0).normal(size=(steps, _SERIES)), axis=0)
    rows: list[list[float]] = walks.astype(np.float32).tolist()
    return rows


def _disk_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks for path in folder.rglob("*")) * _BLOCK_BYTES


if __name__ == "__main__":
    _logger, _folder, _steps = sys.argv[1:]
    print("\n" + json.dumps(_log(_logger, Path(_folder), int(_steps))))
