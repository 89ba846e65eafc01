"""How many bytes a point takes on its way and in the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

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
_UNEVEN_STEP_MS = 3.0
# A batch is sealed when it is a second old, so a slow training's are small, and of few series.
_BATCH_MS = 1000
_SLOW_SERIES = 20
_SLOW_POINTS = 400
_FIRST_MS = 1_764_000_000_000
_COLUMN_BYTES = (
    "SELECT column, sum(column_data_compressed_bytes) AS bytes FROM system.parts_columns "
    "WHERE active AND table = 'points' GROUP BY column"
)
_COLUMN_SCHEMA = pa.schema([("column", pa.string()), ("bytes", pa.uint64())])


def measure_space(place: Place) -> Figures:
    """Logs a random walk a series, weighs the spool, delivers it and weighs the store.

    Again with times that are given: those of uneven steps, and those of slow trainings, whose
    batches are sealed by `flush` where their times say that a second has passed.
    """
    fast = _walks(place.count(_POINTS), _SERIES)
    slow = _walks(place.count(_SLOW_POINTS), _SLOW_SERIES)
    own, uneven = place.folder / "own", place.folder / "uneven"
    start = time.monotonic()
    dropped = _log(own, fast, [None] * len(fast), _STEP_S)
    took_s = time.monotonic() - start
    dropped += _log(uneven, fast, _uneven_ms(len(fast), _UNEVEN_STEP_MS))
    figures = {"wire_bytes": _spooled(own) / fast.size, "steps_per_s": len(fast) / took_s}
    for per_s in (10, 1):
        folder = place.folder / f"slow-{per_s}"
        dropped += _log(folder, slow, _uneven_ms(len(slow), 1000 / per_s))
        figures[f"wire_{per_s}_bytes"] = _spooled(folder) / slow.size
    return {
        **figures,
        **{f"disk_{name}": size / fast.size for name, size in _stored(own, fast.size).items()},
        "uneven_bytes": _stored(uneven, fast.size)["bytes"] / fast.size,
        "dropped": dropped,
    }


def _walks(steps: int, series: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(0).normal(size=(steps, series)), axis=0)


def _uneven_ms(steps: int, step_ms: float) -> list[int]:
    # Each step takes up to half as long again, or half as long.
    took_ms = np.random.default_rng(1).uniform(0.5, 1.5, steps) * step_ms
    return (_FIRST_MS + np.cumsum(took_ms)).astype(np.int64).tolist()


def _log(
    folder: Path, walks: np.ndarray, times_ms: Sequence[int | None], pause_s: float = 0.0
) -> float:
    names = [f"metric-{number}" for number in range(walks.shape[1])]
    began_ms = times_ms[0]
    with metrana.init(
        mode="offline", data_dir=folder, run_name="space", backpressure_strategy="block"
    ) as run:
        for row, time_ms in zip(walks.astype(np.float32).tolist(), times_ms, strict=True):
            # Automatic steps; without a given time that of the call.
            run.log(dict(zip(names, row, strict=True)), timestamp=time_ms)
            if pause_s:
                time.sleep(pause_s)
            elif time_ms - began_ms >= _BATCH_MS:
                run.flush()
                began_ms = time_ms
        return dropped_by(run)["dropped"]


def _spooled(folder: Path) -> int:
    # The frames hold the messages that a sender would send, each with a header of its own.
    return sum(path.stat().st_size for path in folder.glob("spool/*/*/*.spool"))


def _stored(folder: Path, point_count: int) -> dict[str, int]:
    with open_stores(folder) as stores:
        deliver_spools(folder, stores)
    engine = ChdbEngine(folder / "server" / "points")
    engine.command("OPTIMIZE TABLE points FINAL")
    found = engine.read(_COLUMN_BYTES, _COLUMN_SCHEMA).to_pylist()
    column_bytes = {column["column"]: column["bytes"] for column in found}
    engine.close()
    with open_stores(folder) as stores:
        stats = stores.points.stats()
    if stats.row_count != point_count:
        raise RuntimeError(f"{point_count:,} points were logged, {stats.row_count:,} are stored")
    return {
        "bytes": stats.bytes_on_disk,
        "value_bytes": column_bytes["value"],
        "time_bytes": column_bytes["timestamp_ms"],
    }
