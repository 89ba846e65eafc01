"""What the reads of reinforcement learning answer, computed point by point."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Labels = tuple[tuple[str, str], ...]

FIXED = [
    "env_id",
    "episode",
    "first_rl_step",
    "last_rl_step",
    "episode_length",
    "episode_return",
    "end",
    "rendering_id",
    "evaluation",
]


@dataclass(frozen=True)
class Logged:
    """A point with its names; a position that its scale does not use is None."""

    metric: str
    scale: str
    labels: Labels
    env_id: str | None
    rl_step: int | None
    episode: int | None
    step: int | None
    value: float
    version: tuple[int, ...]

    @property
    def evaluation(self) -> bool:
        return ("evaluation", "true") in self.labels

    @property
    def further(self) -> Labels:
        """The labels but that of evaluation."""
        return tuple(sorted(set(self.labels) - {("evaluation", "true")}))

    @property
    def is_reward(self) -> bool:
        return (self.metric, self.scale, self.further) == ("reward", "ENVIRONMENT_STEP", ())


def newest(points: Iterable[Logged], *position: str) -> list[Logged]:
    """The newest point of each series and position."""
    found: dict[Any, Logged] = {}
    for point in points:
        key = (
            *(point.metric, point.scale, point.labels, point.env_id),
            *(getattr(point, name) for name in position),
        )
        if key not in found or found[key].version < point.version:
            found[key] = point
    return list(found.values())


def column_name(metric: str, labels: Labels) -> str:
    inside = ",".join(f"{key}={value}" for key, value in labels)
    taken = metric in (*FIXED, "labels") and metric not in ("episode_length", "episode_return")
    return f"{metric}{{{inside}}}" if labels or taken else metric


def episodes(
    points: Sequence[Logged], env_ids: Sequence[str], *, is_running: bool
) -> list[dict[str, Any]]:
    """Rows of `Client.episodes`; `env_ids` are in the order in which they were declared."""
    logged = [p for p in points if p.env_id is not None and p.scale != "ML_STEP"]
    finished = newest((p for p in logged if p.scale == "EPISODE"), "episode")
    steps = [p for p in logged if p.scale == "ENVIRONMENT_STEP"]
    with_reward = {(p.env_id, p.evaluation) for p in steps if p.is_reward}
    steps = [p for p in steps if p.is_reward or (p.env_id, p.evaluation) not in with_reward]
    steps = newest(steps, "episode", "step")
    groups: dict[Any, tuple[list[Logged], list[Logged]]] = defaultdict(lambda: ([], []))
    for place, group in ((0, finished), (1, steps)):
        for p in group:
            groups[env_ids.index(p.env_id or ""), p.evaluation, p.episode][place].append(p)
    columns = {column_name(p.metric, p.further) for p in finished}
    rows = []
    for env, evaluation, episode in sorted(groups):
        ended, stepped = groups[env, evaluation, episode]
        last = max(e for at, of, e in groups if (at, of) == (env, evaluation))
        values = {column_name(p.metric, p.further): p.value for p in ended}
        rewards = [p.value for p in stepped if p.is_reward]
        finite = [value for value in rewards if math.isfinite(value)]
        rl_steps = [p.rl_step for p in (*ended, *stepped)]
        rows.append(
            {
                **dict.fromkeys(columns),
                **values,
                "env_id": env_ids[env],
                "episode": episode,
                "first_rl_step": min(rl_steps),
                "last_rl_step": max(rl_steps),
                "episode_length": values.get("episode_length", len(rewards) or None),
                "episode_return": values.get("episode_return", sum(finite) if finite else None),
                "end": _end(values, goes_on=is_running and episode == last),
                "rendering_id": None,
                "evaluation": evaluation,
            }
        )
    return rows


def _end(values: dict[str, float], *, goes_on: bool) -> str | None:
    if not values:
        return None if goes_on else "aborted"
    set_ = [
        name
        for name in ("terminated", "truncated")
        if values.get(name, 0.0) != 0 and not math.isnan(values.get(name, 0.0))
    ]
    return "both" if len(set_) == 2 else next(iter(set_), None)


def aggregate(
    points: Sequence[Logged],
    by: str,
    quantiles: Sequence[float] = (),
    start: int | None = None,
    end: int | None = None,
) -> list[dict[str, Any]]:
    """Rows of `Client.aggregate` with every statistic, of the points of one metric."""
    at: dict[int, dict[str | None, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in newest(points, "rl_step", "episode", "step"):
        x = getattr(point, by)
        if x is not None and (start is None or x >= start) and (end is None or x < end):
            at[x][point.env_id].append(point.value)
    return [_statistics(by, x, at[x], quantiles) for x in sorted(at)]


def _statistics(
    by: str, x: int, envs: dict[str | None, list[float]], quantiles: Sequence[float]
) -> dict[str, Any]:
    finite = [[value for value in values if math.isfinite(value)] for values in envs.values()]
    means = np.array([math.fsum(values) / len(values) for values in finite if values])
    row: dict[str, Any] = {by: x, "count": sum(map(len, finite)), "env_count": len(means)}
    names = ("mean", "std", "min", "max", "median", "sum")
    row |= {name: float(getattr(np, name)(means)) if len(means) else None for name in names}
    for level in quantiles:
        name = f"q{level}".removesuffix(".0")
        row[name] = float(np.quantile(means, level)) if len(means) else None
    return row


def assert_rows(actual: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> None:
    """Compares row by row; floats to rounding, NaN with NaN."""
    assert len(actual) == len(expected)
    for found, wanted in zip(actual, expected, strict=True):
        assert found.keys() == wanted.keys()
        different = {
            name: (found[name], value)
            for name, value in wanted.items()
            if not _same(found[name], value)
        }
        assert not different, (different, wanted)


def _same(actual: Any, expected: Any) -> bool:
    if isinstance(actual, float) and isinstance(expected, int | float):
        if math.isnan(expected):
            return math.isnan(actual)
        return math.isclose(actual, expected, rel_tol=1e-9, abs_tol=1e-9)
    return bool(actual == expected) and type(actual) is type(expected)
