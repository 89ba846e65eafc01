"""Lightning: a perceptron whose training logs four numbers a step."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.fits import NONE, TENSORBOARD, WANDB, Training, close_run

_FEATURES, _CLASSES, _HIDDEN, _BATCH = 16, 4, 64, 32


class Perceptron(LightningModule):
    """One hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(_FEATURES, _HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(_HIDDEN, _CLASSES),
        )

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Log and return the loss of a batch."""
        inputs, classes = batch
        scores = self.layers(inputs)
        loss = functional.cross_entropy(scores, classes)
        accuracy = (scores.argmax(1) == classes).float().mean()
        norms = {"scores": scores.detach().norm(), "inputs": inputs.norm()}
        self.log_dict({"loss": loss, "accuracy": accuracy, **norms})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Stochastic gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def training(logger: str, run: Any, folder: Path, step_count: int) -> Training:
    """Returns one of so many batches."""
    # What it advises is not what is measured.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)
    inputs = torch.randn(_BATCH * 100, _FEATURES)
    data = TensorDataset(inputs, inputs[:, :_CLASSES].argmax(1))
    chosen = _adapter(logger, run, folder)
    model = Perceptron()
    trainer = Trainer(
        logger=chosen,
        max_steps=step_count,
        accelerator="cpu",
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    loader = DataLoader(data, batch_size=_BATCH, shuffle=True)

    def close() -> None:
        if logger == TENSORBOARD:
            chosen.experiment.close()
        close_run(run)

    return Training(lambda: trainer.fit(model, loader), close, step_count)


def _adapter(logger: str, run: Any, folder: Path) -> Any:
    if logger == NONE:
        return False
    if logger == TENSORBOARD:
        from lightning.pytorch.loggers import TensorBoardLogger

        chosen = TensorBoardLogger(str(folder))
        chosen.experiment  # noqa: B018 - its file is opened by being asked for
        return chosen
    if logger == WANDB:
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(experiment=run)
    from metrana.integrations.lightning import MetranaLogger

    return MetranaLogger(run=run)
