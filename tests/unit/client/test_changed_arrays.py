"""Arrays that are changed while a call reads its other arguments."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrana
from tests.reading import read_one


class Labels(collections.UserDict[str, str]):
    """Labels that run something when they are read, which is after all arrays were taken."""

    def __init__(self, meddle: Callable[[], Any]) -> None:
        super().__init__(split="train")
        self.meddle = meddle

    def __iter__(self) -> Any:
        self.meddle()
        return super().__iter__()


class EnvId:
    """An environment's id that runs something when it is read."""

    ndim = 0

    def __init__(self, meddle: Callable[[], Any]) -> None:
        self.meddle = meddle

    def item(self) -> str:
        self.meddle()
        return "env"


def _resizing(array: Any, *shape: int) -> Callable[[], None]:
    return lambda: array.resize(shape, refcheck=False)


@pytest.mark.parametrize("shape", [(1,), (4, 1), (1_000_000,)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_of_another_shape_are_refused(
    data_dir: Path, shape: tuple[int, ...], dtype: Any
) -> None:
    calls: list[Callable[[metrana.Run, Any, Any], None]] = [
        lambda run, array, meddle: run.log("x", array, labels=Labels(meddle)),
        lambda run, array, meddle: run.log_rl_episode("x", array, 1, labels=Labels(meddle)),
        lambda run, array, meddle: run.log_rl_episode("x", array, 1, env_id=EnvId(meddle)),
    ]
    with metrana.init(mode="offline") as run:
        for call in calls:
            array = np.arange(4, dtype=dtype)
            with pytest.raises(metrana.MetranaValidationError, match="value: its shape or dtype"):
                call(run, array, _resizing(array, *shape))
    assert read_one(data_dir).values("x") == []


def test_steps_of_another_shape_are_refused(data_dir: Path) -> None:
    steps = np.arange(4)
    with (
        metrana.init(mode="offline") as run,
        pytest.raises(metrana.MetranaValidationError, match="step: its shape or dtype"),
    ):
        run.log("x", [1, 2, 3, 4], step=steps, labels=Labels(_resizing(steps, 1)))
    assert read_one(data_dir).values("x") == []


def test_timestamps_are_those_that_were_checked(data_dir: Path) -> None:
    times = np.array([5, 6])

    def meddle() -> None:
        times[:] = -1

    with metrana.init(mode="offline") as run:
        run.log("x", [1.0, 2.0], timestamp=times, labels=Labels(meddle))
        times[:] = [5, 6]
        run.log_rl_episode("r", [1.0, 2.0], 1, env_id=EnvId(meddle), timestamp=times)
    logged = read_one(data_dir)
    for metric in ("x", "r"):
        assert [point.timestamp_ms for point in logged.of(metric)] == [5, 6]
