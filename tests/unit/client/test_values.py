"""Every kind of number that `log` takes, as it comes out of the spool."""

from __future__ import annotations

import array
import math
from collections import deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import metrana
from metrana.values import as_env_ids, as_values, as_whole_numbers
from tests.reading import read_one

DTYPES = [*"?bBhHiIqQefdg", ">f4", ">f8", ">i2", ">f2", "<i8"]


def _logged(data_dir: Path, *values: Any) -> list[float]:
    with metrana.init(mode="offline"):
        for value in values:
            metrana.log("x", value)
    return read_one(data_dir).values("x")


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_any_real_dtype(data_dir: Path, dtype: str) -> None:
    values = np.array([0, 1, 1], dtype=dtype)
    assert _logged(data_dir, values, values[1]) == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "view",
    [
        np.arange(12.0)[::3],
        np.arange(12.0)[::-3][::-1],
        np.arange(12.0, dtype=np.float32).reshape(3, 4)[:, 1],
        np.asfortranarray(np.arange(12.0).reshape(3, 4))[0],
        np.broadcast_to(np.float64(2.5), (3,)),
    ],
)
def test_arrays_of_any_layout(data_dir: Path, view: npt.NDArray[Any]) -> None:
    assert _logged(data_dir, view) == view.tolist()


def test_a_transposed_block_keeps_its_order(data_dir: Path) -> None:
    block = np.arange(6, dtype=np.float32).reshape(3, 2).T
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("r", block, 1, env_id=["a", "b"])
    points = read_one(data_dir).of("r")
    assert [p.value for p in points if p.env_id == "a"] == [0, 2, 4]
    assert [p.value for p in points if p.env_id == "b"] == [1, 3, 5]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1.0),
        (7, 7.0),
        (2**53 + 1, float(2**53)),
        (2**80, float(2**80)),
        (0.1, 0.1),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 4), 0.25),
        (np.float16(0.5), 0.5),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.longdouble("0.5"), 0.5),
        (np.int8(-3), -3.0),
        (np.uint64(2**64 - 1), float(2**64 - 1)),
        (np.bool_(True), 1.0),
        (np.array(2.5), 2.5),
        (np.array(2, dtype=np.int32), 2.0),
    ],
    ids=repr,
)
def test_scalars_of_any_kind(data_dir: Path, value: Any, expected: float) -> None:
    assert _logged(data_dir, value) == [expected]


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.5, True],
        (1, 2.5, 1),
        deque([1, 2.5, 1]),
        array.array("d", [1, 2.5, 1]),
        memoryview(array.array("f", [1, 2.5, 1])),
        [np.float32(1), 2.5, np.int64(1)],
        [np.array(1.0), np.array(2.5), np.array(1)],
        np.array([1, 2.5, True], dtype=object),
    ],
    ids=lambda values: type(values).__name__,
)
def test_sequences_of_any_kind(data_dir: Path, values: Any) -> None:
    assert _logged(data_dir, values) == [1.0, 2.5, 1.0]


@pytest.mark.parametrize(
    "masked",
    [
        np.ma.array([1.0, 2.0], mask=[False, True]),
        np.ma.array([1, 2], mask=[False, True]),
        np.ma.array([1, 2], mask=[False, True], dtype=object),
        [1.0, np.ma.masked],
        [np.float32(1), np.ma.array(5.0, mask=True)],
    ],
    ids=repr,
)
def test_masked_values_become_nan(data_dir: Path, masked: Any) -> None:
    first, second = _logged(data_dir, masked)
    assert first == 1.0
    assert math.isnan(second)


def test_a_list_of_masked_rows_keeps_their_masks(data_dir: Path) -> None:
    rows = [np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.array([3.0, 4.0])]
    with metrana.init(mode="offline"):
        metrana.log_rl_environment_step("r", rows, 1, env_id=["a", "b"])
    first, second, *others = sorted(read_one(data_dir).of("r"), key=lambda p: (p.env_id, p.step))
    assert first.value == 1.0
    assert math.isnan(second.value)
    assert [point.value for point in others] == [3.0, 4.0]


@pytest.mark.parametrize(
    "masked",
    [
        np.ma.masked,
        np.ma.array(5.0, mask=True),
        np.ma.array(5, mask=True),
        np.ma.array([1.0, 2.0], mask=True).mean(),
    ],
    ids=repr,
)
def test_a_masked_scalar_becomes_nan(data_dir: Path, masked: Any) -> None:
    plain, hidden = _logged(data_dir, np.ma.array(5.0), masked)
    assert plain == 5.0
    assert math.isnan(hidden)


@pytest.mark.parametrize("mode", ["offline", "disabled"])
@pytest.mark.parametrize(
    "value",
    [
        np.datetime64(5, "ns"),
        np.timedelta64(5, "ns"),
        np.timedelta64(5, "s"),
        np.array(5, dtype="m8[ns]"),
        np.array([5], dtype="M8[ns]"),
        [np.timedelta64(5, "ns")],
        np.ma.array([1 + 2j]),
        np.ma.array(1 + 2j),
        np.ma.array([5], dtype="m8[ns]"),
    ],
    ids=repr,
)
def test_what_is_no_real_number_is_refused(value: Any, mode: str) -> None:
    with (
        metrana.init(mode=mode) as run,
        pytest.raises(metrana.MetranaValidationError, match="value: must be a number"),
    ):
        run.log("x", value)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", ">f8"])
def test_arrays_at_any_address(data_dir: Path, dtype: str) -> None:
    unaligned = np.frombuffer(b"x" + np.arange(4, dtype=dtype).tobytes(), dtype, offset=1)
    assert not unaligned.flags.aligned
    with metrana.init(mode="offline"):
        metrana.log("x", unaligned)
        metrana.log_rl_environment_step("r", unaligned.reshape(2, 2), 1, ["a", "b"])
    logged = read_one(data_dir)
    assert logged.values("x") == [0, 1, 2, 3]
    assert sorted(logged.values("r")) == [0, 1, 2, 3]


def test_positions_at_any_address(data_dir: Path) -> None:
    unaligned = np.frombuffer(b"x" + np.array([5, 7]).tobytes(), "i8", offset=1)
    with metrana.init(mode="offline"):
        metrana.log("x", [0.5, 1.5], step=unaligned, timestamp=unaligned)
        metrana.log_rl_episode("r", [0.5, 1.5], 1, unaligned, ["a", "b"])
    logged = read_one(data_dir)
    assert [(point.step, point.timestamp_ms) for point in logged.of("x")] == [(5, 5), (7, 7)]
    assert [(point.env_id, point.episode) for point in logged.of("r")] == [("a", 5), ("b", 7)]


def test_what_offers_only_float_is_a_number(data_dir: Path) -> None:
    class Quantity:
        def __float__(self) -> float:
            return 1.5

    assert _logged(data_dir, Quantity()) == [1.5]


def test_what_fails_to_convert_is_refused() -> None:
    class Traced:
        ndim = 0

        def item(self) -> float:
            raise RuntimeError("abstract value")

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("abstract value")

    with (
        metrana.init(mode="offline") as run,
        pytest.raises(metrana.MetranaValidationError, match=r"value: .*abstract value"),
    ):
        run.log("x", Traced())


def test_float32_stays_as_wide_and_float64_too() -> None:
    assert as_values(np.arange(3, dtype=np.float16), "value").dtype == np.float32  # type: ignore[union-attr]
    assert as_values(np.arange(3, dtype=np.int32), "value").dtype == np.float64  # type: ignore[union-attr]


def test_whole_numbers_keep_all_digits() -> None:
    assert as_whole_numbers(np.uint64(2**62 + 1), "step") == 2**62 + 1
    assert as_whole_numbers([2**62 + 1, np.int64(3)], "step").tolist() == [2**62 + 1, 3]  # type: ignore[union-attr]
    assert as_whole_numbers(np.array([1.0, 2.0], dtype=np.float16), "step").tolist() == [1, 2]  # type: ignore[union-attr]
    with pytest.raises(metrana.MetranaValidationError, match="step"):
        as_whole_numbers(np.array([2**63], dtype=np.uint64), "step")


def test_environment_ids_of_an_array() -> None:
    assert as_env_ids(np.array([1, 2])) == ["1", "2"]
    assert as_env_ids(np.array(3)) == "3"
    assert as_env_ids(np.array(["a", 2], dtype=object)) == ["a", "2"]
    assert as_env_ids(np.array("a", dtype=object)) == "a"
    holder = np.empty((), dtype=object)
    holder[()] = ["a", "b"]
    hidden = {"mask": [False, True]}
    refused = [
        np.array([1.0]),
        holder,
        np.ma.array(["a", "b"], dtype=object, **hidden),
        np.ma.array(["a", "b"], **hidden),
        np.ma.array([1, 2], **hidden),
        _Unreadable(),
    ]
    for ids in refused:
        with pytest.raises(metrana.MetranaValidationError, match="env_id"):
            as_env_ids(ids)


class _Unreadable:
    """An array of objects whose library has lost it."""

    dtype = np.dtype(object)
    shape = (2,)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("gone")


def test_torch_tensors(data_dir: Path) -> None:
    import torch

    with_grad = torch.tensor([0.5, 1.5], requires_grad=True)
    values = [
        torch.tensor(0.25, requires_grad=True),
        with_grad,
        with_grad * 2,
        torch.tensor([1, 2], dtype=torch.int16),
        torch.tensor([1.5, -2], dtype=torch.bfloat16),
        torch.tensor([True, False]),
        [torch.tensor(1.0, requires_grad=True), torch.tensor(2.0)],
        torch.arange(6.0).reshape(2, 3).T[1],
        torch._neg_view(torch.tensor([5.0])),
        torch.tensor([1 + 5j]).conj().imag,
    ]
    assert _logged(data_dir, *values) == [
        *(0.25, 0.5, 1.5, 1.0, 3.0, 1.0, 2.0, 1.5, -2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 4.0, -5.0, -5.0)
    ]


def test_torch_positions(data_dir: Path) -> None:
    import torch

    with metrana.init(mode="offline"):
        metrana.log("x", torch.ones(2), step=torch.tensor([4, 9], dtype=torch.int32))
        metrana.log_rl_environment_step(
            "r", torch.ones(2, 2), torch.tensor(3), torch.arange(2), torch.tensor([[0, 1], [1, 1]])
        )
    logged = read_one(data_dir)
    assert logged.steps("x") == [4, 9]
    assert sorted((p.env_id, p.episode, p.step) for p in logged.of("r")) == [
        ("0", 0, 0),
        ("0", 1, 0),
        ("1", 1, 0),
        ("1", 1, 1),
    ]
