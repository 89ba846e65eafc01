"""Trainings that go on: by another callback, after an interruption, or with several models."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper
from metrana.integrations.sb3 import MetranaCallback
from metrana.query import Client
from tests.conformance.sb3.environments import Scripted
from tests.conformance.sb3.models import dqn, ppo

# ── The clock ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_shared", [False, True])
def test_models_that_learn_in_turns_count_each_transition_once(
    offline: dict[str, Any], is_shared: bool
) -> None:
    run = metrana.init(**offline, run_name="run")
    callbacks = [MetranaCallback(), MetranaCallback()]
    models = [ppo(Scripted([8])), ppo(Scripted([8]))]
    for _ in range(3):
        for index, model in enumerate(models):
            callback = callbacks[0 if is_shared else index]
            model.learn(32 if index == 0 else 16, callback=callback, reset_num_timesteps=False)
    assert [callback.faults.count for callback in callbacks] == [0, 0]
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        rl_steps = client.points("run", "reward")["rl_step"]
    assert sorted(rl_steps) == list(range(1, 145))


def test_an_earlier_model_that_goes_on_does_so_after_the_last_step(
    offline: dict[str, Any], tmp_path: Path
) -> None:
    callback = MetranaCallback(run_name="run", init_args=offline)
    model = ppo(Scripted([8]))
    model.learn(16, callback=callback)
    model.save(tmp_path / "model")
    model.learn(16, callback=callback, reset_num_timesteps=False)
    earlier = PPO.load(tmp_path / "model", env=DummyVecEnv([lambda: Scripted([8])]), device="cpu")
    earlier.learn(16, callback=callback, reset_num_timesteps=False)
    assert earlier.num_timesteps == 32
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        rl_steps = client.points("run", "reward")["rl_step"]
    assert rl_steps.tolist() == list(range(1, 49))


# ── A callback of its own for each training ──────────────────────────────────────────────────────


def wrapped(env: gym.Env[Any, Any], *, is_monitored: bool) -> DummyVecEnv:
    """An environment with a monitor, or without, which then nobody else counts for."""
    return DummyVecEnv([lambda: Monitor(env) if is_monitored else env])


def episodes(client: Client, env_id: str = "env-0") -> list[tuple[str, float, int]]:
    """End, length and points of the steps of each episode."""
    frame = client.episodes("run", env_id=env_id).sort_values("episode")
    numbers = client.points("run", "reward", env_id=env_id)["episode"].tolist()
    assert frame["episode"].tolist() == list(range(len(frame)))
    return [
        (end, length, numbers.count(episode))
        for end, length, episode in zip(
            frame["end"], frame["episode_length"], frame["episode"], strict=True
        )
    ]


@pytest.mark.parametrize("is_monitored", [False, True])
@pytest.mark.parametrize("are_kept", [False, True])
def test_an_episode_goes_on_with_the_callback_of_the_next_training(
    offline: dict[str, Any], is_monitored: bool, are_kept: bool
) -> None:
    run = metrana.init(**offline, run_name="run")
    model = ppo(wrapped(Scripted([5]), is_monitored=is_monitored))
    kept = []
    for _ in range(4):
        callback = MetranaCallback(run=run)
        model.learn(16, callback=callback, reset_num_timesteps=False)
        assert callback.faults.count == 0
        kept += [callback] if are_kept else []
        del callback
        gc.collect()
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert episodes(client) == [("terminated", 5, 5)] * 12 + [("aborted", 4, 4)]
        rewards = client.points("run", "reward")
        returns = client.points("run", "episode_return")["value"]
    assert rewards["rl_step"].tolist() == list(range(1, 65))
    assert set(returns) == {15.0}


def test_a_callback_of_before_goes_on_again(offline: dict[str, Any]) -> None:
    """That another one was closed meanwhile takes nothing from it."""
    run = metrana.init(**offline, run_name="run")
    first, second, other = (MetranaCallback() for _ in range(3))
    model = ppo(Scripted([7]))
    for callback in (first, second, first):
        model.learn(16, callback=callback, reset_num_timesteps=False)
    second.close()
    ppo(Scripted([16])).learn(16, callback=other)
    model.learn(16, callback=first, reset_num_timesteps=False)
    run.close()
    assert [callback.faults.count for callback in (first, second, other)] == [0, 0, 0]
    with Client(data_dir=offline["data_dir"]) as client:
        assert episodes(client) == [("terminated", 7, 7)] * 9 + [("aborted", 1, 1)]
        assert episodes(client, "env-1") == [("terminated", 16, 16)]
        rl_steps = client.points("run", "reward")["rl_step"]
    assert sorted(rl_steps) == list(range(1, 81))


@pytest.mark.parametrize("log_env_steps", [True, False])
def test_an_episode_goes_on_after_a_callback_was_closed(
    offline: dict[str, Any], log_env_steps: bool
) -> None:
    run = metrana.init(**offline, run_name="run")
    model = ppo(wrapped(Scripted([7]), is_monitored=False))
    for _ in range(4):
        callback = MetranaCallback(log_env_steps=log_env_steps)
        model.learn(16, callback=callback, reset_num_timesteps=False)
        callback.close()
        assert callback.faults.count == 0
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        records = client.points("run", "episode_length")
    assert set(records["env_id"]) == {"env-0"}
    assert records["episode"].tolist() == list(range(9))
    assert records["value"].tolist() == [7.0] * 9


def test_an_env_id_that_others_had_since_a_close_is_not_taken_again(
    offline: dict[str, Any],
) -> None:
    run = metrana.init(**offline, run_name="run")
    callback = MetranaCallback()
    model, other = (ppo(Scripted([10])) for _ in range(2))
    for each in (model, other, model):
        each.learn(16, callback=callback, reset_num_timesteps=False)
        callback.close()
    assert callback.faults.count == 0
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        ends = client.episodes("run", env_id="env-0").sort_values("episode")["end"]
    # The rest of the first model's episode is one of its own.
    assert ends.tolist() == ["terminated", "aborted"] * 2 + ["terminated", "terminated", "aborted"]


def test_a_reset_by_the_next_training_begins_an_episode(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline, run_name="run")
    model = ppo(Scripted([5]))
    for _ in range(2):
        model.learn(16, callback=MetranaCallback())
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        whole, rest = ("terminated", 5, 5), ("aborted", 1, 1)
        assert episodes(client) == [*[whole] * 3, rest] * 2


def test_the_next_callback_logs_as_it_is_set(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline, run_name="run")
    model = ppo(Scripted([5]))
    for log_env_steps in (False, True, 2):
        callback = MetranaCallback(log_env_steps=log_env_steps)
        model.learn(16, callback=callback, reset_num_timesteps=False)
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        lengths = client.points("run", "episode_length")["value"]
        rewards = client.points("run", "reward")
    assert lengths.tolist() == [5.0] * 9
    # Of the third training, steps of the even episodes 6 and 8.
    assert rewards["rl_step"].tolist() == [*range(17, 36), *range(41, 46)]


def test_the_next_callback_counts_the_faults_of_its_training(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline, run_name="run")

    class Closing(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 5:
                run.close()
            return True

    model, first, second = ppo(), MetranaCallback(run=run), MetranaCallback(run=run)
    model.learn(16, callback=first)
    with pytest.warns(metrana.MetranaWarning, match="MetranaCallback could not log"):
        model.learn(16, callback=[second, Closing()], reset_num_timesteps=False)
    assert first.faults.count == 0
    assert second.faults.count > 0


def test_a_video_goes_on_with_the_callback_of_the_next_training(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline, run_name="run")
    env = Scripted([20], render_mode="rgb_array")
    model = ppo(MetranaEnvWrapper(env, episode_trigger=lambda _: True))
    for _ in range(3):
        model.learn(16, callback=MetranaCallback(), reset_num_timesteps=False)
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        found = client.renderings("run").sort_values("episode")
    assert found["episode"].tolist() == [0, 1, 2]
    assert found["frame_count"].tolist() == [21, 21, 9]


def test_neither_model_nor_environment_is_kept_by_what_goes_on(offline: dict[str, Any]) -> None:
    """As in self-play, where the environment knows the model."""
    run = metrana.init(**offline, run_name="run")
    env = Scripted([5])
    model = ppo(env)
    env.opponent = model  # type: ignore[attr-defined]
    model.learn(16, callback=MetranaCallback())
    left = [weakref.ref(model), weakref.ref(env)]
    del model, env
    gc.collect()
    assert [each() for each in left] == [None, None]
    ppo(Scripted([5])).learn(16, callback=MetranaCallback())
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert set(client.points("run", "reward")["env_id"]) == {"env-0"}


# ── After an interruption ────────────────────────────────────────────────────────────────────────


class Interrupting(BaseCallback):
    """Ends a training at a step, as Ctrl-C does."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at:
            raise KeyboardInterrupt
        return True


@pytest.mark.parametrize("make", [ppo, dqn])
@pytest.mark.parametrize("at", [8, 9, 10, 11])
def test_a_step_that_a_callback_before_it_interrupts_is_logged(
    offline: dict[str, Any], make: Callable[..., Any], at: int
) -> None:
    """That of the end of an episode too, and of the beginning of one."""
    callback = MetranaCallback(run_name="run", init_args=offline)
    model = make(wrapped(Scripted([5]), is_monitored=False))
    with pytest.raises(KeyboardInterrupt):
        model.learn(16, callback=[Interrupting(at), callback])
    model.learn(16, callback=callback, reset_num_timesteps=False)
    assert callback.faults.count == 0
    callback.close()
    whole, rest = divmod(16 + at, 5)
    with Client(data_dir=offline["data_dir"]) as client:
        expected = [("terminated", 5, 5)] * whole
        assert episodes(client) == expected + [("aborted", rest, rest)] * (rest > 0)
        rewards = client.points("run", "reward")
    assert rewards["rl_step"].tolist() == list(range(1, 17 + at))
    assert rewards["value"].tolist() == [t % 5 + 1.0 for t in range(16 + at)]


@pytest.mark.parametrize("make", [ppo, dqn])
@pytest.mark.parametrize("is_same", [True, False])
def test_an_episode_goes_on_after_an_interruption(
    offline: dict[str, Any], make: Callable[..., Any], is_same: bool
) -> None:
    run = metrana.init(**offline, run_name="run")
    first = MetranaCallback()
    model = make(wrapped(Scripted([5]), is_monitored=False))
    for at in (8, 14):
        callback = first if is_same else MetranaCallback()
        with pytest.raises(KeyboardInterrupt):
            model.learn(16, callback=[callback, Interrupting(at)], reset_num_timesteps=False)
    model.learn(16, callback=first, reset_num_timesteps=False)
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert episodes(client) == [("terminated", 5, 5)] * 6
        rl_steps = client.points("run", "reward")["rl_step"]
    assert rl_steps.tolist() == list(range(1, 31))
