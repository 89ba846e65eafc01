"""Loggers that are pickled or copied, alone and in a trainer."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers.logger import DummyExperiment
from lightning_utilities.core.rank_zero import rank_zero_only

import metrana
from metrana.integrations.lightning import MetranaLogger
from metrana.query import Client
from tests.conformance.lightning.training import Model, series, steps, trainer


def test_a_logger_that_was_used_and_its_trainer_can_be_pickled(data_dir: Path) -> None:
    logger = MetranaLogger("run", "a/b", save_dir="x", prefix="p", init_args={"api_key": "secret"})
    worker = trainer(logger, enable_checkpointing=True)
    worker.fit(Model())
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    pickled = pickle.dumps(logger)
    assert b"secret" not in pickled
    alone = pickle.loads(pickled)
    again = pickle.loads(pickle.dumps(worker)).logger
    for copied in (alone, again):
        assert (copied.name, copied.version) == ("a-b", logger.version)
        assert (copied.save_dir, copied.log_dir) == (logger.save_dir, logger.log_dir)
    again.log_metrics({"a": 2.0}, step=1)
    assert again.experiment is logger.experiment
    assert steps(series(data_dir, "run", "a/b"), "p/a") == [0, 1]


def test_a_logger_can_be_pickled_before_it_is_used(data_dir: Path) -> None:
    logger = MetranaLogger()
    copied = pickle.loads(pickle.dumps(logger))
    assert not data_dir.exists()
    assert logger.version is None
    assert copied.experiment is logger.experiment
    assert copied.version == logger.version


@pytest.mark.parametrize("is_given", [False, True])
def test_a_copy_of_a_logger_of_an_open_run_joins_it(is_given: bool) -> None:
    with metrana.init(run_name="run", project_name="p") as run:
        logger = MetranaLogger(run=run if is_given else None)
        copied = pickle.loads(pickle.dumps(logger))
        assert (copied.version, copied.name) == (run.run_id, "p")
        assert copied.experiment is run


def test_a_copy_of_a_logger_whose_run_was_closed_resumes_it(data_dir: Path) -> None:
    logger = MetranaLogger("run", "p")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close()
    copied = pickle.loads(pickle.dumps(logger))
    assert (copied.version, copied.name) == (logger.version, "p")
    copied.log_metrics({"a": 2.0}, step=1)
    assert copied.version == logger.version
    assert steps(series(data_dir, "run", "p"), "a") == [0, 1]


def test_a_copied_logger_is_itself() -> None:
    logger = MetranaLogger("run")
    worker = trainer(logger)
    worker.fit(Model())
    assert copy.deepcopy(logger) is logger
    assert copy.deepcopy(worker).logger is logger


def test_other_ranks_have_no_run(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = MetranaLogger("run", "project")
    assert isinstance(logger.experiment, DummyExperiment)
    assert logger.experiment.log_rendering(1, x=2) is None
    logger.log_metrics({"a": 1.0})
    logger.log_hyperparams({"a": 1.0})
    logger.log_graph(Model())
    logger.after_save_checkpoint(None)
    logger.save()
    logger.finalize("failed")
    logger.close()
    assert (logger.name, logger.version) == ("project", None)
    assert logger.faults.count == 0
    assert not data_dir.exists()


def test_fits_of_a_copy_are_known_where_the_logger_is_used_again(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    copies: list[Any] = [pickle.loads(pickle.dumps(logger)) for _ in range(3)]
    for copied in copies:
        trainer(copied).fit(Model())
        metrana.close()
    trainer(pickle.loads(pickle.dumps(logger))).test(Model(), verbose=False)
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2]
    assert steps(found, "train_loss", fit="2") == [0, 1, 2]
    assert steps(found, "train_loss", fit="3") == [0, 1, 2]
    assert steps(found, "test_loss", fit="3", evaluation="true") == [0]
    with Client(data_dir=data_dir) as client:
        assert len(client.runs()) == 1
