"""Stable-Baselines3: PPO in four environments, whose logger records a dozen numbers a rollout.

W&B takes them from TensorBoard's writer, as its documentation has it. metrana logs every reward and
every episode of each environment, too, or no rewards where episodes alone are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.fits import EPISODES, NONE, TENSORBOARD, WANDB, Training, close_run

_NUM_ENVS = 4
_ROLLOUT_STEPS = 64


def training(logger: str, run: Any, folder: Path, step_count: int) -> Training:
    """Returns one of so many steps of all environments, in whole rollouts."""
    step_count = max(1, step_count // _ROLLOUT_STEPS) * _ROLLOUT_STEPS
    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", _NUM_ENVS, seed=0),
        n_steps=_ROLLOUT_STEPS,
        batch_size=_ROLLOUT_STEPS * _NUM_ENVS // 2,
        n_epochs=4,
        seed=0,
        device="cpu",
        tensorboard_log=str(folder / "events") if logger in (TENSORBOARD, WANDB) else None,
    )
    callback = _adapter(logger, run)

    def train() -> None:
        model.learn(step_count * _NUM_ENVS, callback=callback)

    def close() -> None:
        model.logger.close()
        close_run(run)

    return Training(train, close, step_count)


def _adapter(logger: str, run: Any) -> Any:
    if logger in (NONE, TENSORBOARD):
        return None
    if logger == WANDB:
        from wandb.integration.sb3 import WandbCallback

        return WandbCallback()
    from metrana.integrations.sb3 import MetranaCallback

    return MetranaCallback(run=run, log_env_steps=logger != EPISODES)
