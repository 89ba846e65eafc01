"""A hyperparameter search: each trial is a run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers.integrations
import transformers.trainer
from transformers import Trainer, TrainerControl, TrainerState
from transformers.trainer_utils import HPSearchBackend

import metrana
from metrana.integrations.transformers import MetranaCallback
from metrana.query import Client
from tests.conformance.transformers.training import (
    Line,
    LineConfig,
    arguments,
    run_names,
    series,
    steps,
    trainer,
)

RATES = [0.1, 0.2, 0.3]


def params_of(trial: Any) -> dict[str, Any]:
    """What a trial tries out."""
    found: dict[str, Any] = trial.params
    return found


class Trying:
    """Tries out learning rates as Transformers' own backends do, none of which is installed."""

    def ensure_available(self) -> None:
        """It is."""

    def run(self, searching: Trainer, n_trials: int, _direction: str) -> None:
        for number, rate in enumerate(RATES[:n_trials]):
            searching.train(trial=SimpleNamespace(number=number, params={"learning_rate": rate}))
            searching.evaluate()


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of one that needs nothing but its name."""
    backends = transformers.trainer.ALL_HYPERPARAMETER_SEARCH_BACKENDS
    monkeypatch.setitem(backends, HPSearchBackend.OPTUNA, Trying)
    monkeypatch.setattr(transformers.integrations, "hp_params", params_of)


def search(training: Trainer, **options: Any) -> None:
    """Three trials, or as many as are asked for."""
    options = {"n_trials": 3, **options}
    training.hyperparameter_search(backend="optuna", hp_space=params_of, **options)


def searching(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    """A Trainer that can search."""
    return trainer(folder, *callbacks, model_init=lambda: Line(LineConfig()), **options)


def test_each_trial_is_a_run_named_after_the_search(tmp_path: Path, data_dir: Path) -> None:
    training = searching(tmp_path, MetranaCallback(run_name="s", project_name="p"))
    search(training)
    names = [f"s-trial-{number}" for number in range(3)]
    assert run_names(data_dir) == names
    for name, rate in zip(names, RATES, strict=True):
        found = series(data_dir, name, "p")
        assert steps(found["train/loss",]) == [1, 2, 3, 4]
        assert steps(found["eval/loss", "evaluation=true"]) == [4]
        assert all(labels in ([], ["evaluation=true"]) for _, *labels in found)
        with Client(data_dir=data_dir) as client:
            info = client.run(name, project_name="p")
        assert info.config["learning_rate"] == rate
        assert info.config["trial"] == {"learning_rate": rate}
        assert info.status == "finished"


def test_what_comes_after_a_search_is_a_run_of_its_own(tmp_path: Path, data_dir: Path) -> None:
    training = searching(tmp_path, run_name="s")
    search(training, n_trials=2)
    training.train()
    assert run_names(data_dir) == ["s", "s-trial-0", "s-trial-1"]
    assert steps(series(data_dir, "s")["train/loss",]) == [1, 2, 3, 4]


def test_trials_are_named_as_the_search_names_them(tmp_path: Path, data_dir: Path) -> None:
    training = searching(tmp_path, MetranaCallback(run_name="s"))
    search(training, hp_name=lambda trial: f"rate-{trial.params['learning_rate']}")
    assert run_names(data_dir) == [f"rate-{rate}" for rate in RATES]


def test_trials_of_one_name_are_runs_of_their_own(tmp_path: Path, data_dir: Path) -> None:
    search(searching(tmp_path, MetranaCallback()), hp_name=lambda _: "tried")
    names = ["tried", "tried-trial-1", "tried-trial-2"]
    assert run_names(data_dir) == names
    for name, rate in zip(names, RATES, strict=True):
        found = series(data_dir, name)
        assert steps(found["train/loss",]) == [1, 2, 3, 4]
        assert all(labels in ([], ["evaluation=true"]) for _, *labels in found)
        with Client(data_dir=data_dir) as client:
            assert client.run(name).config["trial"] == {"learning_rate": rate}


def test_without_a_name_trials_have_generated_ones(tmp_path: Path, data_dir: Path) -> None:
    search(searching(tmp_path, MetranaCallback(), MetranaCallback()))
    assert len(set(run_names(data_dir))) == 3


def test_trials_lie_beside_the_run_that_was_current(tmp_path: Path, data_dir: Path) -> None:
    place = tmp_path / "elsewhere"
    for given in (False, True):
        run = metrana.init(project_name="p", run_name=f"outer-{given}", data_dir=place)
        callback = MetranaCallback(run=run) if given else MetranaCallback()
        search(searching(tmp_path, callback, run_name=f"{given}"), n_trials=1)
        assert run.is_initialized()
        run.close()
        callback.close()
    assert not data_dir.exists()
    for given in (False, True):
        found = series(place, f"{given}-trial-0", "p")
        assert steps(found["train/loss",]) == [1, 2, 3, 4]


def test_trials_of_other_processes_are_named_by_their_ids(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(get_trial_id=lambda: "ab12_0007")
    tune = SimpleNamespace(get_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray.tune", tune)  # type: ignore[arg-type]
    search(searching(tmp_path, MetranaCallback(run_name="s")), n_trials=1)
    assert run_names(data_dir) == ["s-trial-ab12_0007"]


def test_a_trial_goes_on_in_its_own_run_and_in_no_other(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(["one", "one", "other"])
    context = SimpleNamespace(get_trial_id=lambda: next(ids))
    tune = SimpleNamespace(get_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray.tune", tune)  # type: ignore[arg-type]
    exported: dict[str, Any] = {}
    run_ids = []
    # As where a population exchanges its checkpoints: that of the first is everybody's.
    for step in (0, 2, 2):
        state = TrainerState(
            global_step=step, is_hyper_param_search=True, stateful_callbacks=dict(exported)
        )
        callback = MetranaCallback(run_name="s")
        callback.on_train_begin(arguments(tmp_path), state, TrainerControl())
        assert callback.run is not None
        run_ids.append(callback.run.run_id)
        exported.setdefault("MetranaCallback", callback.state())
        callback.close()
    assert run_ids[0] == run_ids[1] != run_ids[2]
    assert run_names(data_dir) == ["s-trial-one", "s-trial-other"]


def test_a_trial_whose_run_cannot_be_made_does_not_end_the_search(
    tmp_path: Path, data_dir: Path
) -> None:
    metrana.init(run_name="s-trial-1", orchestration_id="another job").close()
    callback = MetranaCallback(run_name="s", init_args={"orchestration_id": "this job"})
    with pytest.warns(metrana.MetranaWarning, match="s-trial-1"):
        search(searching(tmp_path, callback))
    # The run, then its four steps, its summary and its evaluation.
    assert callback.faults.count == 1 + 6
    assert run_names(data_dir) == [f"s-trial-{number}" for number in range(3)]
    assert steps(series(data_dir, "s-trial-2")["train/loss",]) == [1, 2, 3, 4]
