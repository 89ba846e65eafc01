"""The run that the suites of reading read: a little of everything, logged by the real client."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

import metrana

PROJECT = "atari"
RUN = "ppo-1"
CONFIG = {
    "lr": 3e-4,
    "steps": 2**70,
    "net": {"sizes": [64, 64], "act": "tanh"},
    "empty": {},
    "none": None,
}
# Timestamps of `loss`, Unix milliseconds.
T0_MS = 1_700_000_000_123


def record(data_dir: Path) -> None:
    """Logs runs offline, the one that matters by two ranks; nothing is delivered yet."""
    _log_lead(data_dir)
    _log_second_rank(data_dir)
    for name in ("<b>x</b>", "empty"):
        metrana.init(project_name="other", run_name=name, data_dir=data_dir, mode="offline").close()


def _log_lead(data_dir: Path) -> None:
    run = metrana.init(
        project_name=PROJECT,
        run_name=RUN,
        experiment_name="sweep",
        logger_id="rank-0",
        data_dir=data_dir,
        mode="offline",
        tags=["b", "a"],
        description="a <b>bold</b> try",
        config=CONFIG,
    )
    for step in range(10):
        run.log("loss", 1.0 / (step + 1), timestamp=T0_MS + step)
    run.log("loss", 100.0, step=3, timestamp=T0_MS + 50)
    run.log("odd", np.array([math.nan, math.inf, -math.inf, 1.5, -0.0]))
    run.log("nan", math.nan)
    run.log("accuracy", 0.5, labels={"split": "train", "fold": "1"})
    run.log("accuracy", 0.75, labels={"split": "test"})
    run.log("accuracy", 0.25)
    run.log("accuracy", 0.9, evaluation=True)
    for step in range(4):
        run.log_distributed("throughput", 10.0 + step, step=step)
    for episode in range(3):
        rewards = np.arange(8, dtype=np.float32).reshape(2, 4) + 10 * episode
        run.log_rl_environment_step(
            "reward", rewards, rl_step=100 * episode, env_id=["e-0", "e-1"], episode=episode
        )
        run.log_rl_episode(
            "episode_return", rewards.sum(axis=1), rl_step=100 * episode + 4, env_id=["e-0", "e-1"]
        )
    run.log_rl_environment_step(
        "reward", np.ones(2), rl_step=300, env_id="e-0", episode=0, evaluation=True
    )
    run.log_env_attributes("e-0", {"seed": 7, "wrappers": ["a", "b"], "note": None})
    run.log_env_attributes("e-0", {"map": "forest", "noise": math.inf}, episode=1)
    run.close()


def _log_second_rank(data_dir: Path) -> None:
    run = metrana.init(
        project_name=PROJECT,
        run_name=RUN,
        logger_id="rank-1",
        resume_strategy="allow",
        data_dir=data_dir,
        mode="offline",
    )
    for step in range(4):
        run.log_distributed("throughput", 20.0 + step, step=step)
    run.close()
