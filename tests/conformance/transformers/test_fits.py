"""Trainings one after another, and ones that go on from a checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

import metrana
import metrana.integrations.transformers
from metrana.integrations.transformers import MetranaCallback
from tests.conformance.transformers.training import (
    DATA,
    Doing,
    run_names,
    series,
    steps,
    trainer,
)
from tests.processes import Machine

EVALUATION = "evaluation=true"
SAVING = {"save_strategy": "steps", "save_steps": 2, "save_only_model": False}
ALL = list(range(1, 5))


def saved(folder: Path, step: int = 2) -> dict[str, Any]:
    """What a checkpoint says of the Trainer's state."""
    path = folder / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def resume(folder: Path, callback: Any, *others: Any, **options: Any) -> MetranaCallback:
    """Trains from the checkpoint of step 2 on."""
    checkpoint = str(folder / "checkpoints" / "checkpoint-2")
    trainer(folder, callback, *others, **SAVING, **options).train(resume_from_checkpoint=checkpoint)
    return callback


# ── One after another ────────────────────────────────────────────────────────────────────────────


def test_a_later_training_is_labelled(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path)
    training.evaluate()
    for _ in range(3):
        training.train()
        training.evaluate()
    found = series(data_dir)
    assert steps(found["eval/loss", EVALUATION]) == [0, 4]
    for labels in ([], ["fit=2"], ["fit=3"]):
        assert steps(found["train/loss", *labels]) == ALL
        assert steps(found["summary/train_loss", *labels]) == [4]
    assert steps(found["eval/loss", EVALUATION, "fit=3"]) == [4]


def test_the_folds_of_one_run_are_told_apart_whichever_callback_logs_them(
    tmp_path: Path, data_dir: Path
) -> None:
    with metrana.init(run_name="folds"):
        for _ in range(3):
            trainer(tmp_path).train()
    found = series(data_dir, "folds")
    assert {name for name in found if name[0] == "train/loss"} == {
        ("train/loss",),
        ("train/loss", "fit=2"),
        ("train/loss", "fit=3"),
    }
    assert all(steps(found["train/loss", *fit]) == ALL for fit in ([], ["fit=2"], ["fit=3"]))


def test_trainers_that_are_evaluated_after_all_are_trained_keep_their_labels(
    tmp_path: Path, data_dir: Path
) -> None:
    callback = MetranaCallback()
    folds = [
        trainer(tmp_path, callback, compute_metrics=lambda _, name=name: {"name": name})
        for name in (1.0, 2.0, 3.0)
    ]
    for fold in folds:
        fold.train()
    for fold in reversed(folds):
        fold.evaluate()
        fold.predict(DATA)
    found = series(data_dir)
    for name, fit in ((1.0, []), (2.0, ["fit=2"]), (3.0, ["fit=3"])):
        assert found["eval/name", EVALUATION, *fit] == [(4, name)]
        assert found["test/name", EVALUATION, *fit] == [(4, name)]
    assert callback.faults.count == 0


def test_a_training_within_another_one_leaves_it_its_labels(tmp_path: Path, data_dir: Path) -> None:
    callback = MetranaCallback()
    inner = trainer(tmp_path / "inner", callback)
    trainer(tmp_path, callback, Doing(2, inner.train), **SAVING).train()
    exported = saved(tmp_path, 4)["stateful_callbacks"]["MetranaCallback"]
    assert "fit" not in exported["attributes"]["metrana_run"]
    found = series(data_dir)
    assert steps(found["train/loss",]) == ALL
    assert steps(found["train/loss", "fit=2"]) == ALL
    assert steps(found["summary/train_loss",]) == [4]


def test_an_evaluation_in_another_run_is_of_none_of_its_trainings(
    tmp_path: Path, data_dir: Path
) -> None:
    training = trainer(tmp_path)
    with metrana.init(run_name="a"):
        training.train()
        training.train()
    with metrana.init(run_name="b"):
        training.evaluate()
    assert steps(series(data_dir, "b")["eval/loss", EVALUATION]) == [4]


def test_an_evaluation_at_the_start_belongs_to_its_training(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path, eval_on_start=True, eval_strategy="epoch")
    training.train()
    training.train()
    found = series(data_dir)
    assert steps(found["eval/loss", EVALUATION]) == [0, 4]
    assert steps(found["eval/loss", EVALUATION, "fit=2"]) == [0, 4]


def test_another_run_begins_without_labels(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path)
    for name in ("a", "b"):
        with metrana.init(run_name=name):
            training.train()
    for name in ("a", "b"):
        assert steps(series(data_dir, name)["train/loss",]) == ALL


# ── From a checkpoint ────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_is_resumed_in_the_same_run(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path, MetranaCallback(run_name="a"), **SAVING)
    training.train()
    training.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-2"))
    found = series(data_dir)
    assert steps(found["train/loss",]) == [1, 2, 3, 3, 4, 4]
    assert not any("fit=2" in labels for _, *labels in found)


@pytest.mark.parametrize("named", [{}, {"run_name": "a", "project_name": "p"}])
@pytest.mark.parametrize("restores", [False, True])
def test_a_checkpoint_is_resumed_by_another_callback(
    tmp_path: Path, data_dir: Path, named: dict[str, str], restores: bool
) -> None:
    # Where it is kept only the arguments say: the Trainer makes callbacks anew without them.
    place = {"data_dir": str(tmp_path / "elsewhere"), "api_key": "a-secret"}
    first = MetranaCallback(run_name="a", project_name="p", init_args=place)
    trainer(tmp_path, first, max_steps=2, **SAVING).train()
    first.close()
    exported = saved(tmp_path)["stateful_callbacks"]["MetranaCallback"]
    assert exported["args"] == {}
    (kept,) = exported["attributes"].values()
    assert kept.keys() == {"run_id", "run_name", "project_name"}
    assert "secret" not in json.dumps(saved(tmp_path))

    second = MetranaCallback(**named, init_args=place)
    resume(tmp_path, second, restore_callback_states_from_checkpoint=restores)
    again = saved(tmp_path, 4)["stateful_callbacks"]["MetranaCallback"]
    assert again == exported
    found = series(tmp_path / "elsewhere", "a", "p")
    assert steps(found["train/loss",]) == ALL
    assert run_names(tmp_path / "elsewhere") == ["a"]
    assert not data_dir.exists()


def test_a_checkpoint_is_resumed_by_another_process(tmp_path: Path) -> None:
    machine = Machine(tmp_path, METRANA_MODE="offline", HF_HUB_OFFLINE="1")
    first = MetranaCallback(run_name="whole", init_args={"data_dir": machine.data_dir})
    trainer(tmp_path, first, max_steps=2, **SAVING).train()
    first.close()
    machine.python(f"""
        import sys, torch
        sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from pathlib import Path
        from tests.conformance.transformers.training import trainer
        torch.set_num_threads(1)
        training = trainer(Path({str(tmp_path)!r}), report_to="metrana")
        training.train(resume_from_checkpoint=True)
    """)
    found = series(machine.data_dir, "whole")
    assert steps(found["train/loss",]) == ALL
    assert steps(found["summary/train_loss",]) == [2, 4]
    assert run_names(machine.data_dir) == ["whole"]


class Nothing(TrainerCallback):
    """Stands where ours does not."""


def test_a_checkpoint_made_without_it_is_gone_on_with_and_saved(
    tmp_path: Path, data_dir: Path
) -> None:
    trainer(tmp_path, Nothing(), max_steps=2, **SAVING).train()
    assert "MetranaCallback" not in saved(tmp_path)["stateful_callbacks"]
    callback = resume(tmp_path, MetranaCallback())
    assert callback.run is not None
    kept = saved(tmp_path, 4)["stateful_callbacks"]["MetranaCallback"]["attributes"]
    assert kept["metrana_run"]["run_id"] == callback.run.run_id
    assert steps(series(data_dir)["train/loss",]) == [3, 4]


def test_added_while_it_trains_it_lets_the_trainer_save(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path, Nothing(), **SAVING)
    training.add_callback(Doing(2, lambda: training.add_callback(MetranaCallback)))
    training.train()
    assert saved(tmp_path, 4)["stateful_callbacks"]["MetranaCallback"]["attributes"]["metrana_run"]
    assert steps(series(data_dir)["train/loss",]) == [2, 3, 4]


def test_two_callbacks_resume_one_run_and_their_checkpoints_do_not_grow(
    tmp_path: Path, data_dir: Path
) -> None:
    for max_steps in (2, 8):
        callbacks = MetranaCallback(), MetranaCallback()
        options = {**SAVING, "max_steps": max_steps, "save_total_limit": None}
        trainer(tmp_path, *callbacks, **options).train(resume_from_checkpoint=max_steps > 2)
        metrana.close()
    sizes = [len(saved(tmp_path, k)["stateful_callbacks"]["MetranaCallback"]) for k in (4, 8)]
    assert sizes[0] == sizes[1] <= 4
    assert steps(series(data_dir)["train/loss",]) == list(range(1, 9))


def test_a_run_that_is_not_here_is_said_and_replaced(tmp_path: Path, data_dir: Path) -> None:
    elsewhere = MetranaCallback(init_args={"data_dir": tmp_path / "elsewhere"})
    trainer(tmp_path, elsewhere, max_steps=2, **SAVING).train()
    elsewhere.close()
    with pytest.warns(metrana.MetranaWarning, match="the checkpoint cannot be continued here"):
        callback = resume(tmp_path, MetranaCallback(), run_name="new")
    assert callback.faults.count == 0
    assert steps(series(data_dir, "new")["train/loss",]) == [3, 4]


@pytest.mark.parametrize(
    "kept",
    ["a", {}, {"attributes": None}, {"attributes": {"metrana_run": {"run_id": "a", "fit": "b"}}}],
)
@pytest.mark.filterwarnings("ignore:transformers.MetranaCallback could not:metrana.MetranaWarning")
@pytest.mark.filterwarnings("ignore:the run None of the checkpoint:metrana.MetranaWarning")
def test_a_checkpoint_that_says_nonsense_is_gone_on_with(
    tmp_path: Path, data_dir: Path, kept: Any
) -> None:
    trainer(tmp_path, max_steps=2, **SAVING).train()
    metrana.close()
    state = saved(tmp_path)
    state["stateful_callbacks"]["MetranaCallback"] = kept
    path = tmp_path / "checkpoints" / "checkpoint-2" / "trainer_state.json"
    path.write_text(json.dumps(state))
    resume(tmp_path, MetranaCallback(), run_name="new")
    assert steps(series(data_dir, "new")["train/loss",]) == [3, 4]


def test_another_name_or_run_is_preferred_to_the_checkpoints(
    tmp_path: Path, data_dir: Path
) -> None:
    first = MetranaCallback(run_name="a")
    trainer(tmp_path, first, max_steps=2, **SAVING).train()
    first.close()
    resume(tmp_path, MetranaCallback(run_name="b")).close()
    with metrana.init(run_name="c") as run:
        resume(tmp_path, MetranaCallback(run=run))
    with metrana.init(run_name="d"):
        resume(tmp_path, MetranaCallback())
    for name in "bcd":
        assert steps(series(data_dir, name)["train/loss",]) == [3, 4]
    assert steps(series(data_dir, "a")["train/loss",]) == [1, 2]


def test_the_label_of_the_training_that_made_a_checkpoint_is_kept(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = MetranaCallback()
    training = trainer(tmp_path, callback, **SAVING)
    training.train()
    training.train()
    kept = saved(tmp_path)["stateful_callbacks"]["MetranaCallback"]["attributes"]["metrana_run"]
    assert kept["fit"] == 2
    callback.close()
    monkeypatch.setattr(metrana.integrations.transformers, "_fits", {})  # as in another process
    resume(tmp_path, MetranaCallback())
    found = series(data_dir)
    assert steps(found["train/loss",]) == ALL
    assert steps(found["train/loss", "fit=2"]) == [1, 2, 3, 3, 4, 4]
    assert not any(math.isnan(value) for _, value in found["train/loss", "fit=2"])
