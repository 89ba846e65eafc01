"""A small model, trainers for it, and what a run has of what they logged."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

import metrana
from metrana.query import Client


def loader(batch_count: int = 3) -> DataLoader[Any]:
    """Batches of two samples of four features, all ones."""
    return DataLoader(TensorDataset(torch.ones(2 * batch_count, 4)), batch_size=2)


class Model(LightningModule):
    """Four weights; logs `train_loss`, `val_loss` at the epoch's end and `test_loss`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def loss(self, batch: Any) -> torch.Tensor:
        """The mean square of the outputs."""
        return self.layer(batch[0]).square().mean()

    def training_step(self, batch: Any) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        return loader()

    def val_dataloader(self) -> DataLoader[Any]:
        return loader(2)

    def test_dataloader(self) -> DataLoader[Any]:
        return loader(2)


def trainer_without_hyperparameters(logger: Any, patch: pytest.MonkeyPatch) -> Trainer:
    """A trainer that logs no hyperparameters, nor tells its logger of itself by them.

    Older versions of Lightning have no argument for that, but the same function to leave out.
    """
    if "enable_autolog_hparams" in inspect.signature(Trainer).parameters:
        return trainer(logger, enable_autolog_hparams=False)
    patch.setattr("lightning.pytorch.trainer.trainer._log_hyperparams", lambda _: None)
    return trainer(logger)


def trainer(logger: Any, **options: Any) -> Trainer:
    """A trainer of one epoch on one CPU that logs each step."""
    usual = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(logger=logger, **{**usual, **options})


Steps = dict[int, float]
Series = dict[tuple[str, frozenset[tuple[str, str]]], Steps]


def series(data_dir: Path, run_name: str = "run", project_name: str = "default") -> Series:
    """Closes what is open, and reads values by step, of each name with its labels."""
    while metrana.is_initialized():
        metrana.close()
    found: Series = {}
    with Client(data_dir=data_dir) as client:
        points = client.points(run_name, project_name=project_name, as_="arrow").to_pylist()
    for row in points:
        assert row["scale"] == "ML_STEP"
        labels = row["labels"]
        key = (row["metric_name"], frozenset(dict(labels).items()))
        found.setdefault(key, {})[row["step"]] = row["value"]
    return found


def steps(found: Series, metric_name: str, **labels: str) -> list[int]:
    """The steps at which a metric was logged with just these labels; none if it was not."""
    return sorted(found.get((metric_name, frozenset(labels.items())), {}))


def names(found: Series) -> set[tuple[str, ...]]:
    """Each series as its name and `key=value` of its labels."""
    return {(name, *sorted(f"{k}={v}" for k, v in labels)) for name, labels in found}
