"""Trainings that go on: by another callback, after an interruption, or with several models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import metrana
from metrana.integrations.sb3 import MetranaCallback
from metrana.query import Client
from tests.conformance.sb3.environments import Scripted
from tests.conformance.sb3.models import ppo

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
