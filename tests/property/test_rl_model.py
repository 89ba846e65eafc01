"""Every form of the `log_rl_*` calls against a loop of single points: both leave the same."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrana
from metrana import Run
from tests.reading import Point, read_one

FUNCTIONS = ("log_rl_environment_step", "log_rl_episode")
ENV_IDS = ["a", "b", "c-1", "7", "default"]
# How several environments are named.
MANY: st.SearchStrategy[Any] = st.sampled_from(
    [list, tuple, np.array, lambda ids: [int(i) if i == "7" else i for i in ids]]
)
RL_STEPS = st.sampled_from([int, float, np.int64, np.array])
# Timestamps that are given are far below those of a clock.
GREATEST_TIME = 10**6


def _masked(values: npt.NDArray[np.float64]) -> Any:
    return np.ma.masked_array(values, values % 3 == 1)


def _columns_first(values: npt.NDArray[Any]) -> Any:
    return np.array(values, order="F")


def _strided(values: npt.NDArray[Any]) -> Any:
    return np.repeat(values, 2, axis=-1)[..., ::2] if values.ndim else values


# How an array of numbers is given; shape and numbers stay.
VALUES = st.sampled_from(
    [
        lambda values: values,
        lambda values: values.tolist(),
        lambda values: values.astype(np.float32),
        lambda values: values.astype(np.int32),
        lambda values: values % 2 == 0,
        _columns_first,
        _strided,
        _masked,
    ]
)
WHOLE = st.sampled_from(
    [
        lambda numbers: numbers,
        lambda numbers: numbers.tolist(),
        lambda numbers: numbers.astype(np.float32),
        lambda numbers: numbers.astype(np.uint8),
        _columns_first,
        _strided,
    ]
)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """One call: how it is given, and each point of it."""
    function = draw(st.sampled_from(FUNCTIONS))
    env_ids: list[str] | None = None
    shape: tuple[int, ...]
    if draw(st.booleans()):
        # One may be named twice.
        env_ids = draw(st.lists(st.sampled_from(ENV_IDS), max_size=4))
        shape = (len(env_ids),)
        if function == FUNCTIONS[0] and draw(st.booleans()):
            shape = (*shape, draw(st.integers(0, 4)))
        given_env: Any = draw(MANY)(env_ids)
        if len(env_ids) == 0:
            given_env = []
        grid: tuple[int, ...] = (len(env_ids), shape[1] if len(shape) > 1 else 1)
    else:
        given_env = draw(st.sampled_from([None, "a", 7, np.int64(7), np.str_("b")]))
        shape = draw(st.sampled_from([(), (draw(st.integers(0, 5)),)]))
        grid = (1, shape[0] if shape else 1)
    first = draw(st.integers(0, 100))
    numbers = np.arange(first, first + math.prod(shape), dtype=np.float64).reshape(shape)
    value = draw(VALUES)(numbers)
    is_row = env_ids is None and function == FUNCTIONS[1]
    episode, episodes = _spread(draw, shape, grid, 5, follow=is_row)
    timestamp, timestamps = _spread(draw, shape, grid, GREATEST_TIME, follow=False)
    return {
        "function": function,
        "metric_name": draw(st.sampled_from(["reward", "cost"])),
        "value": value,
        "values": _floats(value).reshape(grid).tolist(),
        "later": draw(st.integers(0, 2)),
        "rl_step_form": draw(RL_STEPS),
        "env_id": given_env,
        "env_ids": ["default" if given_env is None else str(given_env)]
        if env_ids is None
        else env_ids,
        "episode": episode,
        "episodes": episodes,
        "timestamp": timestamp,
        "timestamps": timestamps,
        "labels": draw(st.sampled_from([None, {}, {"k": "v"}])),
        "evaluation": draw(st.booleans()),
        "positional": draw(st.booleans()),
    }


def _floats(value: Any) -> npt.NDArray[np.float64]:
    if isinstance(value, np.ma.MaskedArray):
        return np.ma.filled(value.astype(np.float64), math.nan)
    return np.asarray(value, np.float64)


def _spread(
    draw: st.DrawFn, shape: tuple[int, ...], grid: tuple[int, ...], most: int, *, follow: bool
) -> tuple[Any, npt.NDArray[Any]]:
    """A number a point in some form: as it is given, and the one of each point, None for none."""
    # One for all; one for each; of a block one for each environment too.
    shapes: list[tuple[int, ...] | None] = [None, (), shape or (1,)]
    shapes += [shape[:1]] * (len(shape) == 2)
    chosen = draw(st.sampled_from(shapes))
    if chosen is None:
        return None, np.full(grid, None, object)
    count = math.prod(chosen)
    few = draw(st.lists(st.integers(0, min(most, 100)), min_size=count, max_size=count))
    numbers = np.array(few, np.int64).reshape(chosen)
    if chosen == () and follow:
        each = numbers + np.arange(math.prod(grid)).reshape(grid)
    elif len(shape) == 2 and len(chosen) == 1:
        each = np.broadcast_to(numbers[:, None], grid)
    elif chosen == ():
        each = np.broadcast_to(numbers, grid)
    else:
        each = numbers.reshape(grid)
    return draw(WHOLE)(numbers), each.astype(object)


def _arguments(call: dict[str, Any], rl_step: Any, **changed: Any) -> tuple[Any, dict[str, Any]]:
    """The arguments by position or by name, as the contract has them."""
    names = ["metric_name", "value", "rl_step", "env_id", "episode", "labels", "evaluation"]
    if call["function"] == "log_rl_episode":
        names[3:5] = ["episode", "env_id"]
    names.append("timestamp")
    by_name = {**{name: call.get(name) for name in names}, "rl_step": rl_step, **changed}
    return (list(by_name.values()), {}) if call["positional"] else ([], by_name)


def _points(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a loop would log, point by point: by environment, then as they follow each other."""
    rows = zip(call["env_ids"], call["values"], call["episodes"], call["timestamps"], strict=True)
    for env_id, values, episodes, timestamps in rows:
        for value, episode, timestamp in zip(values, episodes, timestamps, strict=True):
            yield {"value": value, "env_id": env_id, "episode": episode, "timestamp": timestamp}


def _log(run: Run, log_calls: list[dict[str, Any]], *, one_by_one: bool) -> None:
    rl_step = 0
    for call in log_calls:
        rl_step += call["later"]
        log = getattr(run, call["function"])
        if one_by_one:
            for point in _points(call):
                positional, named = _arguments(call, rl_step, **point)
                log(*positional, **named)
        else:
            positional, named = _arguments(call, call["rl_step_form"](rl_step))
            log(*positional, **named)


def _left_behind(log_calls: list[dict[str, Any]], *, one_by_one: bool) -> Any:
    """Every point, those of one position in the order they were logged; and every cursor."""
    with tempfile.TemporaryDirectory() as folder:
        with metrana.init(mode="offline", data_dir=folder) as run:
            _log(run, log_calls, one_by_one=one_by_one)
            cursors: list[Any] = [
                run.get_env_last_rl_step_and_episode(env_id) for env_id in ENV_IDS
            ]
            labels: list[dict[str, str]] = [{}, {"k": "v"}, {"evaluation": "true"}]
            cursors += [
                run.get_last_step(name, scale, labels=of)
                for name in ("reward", "cost")
                for scale in ("EPISODE", "ENVIRONMENT_STEP")
                for of in labels
            ]
            added = run.get_metrics().rl_float_points_added
        points = [_told(point) for point in read_one(Path(folder)).points]
    return sorted(points, key=lambda told: told[0]), cursors, added


def _told(point: Point) -> tuple[str, str, int | None]:
    place = (point.metric, point.scale, point.labels, point.env_id)
    position = (point.rl_step, point.episode, point.step)
    time = point.timestamp_ms
    return str((place, position)), str(point.value), time if time <= GREATEST_TIME else None


@given(st.lists(calls(), max_size=12))
@settings(max_examples=150, deadline=None)
def test_each_form_equals_a_loop_of_single_points(log_calls: list[dict[str, Any]]) -> None:
    logged = _left_behind(log_calls, one_by_one=False)
    assert logged == _left_behind(log_calls, one_by_one=True)
    assert len(logged[0]) == logged[2] == sum(len(list(_points(call))) for call in log_calls)


SHAPES = [
    (),
    (0,),
    (1,),
    (2,),
    (3,),
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 2),
    (2, 3),
    (3, 2),
    (2, 0),
    (1, 1, 1),
]


def _is_allowed(
    function: str,
    env_count: int | None,
    value: tuple[int, ...],
    episode: tuple[int, ...] | None,
) -> bool:
    """Whether the contract has such a call; `env_count`: None for one id that is in no list."""
    if env_count is None:
        return len(value) < 2 and episode in (None, (), value or (1,))
    if len(value) == 2 and function == "log_rl_environment_step":
        return value[0] == env_count and episode in (None, (), value[:1], value)
    return value == (env_count,) and episode in (None, (), value)


@pytest.mark.parametrize("argument", ["episode", "timestamp"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_other_shape_is_taken(tmp_path: Path, function: str, argument: str) -> None:
    ids = [None, [], ["a"], ["a", "b"], ["a", "b", "c"]]
    expected = 0
    with metrana.init(mode="offline", data_dir=tmp_path) as run:
        for env_id, value, spread in itertools.product(ids, SHAPES, [None, *SHAPES]):
            given_spread = {} if spread is None else {argument: np.ones(spread, np.int64)}
            call: dict[str, Any] = {"env_id": env_id, "value": np.ones(value), **given_spread}
            env_count = None if env_id is None else len(env_id)
            if _is_allowed(function, env_count, value, spread):
                getattr(run, function)("m", rl_step=1, **call)
                expected += math.prod(value)
            else:
                with pytest.raises(metrana.MetranaValidationError, match=f"value|{argument}"):
                    getattr(run, function)("m", rl_step=1, **call)
            assert run.get_metrics().rl_float_points_added == expected, call
