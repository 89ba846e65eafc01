"""Numbered log calls of every kind: what a writer makes of a number, and what a reader must find.

A reader that knows how many calls were accepted knows every point that they left, so a lost, a
repeated and a changed one all show.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from metrana.run import Run
from tests.reading import Point

ENVS = ("left", "right")
# Steps of an episode that one call logs for each environment.
PER_ENV = 3
# Values of one call with an array.
PER_ARRAY = 4
# Values of one call with noise.
NOISE_POINTS = 50_000
# Stands for the step that comes next.
AUTOMATIC = -1


class Series(NamedTuple):
    """What tells series apart, of those that are logged here."""

    metric: str
    env_id: str | None = None


class Place(NamedTuple):
    """A point without its time."""

    value: float
    step: int | None = None
    rl_step: int | None = None
    episode: int | None = None


Logged = dict[Series, list[Place]]


class Kind(NamedTuple):
    """A kind of call."""

    log: Callable[[Run, int], None]
    """Logs a number."""
    left: Callable[[int], Iterable[tuple[Series, Place]]]
    """The points that logging it leaves."""


def _log_scalar(run: Run, number: int) -> None:
    run.log("loss", number / 7)


def _left_by_scalar(number: int) -> Iterable[tuple[Series, Place]]:
    yield Series("loss"), Place(number / 7, AUTOMATIC)


def _log_mapping(run: Run, number: int) -> None:
    run.log({"up": number, "down": -number})


def _left_by_mapping(number: int) -> Iterable[tuple[Series, Place]]:
    yield Series("up"), Place(number, AUTOMATIC)
    yield Series("down"), Place(-number, AUTOMATIC)


def _log_array(run: Run, number: int) -> None:
    values = [number + i / 4 for i in range(PER_ARRAY)]
    run.log("curve", values, step=[10 * number + i for i in range(PER_ARRAY)])


def _left_by_array(number: int) -> Iterable[tuple[Series, Place]]:
    for i in range(PER_ARRAY):
        yield Series("curve"), Place(number + i / 4, 10 * number + i)


def _log_distributed(run: Run, number: int) -> None:
    run.log_distributed("shard", number + 0.5, step=number)


def _left_by_distributed(number: int) -> Iterable[tuple[Series, Place]]:
    yield Series("shard"), Place(number + 0.5, number)


def _log_block(run: Run, number: int) -> None:
    block = [[_reward(number, env, i) for i in range(PER_ENV)] for env in range(len(ENVS))]
    run.log_rl_environment_step("reward", block, rl_step=number, env_id=list(ENVS), episode=number)


def _left_by_block(number: int) -> Iterable[tuple[Series, Place]]:
    for env, env_id in enumerate(ENVS):
        for i in range(PER_ENV):
            yield Series("reward", env_id), Place(_reward(number, env, i), i, number, number)


def _log_episode(run: Run, number: int) -> None:
    values = [number * (env + 1) for env in range(len(ENVS))]
    run.log_rl_episode("return", values, rl_step=number, env_id=list(ENVS), episode=number)


def _left_by_episode(number: int) -> Iterable[tuple[Series, Place]]:
    for env, env_id in enumerate(ENVS):
        yield Series("return", env_id), Place(number * (env + 1), None, number, number)


def _reward(number: int, env: int, i: int) -> float:
    return number + env / 2 + i / 8


KINDS = (
    Kind(_log_scalar, _left_by_scalar),
    Kind(_log_mapping, _left_by_mapping),
    Kind(_log_array, _left_by_array),
    Kind(_log_distributed, _left_by_distributed),
    Kind(_log_block, _left_by_block),
    Kind(_log_episode, _left_by_episode),
)


def log(run: Run, number: int) -> None:
    """Logs a number, in the way that is its turn."""
    KINDS[number % len(KINDS)].log(run, number)


def log_noise(run: Run, number: int) -> None:
    """Logs so much at a time that the spool's files fill."""
    run.log("noise", noise(number))


def noise(number: int) -> npt.NDArray[np.float64]:
    """Values of a number that nothing compresses."""
    return np.random.default_rng(number).random(NOISE_POINTS)


def expected(first: int, count: int, before: Mapping[str, int] = {}) -> Logged:
    """What `count` calls leave that begin with the number `first`.

    Args:
        first: The first number.
        count: How many calls.
        before: Where automatic steps begin, by metric. Default: 0.
    """
    logged: Logged = defaultdict(list)
    for number in range(first, first + count):
        for series, place in KINDS[number % len(KINDS)].left(number):
            if place.step == AUTOMATIC:
                step = before.get(series.metric, 0) + len(logged[series])
                place = place._replace(step=step)
            logged[series].append(place)
    return dict(logged)


def found(points: Iterable[Point]) -> Logged:
    """The same of points that were read, in their order."""
    logged: Logged = defaultdict(list)
    for point in points:
        place = Place(point.value, point.step, point.rl_step, point.episode)
        logged[Series(point.metric, point.env_id)].append(place)
    return dict(logged)


def call_count(
    points: Iterable[Point], reported: int, first: int = 0, before: Mapping[str, int] | None = None
) -> int:
    """How many calls left these points; fails unless it is `reported`, or one more.

    One more, because a process may die between the end of a call and its report.
    """
    logged, wanted = found(points), {}
    for count in (reported + 1, reported):
        wanted = expected(first, count, before or {})
        if logged == wanted:
            return count
    raise AssertionError(_difference(logged, wanted, reported))


def _difference(logged: Logged, wanted: Logged, reported: int) -> str:
    lines = [f"{reported} calls were reported accepted"]
    for series in sorted({*logged, *wanted}, key=str):
        pairs = itertools.zip_longest(logged.get(series, []), wanted.get(series, []))
        for index, (is_there, should_be) in enumerate(pairs):
            if is_there != should_be:
                lines.append(f"{series}: point {index} is {is_there}, should be {should_be}")
                break
    return "\n".join(lines)
