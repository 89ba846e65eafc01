"""One environment: what is logged, under which id, at which rl_step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper, MetranaVectorEnvWrapper
from metrana.query import Client
from tests.conformance.gymnasium.environments import Drawn, makers, replay
from tests.conformance.gymnasium.logs import logged, records, steps, values
from tests.reading import read_all


def play(env: Any, episode_count: int, seed: int | None = 0) -> None:
    """Play whole episodes."""
    for number in range(episode_count):
        env.reset(seed=seed if number == 0 else None)
        is_over = False
        while not is_over:
            _, _, terminated, truncated, _ = env.step(0)
            is_over = bool(terminated or truncated)


def take_steps(env: Any, count: int) -> None:
    """Reset, and play on without looking where episodes end."""
    env.reset(seed=0)
    action = np.zeros(env.num_envs, np.int64) if isinstance(env, gym.vector.VectorEnv) else 0
    for _ in range(count):
        env.step(action)


# ── What is logged ───────────────────────────────────────────────────────────────────────────────


def test_episodes_are_logged_as_they_are_played(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(Drawn(), env_id="e", info_metrics=["height"])
    play(env, 20, seed=5)
    env.close()
    run.close()
    found = logged(data_dir)
    rows = records(found)
    assert len(rows) == 20
    for number, episode in enumerate(replay(5, 20)):
        row = rows["e", number]
        assert row.pop("episode_duration") >= 0
        assert row == episode.record
        assert values(found)["e", number] == episode.rewards
        np.testing.assert_equal(values(found, "height")["e", number], episode.heights)
    assert all(not point.labels for point in found.points)
    rl_steps = [point.rl_step for point in found.of("reward")]
    assert rl_steps == list(range(1, len(rl_steps) + 1))
    ends = [point.rl_step for point in found.of("episode_return")]
    assert ends == np.cumsum([len(episode.rewards) for episode in replay(5, 20)]).tolist()


def test_terminated_and_truncated_at_once_are_both_logged(data_dir: Path, run: metrana.Run) -> None:
    env = gym.wrappers.TimeLimit(Drawn(fixed_length=5), 5)
    play(MetranaEnvWrapper(env, env_id="e"), 10)
    run.close()
    ends = {(row["terminated"], row["truncated"]) for row in records(logged(data_dir)).values()}
    assert ends == {(0.0, 1.0), (1.0, 1.0)}
    with Client(data_dir=data_dir) as client:
        assert set(client.episodes("training")["end"]) == {"truncated", "both"}


def test_an_episode_that_is_given_up_logs_no_record(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(Drawn(fixed_length=4), env_id="e")
    for _ in range(3):
        env.reset()  # before any step there is no episode
    for step_count in (2, 4, 3):
        for _ in range(step_count):
            env.step(0)
        env.reset()
    env.step(0)
    env.close()
    env.close()
    run.close()
    found = logged(data_dir)
    assert set(records(found)) == {("e", 1)}
    lengths = {number: len(series) for (_, number), series in values(found).items()}
    assert lengths == {0: 2, 1: 4, 2: 3, 3: 1}


def test_an_environment_that_resets_itself_counts_no_reset(
    data_dir: Path, run: metrana.Run
) -> None:
    env = MetranaEnvWrapper(gym.wrappers.Autoreset(Drawn()), env_id="e", info_metrics=["height"])
    take_steps(env, 100)
    run.close()
    found = logged(data_dir)
    rows = records(found)
    alone = replay(0, len(rows))
    assert len(rows) > 10
    for number, episode in enumerate(alone):
        assert values(found)["e", number] == episode.rewards
        assert rows["e", number]["episode_length"] == len(episode.rewards)


def test_nothing_is_logged_before_the_first_step(data_dir: Path) -> None:
    env = MetranaEnvWrapper(Drawn())
    env.reset()
    assert not metrana.is_initialized()
    assert not data_dir.exists()
    env.close()
    assert not metrana.is_initialized()


def test_steps_of_every_nth_episode_only(data_dir: Path, run: metrana.Run) -> None:
    play(MetranaEnvWrapper(Drawn(), env_id="e", log_env_steps=4), 10)
    run.close()
    found = logged(data_dir)
    assert {number for _, number in steps(found)} == {0, 4, 8}
    assert len(records(found)) == 10


def test_without_steps_episodes_keep_their_metrics(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(Drawn(), env_id="e", log_env_steps=False, info_metrics=("height",))
    play(env, 3)
    run.close()
    found = logged(data_dir)
    assert steps(found) == {}
    heights = [row["height"] for row in records(found).values()]
    assert heights == [episode.record["height"] for episode in replay(0, 3)]


class Success(Drawn):
    """Says in other words whether it had success."""

    def __init__(self, info: dict[str, Any]) -> None:
        super().__init__(fixed_length=2)
        self.info = info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return *super().step(action)[:4], self.info  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("info", "success"),
    [
        ({"is_success": True}, 1.0),
        ({"success": np.bool_(False)}, 0.0),
        ({"success": np.array(0.5)}, 0.5),
        ({"success": "yes"}, None),
        ({}, None),
    ],
)
def test_success_is_logged_where_info_says_it(
    info: dict[str, Any], success: float | None, data_dir: Path, run: metrana.Run
) -> None:
    play(MetranaEnvWrapper(Success(info), info_metrics=["success"]), 1)
    run.close()
    (row,) = records(logged(data_dir)).values()
    assert row.get("success") == success


def test_rewards_of_any_kind_are_numbers(data_dir: Path, run: metrana.Run) -> None:
    class Kinds(Drawn):
        kinds = (1, np.float32(0.5), np.array([2.0]), np.float64(math.inf), math.nan, None)

        def step(self, action: Any) -> Any:
            number = self.step_number
            return (super().step(action)[0], self.kinds[number], False, number == 5, {})

    env = MetranaEnvWrapper(Kinds(fixed_length=9), env_id="e")
    with pytest.warns(metrana.MetranaWarning, match="leaves out the reward None") as said:
        take_steps(env, 6)
    assert len(said) == 1
    run.close()
    found = logged(data_dir)
    np.testing.assert_equal(values(found)["e", 0], [1.0, 0.5, 2.0, math.inf, math.nan, math.nan])
    assert records(found)["e", 0]["episode_length"] == 6
    assert env.faults.count == 0


def test_ends_may_be_arrays_of_one_element(data_dir: Path, run: metrana.Run) -> None:
    class Arrays(Drawn):
        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = super().step(action)
            return observation, reward, np.array([terminated]), np.array([truncated]), info

    env = MetranaEnvWrapper(Arrays(), env_id="e")
    play(env, 3)
    run.close()
    rows = records(logged(data_dir))
    for number, episode in enumerate(replay(0, 3)):
        row = rows["e", number]
        assert (row["terminated"], row["truncated"]) == (episode.terminated, episode.truncated)
    assert env.faults.count == 0


# ── Ids ──────────────────────────────────────────────────────────────────────────────────────────


def ids(found: Any) -> list[str]:
    """The environments that have rewards."""
    return sorted({point.env_id for point in found.of("reward")})


def test_a_default_id_has_the_lowest_index_that_is_free(data_dir: Path, run: metrana.Run) -> None:
    first, second, third = (MetranaEnvWrapper(Drawn()) for _ in range(3))
    take_steps(second, 1)
    take_steps(first, 1)
    second.close()
    take_steps(third, 2)
    vector = MetranaVectorEnvWrapper(SyncVectorEnv(makers(2)))
    vector.reset()
    vector.step(np.zeros(2, np.int64))
    run.close()
    found = logged(data_dir)
    assert ids(found) == ["env-0", "env-1", "env-2", "env-3"]
    lengths = {key: len(points) for key, points in steps(found).items()}
    # The third goes on where the second, whose id it has, was.
    assert lengths == {
        ("env-0", 0): 1,
        ("env-0", 1): 2,
        ("env-1", 0): 1,
        ("env-2", 0): 1,
        ("env-3", 0): 1,
    }


def test_an_id_is_free_again_when_its_wrapper_is_gone(data_dir: Path, run: metrana.Run) -> None:
    for _ in range(3):
        take_steps(MetranaEnvWrapper(Drawn()), 1)
    run.close()
    assert ids(logged(data_dir)) == ["env-0"]


def test_ids_say_spec_evaluation_and_rank(
    data_dir: Path, run: metrana.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    for evaluation in (False, True):
        env = gym.make("metrana-tests/Drawn-v0", disable_env_checker=True)
        take_steps(MetranaEnvWrapper(env, evaluation=evaluation), 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    take_steps(MetranaEnvWrapper(gym.make("CartPole-v1")), 1)
    run.close()
    assert ids(logged(data_dir)) == [
        "CartPole-v1-0",
        "metrana-tests-Drawn-v0-eval-r3-0",
        "metrana-tests-Drawn-v0-r3-0",
    ]


def test_a_second_wrapper_of_one_id_is_passive_and_says_so(
    data_dir: Path, run: metrana.Run
) -> None:
    first, second = (MetranaEnvWrapper(Drawn(), env_id="mine") for _ in range(2))
    take_steps(first, 2)
    with pytest.warns(metrana.MetranaWarning, match="logs nothing: another one") as said:
        take_steps(second, 3)
    assert len(said) == 1
    first.close()
    second.step(0)
    take_steps(second, 1)  # with the next episode, once the id is free
    run.close()
    assert sum(len(points) for points in steps(logged(data_dir)).values()) == 3


def test_the_outer_of_two_wrappers_logs(data_dir: Path, run: metrana.Run) -> None:
    inner = MetranaEnvWrapper(Drawn(fixed_length=3))
    take_steps(inner, 1)
    scaled = gym.wrappers.TransformReward(inner, lambda reward: 0 * reward)
    outer = MetranaEnvWrapper(scaled, env_id="outer")
    play(outer, 2)
    run.close()
    found = logged(data_dir)
    assert [len(series) for series in values(found).values()] == [1, 3, 3]
    assert values(found)["outer", 1] == [0.0, 0.0, 0.0]


# ── The clock ────────────────────────────────────────────────────────────────────────────────────


def test_evaluation_is_at_the_rl_step_of_the_training(data_dir: Path, run: metrana.Run) -> None:
    training = MetranaEnvWrapper(Drawn(), env_id="t")
    evaluation = MetranaEnvWrapper(Drawn(), env_id="v", evaluation=True)
    take_steps(training, 10)
    take_steps(evaluation, 3)
    for _ in range(5):
        training.step(0)
    training.close()
    for _ in range(2):
        evaluation.step(0)
    run.close()
    found = logged(data_dir)
    points = [point for point in found.of("reward") if point.env_id == "v"]
    assert [point.rl_step for point in points] == [10, 10, 10, 15, 15]
    assert {tuple(point.labels.items()) for point in points} == {(("evaluation", "true"),)}
    assert {point.env_id for point in found.points if not point.labels} == {"t"}


def test_evaluation_without_training_counts_by_itself(data_dir: Path, run: metrana.Run) -> None:
    take_steps(MetranaEnvWrapper(Drawn(), evaluation=True), 3)
    run.close()
    assert [point.rl_step for point in logged(data_dir).of("reward")] == [1, 2, 3]


def test_a_function_may_give_the_rl_step_but_not_let_it_fall(
    data_dir: Path, run: metrana.Run
) -> None:
    given: list[Any] = [5, 5, 3, 20, "x", 2.0]
    env = MetranaEnvWrapper(Drawn(), rl_step_fn=lambda: given.pop(0))
    with pytest.warns(metrana.MetranaWarning, match="rl_step_fn"):
        take_steps(env, 6)
    run.close()
    assert [point.rl_step for point in logged(data_dir).of("reward")] == [5, 5, 5, 20, 21, 21]
    assert env.faults.count == 1


def test_a_resumed_run_goes_on_where_it_was(data_dir: Path) -> None:
    for _ in range(2):
        with metrana.init(run_name="again", resume_strategy="allow"):
            env = MetranaEnvWrapper(Drawn(fixed_length=4), env_id="e")
            take_steps(env, 4)
            take_steps(env, 2)
            env.close()
            envs = MetranaVectorEnvWrapper(SyncVectorEnv(makers(2, fixed_length=4)), env_id="v")
            take_steps(envs, 7)
            envs.close()
    first, second = read_all(data_dir)
    for found, first_episode, rl_step, vector_rl_step in ((first, 0, 0, 0), (second, 2, 6, 14)):
        numbers = {number for env_id, number in steps(found) if env_id == "e"}
        assert numbers == {first_episode, first_episode + 1}
        points = [point for point in found.of("reward") if point.env_id == "e"]
        assert [point.rl_step for point in points] == [rl_step + n for n in range(1, 7)]
        points = [point for point in found.of("reward") if point.env_id == "v-1"]
        assert points[0].rl_step == vector_rl_step + 2
        assert points[0].episode == first_episode
