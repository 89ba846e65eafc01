"""Lists of environment ids: what a list means in a call is what its elements are in that call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrana
from tests.reading import read_one


class Slot:
    """An id that can be changed, as every scalar of an array library looks."""

    ndim = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def item(self) -> int:
        return self.number


class Numbered(int):
    """An int whose decimal string is its state's."""

    number: int

    def __int__(self) -> int:
        return self.number


def _numbered(number: int) -> Numbered:
    made = Numbered(0)
    made.number = number
    return made


def _torch_scalar(number: int) -> Any:
    import torch

    return torch.tensor(number)


def _set_number(holder: Any, number: int) -> None:
    holder.number = number


def _fill(array: Any, number: int) -> None:
    array[...] = number


def _values(data_dir: Path) -> dict[str | None, list[float]]:
    by_env: dict[str | None, list[float]] = {}
    for point in read_one(data_dir).of("r"):
        by_env.setdefault(point.env_id, []).append(point.value)
    return by_env


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (np.array, _fill),
        (_torch_scalar, _fill),
        (Slot, _set_number),
        (_numbered, _set_number),
    ],
    ids=["array", "torch tensor", "object with item()", "int of a class"],
)
def test_ids_that_change_are_read_at_each_call(
    data_dir: Path, make: Callable[[int], Any], change: Callable[[Any, int], None]
) -> None:
    ids = [make(1), "fixed"]
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("r", [1, 10], 1, ids)
        change(ids[0], 2)
        metrana.log_rl_environment_step("r", [2, 20], 1, ids)
    assert _values(data_dir) == {"1": [1], "2": [2], "fixed": [10, 20]}


def test_an_array_of_ids_is_read_at_each_call(data_dir: Path) -> None:
    for ids, others in [(np.array([1, 2]), [3, 4]), (np.array(["a", "b"]), ["c", "d"])]:
        with metrana.init(mode="offline", data_dir=data_dir / str(ids.dtype.kind)):
            metrana.log_rl_environment_step("r", [1, 2], 1, ids)
            ids[:] = others
            metrana.log_rl_environment_step("r", [3, 4], 1, ids)
    assert _values(data_dir / "i") == {"1": [1], "2": [2], "3": [3], "4": [4]}
    assert _values(data_dir / "U") == {"a": [1], "b": [2], "c": [3], "d": [4]}


def test_a_list_that_its_own_conversion_changes(data_dir: Path) -> None:
    class Meddler(Slot):
        def item(self) -> int:
            ids[1] = "late"
            return super().item()

    ids: list[Any] = [Meddler(7), "first"]
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("r", [1, 10], 1, ids)
        metrana.log_rl_environment_step("r", [2, 20], 1, ids)
    assert _values(data_dir) == {"7": [1, 2], "first": [10], "late": [20]}


def test_a_list_that_its_conversion_leaves_with_constant_ids(data_dir: Path) -> None:
    """It is another list from then on, not the one that was converted."""

    class Meddler(Slot):
        def item(self) -> int:
            ids[:] = ["a", "b"]
            return super().item()

    ids: list[Any] = [Meddler(7), "first"]
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("r", [1, 10], 1, ids)
        metrana.log_rl_environment_step("r", [2, 20], 1, ids)
    assert _values(data_dir) == {"7": [1], "first": [10], "a": [2], "b": [20]}


def test_a_list_that_its_conversion_empties_is_whole(data_dir: Path) -> None:
    class Meddler(Slot):
        def item(self) -> int:
            ids.clear()
            return super().item()

    ids: list[Any] = [Meddler(7), "first"]
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("r", [1, 10], 1, ids)
    assert _values(data_dir) == {"7": [1], "first": [10]}


@pytest.mark.parametrize(
    "constant",
    [300, 2**70, np.int64(5), np.uint8(5), np.longlong(5), np.str_("n")],
    ids=lambda constant: type(constant).__name__,
)
def test_constant_ids_beside_strings(data_dir: Path, constant: Any) -> None:
    ids = ["a", constant]
    with metrana.init(mode="offline"):
        for value in (1, 2, 3):
            metrana.log_rl_environment_step("r", [value, value], 1, ids)
    assert _values(data_dir) == {"a": [1, 2, 3], str(constant): [1, 2, 3]}
