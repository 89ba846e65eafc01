"""The logs of episodes as adapters use them whose environments give an info each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrana
from metrana.integrations._common import Faults
from metrana.integrations._episode_settings import EpisodeSettings, checked_env_id, env_id_base
from metrana.integrations._episodes import training_clock
from metrana.integrations._infos import columns_of_dicts, successes_of_dicts
from metrana.integrations._vector_episodes import VectorEpisodes
from tests.reading import read_one


@pytest.fixture
def run(tmp_path: Path) -> Iterator[metrana.Run]:
    """An offline run, closed at the end."""
    with metrana.init(mode="offline", data_dir=tmp_path) as opened:
        yield opened


def log_of(run: metrana.Run, num_envs: int, **settings: Any) -> VectorEpisodes:
    """A log with its ids."""
    log = VectorEpisodes(run, EpisodeSettings.of(**settings), Faults("adapter"), num_envs)
    assert log.claim(None, "Env/v 1")
    return log


def test_an_rl_step_that_is_given_is_the_clock_of_the_training(
    run: metrana.Run, tmp_path: Path
) -> None:
    log = log_of(run, 2)
    evaluation = log_of(run, 1, evaluation=True)
    rewards = np.array([0.25, 0.5], np.float32)
    for rl_step in (2, 4, 10):
        log.step(rewards, rl_step=rl_step)
        rewards *= 2  # the caller's
    evaluation.step(np.ones(1))
    assert log.env_ids == ["Env-v-1-0", "Env-v-1-1"]
    assert evaluation.env_ids == ["Env-v-1-eval-0"]
    assert training_clock(run).rl_step == 10
    run.close()
    found = read_one(tmp_path)
    points = [p for p in found.of("reward") if p.env_id == "Env-v-1-0"]
    assert [(p.rl_step, p.value) for p in points] == [(2, 0.25), (4, 0.5), (10, 1.0)]
    assert [p.rl_step for p in found.of("reward") if p.labels] == [10]


def test_infos_of_their_own_give_columns_and_successes(run: metrana.Run, tmp_path: Path) -> None:
    log = log_of(run, 3, info_metrics=["x", "success"])
    faults = Faults("adapter")
    infos: list[dict[str, Any]] = [
        {"x": 1.0, "success": True},
        {"x": np.float32(2.0), "is_success": np.bool_(False)},
        {"y": 1.0},
    ]
    columns = columns_of_dicts(("x", "success"), infos, faults)
    log.step(np.zeros(3), columns=columns)
    ended = np.array([0, 1, 2])
    truncated = np.array([False, True, True])
    log.finish(ended, ~truncated, truncated, successes_of_dicts(infos, ended))
    assert log.episodes.tolist() == [1, 1, 1]
    assert all(log.is_first_step(index) for index in range(3))
    run.close()
    found = read_one(tmp_path)
    steps = {p.env_id: p.value for p in found.of("x") if p.scale == "ENVIRONMENT_STEP"}
    np.testing.assert_equal(list(steps.values()), [1.0, 2.0, math.nan])
    assert [p.value for p in found.of("x") if p.scale == "EPISODE"] == [1.0, 2.0]
    assert [p.value for p in found.of("success") if p.scale == "EPISODE"] == [1.0, 0.0]
    assert found.values("truncated") == [0.0, 1.0, 1.0]
    assert successes_of_dicts([{}], np.array([0])) is None


def test_what_is_given_up_uses_its_number(run: metrana.Run) -> None:
    log = log_of(run, 2)
    log.begin()
    assert log.episodes.tolist() == [0, 0]
    log.step(np.ones(2))
    log.begin(np.array([True, False]))
    assert log.episodes.tolist() == [1, 0]
    assert log.episode_returns.tolist() == [0.0, 1.0]
    assert [log.is_first_step(index) for index in range(2)] == [True, False]


def test_ids_that_are_given_are_had_by_one(run: metrana.Run) -> None:
    first = VectorEpisodes(run, EpisodeSettings.of(), Faults("adapter"), 2)
    second = VectorEpisodes(run, EpisodeSettings.of(), Faults("adapter"), 2)
    assert first.claim(["a", "b"], None)
    with pytest.warns(metrana.MetranaWarning, match="logs nothing"):
        assert not second.claim(["c", "b"], None)
    assert first.env_ids == ["a", "b"]
    first.release()
    first.release()
    assert second.claim("b", None)
    assert second.env_ids == ["b-0", "b-1"]


def test_ids_are_checked_and_made_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_env_id(None) is None
    assert checked_env_id(7) == "7"
    assert checked_env_id([1, 2], 2) == ["1", "2"]
    for bad in ("", "a/b", "..", "x" * 129):
        with pytest.raises(metrana.MetranaValidationError, match="env_id"):
            checked_env_id(bad)
    assert env_id_base(None, evaluation=False) == "env"
    assert len(env_id_base("x" * 500, evaluation=True)) < 110
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert env_id_base("A b", evaluation=True) == "A-b-eval"
    monkeypatch.setenv("RANK", "1")
    assert env_id_base("A b", evaluation=True) == "A-b-eval-r1"
