"""Several fits, validations and tests with one logger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import metrana
from metrana.integrations.lightning import MetranaLogger
from tests.conformance.lightning.training import (
    Model,
    Series,
    Steps,
    series,
    steps,
    trainer,
    trainer_without_hyperparameters,
)


def test_folds_whose_steps_begin_again_are_told_apart(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    for max_epochs in (2, 1, 2):
        worker = trainer(logger, max_epochs=max_epochs)
        worker.fit(Model())
        worker.test(Model(), verbose=False)
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2, 3, 4, 5]
    assert steps(found, "train_loss", fit="2") == [0, 1, 2]
    assert steps(found, "train_loss", fit="3") == [0, 1, 2, 3, 4, 5]
    assert steps(found, "val_loss", fit="2", evaluation="true") == [2]
    # A test after a fit belongs to it.
    assert steps(found, "test_loss", evaluation="true") == [6]
    assert steps(found, "test_loss", fit="2", evaluation="true") == [3]
    assert logger.faults.count == 0


def test_folds_are_told_apart_though_hyperparameters_are_not_logged(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = MetranaLogger("run")
    for _ in range(2):
        trainer_without_hyperparameters(logger, monkeypatch).fit(Model())
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2]
    assert steps(found, "train_loss", fit="2") == [0, 1, 2]
    assert steps(found, "val_loss", fit="2", evaluation="true") == [2]


@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
def test_a_fit_that_logs_less_often_than_the_first_was_long_is_told_apart(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    trainer(logger, max_epochs=1).fit(Model())
    trainer(logger, max_epochs=2, log_every_n_steps=5, num_sanity_val_steps=0).fit(Model())
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2]
    assert steps(found, "train_loss", fit="2") == [4]


def test_a_trainer_that_fits_on_goes_on(data_dir: Path) -> None:
    logger, model = MetranaLogger("run"), Model()
    worker = trainer(logger, max_epochs=1)
    worker.fit(model)
    worker.validate(model, verbose=False)
    worker.fit_loop.max_epochs = 2
    worker.fit(model)
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2, 3, 4, 5]
    assert all("fit" not in dict(labels) for _, labels in found)


def test_a_fit_that_resumes_from_a_checkpoint_overwrites(data_dir: Path, tmp_path: Path) -> None:
    logger, model = MetranaLogger("run"), Model()
    first = trainer(logger, max_epochs=1)
    first.fit(model)
    checkpoint = tmp_path / "resumed.ckpt"
    first.save_checkpoint(checkpoint)
    trainer(logger, max_epochs=2).fit(model, ckpt_path=checkpoint)
    trainer(logger, max_epochs=3).fit(Model(), ckpt_path=checkpoint)
    found = series(data_dir)
    assert steps(found, "train_loss") == list(range(9))
    assert all("fit" not in dict(labels) for _, labels in found)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
def test_a_fit_that_resumes_has_the_labels_of_the_fit_that_saved_it(data_dir: Path) -> None:
    logger, model = MetranaLogger("run"), Model()
    folds = [trainer(logger, enable_checkpointing=True) for _ in range(2)]
    for fold in folds:
        fold.fit(model)
    first = folds[0].checkpoint_callback.best_model_path
    trainer(logger, enable_checkpointing=True, max_epochs=2).fit(model, ckpt_path=first)
    trainer(logger).fit(model)
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2, 3, 4, 5]
    assert steps(found, "train_loss", fit="2") == [0, 1, 2]
    assert steps(found, "train_loss", fit="3") == [0, 1, 2]


def test_a_failed_fit_is_a_fit(data_dir: Path) -> None:
    class Failing(Model):
        def on_train_batch_start(self, _batch: object, batch_idx: int) -> None:
            if batch_idx == 2:
                raise RuntimeError("out of memory")

    logger = MetranaLogger("run")
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(logger).fit(Failing())
    trainer(logger).fit(Model())
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1]
    assert steps(found, "train_loss", fit="2") == [0, 1, 2]


def test_folds_in_one_run_are_told_apart_though_each_has_a_logger_of_its_own(
    data_dir: Path,
) -> None:
    with metrana.init(run_name="run"):
        loggers = [MetranaLogger() for _ in range(3)]
        workers = [trainer(logger) for logger in loggers]
        for worker in workers:
            worker.fit(Model())
        workers[1].test(Model(), verbose=False)
        workers[1].fit_loop.max_epochs = 2
        workers[1].fit(Model())
        trainer(MetranaLogger()).fit(Model())
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2]
    assert steps(found, "train_loss", fit="2") == [0, 1, 2, 3, 4, 5]
    assert steps(found, "test_loss", fit="2", evaluation="true") == [3]
    assert steps(found, "train_loss", fit="3") == [0, 1, 2]
    assert steps(found, "train_loss", fit="4") == [0, 1, 2]


class _Named(Model):
    """Logs whose model it is, wherever it is trained and tested."""

    def __init__(self, name: float) -> None:
        super().__init__()
        self.name = name

    def training_step(self, batch: Any) -> Any:
        self.log("trained", self.name)
        return super().training_step(batch)

    def on_test_epoch_end(self) -> None:
        self.log("tested", self.name)


def _values(found: Series, metric_name: str, *labels: tuple[str, str]) -> Steps:
    return found[metric_name, frozenset(labels)]


def test_trainers_that_fit_in_turns_keep_their_labels(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    folds = [(trainer(logger), _Named(name)) for name in (1.0, 2.0, 3.0)]
    for max_epochs in (1, 2):
        for worker, model in folds:
            worker.fit_loop.max_epochs = max_epochs
            worker.fit(model)
    for worker, model in reversed(folds):
        worker.test(model, verbose=False)
    found = series(data_dir)
    for name, fit in ((1.0, ()), (2.0, (("fit", "2"),)), (3.0, (("fit", "3"),))):
        assert _values(found, "trained", *fit) == dict.fromkeys(range(6), name)
        assert _values(found, "tested", *fit, ("evaluation", "true")) == {6: name}
    assert logger.faults.count == 0


def test_a_fit_within_another_one_leaves_it_its_labels(data_dir: Path) -> None:
    logger = MetranaLogger("run")

    class Outer(_Named):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                trainer(logger).fit(_Named(2.0))

    trainer(logger, max_epochs=2).fit(Outer(1.0))
    found = series(data_dir)
    assert _values(found, "trained") == dict.fromkeys(range(6), 1.0)
    assert _values(found, "trained", ("fit", "2")) == dict.fromkeys(range(3), 2.0)


def test_an_epoch_of_the_users_own_is_of_no_fit(data_dir: Path) -> None:
    with metrana.init(run_name="run") as run:
        run.log("epoch", 1.0, step=7)
        trainer(MetranaLogger()).fit(Model())
    assert steps(series(data_dir), "train_loss") == [0, 1, 2]


def test_another_run_begins_without_labels(data_dir: Path) -> None:
    logger = MetranaLogger()
    for name in ("a", "b"):
        with metrana.init(run_name=name):
            trainer(logger).fit(Model())
    for name in ("a", "b"):
        assert steps(series(data_dir, name), "train_loss") == [0, 1, 2]
