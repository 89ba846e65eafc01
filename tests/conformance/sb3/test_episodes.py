"""Steps and episodes of the environments that a model learns from, in every kind of `VecEnv`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecMonitor,
    VecNormalize,
)

import metrana
from metrana.integrations.sb3 import MetranaCallback
from metrana.query import Client
from tests.conformance.sb3.environments import LifeLoss, Scripted, Skipping
from tests.conformance.sb3.models import dqn, ppo, tiny

RECORD = ("episode_return", "episode_length", "terminated", "truncated")


def train(
    offline: dict[str, Any],
    model: Any,
    timesteps: int,
    *others: BaseCallback,
    **arguments: Any,
) -> MetranaCallback:
    """Lets a model learn with a callback, whose run `run` is closed."""
    callback = MetranaCallback(run_name="run", init_args=offline, **arguments)
    model.learn(timesteps, callback=[callback, *others])
    assert model.num_timesteps == timesteps
    assert callback.faults.count == 0
    callback.close()
    return callback


def rewards_of(client: Client, env_id: str) -> list[tuple[int, int, int, float]]:
    """`rl_step`, episode, step and value of each step of an environment."""
    frame = client.points("run", "reward", env_id=env_id)
    return list(frame[["rl_step", "episode", "step", "value"]].itertuples(index=False, name=None))


def episodes_of(client: Client, env_id: str) -> list[tuple[float, ...]]:
    """What is recorded of each finished episode of an environment."""
    frame = client.episodes("run", env_id=env_id).sort_values("episode")
    return list(frame[frame["end"] != "aborted"][list(RECORD)].itertuples(index=False, name=None))


def monitored(*lengths: int, **arguments: Any) -> Callable[[], gym.Env[Any, Any]]:
    """Makes an environment as SB3 does."""
    return lambda: Monitor(Scripted(lengths, **arguments))


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_each_environment_has_its_steps_and_episodes(
    offline: dict[str, Any], kind: type[VecEnv]
) -> None:
    env = kind([monitored(3, 5), monitored(4, truncates=True)])  # type: ignore[call-arg]
    train(offline, ppo(env), 32)
    env.close()
    with Client(data_dir=offline["data_dir"]) as client, client.hold():
        for index, lengths in enumerate([[3, 5, 3, 5], [4, 4, 4, 4]]):
            steps = [(k, i) for k, length in enumerate(lengths) for i in range(length)]
            assert rewards_of(client, f"env-{index}") == [
                (2 * t, k, i, i + 1.0) for t, (k, i) in enumerate(steps[:16], start=1)
            ]
            ends = (0.0, 1.0) if index else (1.0, 0.0)
            assert episodes_of(client, f"env-{index}") == [
                (length * (length + 1) / 2, float(length), *ends) for length in lengths
            ]
        durations = client.points("run", "episode_duration")
        returns = client.points("run", "episode_return", env_id="env-0")
    assert (durations["value"] > 0).all()
    assert returns["rl_step"].tolist() == [6, 16, 22, 32]
    assert set(returns["scale"]) == {"EPISODE"}


def test_env_ids_are_made_of_the_environments_name(offline: dict[str, Any]) -> None:
    train(offline, ppo(make_vec_env("CartPole-v1", 2)), 32)
    with Client(data_dir=offline["data_dir"]) as client:
        env_ids = client.series("run", metric_name="reward")["env_id"]
    assert sorted(env_ids) == ["CartPole-v1-0", "CartPole-v1-1"]


def test_ranks_have_environments_of_their_own(
    offline: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    train(offline, ppo(), 16)
    with Client(data_dir=offline["data_dir"]) as client:
        assert set(client.series("run", metric_name="reward")["env_id"]) == {"env-r1-0"}


def test_off_policy_algorithms_are_logged_likewise(offline: dict[str, Any]) -> None:
    train(offline, dqn(), 20)
    with Client(data_dir=offline["data_dir"]) as client:
        steps = [(k, i) for k, length in enumerate([3, 5, 3, 5, 3, 5]) for i in range(length)]
        assert rewards_of(client, "env-0") == [
            (t, k, i, i + 1.0) for t, (k, i) in enumerate(steps[:20], start=1)
        ]


def test_sac_on_pendulum(offline: dict[str, Any]) -> None:
    model = SAC("MlpPolicy", "Pendulum-v1", **tiny(), learning_starts=190, buffer_size=300)
    train(offline, model, 203)
    with Client(data_dir=offline["data_dir"]) as client:
        episodes = client.episodes("run")
        rewards = client.points("run", "reward")["value"]
        losses = client.points("run", "train/critic_loss")
    assert episodes["end"].tolist() == ["truncated", "aborted"]
    assert episodes["episode_return"][0] == pytest.approx(rewards[:200].sum(), abs=1e-3)
    # None was dumped before the end.
    assert losses["step"].tolist() == [204]


# ── What the reward is, and what the return ──────────────────────────────────────────────────────


def test_rewards_are_raw_under_vec_normalize(offline: dict[str, Any]) -> None:
    env = VecNormalize(DummyVecEnv([monitored(3), monitored(5)]))
    train(offline, ppo(env), 32)
    with Client(data_dir=offline["data_dir"]) as client:
        assert [value for *_, value in rewards_of(client, "env-0")][:4] == [1.0, 2.0, 3.0, 1.0]
        assert episodes_of(client, "env-0")[0] == (6.0, 3.0, 1.0, 0.0)
        assert episodes_of(client, "env-1")[0] == (15.0, 5.0, 1.0, 0.0)


class Keeping(BaseCallback):
    """Keeps the arrays of rewards, which SB3 changes later."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def _on_step(self) -> bool:
        self.kept.append(self.locals["rewards"])
        return True


def test_rewards_are_those_of_the_environment_though_sb3_changes_them_later(
    offline: dict[str, Any],
) -> None:
    keeping = Keeping()
    train(offline, ppo(Scripted([4], truncates=True)), 16, keeping)
    with Client(data_dir=offline["data_dir"]) as client:
        found = [value for *_, value in rewards_of(client, "env-0")]
    assert found == [1.0, 2.0, 3.0, 4.0] * 4
    assert [float(rewards[0]) for rewards in keeping.kept] != found


def test_a_lost_life_ends_no_episode(offline: dict[str, Any]) -> None:
    env = DummyVecEnv([lambda: LifeLoss(Monitor(Scripted([6])), every=2)])
    train(offline, ppo(env), 16)
    with Client(data_dir=offline["data_dir"]) as client:
        assert episodes_of(client, "env-0") == [(21.0, 6.0, 1.0, 0.0)] * 2
        assert [step[1:3] for step in rewards_of(client, "env-0")] == [
            (k, i) for k in range(3) for i in range(6)
        ][:16]


def test_without_a_monitor_the_end_of_an_episode_is_what_sb3_takes_for_it(
    offline: dict[str, Any],
) -> None:
    env = DummyVecEnv([lambda: LifeLoss(Scripted([6]), every=2)])
    train(offline, ppo(env), 16)
    with Client(data_dir=offline["data_dir"]) as client:
        assert episodes_of(client, "env-0")[:3] == [
            (3.0, 2.0, 1.0, 0.0),
            (7.0, 2.0, 1.0, 0.0),
            (11.0, 2.0, 1.0, 0.0),
        ]


def test_returns_are_those_of_the_monitor(offline: dict[str, Any]) -> None:
    """Rewards that wrappers outside of it have clipped are what is learned from, not the score."""
    env = DummyVecEnv(
        [lambda: gym.wrappers.TransformReward(Monitor(Scripted([4])), lambda r: min(r, 2.0))]
    )
    train(offline, ppo(env), 16)
    with Client(data_dir=offline["data_dir"]) as client:
        assert [value for *_, value in rewards_of(client, "env-0")][:4] == [1.0, 2.0, 2.0, 2.0]
        assert {found[0] for found in episodes_of(client, "env-0")} == {10.0}
        means = client.points("run", "rollout/ep_rew_mean")["value"]
    assert set(means) == {10.0}


@pytest.mark.parametrize("num_envs", [1, 2])
def test_lengths_are_those_of_the_monitor(offline: dict[str, Any], num_envs: int) -> None:
    env = DummyVecEnv([lambda: Skipping(Monitor(Scripted([4])))] * num_envs)
    train(offline, ppo(env), 16 * num_envs)
    with Client(data_dir=offline["data_dir"]) as client:
        assert [value for *_, value in rewards_of(client, "env-0")] == [3.0, 7.0] * 8
        assert episodes_of(client, "env-0") == [(10.0, 4.0, 1.0, 0.0)] * 8


def test_returns_are_raw_though_a_monitor_sees_normalized_rewards(offline: dict[str, Any]) -> None:
    env = VecMonitor(VecNormalize(DummyVecEnv([lambda: Scripted([4])])))
    train(offline, ppo(env), 16)
    with Client(data_dir=offline["data_dir"]) as client:
        assert episodes_of(client, "env-0") == [(10.0, 4.0, 1.0, 0.0)] * 4
        assert 10.0 not in set(client.points("run", "rollout/ep_rew_mean")["value"])


def test_success_is_logged_where_the_environment_says_it(offline: dict[str, Any]) -> None:
    env = DummyVecEnv([monitored(4, success=True), monitored(4)])
    train(offline, ppo(env), 32)
    with Client(data_dir=offline["data_dir"]) as client:
        found = client.points("run", "success")
    assert set(found["env_id"]) == {"env-0"}
    assert found["value"].tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("log_env_steps", "episodes"), [(True, {0, 1, 2, 3}), (1, {0, 1, 2, 3}), (2, {0, 2})]
)
def test_steps_of_some_episodes(
    offline: dict[str, Any], log_env_steps: bool | int, episodes: set[int]
) -> None:
    train(offline, ppo(), 16, log_env_steps=log_env_steps)
    with Client(data_dir=offline["data_dir"]) as client:
        assert {episode for _, episode, *_ in rewards_of(client, "env-0")} == episodes
        assert len(episodes_of(client, "env-0")) == 4


def test_no_steps(offline: dict[str, Any]) -> None:
    train(offline, ppo(), 16, log_env_steps=False, eval_env=Scripted(), eval_freq=8)
    with Client(data_dir=offline["data_dir"]) as client:
        assert "reward" not in set(client.series("run")["metric_name"])
        assert len(episodes_of(client, "env-0")) == 4
        assert len(episodes_of(client, "env-eval-0")) == 10


def test_infos_stay_as_they_are(offline: dict[str, Any]) -> None:
    class Looking(BaseCallback):
        def _on_step(self) -> bool:
            keys = {"TimeLimit.truncated", "terminal_observation", "episode"}
            return all(info.keys() <= keys for info in self.locals["infos"])

    train(offline, ppo(), 16, Looking())


# ── Trainings one after the other ────────────────────────────────────────────────────────────────


def test_rl_steps_and_episodes_go_on_when_learning_begins_again(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(run_name="run", init_args=offline)
    model = ppo()
    model.learn(10, callback=callback)  # 16 steps: of whole rollouts
    model.learn(10, callback=callback)
    model.learn(10, callback=callback, reset_num_timesteps=False)
    assert model.num_timesteps == 32
    callback.close()
    assert callback.faults.count == 0
    with Client(data_dir=offline["data_dir"]) as client:
        steps = rewards_of(client, "env-0")
    assert [rl_step for rl_step, *_ in steps] == list(range(1, 49))
    # The 17th step is the first of an episode: the environment was reset, here just in time.
    assert [episode for _, episode, *_ in steps] == [
        k for k, length in enumerate([3, 5] * 6) for _ in range(length)
    ][:48]


def test_an_episode_that_learning_anew_cuts_short_is_given_up(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(run_name="run", init_args=offline)
    model = ppo(Scripted([5]))
    for _ in range(2):
        model.learn(16, callback=callback)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        episodes = client.episodes("run").sort_values("episode")
    assert episodes["episode"].tolist() == list(range(8))
    assert episodes["end"].tolist() == [*["terminated"] * 3, "aborted"] * 2
    assert episodes["episode_length"].tolist() == [5, 5, 5, 1] * 2


def test_an_episode_goes_on_over_the_end_of_a_training(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(run_name="run", init_args=offline)
    for model in (ppo(Scripted([5])), dqn(Scripted([5]))):
        for _ in range(2):
            model.learn(16, callback=callback, reset_num_timesteps=False)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        episodes = client.episodes("run").sort_values("episode")
    # Each model has an environment of its own, the name of which is free again.
    assert set(episodes["env_id"]) == {"env-0"}
    assert episodes["episode_length"].tolist() == [*[5] * 6, 2] * 2
    assert episodes["last_rl_step"].max() == 64


def test_an_environment_that_is_reset_by_the_user_begins_an_episode(
    offline: dict[str, Any],
) -> None:
    callback = MetranaCallback(run_name="run", init_args=offline)
    model = dqn(Scripted([5]))
    model.learn(8, callback=callback)
    model.set_env(model.get_env())
    model.learn(8, callback=callback, reset_num_timesteps=False)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        episodes = client.episodes("run").sort_values("episode")
    assert episodes["episode_length"].tolist() == [5, 3, 5, 3]


def test_a_resumed_run_goes_on_where_the_model_is(offline: dict[str, Any]) -> None:
    model = ppo(Scripted([8]))
    for _ in range(2):
        callback = MetranaCallback(
            run_name="run", init_args={**offline, "resume_strategy": "allow"}
        )
        model.learn(16, callback=callback, reset_num_timesteps=False)
        callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        steps = rewards_of(client, "env-0")
        dumps = client.points("run", "rollout/ep_len_mean")
    assert [rl_step for rl_step, *_ in steps] == list(range(1, 33))
    assert [episode for _, episode, *_ in steps] == [k for k in range(4) for _ in range(8)]
    assert dumps["step"].tolist() == [16, 32]
    assert dumps["labels"].tolist() == [{}, {}]


def test_callbacks_one_after_the_other_go_on_in_one_run(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline, run_name="run")
    for _ in range(2):
        callback = MetranaCallback()
        ppo(Scripted([8])).learn(16, callback=callback)
        callback.close()
        assert callback.faults.count == 0
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        steps = rewards_of(client, "env-0")
    assert [rl_step for rl_step, *_ in steps] == list(range(1, 33))
    assert [episode for _, episode, *_ in steps] == [k for k in range(4) for _ in range(8)]


def test_models_one_after_the_other_go_on_in_a_run_that_is_resumed(offline: dict[str, Any]) -> None:
    """Callbacks and runs of their own, in one process: steps never begin again in it."""
    for _ in range(2):
        callback = MetranaCallback(
            run_name="run",
            eval_env=Scripted([4]),
            eval_freq=16,
            n_eval_episodes=1,
            init_args={**offline, "resume_strategy": "allow"},
        )
        ppo(Scripted([8])).learn(16, callback=callback)
        callback.close()
        assert callback.faults.count == 0
    with Client(data_dir=offline["data_dir"]) as client:
        steps = rewards_of(client, "env-0")
        evaluated = client.points("run", "episode_return", env_id="env-eval-0")
    assert [rl_step for rl_step, *_ in steps] == list(range(1, 33))
    assert [episode for _, episode, *_ in steps] == [k for k in range(4) for _ in range(8)]
    assert evaluated["rl_step"].tolist() == [16, 32]


class Vectorized(VecEnv):
    """One that steps its environments by itself and knows nothing else."""

    def __init__(self) -> None:
        self.inner = DummyVecEnv([lambda: Scripted([4])])
        super().__init__(1, self.inner.observation_space, self.inner.action_space)

    def reset(self) -> Any:
        return self.inner.reset()

    def step_async(self, actions: Any) -> None:
        self.inner.step_async(actions)

    def step_wait(self) -> Any:
        return self.inner.step_wait()

    def close(self) -> None:
        self.inner.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return self.inner.get_attr(attr_name, indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, *_args: Any, **_kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        raise NotImplementedError


def test_an_environment_that_is_vectorized_by_itself_is_logged(offline: dict[str, Any]) -> None:
    train(offline, ppo(Vectorized()), 16)
    with Client(data_dir=offline["data_dir"]) as client:
        assert episodes_of(client, "env-0") == [(10.0, 4.0, 1.0, 0.0)] * 4


def test_terminated_and_truncated_are_never_both(offline: dict[str, Any]) -> None:
    class Both(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            observation, reward, terminated, _, info = self.env.step(action)
            return observation, reward, terminated, terminated, info

    train(offline, ppo(Both(Scripted([4]))), 16)
    with Client(data_dir=offline["data_dir"]) as client:
        assert set(client.episodes("run")["end"]) == {"terminated"}
