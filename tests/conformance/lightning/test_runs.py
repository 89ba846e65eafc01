"""Which run a logger uses, when it is made, what it is told, and how it ends."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import inspect
import os
import typing
import weakref
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

import metrana
from metrana.integrations.lightning import MetranaLogger
from metrana.query import Client
from metrana.query.run_info import RunInfo
from tests.conformance.lightning.training import Model, series, steps, trainer


def info(data_dir: Path, run_name: str = "run") -> RunInfo:
    """What is known of a run after everything open is closed."""
    while metrana.is_initialized():
        metrana.close()
    with Client(data_dir=data_dir) as client:
        return client.run(run_name)


# ── The interface ────────────────────────────────────────────────────────────────────────────────


def test_the_constructor_is_as_documented_and_typed_for_command_lines() -> None:
    parameters = inspect.signature(MetranaLogger).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert defaults == {
        "run_name": None,
        "project_name": None,
        "save_dir": ".",
        "version": None,
        "prefix": "",
        "offline": False,
        "run": None,
        "init_args": None,
    }
    assert [n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY] == ["run", "init_args"]
    assert typing.get_type_hints(MetranaLogger.__init__).keys() == {*defaults, "return"}
    assert issubclass(MetranaLogger, Logger)
    assert not hasattr(MetranaLogger, "__iter__")  # it would be taken for a list of loggers


def test_constructing_does_nothing_but_check(data_dir: Path, tmp_path: Path) -> None:
    before = dict(os.environ)
    logger = MetranaLogger("run", "project", tmp_path / "made", prefix="p", offline=True)
    assert (logger.name, logger.version) == ("project", None)
    assert (logger.save_dir, logger.root_dir, logger.log_dir) == (
        str(tmp_path / "made"),
        str(tmp_path / "made" / "project"),
        None,
    )
    assert logger.group_separator == "/"
    logger.save()
    logger.finalize("success")
    logger.close()
    assert not metrana.is_initialized()
    assert not data_dir.exists()
    assert not (tmp_path / "made").exists()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": "name"}, "run: must be a metrana.Run"),
        ({"run_name": ""}, "run_name: must be a string of 1 to 256 bytes"),
        ({"project_name": 3}, "project_name: must be a string"),
        ({"save_dir": None}, "save_dir: must be a path, not None"),
        ({"prefix": None}, "prefix: must be a string, not None"),
        ({"offline": "yes"}, "offline: must be True or False"),
        ({"version": 3}, "version: must be a string, not 3"),
        ({"init_args": {"modus": 1}}, "init_args: must be arguments of metrana.init"),
        ({"offline": True, "init_args": {"mode": "online"}}, "mode: must be given once"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=message):
        MetranaLogger(**arguments)


# ── Which run ────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_is_given_is_used_and_left_open() -> None:
    current, given = metrana.init(run_name="current"), metrana.init(run_name="given")
    del current
    logger = MetranaLogger(run=given, save_dir="s")
    trainer(logger).fit(Model())
    assert logger.experiment is given
    assert (logger.name, logger.version) == ("default", given.run_id)
    assert logger.log_dir == os.path.join("s", "default", given.run_id)  # noqa: PTH118
    logger.close()
    assert given.is_initialized()


def test_without_a_name_the_current_run_is_used() -> None:
    with metrana.init(project_name="p/q") as run:
        logger = MetranaLogger()
        assert logger.name == "p-q"
        trainer(logger).fit(Model())
        assert logger.experiment is run


def test_a_name_opens_a_run_of_its_own(data_dir: Path) -> None:
    with metrana.init(run_name="current") as current:
        logger = MetranaLogger("run", "project", init_args={"tags": ["a"], "config": {"lr": 1}})
        assert logger.experiment is not current
        assert metrana.is_initialized()
        logger.close()
    assert logger.version is not None
    with Client(data_dir=data_dir) as client:
        found = client.run("run", project_name="project")
    assert (found.run_id, found.tags, found.config) == (logger.version, ["a"], {"lr": 1})
    assert (found.status, logger.name) == ("finished", "project")


def test_a_version_resumes_its_run(data_dir: Path) -> None:
    first = MetranaLogger("run", "project")
    first.log_metrics({"loss": 1.0}, step=0)
    first.close()
    second = MetranaLogger(version=first.version)
    assert second.version == first.version
    second.log_metrics({"loss": 2.0}, step=1)
    assert (second.name, second.experiment.run_name) == ("project", "run")
    assert steps(series(data_dir, project_name="project"), "loss") == [0, 1]


def test_a_name_that_no_folder_may_have_is_written_as_one_that_may() -> None:
    assert MetranaLogger(project_name="..").name == "--"
    assert MetranaLogger(project_name="../a\\b").name == "..-a-b"


def test_a_disabled_run_trains(data_dir: Path) -> None:
    logger = MetranaLogger("run", init_args={"mode": "disabled"})
    trainer(logger, enable_checkpointing=True).fit(Model())
    assert logger.version == "0" * 32
    assert not data_dir.exists()


def test_a_run_that_cannot_be_made_stops_the_training_before_it_begins() -> None:
    class Untrained(Model):
        def training_step(self, _batch: Any) -> torch.Tensor:
            raise AssertionError("it was trained")

    logger = MetranaLogger("run", init_args={"batch_max_age_secs": "soon"})
    with pytest.raises(metrana.MetranaValidationError, match="batch_max_age_secs"):
        trainer(logger).fit(Untrained())
    with pytest.raises(metrana.MetranaValidationError, match="batch_max_age_secs"):
        logger.log_metrics({"loss": 1.0})


# ── Never into training ──────────────────────────────────────────────────────────────────────────


def test_a_run_that_is_closed_while_it_trains_stops_nothing(data_dir: Path) -> None:
    class Closing(Model):
        def on_train_batch_end(self, _outputs: Any, _batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                self.logger.experiment.close()

    logger = MetranaLogger(run=metrana.init(run_name="run"))
    with pytest.warns(metrana.MetranaWarning, match="goes on without it") as warned:
        trainer(logger, enable_checkpointing=True).fit(Closing())
    assert len([w for w in warned if w.category is metrana.MetranaWarning]) == 1
    assert logger.faults.count > 3
    assert steps(series(data_dir), "train_loss") == [0]


@pytest.mark.filterwarnings("ignore:MetranaLogger could not log:metrana.MetranaWarning")
def test_a_run_that_cannot_be_reopened_is_tried_once_a_fit(data_dir: Path) -> None:
    aside = data_dir.with_name("aside")

    class Closing(Model):
        def on_train_batch_end(self, _outputs: Any, _batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                self.logger.experiment.close()
                data_dir.rename(aside)
                data_dir.touch()

    logger = MetranaLogger("run")
    trainer(logger).fit(Closing())
    # The steps 1 and 2 and the validation are lost.
    assert logger.faults.count == 1 + 3
    data_dir.unlink()
    aside.rename(data_dir)
    trainer(logger).fit(Model())
    assert logger.faults.count == 1 + 3
    found = series(data_dir)
    assert steps(found, "train_loss") == [0]
    assert steps(found, "train_loss", fit="2") == [0, 1, 2]


def test_bad_values_and_steps_are_counted(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    logger.experiment  # noqa: B018 - opens it
    with pytest.warns(metrana.MetranaWarning, match="step"):
        logger.log_metrics({"loss": 1.0}, step=-1)
    logger.log_metrics({"loss": 1.0}, step=1.5)  # type: ignore[arg-type]
    logger.log_metrics(None)  # type: ignore[arg-type]
    logger.log_graph(None)
    assert logger.faults.count == 3
    logger.log_metrics({"a\nb": 1.0, "": 2.0}, step=1)
    assert {name for name, _ in series(data_dir)} == {"a_b", "_"}


# ── What it is told ──────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass
class _Optimizer:
    lr: float = 0.1
    name: str = "sgd"


def test_hyperparameters_are_the_config(data_dir: Path) -> None:
    class Configured(Model):
        def __init__(self, **hparams: Any) -> None:
            super().__init__()
            self.save_hyperparameters(hparams)

    hparams = {
        "lr": 0.1,
        "activation": torch.relu,
        "path": Path("/data/x"),
        "optimizer": _Optimizer(),
        "layers": [64, 64],
        "label2id": {"New York": 0, 1: "one"},
        "broken": object(),
        "large": {f"key {i}": "x" * 100 for i in range(2_000)},
        "long": "x" * 100_000,
    }
    logger = MetranaLogger("run")
    trainer(logger).fit(Configured(**hparams))
    logger.log_hyperparams(argparse.Namespace(seed=3), {"hp_metric": 1.0}, other=2)
    logger.log_hyperparams(MappingProxyType({"nested": {"a": None}}))
    found = info(data_dir).config
    assert found.keys() == {*hparams, "seed", "nested"}
    assert (found["lr"], found["path"], found["layers"]) == (0.1, "/data/x", [64, 64])
    assert found["optimizer"] == {"lr": 0.1, "name": "sgd"}
    assert found["label2id"] == {"New_York": 0, "1": "one"}
    assert "relu" in found["activation"]
    assert "object object" in found["broken"]
    assert (len(found["large"]), found["large"]["key_7"]) == (2_000, "x" * 100)
    assert len(found["long"]) == 65_536
    assert (found["seed"], found["nested"]) == (3, {"a": None})
    assert logger.faults.count == 0


def test_best_and_last_checkpoints_are_attributes(data_dir: Path, tmp_path: Path) -> None:
    class Improving(Model):
        def on_validation_epoch_end(self) -> None:
            self.log("val/score", float([2, 1, 1.5][self.current_epoch]))

    best = ModelCheckpoint(monitor="val/score", mode="min", save_last="link", save_top_k=2)
    plain = ModelCheckpoint()
    logger = MetranaLogger("run", save_dir=tmp_path / "saved")
    options = {"enable_checkpointing": True, "callbacks": [best, plain]}
    trainer(logger, max_epochs=3, **options).fit(Improving())
    found = info(data_dir).attributes
    assert found["checkpoint/val_score/monitor"] == "val/score"
    assert found["checkpoint/val_score/mode"] == "min"
    assert found["checkpoint/val_score/best_model_path"] == best.best_model_path
    assert found["checkpoint/val_score/best_model_score"] == 1.0
    assert found["checkpoint/val_score/last_model_path"] == best.last_model_path
    assert found["checkpoint/val_score/current_score"] == 1.5
    assert found["checkpoint/unmonitored/best_model_path"] == plain.best_model_path
    assert found["checkpoint/unmonitored/last_model_path"] == plain.best_model_path
    folder = tmp_path / "saved" / "default" / str(logger.version) / "checkpoints"
    assert Path(best.best_model_path).parent == folder
    assert Path(best.last_model_path).is_symlink()


def test_neither_model_nor_trainer_nor_callback_is_kept(tmp_path: Path) -> None:
    logger = MetranaLogger("run", save_dir=tmp_path)
    model = Model()
    worker = trainer(logger, enable_checkpointing=True)
    worker.fit(model)
    kept = [weakref.ref(kept) for kept in (worker, model, worker.checkpoint_callback)]
    del worker, model
    gc.collect()
    assert [reference() for reference in kept] == [None, None, None]
    trainer(logger).test(Model(), verbose=False)
    assert logger.faults.count == 0


def test_a_module_without_a_trainer_has_a_graph(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    logger.log_graph(Model())
    logger.log_graph(torch.nn.Linear(1, 1), torch.zeros(1))
    logger.log_metrics({"loss": 1.0}, step=0)
    assert steps(series(data_dir), "loss") == [0]
    assert logger.faults.count == 0


# ── How it ends ──────────────────────────────────────────────────────────────────────────────────


def test_one_logger_serves_fit_validate_test_and_predict_in_one_run(data_dir: Path) -> None:
    class Predicting(Model):
        def predict_dataloader(self) -> Any:
            return self.test_dataloader()

        def predict_step(self, batch: Any) -> torch.Tensor:
            return self.layer(batch[0])

    logger, model = MetranaLogger("run"), Predicting()
    worker = trainer(logger)
    worker.fit(model)
    run_id, run = logger.version, logger.experiment
    worker.validate(model, verbose=False)
    worker.test(model, verbose=False)
    worker.predict(model)
    assert (logger.version, logger.experiment) == (run_id, run)
    assert run.is_initialized()
    found = series(data_dir)
    assert steps(found, "test_loss", evaluation="true") == [3]
    assert info(data_dir).status == "finished"


class _Failing(Model):
    """Fails as it is told, in its first step."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def training_step(self, _batch: Any) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize("error", [ValueError("bad batch"), KeyboardInterrupt()])
def test_a_training_that_an_exception_ends_makes_the_run_failed(
    data_dir: Path, error: BaseException
) -> None:
    logger = MetranaLogger("run")
    with pytest.raises((ValueError, SystemExit)):
        trainer(logger).fit(_Failing(error))
    assert logger.experiment.is_initialized()
    assert info(data_dir).status == "failed"


def test_a_later_success_makes_up_for_a_failure(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    with pytest.raises(ValueError, match="bad batch"):
        trainer(logger).fit(_Failing(ValueError("bad batch")))
    trainer(logger).fit(Model())
    logger.close()
    assert info(data_dir).status == "finished"


def test_what_was_logged_is_there_when_a_fit_has_ended(data_dir: Path) -> None:
    logger = MetranaLogger("run")
    trainer(logger).fit(Model())
    with Client(data_dir=data_dir) as client:
        assert client.points("run", "train_loss")["step"].tolist() == [0, 1, 2]
        assert client.run("run").status == "running"


def test_a_closed_run_that_is_tested_later_is_resumed(data_dir: Path) -> None:
    logger, model = MetranaLogger("run"), Model()
    trainer(logger).fit(model)
    run_id = logger.version
    logger.close()
    trainer(logger).test(model, verbose=False)
    assert logger.version == run_id
    assert steps(series(data_dir), "test_loss", evaluation="true") == [0]
