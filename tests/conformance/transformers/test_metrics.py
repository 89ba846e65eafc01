"""What a Trainer logs is logged once, under its name, at its step."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

import metrana
from metrana.integrations._transformers import logged, predicted
from metrana.integrations.transformers import MetranaCallback
from tests.conformance.transformers.training import DATA, Series, series, steps, trainer

EVALUATION = "evaluation=true"


def accuracy(_prediction: Any) -> dict[str, float]:
    """A metric of an evaluation, and one that is called as what says how long one took."""
    return {"accuracy": 0.5, "gen_runtime": 0.25}


def expected(history: list[dict[str, float]], prefixes: tuple[str, ...] = ("eval",)) -> Series:
    """What a run is to have, by what the Trainer says that it has logged."""
    found: Series = {}
    for entry in history:
        prefix = next((p for p in prefixes if f"{p}_runtime" in entry), None)
        for key, value in entry.items():
            if key == "step":
                continue
            name: tuple[str, ...] = (f"train/{key}",)
            if prefix is not None:
                name = (f"{prefix}/{key.removeprefix(f'{prefix}_')}", EVALUATION)
            elif "total_flos" in entry:
                name = (f"summary/{key}",)
            found.setdefault(name, []).append((int(entry["step"]), value))
    return found


def test_a_training_with_evaluations_is_logged_whole_and_once(
    tmp_path: Path, data_dir: Path
) -> None:
    training = trainer(tmp_path, eval_strategy="steps", eval_steps=2, compute_metrics=accuracy)
    training.train()
    found = series(data_dir)
    assert found == expected(training.state.log_history)
    assert steps(found["train/loss",]) == [1, 2, 3, 4]
    assert steps(found["eval/loss", EVALUATION]) == [2, 4]
    assert steps(found["eval/gen_runtime", EVALUATION]) == [2, 4]
    assert steps(found["summary/train_loss",]) == [4]
    assert {"train/learning_rate", "train/grad_norm", "train/epoch", "summary/total_flos"} <= {
        name for name, *_ in found
    }


def test_evaluations_of_several_datasets_are_told_apart(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path, eval_strategy="epoch", eval_dataset={"a": DATA[:8], "b": DATA[8:]})
    training.train()
    found = series(data_dir)
    assert found == expected(training.state.log_history, ("eval_a", "eval_b"))
    assert steps(found["eval_a/loss", EVALUATION]) == [4]


@pytest.mark.parametrize("prefix", ["holdout", "train", "eval_final"])
def test_a_prefix_of_ones_own_is_that_of_the_names(
    tmp_path: Path, data_dir: Path, prefix: str
) -> None:
    training = trainer(tmp_path, compute_metrics=accuracy)
    training.train()
    metrics = training.evaluate(metric_key_prefix=prefix)
    found = series(data_dir)
    assert found[f"{prefix}/loss", EVALUATION] == [(4, metrics[f"{prefix}_loss"])]
    assert found[f"{prefix}/accuracy", EVALUATION] == [(4, 0.5)]
    assert found[f"{prefix}/epoch", EVALUATION] == [(4, 1.0)]
    assert len(found["train/loss",]) == 4
    assert len(found["summary/train_loss",]) == 1


@pytest.mark.parametrize("prefix", ["test", "new"])
def test_predictions_are_logged_by_their_event(tmp_path: Path, data_dir: Path, prefix: str) -> None:
    training = trainer(tmp_path, compute_metrics=accuracy)
    training.train()
    training.predict(DATA, metric_key_prefix=prefix)
    found = series(data_dir)
    assert found[f"{prefix}/accuracy", EVALUATION] == [(4, 0.5)]
    assert len(found[f"{prefix}/runtime", EVALUATION]) == 1
    assert not any(name.startswith("eval/") for name, *_ in found)


def test_tokens_that_are_counted_make_no_summary_of_a_step(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path, include_num_input_tokens_seen="all", eval_strategy="epoch")
    training.train()
    found = series(data_dir)
    assert found == expected(training.state.log_history)
    assert steps(found["train/train_runtime",]) == [1, 2, 3, 4]
    assert steps(found["summary/train_runtime",]) == [4]
    assert steps(found["eval/num_input_tokens_seen", EVALUATION]) == [4]


def test_the_summary_is_whole_after_the_callback_that_prints(
    tmp_path: Path, data_dir: Path
) -> None:
    training = trainer(tmp_path)
    callback = training.pop_callback(MetranaCallback)
    training.add_callback(callback)  # behind the printing one now, which takes a key out
    training.train()
    found = series(data_dir)
    assert found == expected(training.state.log_history)
    assert steps(found["summary/total_flos",]) == [4]


class Rewarding(Trainer):
    """Adds metrics to what is logged as trainers of reinforcement learning do."""

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        metrics = {"rewards/margin/mean": 0.25, "clip_ratio": None, "kl": torch.tensor([0.5])}
        if not self.model.training:
            metrics = {f"eval_{key}": value for key, value in metrics.items()}
        super().log({**logs, **metrics}, start_time)


def test_trainers_that_inherit_log_their_metrics_too(tmp_path: Path, data_dir: Path) -> None:
    callback = MetranaCallback()
    options = {"eval_strategy": "epoch", "eval_dataset": {"a": DATA, "b": DATA}}
    with warnings.catch_warnings():
        warnings.simplefilter("error", metrana.MetranaWarning)
        trainer(tmp_path, callback, kind=Rewarding, **options).train()
    found = series(data_dir)
    assert found["train/rewards/margin/mean",] == [(step, 0.25) for step in range(1, 5)]
    assert found["train/kl",] == [(step, 0.5) for step in range(1, 5)]
    for name in ("eval_a", "eval_b"):
        assert found[f"{name}/rewards/margin/mean", EVALUATION] == [(4, 0.25)]
        assert steps(found[f"{name}/loss", EVALUATION]) == [4]
    assert not any("clip_ratio" in name for name, *_ in found)
    assert callback.faults.count == 0


class Timing(Trainer):
    """Logs a loss and a time of its own while it trains."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        if self.model.training:
            self.log({"aux_loss": 1.5, "generation_runtime": 0.25})
        return super().compute_loss(*args, **kwargs)


def test_a_time_that_a_training_logs_makes_no_evaluation(tmp_path: Path, data_dir: Path) -> None:
    trainer(tmp_path, kind=Timing, eval_strategy="epoch").train()
    found = series(data_dir)
    for name, value in (("aux_loss", 1.5), ("generation_runtime", 0.25)):
        assert found[f"train/{name}",] == [(step, value) for step in range(4)]
    assert {name.split("/")[0] for name, *labels in found if EVALUATION in labels} == {"eval"}


def test_what_is_no_number_is_left_out_and_said_once(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path)
    training.train()
    logs = {"text": "x", "list": [1, 2], "nan": math.nan, "inf": math.inf, "nested": {"a": 1}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            training.log(dict(logs))
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert all("leaves out 'train/" in sentence for sentence in said)
    found = series(data_dir)
    assert {"train/inf", "train/nan", "train/nested/a"} <= {name for name, *_ in found}
    assert {"train/text", "train/list"}.isdisjoint(name for name, *_ in found)
    assert math.isnan(found["train/nan",][0][1])


def test_what_is_logged_by_hand_is_told_apart_by_its_keys(tmp_path: Path, data_dir: Path) -> None:
    training = trainer(tmp_path)
    training.train()
    logs = {"mine": 1, "eval_mine": 2, "test_mine": 3, "evaluated": 4}
    training.log(logs)
    assert list(logs) == ["mine", "eval_mine", "test_mine", "evaluated", "epoch"]
    found = series(data_dir)
    assert found["train/mine",] == [(4, 1.0)]
    assert found["train/evaluated",] == [(4, 4.0)]
    assert found["eval/mine", EVALUATION] == [(4, 2.0)]
    assert found["test/mine", EVALUATION] == [(4, 3.0)]


@pytest.mark.parametrize(
    ("logs", "names", "evaluation"),
    [
        ({"loss": 1, "learning_rate": 2, "gen_runtime": 3}, {"train/gen_runtime"}, False),
        ({"train_loss": 1}, {"train/train_loss"}, False),
        ({"loss": 1, "train_runtime": 2}, {"train/loss", "train/train_runtime"}, False),
        ({"train_loss": 1, "total_flos": 2}, {"summary/total_flos"}, False),
        ({"x_runtime": 1, "x_loss": 2, "reward": 3}, {"x/loss", "x/reward"}, True),
        ({"x_loss": 1, "y_runtime": 2}, {"train/x_loss", "train/y_runtime"}, False),
        ({"_runtime": 1}, {"train/_runtime"}, False),
        ({"eval_": 1, 2: 3}, {"train/eval_", "train/2"}, False),
        ({}, set(), False),
    ],
)
def test_names_of_unusual_logs(logs: dict[Any, Any], names: set[str], evaluation: bool) -> None:
    groups = list(logged(logs, []))
    assert all(is_evaluation is evaluation for _, is_evaluation in groups)
    assert names <= {name for metrics, _ in groups for name in metrics}


def test_a_prediction_that_took_no_time_has_its_prefix() -> None:
    (found,) = predicted({"new_accuracy": 0.5, "new_runtime": 0.0})
    assert found == ({"new/accuracy": 0.5, "new/runtime": 0.0}, True)
