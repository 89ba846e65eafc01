"""A training by several processes is one run, of which each metric is logged once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import metrana
from metrana.integrations.transformers import MetranaCallback
from metrana.query import Client
from tests.conformance.transformers.training import DATA, run_names, series, steps, trainer
from tests.leash import LEASH

TRAIN = """
import gc, sys, torch
from pathlib import Path
from tests.conformance.transformers.training import DATA, MetranaCallback, trainer

torch.set_num_threads(1)
callback = MetranaCallback(run_name="both")
training = trainer(Path(sys.argv[1]), callback, eval_strategy="steps", eval_steps=2,
                   ddp_backend="gloo", report_to="metrana", save_strategy="steps", save_steps=2)
training.train()
training.evaluate()
training.predict(DATA)
callback.close()
assert callback.faults.count == 0
# What the trainer holds keeps gloo's threads, and those that live when Python ends may abort it.
del training
gc.collect()
torch.distributed.destroy_process_group()
"""


def test_two_processes_are_one_run(tmp_path: Path, data_dir: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*LEASH, sys.executable, *launch, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert run_names(data_dir) == ["both"]
    found = series(data_dir, "both")
    assert steps(found["train/loss",]) == [1, 2, 3, 4]
    assert steps(found["eval/loss", "evaluation=true"]) == [2, 4, 4]
    assert steps(found["test/loss", "evaluation=true"]) == [4]
    assert steps(found["summary/train_loss",]) == [4]
    with Client(data_dir=data_dir) as client:
        assert client.run("both").status == "finished"


class Loaded(list[Any]):
    """Samples of which each is logged by the process that loads it."""

    def __getitem__(self, index: Any) -> Any:
        metrana.log("loaded", float(os.getpid()), step=index)
        return super().__getitem__(index)


def test_workers_that_load_batches_log_to_the_run(tmp_path: Path, data_dir: Path) -> None:
    callback = MetranaCallback()
    training = trainer(tmp_path, callback, dataloader_num_workers=2)
    training.train_dataset = Loaded(DATA)
    training.train()
    assert callback.faults.count == 0
    found = series(data_dir)
    assert steps(found["train/loss",]) == [1, 2, 3, 4]
    assert sorted(steps(found["loaded",])) == list(range(len(DATA)))
    assert os.getpid() not in {value for _, value in found["loaded",]}
