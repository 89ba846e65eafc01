"""What a call means, one rule of the contract a test; `tests/unit/client` has the rest of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrana
from metrana import Run
from tests.reading import Point, read_one

Position = tuple[str | None, int | None, int | None, int | None, float]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=["offline", "disabled"])
def any_run(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Run]:
    """A run of each mode that checks its arguments."""
    with metrana.init(mode=request.param, data_dir=data_dir) as run:
        yield run


def logged(data_dir: Path, *calls: Callable[[Run], None]) -> list[Point]:
    """What lies in the spool after these calls."""
    with metrana.init(mode="offline", data_dir=data_dir) as run:
        for call in calls:
            call(run)
    return read_one(data_dir).points


def positions(points: list[Point]) -> list[Position]:
    """Environment, rl_step, episode, step and value, sorted."""
    found = [(p.env_id, p.rl_step, p.episode, p.step, p.value) for p in points]
    return sorted(found, key=str)


# ── log: the step axis ───────────────────────────────────────────────────────────────────────────


def test_each_series_has_a_step_axis_of_its_own(data_dir: Path) -> None:
    labelled = [{"a": "1"}, {"a": "2"}, {"a": "1", "b": "1"}]
    points = logged(
        data_dir,
        lambda run: run.log("x", [1, 2]),
        lambda run: run.log("y", 3),
        lambda run: run.log("x", 4, scale="EPISODE"),
        lambda run: run.log("x", 5, evaluation=True),
        *(lambda run, given=labels: run.log("x", 6, labels=given) for labels in labelled),
        lambda run: run.log("x", 7),
    )
    by_value = sorted(points, key=lambda p: p.value)
    assert [(p.value, p.step if p.episode is None else p.episode) for p in by_value] == [
        *((1, 0), (2, 1), (3, 0), (4, 0), (5, 0), (6, 0), (6, 0), (6, 0), (7, 2))
    ]


@pytest.mark.parametrize(
    ("step", "steps"),
    [
        (None, [11, 12, 13]),
        (100, [100, 101, 102]),
        (4, [4, 5, 6]),
        ([10, 20, 30], [10, 20, 30]),
        ((3, 3, 3), [3, 3, 3]),
        (np.array([7, 6, 5]), [7, 6, 5]),
        (np.array([7.0, 6.0, 5.0]), [7, 6, 5]),
        (range(3), [0, 1, 2]),
    ],
    ids=repr,
)
def test_steps_go_on_from_the_greatest(data_dir: Path, step: Any, steps: list[int]) -> None:
    points = logged(
        data_dir,
        lambda run: run.log("x", 0, step=10),
        lambda run: run.log("x", [1, 2, 3], step=step),
        lambda run: run.log("x", 9),
    )
    in_order = sorted(points, key=lambda p: p.value)
    assert [p.step for p in in_order] == [10, *steps, max(10, *steps) + 1]


# ── log_rl_*: shapes ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "env_id", "expected"),
    [
        (1, None, [("default", 0, 1)]),
        ([1, 2], "a", [("a", 0, 1), ("a", 1, 2)]),
        ([1, 2], ["a", "b"], [("a", 0, 1), ("b", 0, 2)]),
        ([1], ["a"], [("a", 0, 1)]),
        ([[1, 2], [3, 4]], ["a", "b"], [("a", 0, 1), ("a", 1, 2), ("b", 0, 3), ("b", 1, 4)]),
    ],
    ids=["scalar", "T", "M", "M of one", "M by T"],
)
@pytest.mark.parametrize("make", [lambda value: value, np.array], ids=["list", "array"])
def test_environment_steps_of_each_shape(
    data_dir: Path, value: Any, env_id: Any, expected: list[Any], make: Callable[[Any], Any]
) -> None:
    points = logged(
        data_dir, lambda run: run.log_rl_environment_step("r", make(value), 3, env_id=env_id)
    )
    assert positions(points) == [(env, 3, 0, step, number) for env, step, number in expected]


@pytest.mark.parametrize(
    ("episode", "expected"),
    [
        (7, [[7, 7, 7], [7, 7, 7]]),
        ([7, 8], [[7, 7, 7], [8, 8, 8]]),
        ([[7, 7, 8], [8, 9, 9]], [[7, 7, 8], [8, 9, 9]]),
    ],
    ids=["scalar", "M", "M by T"],
)
def test_episodes_broadcast_and_restart_the_steps(
    data_dir: Path, episode: Any, expected: list[list[int]]
) -> None:
    block = np.arange(6).reshape(2, 3)
    points = logged(
        data_dir,
        lambda run: run.log_rl_environment_step("r", block, 1, env_id=["a", "b"], episode=episode),
    )
    wanted: list[Position] = []
    for env, row, numbers in zip("ab", block.tolist(), expected, strict=True):
        for number, group in itertools.groupby(
            zip(numbers, row, strict=True), key=lambda pair: pair[0]
        ):
            wanted += [(env, 1, number, step, value) for step, (_, value) in enumerate(group)]
    assert positions(points) == sorted(wanted, key=str)


@pytest.mark.parametrize(
    ("value", "env_id", "episode", "expected"),
    [
        (1, "a", 4, [("a", 4)]),
        ([1, 2], "a", 4, [("a", 4), ("a", 5)]),
        ([1, 2], "a", [4, 9], [("a", 4), ("a", 9)]),
        ([1, 2], ["a", "b"], 4, [("a", 4), ("b", 4)]),
        ([1, 2], ["a", "b"], [4, 9], [("a", 4), ("b", 9)]),
    ],
    ids=["scalar", "T from one", "T each", "M of one", "M each"],
)
def test_episode_points_of_each_shape(
    data_dir: Path, value: Any, env_id: Any, episode: Any, expected: list[Any]
) -> None:
    points = logged(
        data_dir, lambda run: run.log_rl_episode("r", value, 3, episode=episode, env_id=env_id)
    )
    assert [(p.env_id, p.episode) for p in sorted(points, key=lambda p: p.value)] == expected


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (5, [5, 5, 5, 5]),
        ([5, 6], [5, 5, 6, 6]),
        (np.array([[5, 6], [7, 8]]), [5, 6, 7, 8]),
    ],
    ids=["scalar", "M", "M by T"],
)
def test_timestamps_broadcast_as_episodes_do(
    data_dir: Path, timestamp: Any, expected: list[int]
) -> None:
    points = logged(
        data_dir,
        lambda run: run.log_rl_environment_step(
            "r", [[1, 2], [3, 4]], 1, env_id=["a", "b"], timestamp=timestamp
        ),
    )
    assert [p.timestamp_ms for p in sorted(points, key=lambda p: p.value)] == expected


def test_an_episode_point_ends_its_episode_for_each_metric(data_dir: Path) -> None:
    points = logged(
        data_dir,
        lambda run: run.log_rl_environment_step("reward", 1, 1, env_id="a", episode=3),
        lambda run: run.log_rl_environment_step("cost", 2, 1, env_id="a"),
        lambda run: run.log_rl_episode("return", 9, 1, episode=3, env_id="a"),
        # An older one ends nothing more.
        lambda run: run.log_rl_episode("return", 9, 1, episode=1, env_id="a"),
        lambda run: run.log_rl_environment_step("cost", 3, 1, env_id="a"),
        lambda run: run.log_rl_environment_step("reward", 4, 1, env_id="b"),
    )
    steps = [point for point in points if point.scale == "ENVIRONMENT_STEP"]
    assert positions(steps) == [
        ("a", 1, 3, 0, 1),
        ("a", 1, 3, 0, 2),
        ("a", 1, 4, 0, 3),
        ("b", 1, 0, 0, 4),
    ]


# ── What is refused ──────────────────────────────────────────────────────────────────────────────

LONG = "x" * 257
BAD_EVERYWHERE: dict[str, tuple[dict[str, Any], str]] = {
    "an empty name": ({"metric_name": ""}, "metric_name"),
    "a long name": ({"metric_name": "é" * 257}, "metric_name"),
    "a name of bytes": ({"metric_name": b"r"}, "metric_name"),
    "no value": ({"value": None}, "value"),
    "a text": ({"value": "1.5"}, "value"),
    "texts": ({"value": np.array(["1.5"])}, "value"),
    "objects": ({"value": np.array([None])}, "value"),
    "three dimensions": ({"value": np.ones((1, 1, 1))}, "value"),
    "a label that is a number": ({"labels": {"a": 1.5}}, "labels"),
    "a label that is None": ({"labels": {"a": None}}, "labels"),
    "a long label": ({"labels": {"a": LONG}}, "labels"),
    "a long label key": ({"labels": {LONG: "a"}}, "labels"),
    "labels as a text": ({"labels": "a"}, "labels"),
    "NaN as timestamp": ({"timestamp": math.nan}, "timestamp"),
    "a text as timestamp": ({"timestamp": "now"}, "timestamp"),
}
BAD_STEPS = {
    "NaN": ({"step": math.nan}, "step"),
    "NaN among others": ({"value": [1, 2], "step": [1, math.nan]}, "step"),
    "a negative one among others": ({"value": [1, 2], "step": [1, -1]}, "step"),
    "two dimensions": ({"value": [1, 2], "step": [[1, 2]]}, "step"),
    "past the greatest": ({"value": [1, 2], "step": 2**53 - 1}, "step"),
}
BAD_RL = {
    "NaN as rl_step": ({"rl_step": math.nan}, "rl_step"),
    "a bool as rl_step": ({"rl_step": True}, "rl_step"),
    "NaN as episode": ({"episode": math.nan}, "episode"),
    "a negative one of two episodes": (
        {"value": [1, 2], "env_id": ["a", "b"], "episode": [1, -1]},
        "episode",
    ),
    "an id that needs quoting": ({"env_id": "a?b"}, "env_id"),
    "an id that is not ASCII": ({"env_id": "ü"}, "env_id"),
    "an id with a percent": ({"env_id": "a%20"}, "env_id"),
    "an id of bytes": ({"env_id": b"a"}, "env_id"),
    "one bad id of two": ({"value": [1, 2], "env_id": ["a", "b/c"]}, "env_id"),
    "rows for others": ({"value": np.ones((3, 2)), "env_id": ["a", "b"]}, "value"),
}
CALLS: dict[str, tuple[dict[str, Any], dict[str, tuple[dict[str, Any], str]]]] = {
    "log": ({"metric_name": "r", "value": 1}, BAD_EVERYWHERE | BAD_STEPS),
    "log_distributed": ({"metric_name": "r", "value": 1, "step": 1}, BAD_EVERYWHERE | BAD_STEPS),
    "log_rl_episode": ({"metric_name": "r", "value": 1, "rl_step": 5}, BAD_EVERYWHERE | BAD_RL),
    "log_rl_environment_step": (
        {"metric_name": "r", "value": 1, "rl_step": 5},
        BAD_EVERYWHERE | BAD_RL,
    ),
}


@pytest.mark.parametrize(
    ("function", "case"),
    [(function, case) for function, (_, cases) in CALLS.items() for case in cases],
)
def test_bad_input_is_refused_by_name(any_run: Run, function: str, case: str) -> None:
    good, cases = CALLS[function]
    arguments, name = cases[case]
    with pytest.raises(metrana.MetranaValidationError, match=f"(?<![a-z_]){name}") as refused:
        getattr(any_run, function)(**{**good, **arguments})
    assert len(str(refused.value)) < 500


def test_nothing_of_a_refused_call_is_logged(data_dir: Path) -> None:
    with metrana.init(mode="offline", data_dir=data_dir) as run:
        for function, (good, cases) in CALLS.items():
            for arguments, _ in cases.values():
                with pytest.raises(metrana.MetranaValidationError):
                    getattr(run, function)(**{**good, **arguments})
        for bad in ({"value": [1, 2, 3]}, {"value": "x"}, {"value": 1, "": 2}):
            with pytest.raises(metrana.MetranaValidationError):
                run.log({"good": [1, 2], **bad}, step=[0, 1])
        metrics = run.get_metrics()
        assert (metrics.float_points_added, metrics.rl_float_points_added) == (0, 0)
        # No position was taken either.
        run.log("good", 1)
        run.log_rl_environment_step("r", [1, 2], 0, env_id=["a", "b"])
    points = read_one(data_dir).points
    assert sorted((p.metric, p.episode, p.step) for p in points) == [
        ("good", None, 0),
        ("r", 0, 0),
        ("r", 0, 0),
    ]


def test_rl_step_going_back_is_refused_for_the_whole_block(any_run: Run) -> None:
    any_run.log_rl_environment_step("r", 1, rl_step=8, env_id="b")
    added = any_run.get_metrics().rl_float_points_added
    with pytest.raises(metrana.MetranaValidationError, match=r"rl_step: 7 is below 8"):
        any_run.log_rl_environment_step("r", [1, 2, 3], rl_step=7, env_id=["a", "b", "c"])
    assert any_run.get_metrics().rl_float_points_added == added
    assert any_run.get_env_last_rl_step_and_episode("a") == (None, None)
    any_run.log_rl_environment_step("r", [1, 2, 3], rl_step=8, env_id=["a", "b", "c"])
    # Another metric, other labels and evaluation are series of their own.
    any_run.log_rl_environment_step("other", 1, rl_step=7, env_id="b")
    any_run.log_rl_environment_step("r", 1, rl_step=7, env_id="b", evaluation=True)
