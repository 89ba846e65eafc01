"""Which run is logged to, who makes and closes it, and that a training goes on whatever happens."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

import metrana
import metrana.integrations.transformers
from metrana.integrations.transformers import MetranaCallback
from metrana.query import Client
from tests.conformance.transformers.training import (
    DATA,
    Doing,
    Line,
    LineConfig,
    arguments,
    run_names,
    series,
    steps,
    trainer,
)
from tests.local_server import LocalServer

ALL = [1, 2, 3, 4]
ROOT = Path(__file__).parents[3]


def python(script: str, code: int = 0, data: bytes = b"") -> str:
    """Runs a script in a process of its own; returns what it printed, or why it ended."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=data,
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return (done.stderr if code else done.stdout).decode()


# ── Which run ────────────────────────────────────────────────────────────────────────────────────


def test_the_class_itself_is_a_callback_and_makes_a_run(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path, MetranaCallback)
    assert not data_dir.exists()
    assert not metrana.is_initialized()
    training.train()
    assert metrana.is_initialized()
    assert steps(series(data_dir)["train/loss",]) == ALL


def test_its_arguments() -> None:
    signature = inspect.signature(MetranaCallback)
    assert list(signature.parameters) == ["run_name", "project_name", "run", "init_args"]
    for parameter in signature.parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is None


@pytest.mark.parametrize(
    ("given", "name"), [({}, "of-args"), ({"run_name": "own", "project_name": "p"}, "own")]
)
def test_a_new_run_is_named_by_it_or_by_the_trainers_arguments(
    tmp_path: Path, given: dict[str, str], name: str
) -> None:
    callback = MetranaCallback(**given)
    trainer(tmp_path, callback, run_name="of-args").train()
    run = callback.run
    assert run is not None
    assert (run.run_name, run.project_name) == (name, given.get("project_name", "default"))
    callback.close()
    callback.close()
    assert not run.is_initialized()
    assert callback.run is None


def test_a_run_that_is_open_or_given_is_used_and_stays_open(tmp_path: Path, data_dir: Path) -> None:
    given, current = metrana.init(run_name="given"), metrana.init(run_name="current")
    for callback in (MetranaCallback(run=given), MetranaCallback()):
        trainer(tmp_path, callback, run_name="of-args").train()
        callback.close()
    assert given.is_initialized()
    assert current.is_initialized()
    given.close()
    assert run_names(data_dir) == ["current", "given"]
    for name in ("current", "given"):
        assert steps(series(data_dir, name)["train/loss",]) == ALL


def test_a_name_finds_the_open_run_of_it(tmp_path: Path, data_dir: Path) -> None:
    named = metrana.init(run_name="a")
    metrana.init(run_name="b")
    callback = MetranaCallback(run_name="a")
    trainer(tmp_path, callback).train()
    assert callback.run is named
    named.close()
    assert steps(series(data_dir, "a")["train/loss",]) == ALL


@pytest.mark.parametrize("begin", ["evaluate", "predict"])
def test_an_evaluation_or_prediction_alone_makes_a_run(
    tmp_path: Path, data_dir: Path, begin: str
) -> None:
    training = trainer(tmp_path)
    if begin == "evaluate":
        training.evaluate()
    else:
        training.predict(DATA)
    name = {"evaluate": "eval", "predict": "test"}[begin]
    assert steps(series(data_dir)[f"{name}/loss", "evaluation=true"]) == [0]
    with Client(data_dir=data_dir) as client:
        (run_name,) = client.runs()["run_name"]
        assert client.run(run_name).config["num_parameters"] == 2


@pytest.mark.parametrize("begin", ["train", "evaluate"])
def test_a_run_that_cannot_be_made_is_raised_before_the_first_step(
    tmp_path: Path, begin: str
) -> None:
    metrana.init(run_name="taken", orchestration_id="another job").close()
    callback = MetranaCallback(run_name="taken", init_args={"orchestration_id": "this job"})
    training = trainer(tmp_path, callback)
    with pytest.raises(metrana.MetranaRunAlreadyExistsError, match="taken"):
        getattr(training, begin)()
    assert training.state.global_step == 0


def test_bad_arguments_are_refused_at_once() -> None:
    with pytest.raises(metrana.MetranaValidationError, match="init_args"):
        MetranaCallback(init_args={"modus": 1})
    with pytest.raises(metrana.MetranaValidationError, match=r"run: must be a metrana\.Run"):
        MetranaCallback(run="name")  # type: ignore[arg-type]


# ── Which callback ───────────────────────────────────────────────────────────────────────────────


def test_it_is_asked_for_by_name_and_not_by_all(tmp_path: Path, data_dir: Path) -> None:
    assert INTEGRATION_TO_CALLBACK["metrana"] is MetranaCallback
    assert "metrana" not in get_available_reporting_integrations()
    assert "metrana" not in arguments(tmp_path, report_to="all").report_to
    training = trainer(tmp_path, Quiet(), report_to="metrana")
    training.train()
    assert steps(series(data_dir)["train/loss",]) == ALL


class Quiet(TrainerCallback):
    """Does nothing."""


@pytest.mark.parametrize("first", ["report_to", "explicit"])
def test_beside_one_with_a_name_the_one_without_is_passive(
    tmp_path: Path, data_dir: Path, first: str
) -> None:
    explicit = MetranaCallback(run_name="named")
    if first == "report_to":
        training = trainer(tmp_path, explicit, report_to="metrana")
    else:
        training = trainer(tmp_path, explicit, MetranaCallback)
    training.evaluate()
    training.train()
    training.train()
    assert run_names(data_dir) == ["named"]
    found = series(data_dir, "named")
    assert steps(found["train/loss",]) == ALL
    assert steps(found["train/loss", "fit=2"]) == ALL
    assert steps(found["eval/loss", "evaluation=true"]) == [0]


def test_of_two_without_a_name_one_logs(tmp_path: Path, data_dir: Path) -> None:
    trainer(tmp_path, MetranaCallback, MetranaCallback).train()
    assert steps(series(data_dir)["train/loss",]) == ALL


def test_one_that_gave_way_logs_once_the_other_is_removed(tmp_path: Path, data_dir: Path) -> None:
    explicit = MetranaCallback(run_name="named")
    training = trainer(tmp_path, explicit, report_to="metrana", run_name="of-args")
    training.remove_callback(explicit)
    training.train()
    assert run_names(data_dir) == ["of-args"]
    assert steps(series(data_dir)["train/loss",]) == ALL


def test_one_with_a_name_that_comes_too_late_says_so(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path, run_name="of-args")
    training.add_callback(MetranaCallback(run_name="late"))
    with pytest.warns(metrana.MetranaWarning, match="arguments of this one have no effect"):
        training.train()
    assert run_names(data_dir) == ["of-args"]
    assert steps(series(data_dir)["train/loss",]) == ALL


def test_callbacks_of_different_trainers_do_not_matter_to_each_other(
    tmp_path: Path, data_dir: Path
) -> None:
    args = arguments(tmp_path)
    trainings = [trainer(tmp_path, MetranaCallback(run_name=name), args=args) for name in "ab"]
    for _ in range(2):
        for training in trainings:
            training.train()
    for name in "ab":
        found = series(data_dir, name)
        assert steps(found["train/loss",]) == steps(found["train/loss", "fit=2"]) == ALL


EVENTS = [name for name in vars(TrainerCallback) if name.startswith("on_")]


def test_other_processes_log_nothing(tmp_path: Path, data_dir: Path) -> None:
    callback = MetranaCallback(run_name="a")
    state = TrainerState(global_step=1, is_world_process_zero=False)
    more = {"logs": {"loss": 1.0}, "metrics": {"test_loss": 1.0}, "model": Line(LineConfig())}
    for event in EVENTS:
        getattr(callback, event)(arguments(tmp_path), state, TrainerControl(), **more)
    assert not data_dir.exists()
    assert callback.faults.count == 0


def test_no_event_gives_anything_back(tmp_path: Path, data_dir: Path) -> None:
    callback = MetranaCallback()
    state = TrainerState(global_step=1)
    more = {"logs": {"loss": 1.0}, "metrics": {"test_loss": 1.0}, "model": Line(LineConfig())}
    for event in EVENTS:
        found = getattr(callback, event)(arguments(tmp_path), state, TrainerControl(), **more)
        assert found is None
    found = series(data_dir)
    assert found["train/loss",] == found["test/loss", "evaluation=true"] == [(1, 1.0)]


# ── What goes wrong ──────────────────────────────────────────────────────────────────────────────


def test_a_run_that_is_closed_meanwhile_ends_nothing(tmp_path: Path, data_dir: Path) -> None:
    run = metrana.init(run_name="a")
    callback = MetranaCallback(run=run)
    training = trainer(tmp_path, callback, Doing(2, run.close))
    with pytest.warns(metrana.MetranaWarning, match="could not log something") as caught:
        training.train()
    assert len(caught) == 1
    # What was to be logged of the steps 2, 3 and 4, and at the end.
    assert callback.faults.count == 4
    assert training.state.global_step == 4
    assert steps(series(data_dir)["train/loss",]) == [1]


class Unreadable(dict[str, Any]):
    """Logs that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError("no items")


def test_warnings_that_are_errors_do_not_end_a_training(tmp_path: Path, data_dir: Path) -> None:
    callback = MetranaCallback()
    args = arguments(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            state = TrainerState(global_step=1)
            callback.on_log(args, state, TrainerControl(), logs=Unreadable(loss=1.0))
    assert callback.faults.count == 3
    callback.on_log(args, TrainerState(global_step=2), TrainerControl(), logs={"loss": 1.0})
    assert steps(series(data_dir)["train/loss",]) == [2]


def test_a_run_that_was_closed_after_a_training_is_gone_on_with(
    tmp_path: Path, data_dir: Path
) -> None:
    training = trainer(tmp_path)
    training.train()
    metrana.close()
    training.evaluate()
    found = series(data_dir)
    assert steps(found["train/loss",]) == ALL
    assert steps(found["eval/loss", "evaluation=true"]) == [4]


def test_disabled_it_leaves_nothing(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRANA_DISABLED", "1")
    callback = MetranaCallback(run_name="a")
    training = trainer(tmp_path, callback, save_strategy="steps", save_steps=2)
    training.train()
    training.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-2"))
    assert callback.faults.count == 0
    assert callback.state()["attributes"] == {"metrana_run": None}
    callback.close()
    assert not data_dir.exists()


def test_a_training_that_fails_is_a_run_that_failed(tmp_path: Path, data_dir: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tests.conformance.transformers.training import Doing, MetranaCallback, trainer
def fail():
    raise RuntimeError("the user's own")
callback = MetranaCallback(run_name="failing")
trainer(Path({str(tmp_path)!r}), callback, Doing(2, fail)).train()
"""
    assert "the user's own" in python(script, code=1)
    assert steps(series(data_dir, "failing")["train/loss",]) == [1]
    with Client(data_dir=data_dir) as client:
        assert client.run("failing").status == "failed"


def test_without_transformers_the_extra_is_named() -> None:
    script = """
import sys
sys.modules["transformers"] = None
import metrana.integrations.transformers
"""
    assert "pip install 'metrana[transformers]'" in python(script, code=1)


# ── Elsewhere ────────────────────────────────────────────────────────────────────────────────────


def test_pickled_after_use_it_joins_its_run_in_another_process(
    tmp_path: Path, data_dir: Path
) -> None:
    callback = MetranaCallback(run_name="shared", init_args={"api_key": "a-secret"})
    training = trainer(tmp_path, callback)
    training.train()
    data = pickle.dumps(callback)
    assert b"a-secret" not in data
    assert pickle.loads(data).run is None
    assert copy.deepcopy(callback).run is callback.run
    assert pickle.loads(pickle.dumps(training.callback_handler.callbacks))
    script = """
import pickle, sys
from transformers import TrainerControl, TrainerState, TrainingArguments
callback = pickle.load(sys.stdin.buffer)
args = TrainingArguments(report_to="none")
callback.on_log(args, TrainerState(global_step=7), TrainerControl(), logs={"loss": 1.0})
print(callback.faults.count, callback.run.run_name)
"""
    assert python(script, data=data).split() == ["0", "shared"]
    assert steps(series(data_dir)["train/loss",]) == [*ALL, 7]


def test_it_logs_to_a_server_and_has_delivered_at_the_end(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "server") as server, Client(data_dir=server.data_dir) as client:
        place = {"mode": "online", "data_dir": server.data_dir}
        callback = MetranaCallback(run_name="online", init_args=place)
        training = trainer(tmp_path, callback, eval_strategy="epoch")
        training.train()
        losses = client.points("online", "train/loss", duplicates="all")
        evaluated = client.points("online", "eval/loss", duplicates="all")
        assert client.run("online").status == "running"
        callback.close()
        assert client.run("online").status == "finished"
    logged = [entry["loss"] for entry in training.state.log_history if "loss" in entry]
    assert losses["value"].tolist() == logged
    assert losses["step"].tolist() == ALL
    assert evaluated["labels"].tolist() == [{"evaluation": "true"}]


def test_a_server_that_dies_neither_ends_a_training_nor_holds_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrana.integrations._common._FLUSH_TIMEOUT_S", 0.1)
    with LocalServer(tmp_path / "server") as server:
        place = {"mode": "online", "data_dir": server.data_dir}
        callback = MetranaCallback(run_name="online", init_args=place)
        training = trainer(tmp_path, callback, Doing(2, server.kill))
        with pytest.warns(metrana.MetranaWarning, match=r"transformers\.MetranaCallback goes on: "):
            training.train()
    assert callback.faults.count == 0
    run = callback.run
    assert run is not None
    with pytest.warns(metrana.MetranaWarning, match="has not acknowledged"):
        run.close(close_timeout=0.1)
    assert steps(series(server.data_dir, "online")["train/loss",]) == ALL
