"""`log_rl_episode` and `log_rl_environment_step`, read back from the spool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrana
from tests.reading import Logged, read_one


def _positions(logged: Logged, metric: str) -> list[tuple[Any, ...]]:
    return [(p.env_id, p.rl_step, p.episode, p.step, p.value) for p in logged.of(metric)]


def test_episodes_count_by_themselves_across_rl_steps(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log_rl_episode("return", 1.0, 10)
        metrana.log_rl_episode("return", [2.0, 3.0], rl_step=20)
        metrana.log_rl_episode("return", 4.0, rl_step=20, episode=9)
        metrana.log_rl_episode("return", 5.0, rl_step=20)
    assert _positions(read_one(data_dir), "return") == [
        ("default", 10, 0, None, 1.0),
        ("default", 20, 1, None, 2.0),
        ("default", 20, 2, None, 3.0),
        ("default", 20, 9, None, 4.0),
        ("default", 20, 10, None, 5.0),
    ]


def test_an_episode_of_each_environment(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log_rl_episode("return", [1, 2], 5, env_id=["a", "b"])
        metrana.log_rl_episode("return", [3, 4], 5, episode=[7, 8], env_id=["a", "b"])
    assert sorted(_positions(read_one(data_dir), "return")) == [
        ("a", 5, 0, None, 1.0),
        ("a", 5, 7, None, 3.0),
        ("b", 5, 0, None, 2.0),
        ("b", 5, 8, None, 4.0),
    ]


def test_environment_steps_restart_with_the_episode(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("reward", [1, 2], 1)
        metrana.log_rl_environment_step("reward", 3, 2)
        metrana.log_rl_environment_step("reward", 4, 2, episode=1)
        metrana.log_rl_episode("return", 10, 3, episode=1)
        metrana.log_rl_environment_step("reward", 5, 3)
    assert _positions(read_one(data_dir), "reward") == [
        ("default", 1, 0, 0, 1.0),
        ("default", 1, 0, 1, 2.0),
        ("default", 2, 0, 2, 3.0),
        ("default", 2, 1, 0, 4.0),
        ("default", 3, 2, 0, 5.0),
    ]


@pytest.mark.parametrize(
    "episode",
    [3, [3, 3], np.array([[3, 3, 3], [3, 3, 3]]), np.full((2, 3), 3, dtype=np.int16)],
    ids=["one", "per environment", "per point", "int16"],
)
def test_episodes_broadcast(data_dir: Path, episode: Any) -> None:
    block = np.arange(6, dtype=np.float32).reshape(2, 3)
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("reward", block, 1, env_id=["a", "b"], episode=episode)
    assert _positions(read_one(data_dir), "reward") == [
        (env, 1, 3, step, block[row, step])
        for row, env in enumerate(["a", "b"])
        for step in range(3)
    ]


def test_timestamps_broadcast(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("r", [[1, 2], [3, 4]], 1, ["a", "b"], timestamp=[7, 8])
        metrana.log_rl_environment_step(
            "r", [[1, 2], [3, 4]], 1, ["a", "b"], timestamp=[[1, 2], [3, 4]]
        )
    points = read_one(data_dir).of("r")
    assert [p.timestamp_ms for p in points if p.env_id == "a"] == [7, 7, 1, 2]
    assert [p.timestamp_ms for p in points if p.env_id == "b"] == [8, 8, 3, 4]


@pytest.mark.parametrize(
    ("env_ids", "names"),
    [
        (["x", "y"], ["x", "y"]),
        (("x", "y"), ["x", "y"]),
        ([4, 5], ["4", "5"]),
        (["x", 5], ["x", "5"]),
        (range(2), ["0", "1"]),
        (np.array([300, 301]), ["300", "301"]),
        (np.array(["x", "y"]), ["x", "y"]),
        ([np.int64(7), np.str_("z")], ["7", "z"]),
    ],
    ids=repr,
)
def test_environment_ids_are_strings_or_ints(
    data_dir: Path, env_ids: Any, names: list[str]
) -> None:
    with metrana.init(mode="offline"):
        for value in (1, 2):
            metrana.log_rl_environment_step("r", [value, value], 1, env_id=env_ids)
    points = read_one(data_dir).of("r")
    assert sorted({str(p.env_id) for p in points}) == sorted(names)
    assert len(points) == 4


def test_a_list_of_environments_is_known_again_when_it_changes(data_dir: Path) -> None:
    ids = ["a", "b", "c"]
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("r", [1, 2, 3], 1, ids)
        ids[1] = "d"
        metrana.log_rl_environment_step("r", [4, 5, 6], 1, ids)
        metrana.log_rl_environment_step("r", [7, 8, 9], 1, ["a", "b", "c"])
    by_env: dict[str | None, list[float]] = {}
    for point in read_one(data_dir).of("r"):
        by_env.setdefault(point.env_id, []).append(point.value)
    assert by_env == {"a": [1, 4, 7], "b": [2, 8], "c": [3, 6, 9], "d": [5]}


def test_where_an_environment_is() -> None:
    with metrana.init(mode="offline"):
        assert metrana.get_env_last_rl_step_and_episode("a") == (None, None)
        metrana.log_rl_episode("return", 1, rl_step=12, episode=3, env_id="a")
        assert metrana.get_env_last_rl_step_and_episode("a") == (12, 3)
        assert metrana.get_last_step("return", "EPISODE") == 3


BAD_CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "no rl_step": (("r", 1, None), {}, "rl_step"),
    "a negative rl_step": (("r", 1, -1), {}, "rl_step"),
    "an rl_step too large": (("r", 1, 2**48), {}, "rl_step"),
    "a fraction as rl_step": (("r", 1, 0.5), {}, "rl_step"),
    "several rl_steps": (("r", 1, [1, 2]), {}, "rl_step"),
    "a mapping": (({"r": 1}, 1, 1), {}, "metric_name"),
    "an id with a space": (("r", 1, 1), {"env_id": "a b"}, "env_id"),
    "an id with a slash": (("r", 1, 1), {"env_id": "a/b"}, "env_id"),
    "an empty id": (("r", 1, 1), {"env_id": ""}, "env_id"),
    "a dot as id": (("r", 1, 1), {"env_id": ".."}, "env_id"),
    "a long id": (("r", 1, 1), {"env_id": "a" * 129}, "env_id"),
    "a huge id": (("r", 1, 1), {"env_id": 10**5000}, "env_id"),
    "a huge id in a list": (("r", [1], 1), {"env_id": [10**5000]}, "env_id"),
    "a fraction as id": (("r", 1, 1), {"env_id": 1.5}, "env_id"),
    "a bool as id": (("r", 1, 1), {"env_id": True}, "env_id"),
    "a bad id in a list": (("r", [1, 2], 1), {"env_id": ["a", None]}, "env_id"),
    "a negative episode": (("r", 1, 1), {"episode": -1}, "episode"),
    "an episode too large": (("r", 1, 1), {"episode": 2**40}, "episode"),
    "a fraction as episode": (("r", 1, 1), {"episode": 1.5}, "episode"),
    "a scalar for a list": (("r", 1, 1), {"env_id": ["a", "b"]}, "value"),
    "too few values": (("r", [1], 1), {"env_id": ["a", "b"]}, "value"),
    "a grid for one environment": (("r", [[1, 2]], 1), {"env_id": "a"}, "value"),
    "too few episodes": (("r", [1, 2], 1), {"env_id": ["a", "b"], "episode": [1]}, "episode"),
}


@pytest.mark.parametrize("mode", ["offline", "disabled"])
@pytest.mark.parametrize("function", ["log_rl_episode", "log_rl_environment_step"])
@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_input_is_refused_by_name(case: str, function: str, mode: str) -> None:
    arguments, options, name = BAD_CALLS[case]
    with (
        metrana.init(mode=mode) as run,
        pytest.raises(metrana.MetranaValidationError, match=f"(?<![a-z_]){name}"),
    ):
        getattr(run, function)(*arguments, **options)


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_rl_step_may_not_go_back(mode: str) -> None:
    with metrana.init(mode=mode):
        metrana.log_rl_episode("return", 1, rl_step=5)
        metrana.log_rl_episode("other", 1, rl_step=3)
        with pytest.raises(metrana.MetranaValidationError, match="rl_step: 4 is below 5"):
            metrana.log_rl_episode("return", 1, rl_step=4)


def test_per_step_episodes_are_refused_by_the_row() -> None:
    with (
        metrana.init(mode="offline"),
        pytest.raises(metrana.MetranaValidationError, match="a row gives one per environment"),
    ):
        metrana.log_rl_environment_step("r", np.ones((2, 3)), 1, ["a", "b"], episode=[1, 1, 2])
