"""Models that learn fast and nothing."""

from __future__ import annotations

from typing import Any

from stable_baselines3 import DQN, PPO

from tests.conformance.sb3.environments import Scripted


def tiny() -> dict[str, Any]:
    """Arguments of every algorithm; made anew, for some of them change what they are given."""
    return {"policy_kwargs": {"net_arch": [4]}, "device": "cpu", "seed": 0}


def ppo(env: Any = None, **arguments: Any) -> PPO:
    """On policy; a rollout is 16 steps of each environment."""
    usual = {**tiny(), "n_steps": 16, "batch_size": 16, "n_epochs": 1}
    return PPO("MlpPolicy", Scripted() if env is None else env, **{**usual, **arguments})


def dqn(env: Any = None, **arguments: Any) -> DQN:
    """Off policy; it learns from the fifth step on."""
    usual = {**tiny(), "learning_starts": 4, "buffer_size": 100}
    return DQN("MlpPolicy", Scripted() if env is None else env, **{**usual, **arguments})
