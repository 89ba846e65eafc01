"""Nothing of a `MetranaCallback` stops a training, and what stops it leaves nothing behind."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, EveryNTimesteps
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

import metrana
from metrana.integrations.sb3 import MetranaCallback
from metrana.query import Client
from tests.conformance.sb3.environments import Scripted
from tests.conformance.sb3.models import ppo


class Stopping(BaseCallback):
    """Ends a training after some steps, or does not let it go on with an error."""

    def __init__(self, after: int, *, raises: bool = False) -> None:
        super().__init__()
        self.after = after
        self.raises = raises

    def _on_step(self) -> bool:
        if self.n_calls >= self.after and self.raises:
            raise RuntimeError("the user's own")
        return self.n_calls < self.after


def test_a_run_that_is_closed_does_not_stop_the_training(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline)

    class Closing(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 5:
                run.close()
            return True

    callback = MetranaCallback(run=run, eval_env=Scripted(), eval_freq=4)
    model = ppo()
    with pytest.warns(metrana.MetranaWarning, match="MetranaCallback could not log"):
        model.learn(32, callback=[callback, Closing()])
    assert model.num_timesteps == 32
    assert callback.faults.count > 0


def test_a_run_that_is_closed_does_not_stop_the_next_training(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline)
    callback = MetranaCallback(run=run)
    model = ppo()
    model.learn(16, callback=callback)
    run.close()
    with pytest.warns(metrana.MetranaWarning, match="MetranaCallback could not log"):
        model.learn(16, callback=callback, reset_num_timesteps=False)
    assert model.num_timesteps == 32
    assert callback.faults.count == 1


def test_a_folder_that_cannot_be_made_does_not_stop_the_training(
    offline: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    callback = MetranaCallback(checkpoint_dir=tmp_path / "file" / "models", init_args=offline)
    model = ppo()
    with pytest.warns(metrana.MetranaWarning, match="NotADirectoryError"):
        model.learn(16, callback=callback)
    assert model.num_timesteps == 16


def test_a_step_always_goes_on(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(init_args=offline)
    ppo().learn(16, callback=callback)
    callback.locals = {}
    with pytest.warns(metrana.MetranaWarning, match="KeyError"):
        assert callback.on_step() is True


def test_steps_that_it_is_not_called_at_are_said_to_be_missing(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(init_args=offline)
    with pytest.warns(metrana.MetranaWarning, match="not called at every step"):
        ppo().learn(32, callback=EveryNTimesteps(8, callback))


def test_other_callbacks_can_end_the_training(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(run_name="ppo", init_args=offline)
    model = ppo()
    model.learn(32, callback=[callback, Stopping(10)])
    assert callback.n_calls == model.num_timesteps == 10
    model.learn(32, callback=[Stopping(3), callback], reset_num_timesteps=False)
    assert callback.n_calls == model.num_timesteps == 13
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        rewards = client.points("ppo", "reward")
    # The second training goes on in the episode in which the first one ended.
    assert rewards["rl_step"].tolist() == list(range(1, 14))
    assert rewards["episode"].tolist() == [0] * 3 + [1] * 5 + [2] * 3 + [3] * 2


def test_a_training_that_raises_leaves_nothing_behind(offline: dict[str, Any]) -> None:
    model = ppo()
    model.set_logger(Logger(None, []))
    broken = MetranaCallback(run_name="broken", init_args=offline)
    with pytest.raises(RuntimeError, match="the user's own"):
        model.learn(64, callback=[broken, Stopping(20, raises=True)])
    broken.close()
    callback = MetranaCallback(run_name="whole", init_args=offline)
    with warnings.catch_warnings():
        warnings.simplefilter("error", metrana.MetranaWarning)
        model.learn(32, callback=callback)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.points("broken", "rollout/ep_len_mean")["step"].tolist() == [16]
        assert client.points("whole", "rollout/ep_len_mean")["step"].tolist() == [16, 32]


def test_a_training_that_was_interrupted_is_taken_up_by_another_callback(
    offline: dict[str, Any],
) -> None:
    """As in a notebook: the first callback was never closed, and something still holds it."""

    class Interrupting(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 20:
                raise KeyboardInterrupt
            return True

    run = metrana.init(**offline, run_name="a")
    model, eval_env = ppo(), Scripted([4])
    callbacks = [MetranaCallback(eval_env=eval_env, eval_freq=16) for _ in range(3)]
    with pytest.raises(KeyboardInterrupt):
        model.learn(64, callback=[callbacks[0], Interrupting()])
    for callback in callbacks[1:]:
        model.learn(16, callback=callback, reset_num_timesteps=False)
    assert [callback.faults.count for callback in callbacks] == [0, 0, 0]
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        rewards = client.points("a", "reward", env_id="env-0")
        env_ids = set(client.series("a")["env_id"].dropna())
    assert env_ids == {"env-0", "env-eval-0"}
    assert rewards["rl_step"].tolist() == list(range(1, 53))
    assert rewards["episode"].is_monotonic_increasing


def test_a_model_that_learns_with_it_can_be_saved(offline: dict[str, Any], tmp_path: Path) -> None:
    callback = MetranaCallback(init_args=offline)
    model = ppo()
    model.learn(16, callback=callback)
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=DummyVecEnv([Scripted]), device="cpu")
    loaded.learn(16, callback=callback, reset_num_timesteps=False)
    assert loaded.num_timesteps == 32
