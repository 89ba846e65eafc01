"""Evaluations: of which environments, when, and where their steps and episodes are logged."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import metrana
from metrana.integrations.sb3 import MetranaCallback
from metrana.query import Client
from tests.conformance.sb3.environments import LifeLoss, Scripted
from tests.conformance.sb3.models import dqn, ppo

EVALUATION = {"evaluation": "true"}


class Dumps(KVWriter):
    """Keeps what SB3's logger dumps."""

    def __init__(self) -> None:
        self.dumps: list[tuple[int, dict[str, Any]]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        del key_excluded
        self.dumps.append((step, dict(key_values)))

    def close(self) -> None:
        pass


def evaluate(
    offline: dict[str, Any],
    eval_env: Any,
    *,
    model: Any = None,
    timesteps: int = 16,
    **arguments: Any,
) -> MetranaCallback:
    """Lets a model learn with evaluations, in a run `run` that is closed then."""
    callback = MetranaCallback(run_name="run", eval_env=eval_env, init_args=offline, **arguments)
    (ppo() if model is None else model).learn(timesteps, callback=callback)
    callback.close()
    return callback


def test_evaluations_have_episodes_and_env_ids_of_their_own(offline: dict[str, Any]) -> None:
    callback = evaluate(offline, Scripted([4, 6]), eval_freq=8, n_eval_episodes=2)
    assert callback.faults.count == 0
    with Client(data_dir=offline["data_dir"]) as client, client.hold():
        episodes = client.episodes("run", env_id="env-eval-0").sort_values("episode")
        rewards = client.points("run", "reward", env_id="env-eval-0")
        returns = client.points("run", "episode_return", env_id="env-eval-0")
        training = client.points("run", "reward", env_id="env-0")
        means = client.points("run", "eval/mean_reward")
        lengths = client.points("run", "eval/mean_ep_length")
    assert episodes["evaluation"].all()
    assert episodes["episode"].tolist() == [0, 1, 2, 3]
    assert episodes["end"].tolist() == ["terminated"] * 4
    assert episodes["episode_return"].tolist() == [10.0, 21.0] * 2
    assert rewards["labels"].tolist() == [EVALUATION] * 20
    assert rewards["rl_step"].tolist() == [8] * 10 + [16] * 10
    assert returns["rl_step"].tolist() == [8, 8, 16, 16]
    assert training["labels"].tolist() == [{}] * 16
    assert means["step"].tolist() == [8, 16]
    assert means["value"].tolist() == [15.5, 15.5]
    assert means["labels"].tolist() == [EVALUATION] * 2
    assert lengths["value"].tolist() == [5.0, 5.0]


@pytest.mark.parametrize(
    ("num_envs", "steps"), [(1, [10, 20, 30]), (3, [12, 21, 30]), (4, [12, 20, 32])]
)
def test_the_frequency_counts_transitions(
    offline: dict[str, Any], num_envs: int, steps: list[int]
) -> None:
    model = ppo(DummyVecEnv([Scripted] * num_envs), n_steps=32 // num_envs, batch_size=2)
    evaluate(offline, Scripted(), model=model, timesteps=32 // num_envs * num_envs, eval_freq=10)
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.points("run", "eval/mean_reward")["step"].tolist() == steps


def test_a_frequency_below_one_step_evaluates_once_a_step(offline: dict[str, Any]) -> None:
    model = ppo(DummyVecEnv([Scripted] * 4), n_steps=2, batch_size=4)
    evaluate(offline, Scripted([2]), model=model, timesteps=8, eval_freq=1, n_eval_episodes=1)
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.points("run", "eval/mean_reward")["step"].tolist() == [4, 8]


def test_only_the_episodes_that_count_are_logged(offline: dict[str, Any]) -> None:
    """Else short ones would be more of them than their share."""
    env = DummyVecEnv([lambda: Monitor(Scripted([2])), lambda: Monitor(Scripted([9]))])
    evaluate(offline, env, eval_freq=8, n_eval_episodes=3)
    with Client(data_dir=offline["data_dir"]) as client:
        episodes = client.episodes("run")
        rewards = client.points("run", "reward", labels=EVALUATION)
    found = episodes[episodes["evaluation"]].sort_values(["env_id", "episode"])
    assert list(zip(found["env_id"], found["episode_length"], strict=True)) == [
        *[("env-eval-0", 2.0)] * 2,
        *[("env-eval-1", 9.0)] * 4,
    ]
    assert len(rewards) == 2 * 2 + 4 * 9


def test_evaluations_are_in_sb3s_own_log_too(offline: dict[str, Any]) -> None:
    dumps = Dumps()
    model = dqn()
    model.set_logger(Logger(None, [dumps]))
    env = Scripted([3], success=True)
    evaluate(offline, env, model=model, eval_freq=8, n_eval_episodes=2)
    found = {step: values for step, values in dumps.dumps if "eval/mean_reward" in values}
    assert list(found) == [8, 16]
    assert found[8]["eval/mean_reward"] == 6.0
    assert found[8]["eval/mean_ep_length"] == 3.0
    assert found[8]["eval/success_rate"] == 0.5
    assert found[8]["time/total_timesteps"] == 8
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.points("run", "success")["value"].tolist() == [1.0, 0.0] * 2
        assert client.points("run", "eval/success_rate")["value"].tolist() == [0.5, 0.5]


def test_rewards_are_raw_and_statistics_those_of_the_training(offline: dict[str, Any]) -> None:
    training = VecNormalize(DummyVecEnv([Scripted]))
    env = VecNormalize(DummyVecEnv([lambda: Scripted([4])]), training=False)
    means: list[Any] = []

    class Looking(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 8:
                means.append((env.obs_rms.mean.copy(), training.obs_rms.mean.copy()))
            return True

    callback = MetranaCallback(run_name="run", eval_env=env, eval_freq=8, init_args=offline)
    ppo(training).learn(16, callback=[callback, Looking()])
    assert callback.faults.count == 0
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        rewards = client.points("run", "reward", labels=EVALUATION)
        returns = client.points("run", "episode_return", labels=EVALUATION)
    assert rewards["value"].tolist()[:4] == [1.0, 2.0, 3.0, 4.0]
    assert set(returns["value"]) == {10.0}
    ((evaluated, trained),) = means
    assert np.array_equal(evaluated, trained)
    assert evaluated[0] != 0.0


def test_an_environment_that_is_not_normalized_as_the_training_is_is_refused(
    offline: dict[str, Any],
) -> None:
    env = Scripted()
    model = ppo(VecNormalize(DummyVecEnv([lambda: env])))
    callback = MetranaCallback(eval_env=Scripted(), init_args=offline)
    with pytest.raises(metrana.MetranaValidationError, match="eval_env: must be wrapped in VecN"):
        model.learn(16, callback=callback)
    assert env.steps == 0


@pytest.mark.parametrize("kind", ["environment", "vector"])
def test_the_environment_that_is_learned_from_is_refused(
    offline: dict[str, Any], kind: str
) -> None:
    env = Scripted()
    model = ppo(env)
    eval_env = Monitor(env) if kind == "environment" else model.get_env()
    callback = MetranaCallback(eval_env=eval_env, init_args=offline)
    with pytest.raises(metrana.MetranaValidationError, match="eval_env: must be another"):
        model.learn(16, callback=callback)


def test_a_lost_life_ends_no_evaluated_episode(offline: dict[str, Any]) -> None:
    env = LifeLoss(Monitor(Scripted([6])), every=2)
    evaluate(offline, env, eval_freq=16, n_eval_episodes=2)
    with Client(data_dir=offline["data_dir"]) as client:
        episodes = client.episodes("run", env_id="env-eval-0")
    assert episodes["episode_length"].tolist() == [6.0, 6.0]
    assert episodes["episode_return"].tolist() == [21.0, 21.0]


def test_evaluations_go_on_in_later_trainings(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(
        run_name="run", eval_env=Scripted([4]), eval_freq=16, n_eval_episodes=1, init_args=offline
    )
    model = ppo()
    for _ in range(2):
        model.learn(16, callback=callback)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        returns = client.points("run", "episode_return", env_id="env-eval-0")
        means = client.points("run", "eval/mean_reward")
    assert returns["episode"].tolist() == [0, 1]
    assert returns["rl_step"].tolist() == [16, 32]
    assert means["labels"].tolist() == [EVALUATION, {**EVALUATION, "fit": "2"}]


def test_an_evaluation_that_fails_does_not_stop_the_training(offline: dict[str, Any]) -> None:
    class Failing(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            del action
            raise RuntimeError("the simulator is gone")

    model = ppo()
    with pytest.warns(metrana.MetranaWarning, match="the simulator is gone"):
        callback = evaluate(offline, Failing(Scripted()), model=model, eval_freq=8)
    assert model.num_timesteps == 16
    assert callback.faults.count == 2
    with Client(data_dir=offline["data_dir"]) as client:
        assert len(client.points("run", "reward", env_id="env-0")) == 16


def test_the_training_learns_the_same_with_and_without_evaluations(
    offline: dict[str, Any],
) -> None:
    alone = ppo("CartPole-v1").learn(32)
    observed = ppo("CartPole-v1")
    evaluate(offline, gym.make("CartPole-v1"), model=observed, timesteps=32, eval_freq=8)
    weights = [[p.detach().numpy() for p in m.policy.parameters()] for m in (alone, observed)]
    for before, after in zip(*weights, strict=True):
        assert np.array_equal(before, after)
