"""How many bytes a point takes on its way and in the store."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

import metrana
from benchmarks.loggers.metrana_logger import dropped_by
from benchmarks.place import Figures, Place
from metrana.server.embedded import deliver_spools, open_stores
from metrana.server.points.engine import ChdbEngine

_SERIES = 200
_POINTS = 5000
# As a training logs: the times of one step's points are alike, those of two steps are not.
_STEP_S = 0.002
_COLUMN_BYTES = (
    "SELECT column, sum(column_data_compressed_bytes) AS bytes FROM system.parts_columns "
    "WHERE active AND table = 'points' GROUP BY column"
)
_COLUMN_SCHEMA = pa.schema([("column", pa.string()), ("bytes", pa.uint64())])


def measure_space(place: Place) -> Figures:
    """Logs a random walk a series, weighs the spool, delivers it and weighs the store."""
    steps = place.count(_POINTS)
    walks = np.cumsum(np.random.default_rng(0).normal(size=(steps, _SERIES)), axis=0)
    names = [f"metric-{number}" for number in range(_SERIES)]
    with metrana.init(
        mode="offline", data_dir=place.folder, run_name="space", backpressure_strategy="block"
    ) as run:
        # Automatic steps and times.
        for row in walks.astype(np.float32).tolist():
            run.log(dict(zip(names, row, strict=True)))
            time.sleep(_STEP_S)
        dropped = dropped_by(run)
    # The frames hold the messages that a sender would send, each with a header of its own.
    spooled = sum(path.stat().st_size for path in place.folder.glob("spool/*/*/*.spool"))
    with open_stores(place.folder) as stores:
        deliver_spools(place.folder, stores)
    store_folder = place.folder / "server" / "points"
    engine = ChdbEngine(store_folder)
    engine.command("OPTIMIZE TABLE points FINAL")
    found = engine.read(_COLUMN_BYTES, _COLUMN_SCHEMA).to_pylist()
    column_bytes = {column["column"]: column["bytes"] for column in found}
    engine.close()
    with open_stores(place.folder) as stores:
        stats = stores.points.stats()
    if stats.row_count + dropped["dropped"] != walks.size:
        raise RuntimeError(f"{walks.size:,} points were logged, {stats.row_count:,} are stored")
    return {
        "wire_bytes": spooled / walks.size,
        "disk_bytes": stats.bytes_on_disk / walks.size,
        "disk_value_bytes": column_bytes["value"] / walks.size,
        "disk_time_bytes": column_bytes["timestamp_ms"] / walks.size,
        "points": float(walks.size),
        "parts": float(stats.part_count),
        **dropped,
    }
