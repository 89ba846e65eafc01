"""Gymnasium: a loop of random actions in one environment, without an agent that takes time.

TensorBoard and W&B have no wrapper: the loop logs each episode's return and length itself. metrana
logs every reward, too, unless episodes alone are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RecordEpisodeStatistics

from benchmarks.fits import EPISODES, NONE, TENSORBOARD, WANDB, Training, close_run


def training(logger: str, run: Any, folder: Path, step_count: int) -> Training:
    """Returns a loop of so many steps."""
    env: Any = RecordEpisodeStatistics(gym.make("CartPole-v1"))
    if logger not in (NONE, TENSORBOARD, WANDB):
        from metrana.integrations.gymnasium import MetranaEnvWrapper

        env = MetranaEnvWrapper(env, run=run, log_env_steps=logger != EPISODES)
    log, close = _calls(logger, run, folder)
    actions = np.random.default_rng(0).integers(0, 2, step_count).tolist()

    def train() -> None:
        env.reset(seed=0)
        for step, action in enumerate(actions):
            _, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                log(step, float(info["episode"]["r"]), int(info["episode"]["l"]))
                env.reset()

    def close_all() -> None:
        env.close()
        close()

    return Training(train, close_all, step_count)


def _calls(
    logger: str, run: Any, folder: Path
) -> tuple[Callable[[int, float, int], None], Callable[[], None]]:
    # What logs an episode, and what closes.
    if logger == WANDB:

        def to_wandb(step: int, episode_return: float, length: int) -> None:
            run.log({"episode_return": episode_return, "episode_length": length}, step=step)

        return to_wandb, lambda: close_run(run)
    if logger == TENSORBOARD:
        from tensorboardX import SummaryWriter

        writer = SummaryWriter(str(folder / "events"))

        def to_tensorboard(step: int, episode_return: float, length: int) -> None:
            writer.add_scalar("episode_return", episode_return, step)
            writer.add_scalar("episode_length", length, step)

        return to_tensorboard, writer.close
    return lambda _step, _return, _length: None, lambda: close_run(run)
