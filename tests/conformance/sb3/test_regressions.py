"""What users of other loggers complain of that no other test here is about, one test each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv

from metrana.integrations.gymnasium import MetranaEnvWrapper
from metrana.integrations.sb3 import MetranaCallback
from metrana.query import Client
from tests.conformance.sb3.environments import Scripted
from tests.conformance.sb3.models import ppo
from tests.local_server import wait_until


def always(_: int) -> bool:
    """A trigger of videos that a process can be given."""
    return True


def filmed() -> Any:
    """An environment with videos; made in a process that imports this."""
    env = Scripted([4], render_mode="rgb_array")
    return Monitor(MetranaEnvWrapper(env, episode_trigger=always))


def test_the_last_video_is_there_without_a_close(offline: dict[str, Any]) -> None:
    """Videos that exist only after the next reset or a close."""
    callback = MetranaCallback(run_name="run", init_args=offline)
    ppo(filmed()).learn(16, callback=callback)
    assert callback.run is not None  # which is open
    with Client(data_dir=offline["data_dir"]) as client:
        wait_until(lambda: len(client.renderings("run")) == 4)
        assert client.renderings("run")["frame_count"].tolist() == [5] * 4


def test_workers_that_import_everything_anew_log_through_the_callback(
    offline: dict[str, Any],
) -> None:
    """Logging in worker processes fails; these have nothing of this process."""
    env = SubprocVecEnv([filmed] * 2, start_method="spawn")
    callback = MetranaCallback(run_name="run", init_args=offline)
    ppo(env).learn(32, callback=callback)
    env.close()
    assert callback.faults.count == 0
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert set(client.points("run", "episode_return")["env_id"]) == {"env-0", "env-1"}
        assert len(client.renderings("run")) == 8


def test_config_that_is_no_json_loses_nothing_else(offline: dict[str, Any]) -> None:
    """Arguments that are classes, objects or functions, or nested, or large."""

    class Wide(torch.nn.ReLU):
        pass

    policy = {
        "net_arch": {"pi": [4], "vf": [4]},
        "activation_fn": Wide,
        "optimizer_kwargs": {"eps": 1e-5, "betas": (0.9, 0.99)},
    }
    model = ppo(policy_kwargs=policy)
    model.gamma = np.float32(0.5)
    model.seed = np.zeros((30, 30))
    callback = MetranaCallback(run_name="run", init_args=offline)
    model.learn(16, callback=callback)
    assert callback.faults.count == 0
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        config = client.run("run").config
    assert config["policy_kwargs"]["net_arch"] == {"pi": [4], "vf": [4]}
    assert "Wide" in config["policy_kwargs"]["activation_fn"]
    assert config["policy_kwargs"]["optimizer_kwargs"]["eps"] == 1e-5
    assert (config["gamma"], config["n_steps"]) == (0.5, 16)
