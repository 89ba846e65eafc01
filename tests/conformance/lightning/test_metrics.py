"""What is logged where: names, steps and labels by what the trainer is doing."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

import metrana
from metrana.integrations.lightning import MetranaLogger
from metrana.query import Client
from tests.conformance.lightning.training import (
    Model,
    loader,
    names,
    series,
    steps,
    trainer,
    trainer_without_hyperparameters,
)


class _History(MetranaLogger):
    """Keeps what Lightning gave."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.history: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self.history.append((step, dict(metrics)))


class _Boring(BoringModel):
    def training_step(self, batch: Any) -> Any:
        loss = self.step(batch)
        self.log("train_some_val", loss)
        return {"loss": loss}

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"early_stop_on": torch.tensor(1.0), "val_loss": torch.tensor(0.5)})

    def on_test_epoch_end(self) -> None:
        self.log("test_loss", torch.tensor(2.0))


def test_a_fit_and_a_test_are_kept_as_lightning_gives_them(data_dir: Path) -> None:
    logger = _History("run")
    one_batch = {"limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}
    worker = trainer(logger, **one_batch)
    worker.fit(model := _Boring())
    worker.test(model, verbose=False)
    assert [(step, sorted(metrics)) for step, metrics in logger.history] == [
        (0, ["epoch", "train_some_val"]),
        (0, ["early_stop_on", "epoch", "val_loss"]),
        (1, ["epoch", "test_loss"]),
    ]
    train_value = logger.history[0][1]["train_some_val"]
    evaluated = frozenset({("evaluation", "true")})
    assert series(data_dir) == {
        ("train_some_val", frozenset()): {0: pytest.approx(train_value)},
        ("epoch", frozenset()): {0: 0.0},
        ("early_stop_on", evaluated): {0: 1.0},
        ("val_loss", evaluated): {0: 0.5},
        ("test_loss", evaluated): {1: 2.0},
        ("epoch", evaluated): {0: 0.0, 1: 1.0},
    }
    assert logger.faults.count == 0


class _OnStep(Model):
    """Logs the same key in every stage, by step and by epoch."""

    def training_step(self, batch: Any) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any) -> None:
        self.log("loss", self.loss(batch), on_step=True, on_epoch=True)

    def on_validation_batch_end(self, *_: Any) -> None:
        self.logger.log_metrics({"mine": 1.0}, step=self.global_step)


def test_steps_of_an_evaluation_have_an_axis_of_their_own(data_dir: Path) -> None:
    trainer(MetranaLogger("run"), max_epochs=2).fit(_OnStep())
    found = series(data_dir)
    assert names(found) == {
        ("loss_step",),
        ("loss_epoch",),
        ("epoch",),
        ("loss_step", "axis=eval_batch", "evaluation=true"),
        ("loss_epoch", "evaluation=true"),
        ("epoch", "evaluation=true"),
        # What the user logs at a step of training while it validates, the sanity check included.
        ("mine", "evaluation=true"),
    }
    assert steps(found, "loss_step") == [0, 1, 2, 3, 4, 5]
    assert steps(found, "loss_epoch") == [2, 5]
    assert steps(found, "loss_step", axis="eval_batch", evaluation="true") == [0, 1, 2, 3]
    assert steps(found, "loss_epoch", evaluation="true") == [2, 5]
    assert steps(found, "mine", evaluation="true") == [0, 3, 6]


class _TwoLoaders(_OnStep):
    def validation_step(self, batch: Any, _batch_idx: int = 0, dataloader_idx: int = 0) -> None:
        self.log(f"loss_{dataloader_idx}", self.loss(batch), on_step=True, add_dataloader_idx=False)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [loader(2), loader(3)]

    def on_validation_batch_end(self, *_: Any) -> None:
        pass


def test_each_loader_of_an_evaluation_counts_its_own_batches(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    trainer(logger).validate(_TwoLoaders(), verbose=False)
    found = series(data_dir)
    on_step = {"axis": "eval_batch", "evaluation": "true"}
    assert steps(found, "loss_0_step", **on_step) == [0, 1]
    assert steps(found, "loss_1_step", **on_step) == [0, 1, 2]
    assert steps(found, "loss_1_epoch", evaluation="true") == [0]


def test_validation_of_a_checkpoint_leaves_the_training_alone(data_dir: Path) -> None:
    logger, model = MetranaLogger("run"), Model()
    trainer(logger, max_epochs=2).fit(model)
    trainer(logger).validate(model, verbose=False)
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2, 3, 4, 5]
    assert steps(found, "epoch") == [0, 1, 2, 3, 4, 5]
    # The new trainer has trained nothing: its step is 0.
    assert steps(found, "val_loss", evaluation="true") == [0, 2, 5]


def test_the_epoch_is_kept_each_time_that_it_comes(data_dir: Path) -> None:
    trainer(MetranaLogger("run")).fit(_OnStep())
    metrana.close()
    with Client(data_dir=data_dir) as client:
        every = client.points("run", "epoch", labels={}, duplicates="all")
    # Once a step and once at the epoch's end, at the last step again.
    assert every["step"].tolist() == [0, 1, 2, 2]


def test_a_logged_step_is_the_step(data_dir: Path) -> None:
    class Stepping(Model):
        def on_train_epoch_end(self) -> None:
            self.log_dict({"step": 10.0 * self.current_epoch, "accuracy": 0.5})

        def on_validation_epoch_end(self) -> None:
            self.log_dict({"step": 10.0 * self.current_epoch + 5, "val_accuracy": 0.5})

    trainer(MetranaLogger("run"), max_epochs=2).fit(Stepping())
    found = series(data_dir)
    assert steps(found, "accuracy") == [0, 10]
    assert steps(found, "val_accuracy", evaluation="true") == [5, 15]
    assert not any(name == "step" for name, _ in found)


def test_rates_are_logged_on_the_axis_of_the_training(data_dir: Path) -> None:
    callbacks = [LearningRateMonitor(logging_interval="step")]
    trainer(MetranaLogger("run"), callbacks=callbacks).fit(Model())
    found = series(data_dir)
    assert found[("lr-SGD", frozenset())] == {step: pytest.approx(0.01) for step in range(3)}


def test_the_stage_is_known_though_hyperparameters_are_not_logged(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = trainer_without_hyperparameters(MetranaLogger("run"), monkeypatch)
    worker.fit(_OnStep())
    found = series(data_dir)
    assert steps(found, "loss_step") == [0, 1, 2]
    assert steps(found, "loss_step", axis="eval_batch", evaluation="true") == [0, 1]
    assert steps(found, "loss_epoch", evaluation="true") == [2]


class _Loop(Fabric):
    """Fabric, called as its users call it."""

    def fit(self) -> None:
        for step in range(3):
            self.log("loss", 1.0, step=step)


class _OwnLoop:
    """Anything that keeps loggers, and says what it is doing."""

    def __init__(self, loggers: Any) -> None:
        self.loggers = loggers
        self.state = SimpleNamespace(stage="train")

    def fit(self) -> None:
        for logger in self.loggers if isinstance(self.loggers, list) else [self.loggers]:
            for step in range(3):
                logger.log_metrics({"loss": 1.0}, step=step)


class _Holder:
    """Calls what it has as its trainer, which modules do."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def fit(self) -> None:
        self.trainer.fit()


@pytest.mark.parametrize(
    "make",
    [
        lambda logger: _Loop(accelerator="cpu", loggers=logger),
        lambda logger: _OwnLoop([logger]),
        lambda logger: _OwnLoop(logger),
        lambda logger: _Holder(_OwnLoop([logger])),
    ],
    ids=["fabric", "loop", "loop-of-one-logger", "held"],
)
def test_what_is_no_trainer_of_lightning_logs_as_well(data_dir: Path, make: Any) -> None:
    logger = MetranaLogger("run")
    trainer = make(logger)
    trainer.fit()
    assert series(data_dir) == {("loss", frozenset()): dict.fromkeys(range(3), 1.0)}
    assert logger.faults.count == 0


def test_a_graph_that_belongs_to_no_trainer_of_lightning_changes_nothing(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    holder = _Holder(_OwnLoop([logger]))
    logger.log_graph(holder)
    holder.fit()
    assert series(data_dir) == {("loss", frozenset()): dict.fromkeys(range(3), 1.0)}
    assert logger.faults.count == 0


# ── Values ───────────────────────────────────────────────────────────────────────────────────────


def test_numbers_of_all_kinds_are_logged_and_nothing_else(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    metrics = {
        "float": 0.5,
        "int": np.int64(3),
        "tensor": torch.tensor([2.0], requires_grad=True),
        "nan": math.nan,
        "inf": math.inf,
        "none": None,
        "text": "x",
    }
    given = dict(metrics)
    with pytest.warns(metrana.MetranaWarning, match="MetranaLogger leaves out 'text'"):
        logger.log_metrics(metrics, step=4)
    logger.log_metrics(metrics, step=5)
    assert metrics == given
    found = series(data_dir)
    assert {name: values[4] for (name, _), values in found.items() if name != "nan"} == {
        "float": 0.5,
        "int": 3.0,
        "tensor": 2.0,
        "inf": math.inf,
    }
    assert math.isnan(found[("nan", frozenset())][5])


def test_without_a_step_values_are_numbered(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    for _ in range(3):
        logger.log_metrics({"loss": 1.0})
    logger.log_metrics({"loss": 1.0}, step=7)
    logger.log_metrics({"loss": 1.0})
    assert steps(series(data_dir), "loss") == [0, 1, 2, 7, 8]


@pytest.mark.parametrize("prefix", ["fold-1", "fold-1/"])
def test_the_prefix_is_joined_by_a_slash(data_dir: Path, prefix: str) -> None:
    trainer(MetranaLogger("run", prefix=prefix)).fit(Model())
    found = {name for name, _ in series(data_dir)}
    assert found == {"fold-1/train_loss", "fold-1/val_loss", "fold-1/epoch"}


def test_of_two_loggers_of_one_run_one_logs(data_dir: Path) -> None:
    with metrana.init(run_name="run") as run:
        loggers = [MetranaLogger(), MetranaLogger(run=run), MetranaLogger(prefix="again")]
        with pytest.warns(metrana.MetranaWarning, match="only one logs"):
            trainer(loggers).fit(Model())
    with Client(data_dir=data_dir) as client:
        for name in ("train_loss", "again/train_loss"):
            points = client.points("run", name, duplicates="all")
            assert points["step"].tolist() == [0, 1, 2]


def test_loggers_of_two_runs_both_log(data_dir: Path) -> None:
    loggers = [MetranaLogger("a"), MetranaLogger("b")]
    trainer(loggers).fit(Model())
    found = [series(data_dir, name) for name in ("a", "b")]
    assert found[0] == found[1]
    assert steps(found[0], "train_loss") == [0, 1, 2]
