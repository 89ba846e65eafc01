"""Trackio into its local database."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.loggers import LoggerBase

_PROJECT = "benchmark"


class TrackioLocal(LoggerBase):
    """A run of a local project."""

    imports = "import trackio"
    opening = f'trackio.init(project="{_PROJECT}", embed=False)'
    closing = "trackio.finish()"
    scalar = 'trackio.log({"loss": x})'
    mapping = "trackio.log(values)"

    def prepare(self, folder: Path) -> None:
        """Says where, also to a process that is started from here."""
        _choose(folder)

    def open(self, folder: Path) -> dict[str, Any]:
        """Opens a run."""
        _choose(folder)
        return super().open(folder)

    def values(self, folder: Path) -> list[float]:
        """Returns the values of the committed rows with "loss"."""
        path = folder / f"{_PROJECT}.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute("SELECT metrics FROM metrics").fetchall()
        metrics = [json.loads(row) for (row,) in rows]
        return [float(row["loss"]) for row in metrics if "loss" in row]


def _choose(folder: Path) -> None:
    # It is read when trackio is imported.
    os.environ["TRACKIO_DIR"] = str(folder)


def create() -> TrackioLocal:
    """Returns the logger."""
    return TrackioLocal()
