"""What a run keeps of a training's arguments and model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

import metrana
from metrana.integrations._transformers import parameter_counts
from metrana.integrations.transformers import MetranaCallback
from metrana.query import Client
from tests.conformance.transformers.training import Line, LineConfig, trainer


def config_of(training: Any, data_dir: Path) -> dict[str, Any]:
    """Trains; reads the config of the run that was made by it."""
    training.train()
    metrana.close()
    with Client(data_dir=data_dir) as client:
        (run_name,) = client.runs()["run_name"]
        found: dict[str, Any] = client.run(run_name).config
    return found


class LoraConfig:
    """As PEFT describes an adapter."""

    def to_dict(self) -> dict[str, Any]:
        return {"r": 8, "target_modules": {"q", "v"}, "rank_pattern": {}, "task_type": None}


def test_arguments_model_adapters_and_counts_are_kept(tmp_path: Path, data_dir: Path) -> None:
    model = Line(LineConfig(slope=0.5, id2label={0: "New York", 1: "b"}))
    model.config.label2id = {"New York": 0, "New/York": 1}
    model.config.anything = object()
    model.offset.requires_grad_(False)
    model.peft_config = {"default": LoraConfig()}
    callback = MetranaCallback()
    found = config_of(trainer(tmp_path, callback, model=model, learning_rate=0.5), data_dir)
    assert callback.faults.count == 0
    assert found["learning_rate"] == 0.5
    assert found["max_steps"] == 4
    assert found["lr_scheduler_type"] == "linear"
    assert found["accelerator_config"]["split_batches"] is False
    assert found["model"]["slope"] == 0.5
    assert found["model"]["model_type"] == "line"
    assert found["model"]["label2id"] == {"New_York": 0, "New_York_2": 1}
    assert found["model"]["id2label"] in (["New York", "b"], {"0": "New York", "1": "b"})
    assert "object" in found["model"]["anything"]
    assert found["peft"]["default"]["r"] == 8
    assert sorted(found["peft"]["default"]["target_modules"]) == ["q", "v"]
    assert (found["num_parameters"], found["num_trainable_parameters"]) == (2, 1)
    assert model.config.label2id == {"New York": 0, "New/York": 1}


def test_no_token_is_kept(tmp_path: Path, data_dir: Path) -> None:
    model = Line(LineConfig(image_token="<image>", eos_token_id=3))
    training = trainer(tmp_path, model=model, hub_token="hf_secret_1")
    training.args.accelerator_config.nested = None
    training.args.lr_scheduler_kwargs = {"token": "hf_secret_2", "deep": [{"api_key": "secret_3"}]}
    model.config.auth_token = "secret_4"
    found = config_of_untrained(training, data_dir)
    assert "secret" not in json.dumps(found)
    assert "hub_token" not in found
    assert found["model"]["image_token"] == "<image>"
    assert found["model"]["eos_token_id"] == 3
    assert found["lr_scheduler_kwargs"] == {"deep": [{}]}


@dataclasses.dataclass
class Tracker:
    """An argument of an argument."""

    api_key: str = "undisclosed_1"
    workers: int = 2


@dataclasses.dataclass
class OwnArguments(TrainingArguments):
    """Arguments of somebody's own trainer."""

    tracker: Any = None
    storage_secret_access_key: str = "undisclosed_2"


def test_no_key_of_arguments_of_ones_own_is_kept(tmp_path: Path, data_dir: Path) -> None:
    args = OwnArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, tracker=Tracker())
    found = config_of_untrained(trainer(tmp_path, args=args), data_dir)
    assert "undisclosed" not in json.dumps(found)
    assert found["tracker"] == {"workers": 2}


def config_of_untrained(training: Any, data_dir: Path) -> dict[str, Any]:
    """The same by an evaluation, which needs none of the arguments of a training."""
    training.evaluate()
    metrana.close()
    with Client(data_dir=data_dir) as client:
        (run_name,) = client.runs()["run_name"]
        found: dict[str, Any] = client.run(run_name).config
    return found


def test_a_model_without_a_configuration_is_none_the_worse(tmp_path: Path, data_dir: Path) -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = Line(LineConfig())

        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            return self.line(x, labels)

    callback = MetranaCallback()
    found = config_of(trainer(tmp_path, callback, model=Plain()), data_dir)
    assert callback.faults.count == 0
    assert found["num_parameters"] == 2
    assert "model" not in found


def test_a_large_configuration_is_kept_whole(tmp_path: Path, data_dir: Path) -> None:
    labels = {number: f"label {number}" for number in range(2000)}
    callback = MetranaCallback()
    model = Line(LineConfig(id2label=labels, label2id={v: k for k, v in labels.items()}))
    found = config_of(trainer(tmp_path, callback, model=model), data_dir)
    assert callback.faults.count == 0
    assert len(found["model"]["id2label"]) == len(found["model"]["label2id"]) == 2000


class Broken(LineConfig):
    """Cannot be written down."""

    def to_dict(self) -> dict[str, Any]:
        raise RuntimeError("no dict of it")


def test_what_cannot_be_read_is_left_out_alone(tmp_path: Path, data_dir: Path) -> None:
    callback = MetranaCallback()
    training = trainer(tmp_path, callback)
    training.model.config = Broken()
    with pytest.warns(metrana.MetranaWarning, match="no dict of it"):
        found = config_of(training, data_dir)
    assert callback.faults.count == 1
    assert found["num_parameters"] == 2
    assert found["max_steps"] == 4


def test_parameters_that_are_elsewhere_are_counted() -> None:
    model = Line(LineConfig())
    for parameter in model.parameters():
        parameter.ds_numel = 100
    model.offset.requires_grad_(False)
    expected = {"num_parameters": 200, "num_trainable_parameters": 100}
    assert parameter_counts(model) == expected
    assert parameter_counts(None) == {}
