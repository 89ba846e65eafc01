"""The store's answers computed naively, point by point, from the rows that were inserted."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from metrana.server.points import SCHEMA

NONE = -1


@dataclass(frozen=True)
class Point:
    """One row of the table."""

    run_no: int = 1
    metric_no: int = 1
    env_no: int = 0
    rl_step: int = NONE
    episode: int = NONE
    step: int = NONE
    timestamp_ms: int = 0
    value: float = 0.0
    logger_no: int = 0
    writer_no: int = 1
    seq: int = 1
    ordinal: int = 0
    rewound: int = 0

    @property
    def series(self) -> tuple[int, int, int]:
        return self.run_no, self.metric_no, self.env_no

    @property
    def position(self) -> tuple[int, int, int]:
        return self.rl_step, self.episode, self.step

    @property
    def version(self) -> tuple[int, int, int]:
        return self.writer_no, self.seq, self.ordinal


def columns(points: Sequence[Point]) -> dict[str, np.ndarray]:
    return {
        name: np.array([getattr(point, name) for point in points], dtype)
        for name, dtype in SCHEMA.items()
    }


def flagged(points: Sequence[Point]) -> list[Point]:
    """Returns the points with `ordinal` and `rewound` as the engine of their writer sets them."""
    greatest: dict[tuple, tuple] = {}
    repeats: dict[tuple, int] = defaultdict(int)
    out = []
    for point in points:
        series = (*point.series, point.logger_no, point.writer_no)
        rewound = series in greatest and point.position <= greatest[series]
        greatest[series] = max(greatest.get(series, point.position), point.position)
        place = (*series, point.seq, point.position)
        out.append(replace(point, rewound=int(rewound), ordinal=repeats[place]))
        repeats[place] += 1
    return out


def shown(points: Iterable[Point]) -> list[Point]:
    """Returns the newest point of every position and logger, in the order of reads."""
    newest: dict[tuple, Point] = {}
    for point in points:
        key = (*point.series, *point.position, point.logger_no)
        if key not in newest or newest[key].version < point.version:
            newest[key] = point
    return [newest[key] for key in sorted(newest)]


K = TypeVar("K")
T = TypeVar("T")


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def mean_or_none(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def summary(points: Sequence[Point]) -> dict[tuple[int, int, int], dict]:
    """Returns the summaries by series."""
    out = {}
    for series, stored in grouped(points, lambda point: point.series).items():
        visible = shown(stored)
        finite = [point.value for point in visible if math.isfinite(point.value)]
        first, last = (end(point.position for point in visible) for end in (min, max))
        at_last = [point.value for point in visible if point.position == last]
        out[series] = {
            "point_count": len(stored),
            "nonfinite_count": sum(not math.isfinite(point.value) for point in stored),
            "logger_count": len({point.logger_no for point in stored}),
            "last_value": sum(at_last) / len(at_last),
            "min_value": min(finite, default=None),
            "max_value": max(finite, default=None),
            "mean_value": mean_or_none(finite),
        }
        for prefix, position in (("first", first), ("last", last)):
            for name, coordinate in zip(("rl_step", "episode", "step"), position, strict=True):
                out[series][f"{prefix}_{name}"] = None if coordinate == NONE else coordinate
    return out


def own_axis(point: Point) -> int:
    return point.episode if point.step == NONE else point.step


def merged_loggers(points: Sequence[Point], rule: str) -> list[tuple[Point, bool]]:
    """Returns the curve over loggers, each point with whether a non-finite value went into it."""
    if rule == "each":
        return [(point, not math.isfinite(point.value)) for point in points]
    aggregate = {"mean": mean_or_none, "min": min, "max": max}[rule]
    curve = []
    for at in grouped(points, lambda point: (point.series, point.position)).values():
        finite = [point.value for point in at if math.isfinite(point.value)]
        value = aggregate(finite) if finite else math.nan
        if len(at) == 1:
            value = at[0].value
        timestamp = max(point.timestamp_ms for point in at)
        merged = replace(at[0], logger_no=0, timestamp_ms=timestamp, value=value)
        curve.append((merged, len(finite) < len(at)))
    return curve


def buckets(
    points: Sequence[Point], x: Callable[[Point], int], count: int, rule: str, *, unused: bool
) -> dict[tuple[int, int, int, int], dict]:
    """Returns buckets by (metric, environment, logger, bucket).

    Args:
        points: The points of one run.
        x: The coordinate that is divided.
        count: The most buckets.
        rule: How loggers are merged.
        unused: Whether x is -1 where it is unused, so that such points are left out.
    """
    stored = [point for point in points if not unused or x(point) >= 0]
    if not stored:
        return {}
    curve = merged_loggers(shown(stored), rule)
    low, high = min(map(x, stored)), max(map(x, stored))
    width = math.ceil((high - low + 1) / count)
    out = {}
    groups = grouped(
        curve,
        lambda item: (
            item[0].metric_no,
            item[0].env_no,
            item[0].logger_no,
            (x(item[0]) - low) // width,
        ),
    )
    for key, members in groups.items():
        members.sort(key=lambda item: (x(item[0]), item[0].position))
        values = [point.value for point, _ in members]
        finite = [value for value in values if math.isfinite(value)]
        out[key] = {
            "x_min": x(members[0][0]),
            "x_max": x(members[-1][0]),
            "point_count": len(members),
            "nonfinite_count": sum(nonfinite for _, nonfinite in members),
            "min": min(finite, default=None),
            "max": max(finite, default=None),
            "mean": mean_or_none(finite),
            "first": values[0],
            "last": values[-1],
        }
    return out


def cursors(points: Sequence[Point]) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Returns (rl_step, episode, step) by (metric, environment)."""
    out = {}
    for series, members in grouped(points, lambda point: point.series).items():
        episode = max(point.episode for point in members)
        step = max(point.step for point in members if point.episode == episode)
        out[series[1:]] = (max(point.rl_step for point in members), episode, step)
    return out
