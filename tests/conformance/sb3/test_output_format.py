"""`MetranaOutputFormat`: what SB3's logger records is logged, whatever it is."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.logger import Figure, HParam, Image, Logger, Video
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import metrana
from metrana.integrations.sb3 import MetranaOutputFormat
from metrana.query import Client
from tests.conformance.sb3.environments import Scripted
from tests.conformance.sb3.models import dqn, ppo
from tests.reading import Point, read_one


def logged(offline: dict[str, Any]) -> list[Point]:
    """What the only run has, once all is closed."""
    while metrana.is_initialized():
        metrana.close()
    return read_one(Path(offline["data_dir"])).points


def test_what_a_training_records_is_logged_under_its_keys_and_steps(
    offline: dict[str, Any],
) -> None:
    writer = MetranaOutputFormat(init_args={**offline, "run_name": "ppo"})
    model = ppo()
    model.set_logger(Logger(None, [writer]))
    evaluation = EvalCallback(Monitor(Scripted()), eval_freq=8, n_eval_episodes=2, verbose=0)
    model.learn(48, callback=evaluation)
    writer.close()
    assert not metrana.is_initialized()
    with Client(data_dir=offline["data_dir"]) as client:
        series = client.series("ppo")
        training = client.points("ppo", "rollout/ep_rew_mean")
        evaluated = client.points("ppo", "eval/mean_reward")
    names = set(series["metric_name"])
    assert {"rollout/ep_len_mean", "time/fps", "train/loss", "train/value_loss"} <= names
    # Excluded for TensorBoard by SB3 itself.
    assert not {"time/iterations", "time/total_timesteps", "time/time_elapsed"} & names
    assert set(series["scale"]) == {"ML_STEP"}
    assert training["step"].tolist() == [16, 32, 48]
    assert training["labels"].tolist() == [{}] * 3
    assert evaluated["step"].tolist() == [8, 16, 24, 32, 40, 48]
    assert evaluated["labels"].tolist() == [{"evaluation": "true"}] * 6
    assert evaluated["value"].tolist() == [(6 + 15) / 2] * 6


def test_keys_excluded_for_tensorboard_or_metrana_are_left_out(offline: dict[str, Any]) -> None:
    logger = Logger(None, [MetranaOutputFormat(init_args=offline)])
    logger.record("both", 1.0)
    logger.record("console", 1.0, exclude="stdout")
    logger.record("not tensorboard", 1.0, exclude="tensorboard")
    logger.record("not here", 1.0, exclude=("stdout", "metrana"))
    logger.dump(5)
    # As SB3 reads it, a string is one too.
    logger.output_formats[0].write({"alone": 1.0}, {"alone": "metrana"}, 5)  # type: ignore[dict-item]
    assert {(p.metric, p.step) for p in logged(offline)} == {("both", 5), ("console", 5)}


def test_every_kind_of_number_is_logged(offline: dict[str, Any]) -> None:
    values = {
        "int": (1, 1.0),
        "float": (-3.14, -3.14),
        "bool": (True, 1.0),
        "zero-dimensional": (np.array(1), 1.0),
        "one element": (np.array([[[2]]]), 2.0),
        "numpy": (np.float32(0.5), 0.5),
        "tensor": (torch.ones(1, requires_grad=True), 1.0),
        "nan": (math.nan, math.nan),
        "inf": (-math.inf, -math.inf),
    }
    given = {key: value for key, (value, _) in values.items()}
    MetranaOutputFormat(init_args=offline).write(given, dict.fromkeys(given), 3)
    found = {point.metric: point.value for point in logged(offline)}
    expected = {key: value for key, (_, value) in values.items()}
    assert found == pytest.approx(expected, nan_ok=True)


def test_what_is_no_number_is_left_out_with_one_warning_for_each_key(
    offline: dict[str, Any],
) -> None:
    values = {"a": np.arange(3), "i": torch.ones(3), "h": 'th"is\n', "l": [1, 2], "loss": 0.5}
    kept = dict(values)
    writer = MetranaOutputFormat(init_args=offline)
    with pytest.warns(metrana.MetranaWarning) as caught:
        writer.write(values, dict.fromkeys(values), 0)
    assert len(caught) == 4
    writer.write(values, dict.fromkeys(values), 1)
    assert values == kept
    assert [point.metric for point in logged(offline)] == ["loss", "loss"]


def test_pictures_are_left_out_quietly_and_hyperparameters_become_config(
    offline: dict[str, Any],
) -> None:
    values = {
        "video": Video(torch.zeros(1, 2, 3, 4, 4), fps=3),
        "figure": Figure(object(), close=True),  # type: ignore[arg-type]
        "image": Image(np.zeros((4, 4, 3)), dataformats="HWC"),
        "hparam": HParam({"learning rate": 0.1}, {"train/value_loss": 0.0}),
        "loss": 0.5,
    }
    writer = MetranaOutputFormat(init_args={**offline, "run_name": "pictures"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.write(values, dict.fromkeys(values), 0)
    writer.close()
    assert writer.faults.count == 0
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.run("pictures").config == {"learning_rate": 0.1}
        assert client.series("pictures")["metric_name"].tolist() == ["loss"]


def test_trainings_that_begin_again_are_told_apart(offline: dict[str, Any]) -> None:
    """Else their steps would overwrite those of the one before."""
    writer = MetranaOutputFormat(init_args={**offline, "run_name": "again"})
    model = ppo()
    model.set_logger(Logger(None, [writer]))
    model.learn(32)
    model.learn(32)
    model.learn(32, reset_num_timesteps=False)
    writer.close()
    with Client(data_dir=offline["data_dir"]) as client:
        for labels, steps in (({}, [16, 32]), ({"fit": "2"}, [16, 32, 48, 64])):
            found = client.points("again", "rollout/ep_len_mean", labels=labels)
            assert found["step"].tolist() == steps


@pytest.mark.parametrize("steps", [16, 48])
def test_a_training_of_the_same_length_is_told_apart_too(
    offline: dict[str, Any], steps: int
) -> None:
    writer = MetranaOutputFormat(init_args=offline)
    for _ in range(2):
        model = ppo()
        model.set_logger(Logger(None, [writer]))
        model.learn(steps)
    labels = [p.labels for p in logged(offline) if p.metric == "rollout/ep_len_mean"]
    assert labels == [{}] * (steps // 16) + [{"fit": "2"}] * (steps // 16)


def test_dumps_at_one_step_and_of_the_users_own_are_no_new_training(
    offline: dict[str, Any],
) -> None:
    writer = MetranaOutputFormat(init_args=offline)
    model = dqn(train_freq=1)
    model.set_logger(Logger(None, [writer]))
    evaluation = EvalCallback(Monitor(Scripted()), eval_freq=4, n_eval_episodes=1, verbose=0)
    model.learn(40, callback=evaluation, log_interval=1)
    model.logger.record("mine", 1.0)
    model.logger.dump()
    points = logged(offline)
    assert not any("fit" in point.labels for point in points)
    assert [point.step for point in points if point.metric == "mine"] == [0]


def test_dumps_of_episodes_that_end_at_one_step_keep_the_last(offline: dict[str, Any]) -> None:
    writer = MetranaOutputFormat(init_args={**offline, "run_name": "together"})
    model = dqn(DummyVecEnv([lambda: Monitor(Scripted([4]))] * 2), train_freq=1)
    model.set_logger(Logger(None, [writer]))
    model.learn(16, log_interval=1)
    writer.close()
    with Client(data_dir=offline["data_dir"]) as client:
        each = client.points("together", "rollout/ep_len_mean", duplicates="all")
        last = client.points("together", "rollout/ep_len_mean")
    assert each["step"].tolist() == [8, 8, 16, 16]
    assert last["step"].tolist() == [8, 16]
    assert set(last["value"]) == {4.0}


# ── The run ──────────────────────────────────────────────────────────────────────────────────────


def test_the_run_is_made_by_the_first_dump(offline: dict[str, Any]) -> None:
    writer = MetranaOutputFormat(init_args=offline)
    assert not Path(offline["data_dir"]).exists()
    writer.write({"a": 1.0}, {"a": ("",)}, 0)
    run = metrana.init(**offline, run_name="another")
    writer.write({"a": 2.0}, {"a": ("",)}, 1)
    run.close()
    writer.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert sorted(client.runs()["point_count"]) == [0, 2]


def test_without_arguments_it_logs_to_the_current_run(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline)
    writer = MetranaOutputFormat()
    writer.write({"a": 1.0}, {"a": ("",)}, 0)
    writer.close()
    assert run.is_initialized()
    assert [point.metric for point in logged(offline)] == ["a"]


def test_a_run_that_cannot_be_made_raises(offline: dict[str, Any]) -> None:
    metrana.init(**offline, run_name="taken", orchestration_id="a").close()
    writer = MetranaOutputFormat(
        init_args={**offline, "run_name": "taken", "orchestration_id": "b"}
    )
    for _ in range(2):
        with pytest.raises(metrana.MetranaRunAlreadyExistsError):
            writer.write({"a": 1.0}, {"a": ("",)}, 0)


def test_once_the_run_was_open_nothing_is_raised(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline)
    writer = MetranaOutputFormat(run)
    writer.write({"a": 1.0}, {"a": ("",)}, 0)
    run.close()
    with pytest.warns(metrana.MetranaWarning, match="MetranaOutputFormat could not log"):
        writer.write({"a": 1.0}, {"a": ("",)}, 1)
    writer.write({"a": 1.0}, {"a": ("",)}, -1)
    assert writer.faults.count == 2


def test_bad_arguments_are_refused_at_once() -> None:
    with pytest.raises(metrana.MetranaValidationError, match="init_args"):
        MetranaOutputFormat(init_args={"modus": 1})
    with pytest.raises(metrana.MetranaValidationError, match="run: must be"):
        MetranaOutputFormat("run")  # type: ignore[arg-type]
