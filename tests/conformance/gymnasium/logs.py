"""What was logged, by environment and episode."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.reading import Logged, Point, read_one

Key = tuple[str, int]


def logged(data_dir: Path) -> Logged:
    """What the one process logged."""
    return read_one(data_dir)


def steps(found: Logged, metric: str = "reward") -> dict[Key, list[Point]]:
    """The ENVIRONMENT_STEP points of a metric, by env_id and episode, in order."""
    series: dict[Key, list[Point]] = defaultdict(list)
    for point in found.of(metric):
        if point.scale == "ENVIRONMENT_STEP":
            assert point.env_id is not None
            assert point.episode is not None
            series[point.env_id, point.episode].append(point)
    for points in series.values():
        points.sort(key=lambda point: point.step or 0)
        assert [point.step for point in points] == list(range(len(points)))
    return dict(series)


def values(found: Logged, metric: str = "reward") -> dict[Key, list[float]]:
    """The same points' values."""
    return {key: [p.value for p in points] for key, points in steps(found, metric).items()}


def records(found: Logged) -> dict[Key, dict[str, float]]:
    """The EPISODE points, by env_id and episode; each metric once."""
    rows: dict[Key, dict[str, float]] = defaultdict(dict)
    for point in found.points:
        if point.scale == "EPISODE":
            assert point.env_id is not None
            assert point.episode is not None
            row = rows[point.env_id, point.episode]
            assert point.metric not in row
            row[point.metric] = point.value
    return dict(rows)
