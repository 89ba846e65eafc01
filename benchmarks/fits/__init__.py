"""The same training of each framework, with no logger and with one of several.

A module a framework, each with a function `training`. Every step is logged by the adapter that the
logger or the framework has for the other, as its documentation shows it, and only numbers are: no
models, no gradients, no videos.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

NONE = "none"
METRANA = "metrana"
SERVED = "metrana-server"
EPISODES = "metrana-episodes"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
LOGGERS = {
    METRANA: "metrana",
    EPISODES: "metrana, episodes alone",
    SERVED: "metrana, local server",
    TENSORBOARD: "TensorBoard",
    WANDB: "W&B offline",
}
PEERS = (TENSORBOARD, WANDB)


class Framework(NamedTuple):
    """One whose training is measured."""

    title: str
    package: str
    has_environments: bool
    """Whose every reward metrana logs unless it is told not to."""


FRAMEWORKS = {
    "lightning": Framework("Lightning", "lightning", has_environments=False),
    "transformers": Framework("Transformers", "transformers", has_environments=False),
    "gymnasium": Framework("Gymnasium", "gymnasium", has_environments=True),
    "sb3": Framework("Stable-Baselines3", "stable-baselines3", has_environments=True),
}


class Training(NamedTuple):
    """One that is ready to start."""

    train: Callable[[], object]
    """Does all of it."""
    close: Callable[[], object]
    """Closes the logger."""
    step_count: int
    """How many steps it has."""


def training_of(framework: str, logger: str, run: Any, folder: Path, step_count: int) -> Training:
    """Returns a training.

    Args:
        framework: The name of its module.
        logger: NONE or one of LOGGERS.
        run: What `open_run` gave.
        folder: For files.
        step_count: How many steps it is to have, about.
    """
    module = importlib.import_module(f"benchmarks.fits.{framework}_fit")
    training: Training = module.training(logger, run, folder, step_count)
    return training


def loggers_of(framework: str) -> list[str]:
    """Returns the names of the loggers that are measured with a framework."""
    has_episodes = FRAMEWORKS[framework].has_environments
    return [name for name in LOGGERS if name != EPISODES or has_episodes]


def open_run(logger: str, folder: Path, name: str, *, syncs_tensorboard: bool = False) -> Any:
    """Opens a run as a user would before a training.

    Args:
        logger: NONE or one of LOGGERS.
        folder: Where it writes.
        name: Of the run.
        syncs_tensorboard: Whether W&B is to take what is written for TensorBoard.

    Returns:
        A run of metrana or W&B; None for the others.
    """
    if logger in (METRANA, EPISODES, SERVED):
        import metrana

        mode = "online" if logger == SERVED else "offline"
        return metrana.init(mode=mode, data_dir=str(folder), run_name=name)
    if logger == WANDB:
        import wandb

        return wandb.init(
            project="benchmark",
            name=name,
            dir=str(folder),
            mode="offline",
            sync_tensorboard=syncs_tensorboard,
        )
    return None


def close_run(run: Any) -> None:
    """Closes what `open_run` gave, as a user would."""
    if run is not None:
        close = getattr(run, "finish", None) or run.close
        close()
