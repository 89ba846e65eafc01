"""A model of two parameters, Trainers for it, and what a run has of what they logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

import metrana
from metrana.integrations.transformers import MetranaCallback
from metrana.query import Client


class LineConfig(PreTrainedConfig):
    """Of `Line`."""

    model_type = "line"

    def __init__(self, slope: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slope = slope


class Line(PreTrainedModel):
    """`slope * x + offset`, compared to the labels."""

    config_class = LineConfig
    main_input_name = "x"

    def __init__(self, config: LineConfig) -> None:
        super().__init__(config)
        self.slope = torch.nn.Parameter(torch.tensor(float(config.slope)))
        self.offset = torch.nn.Parameter(torch.tensor(0.0))
        self.post_init()

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        y = self.slope * x + self.offset
        if labels is None:
            return (y,)
        return torch.nn.functional.mse_loss(y, labels), y


DATA = [{"x": torch.tensor(k / 16), "labels": torch.tensor(1 - k / 16)} for k in range(16)]


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    """Of four steps on the CPU, each of which is logged."""
    usual: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
    }
    return TrainingArguments(str(folder / "checkpoints"), **{**usual, **options})


def trainer(
    folder: Path,
    callback: Any = None,
    *others: Any,
    kind: type[Trainer] = Trainer,
    model: Any = None,
    eval_dataset: Any = DATA,
    **options: Any,
) -> Trainer:
    """A Trainer of `Line` with this callback, by default a new one; `options` are arguments."""
    model_init = options.pop("model_init", None)
    compute_metrics = options.pop("compute_metrics", None)
    return kind(
        (model or Line(LineConfig())) if model_init is None else None,
        options.pop("args", None) or arguments(folder, **options),
        train_dataset=DATA,
        eval_dataset=eval_dataset,
        model_init=model_init,
        compute_metrics=compute_metrics,
        callbacks=[callback or MetranaCallback(), *others],
    )


class Doing(TrainerCallback):
    """Calls something at the end of a step."""

    def __init__(self, step: int, what: Any) -> None:
        self.step = step
        self.what = what

    def on_step_end(self, _args: Any, state: TrainerState, _control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.what()


Points = list[tuple[int, float]]
Series = dict[tuple[str, ...], Points]


def series(data_dir: Path, run_name: str | None = None, project_name: str = "default") -> Series:
    """Closes what is open and reads each point that was logged, repeats included.

    Args:
        data_dir: Where the run is.
        run_name: The run. Default: the only one.
        project_name: Its project.

    Returns:
        Steps and values, by the name of the metric and `key=value` of its labels.
    """
    while metrana.is_initialized():
        metrana.close()
    found: Series = {}
    with Client(data_dir=data_dir) as client:
        if run_name is None:
            ((run_name, project_name),) = client.runs()[["run_name", "project_name"]].values
        table = client.points(run_name, project_name=project_name, duplicates="all", as_="arrow")
    for row in table.to_pylist():
        assert row["scale"] == "ML_STEP"
        labels = sorted(f"{key}={value}" for key, value in dict(row["labels"]).items())
        found.setdefault((row["metric_name"], *labels), []).append((row["step"], row["value"]))
    return found


def steps(points: Points) -> list[int]:
    """The steps of a series."""
    return [step for step, _ in points]


def run_names(data_dir: Path) -> list[str]:
    """Of all runs, by name."""
    while metrana.is_initialized():
        metrana.close()
    with Client(data_dir=data_dir) as client:
        return sorted(client.runs()["run_name"])
