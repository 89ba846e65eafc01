"""Trainings of several processes, either package, and a real server."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import metrana
from metrana.integrations.lightning import MetranaLogger
from metrana.query import Client
from tests.conformance.lightning.training import Model, series, steps, trainer
from tests.local_server import LocalServer
from tests.processes import Machine

_ROOT = Path(__file__).parents[3]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Processes that find this checkout, and log offline."""
    machine = Machine(
        tmp_path / "machine", PYTHONPATH=str(_ROOT), METRANA_MODE="offline", OMP_NUM_THREADS="1"
    )
    machine.timeout_s = 100  # each spawned process imports Lightning
    return machine


_TRAINING = """
import torch
from metrana.integrations.lightning import MetranaLogger
from tests.conformance.lightning.training import Model, series, steps, trainer

torch.set_num_threads(1)

class Spread(Model):
    # Two batches for each of two processes, all three for a single one.
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch)
        self.logger.experiment.log("mine", loss, step=batch_idx)  # of rank zero alone
        return loss

class Failing(Spread):
    def on_train_batch_start(self, batch, batch_idx):
        if batch_idx == 2:
            raise RuntimeError("out of memory")

def fit(model, strategy, devices=2):
    options = {"strategy": strategy, "devices": devices, "enable_checkpointing": True}
    worker = trainer(logger, **options)
    worker.fit(model)
    return worker

logger = MetranaLogger(project_name="many", save_dir="saved")
"""

_SCRIPT = """
if __name__ == "__main__":
    worker = fit(Spread(), "ddp")
    if worker.is_global_zero:
        print(logger.version, worker.checkpoint_callback.best_model_path)
"""

_LAUNCHED = """
import sys

if __name__ == "__main__":
    worker = fit(Spread(), sys.argv[1])
    assert logger.version is None  # only the children opened it
    try:
        fit(Failing(), sys.argv[1], devices=1)
    except Exception as error:
        assert "out of memory" in str(error)
    print(logger.version, worker.checkpoint_callback.best_model_path)
"""


def logged(
    machine: Machine, script: str, status: str, *arguments: str
) -> dict[tuple[str, tuple[tuple[str, str], ...]], list[int]]:
    """Runs a training; gives the steps, each as often as it was logged, of what its run has."""
    run_id, checkpoint = (
        machine.file(_TRAINING + script, *arguments).stdout.splitlines()[-1].split()
    )
    assert f"saved/many/{run_id}/checkpoints/" in checkpoint
    with machine.client() as client, client.hold():
        (run,) = client.runs().to_dict("records")
        assert (run["run_id"], run["project_name"]) == (run_id, "many")
        assert run["status"] == status
        points = client.points(run_id=run_id, duplicates="all", as_="arrow").to_pylist()
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}
    for row in points:
        key = (row["metric_name"], tuple(sorted(dict(row["labels"]).items())))
        found.setdefault(key, []).append(row["step"])
    return found


_EVALUATED = ("evaluation", "true")


def test_two_processes_of_a_script_log_each_metric_once_to_one_run(machine: Machine) -> None:
    assert logged(machine, _SCRIPT, "finished") == {
        ("train_loss", ()): [0, 1],
        ("epoch", ()): [0, 1],
        ("mine", ()): [0, 1],
        ("val_loss", (_EVALUATED,)): [1],
        ("epoch", (_EVALUATED,)): [1],
    }


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_processes_of_several_fits_log_each_metric_once_to_one_run_and_end_it(
    machine: Machine, strategy: str
) -> None:
    second = ("fit", "2")
    assert logged(machine, _LAUNCHED, "failed", strategy) == {
        ("train_loss", ()): [0, 1],
        ("epoch", ()): [0, 1],
        ("mine", ()): [0, 0, 1, 1],
        ("val_loss", (_EVALUATED,)): [1],
        ("epoch", (_EVALUATED,)): [1],
        ("train_loss", (second,)): [0, 1],
        ("epoch", (second,)): [0, 1],
    }


_BEGUN = """
import torch
from metrana.integrations.lightning import MetranaLogger
from tests.conformance.lightning.training import Model, trainer

torch.set_num_threads(1)

class Failing(Model):
    def on_train_batch_start(self, batch, batch_idx):
        if self.global_step == 4:
            raise RuntimeError("out of memory")

logger = MetranaLogger("run")
trainer(logger).fit(Model())
worker = trainer(logger, max_epochs=2, enable_checkpointing=True)
try:
    worker.fit(Failing())
except RuntimeError as error:
    assert "out of memory" in str(error)
print(logger.version, worker.checkpoint_callback.best_model_path)
"""

_RESUMED = """
import sys
import torch
from metrana.integrations.lightning import MetranaLogger
from tests.conformance.lightning.training import Model, trainer

torch.set_num_threads(1)
logger = MetranaLogger(version=sys.argv[1])
trainer(logger, max_epochs=2).fit(Model(), ckpt_path=sys.argv[2])
trainer(logger).fit(Model())
"""


def test_a_process_that_resumes_a_run_goes_on_after_its_fits(machine: Machine) -> None:
    version, checkpoint = machine.file(_BEGUN).stdout.splitlines()[-1].split()
    machine.file(_RESUMED, version, checkpoint)
    with machine.client() as client:
        rows = client.points("run", "train_loss", duplicates="all", as_="arrow").to_pylist()
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(dict(row["labels"]).get("fit", "1"), []).append(row["step"])
    # Of the fit that was left by an exception step 3 came again.
    assert found == {"1": [0, 1, 2], "2": [0, 1, 2, 3, 3, 4, 5], "3": [0, 1, 2]}


_OTHER_PACKAGE = """
import sys
import torch
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel
from metrana.integrations.lightning import MetranaLogger

assert "lightning" not in sys.modules
assert issubclass(MetranaLogger, pl.loggers.Logger)

class Logging(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log("loss", loss)
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.step(batch), on_step=True, on_epoch=True)

options = dict(limit_train_batches=2, limit_val_batches=2, max_epochs=1, log_every_n_steps=1)
quiet = dict(enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
pl.Trainer(logger=MetranaLogger("run"), **options, **quiet).fit(Logging())

# The module is made for what is imported before it.
import importlib
import lightning.pytorch
import metrana.integrations.lightning

MetranaLogger = importlib.reload(metrana.integrations.lightning).MetranaLogger
assert issubclass(MetranaLogger, pl.loggers.Logger)
assert issubclass(MetranaLogger, lightning.pytorch.loggers.Logger)
pl.Trainer(logger=MetranaLogger("both"), **quiet).validate(Logging(), verbose=False)
"""


def test_either_package_and_both_log_the_same(machine: Machine) -> None:
    machine.python(_OTHER_PACKAGE)
    with machine.client() as client:
        points = client.points("run", "loss_step")
        assert points["step"].tolist() == [0, 1]
        assert points["labels"][0] == {"axis": "eval_batch", "evaluation": "true"}
        assert client.points("run", "loss", labels={})["step"].tolist() == [0, 1]
        assert client.points("both", "loss_epoch")["labels"][0] == {"evaluation": "true"}


def test_without_either_package_the_extra_is_named(machine: Machine) -> None:
    done = machine.python(
        """
        import sys
        sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
        try:
            import metrana.integrations.lightning
        except ImportError as error:
            print(error)
        """
    )
    assert "needs lightning or pytorch_lightning: pip install 'metrana[lightning]'" in done.stdout


def test_a_server_has_it_all_when_a_fit_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalServer(tmp_path / "server") as server:
        monkeypatch.delenv("METRANA_MODE")
        monkeypatch.setenv("METRANA_DIR", str(server.data_dir))
        logger = MetranaLogger("run", init_args={"mode": "online"})
        worker = trainer(logger)
        worker.fit(Model())
        with Client(data_dir=server.data_dir) as client:
            assert client.points("run", "train_loss")["step"].tolist() == [0, 1, 2]
            worker.test(Model(), verbose=False)
            assert client.points("run", "test_loss")["labels"][0] == {"evaluation": "true"}
            assert client.run("run").status == "running"
            logger.close()
            assert client.run("run").status == "finished"
    assert not metrana.is_initialized()
    assert logger.faults.count == 0


def test_a_server_that_is_stuck_stops_no_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalServer(tmp_path / "server") as server:
        monkeypatch.setenv("METRANA_DIR", str(server.data_dir))
        logger = MetranaLogger("run", init_args={"mode": "online"})
        trainer(logger).fit(Model())
        monkeypatch.setattr("metrana.integrations._common._FLUSH_TIMEOUT_S", 0.05)
        server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.warns(metrana.MetranaWarning, match="still undelivered after"):
                trainer(logger).fit(Model())
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert logger.faults.count == 0
        logger.close()
        with Client(data_dir=server.data_dir) as client:
            assert client.points("run", "train_loss", labels={"fit": "2"})["step"].tolist() == [
                0,
                1,
                2,
            ]


class _LoggedDataset(Dataset[Any]):
    """Logs what is loaded, in the process that loads it."""

    def __getitem__(self, index: int) -> Any:
        metrana.log("loaded", float(os.getpid()), step=index)
        return (torch.ones(4),)

    def __len__(self) -> int:
        return 6


def test_workers_that_load_batches_log_to_the_run(data_dir: Path) -> None:
    class Loading(Model):
        def train_dataloader(self) -> Any:
            return DataLoader(
                _LoggedDataset(),
                batch_size=2,
                num_workers=2,
                multiprocessing_context="fork",
            )

    logger = MetranaLogger("run")
    trainer(logger, max_epochs=2).fit(Loading())
    assert logger.experiment.is_initialized()
    found = series(data_dir)
    assert steps(found, "train_loss") == [0, 1, 2, 3, 4, 5]
    assert steps(found, "loaded") == [0, 1, 2, 3, 4, 5]
    assert os.getpid() not in found["loaded", frozenset()].values()
    assert logger.faults.count == 0
