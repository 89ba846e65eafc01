"""What environments say in their infos: numbers of M environments at one step, by key."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from metrana import checks
from metrana.errors import MetranaValidationError
from metrana.integrations._common import Faults, number
from metrana.values import as_values

_SUCCESS: Final = ("is_success", "success")

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


class Column(NamedTuple):
    """An info metric at one step of M environments."""

    values: npt.NDArray[np.floating[Any]]
    """NaN where there is none; maybe the environment's own array. Shape: `(num_envs,)`."""
    present: Bools | None
    """Where there is one. Shape: `(num_envs,)`; None: everywhere."""

    @property
    def mask(self) -> Bools:
        """`present` as an array."""
        return np.ones(len(self.values), bool) if self.present is None else self.present

    def at(self, index: int) -> float | None:
        """The one of an environment; None: it has none."""
        is_there = self.present is None or self.present[index]
        return float(self.values[index]) if is_there else None

    def is_at(self, indices: Integers) -> Bools:
        """Whether there is one at some indices. Shape: theirs."""
        return np.ones(len(indices), bool) if self.present is None else self.present[indices]

    def with_others(self, others: Column, indices: Integers) -> Column:
        """A copy that has the values of others at some indices."""
        values, present = self.values.copy(), self.mask.copy()
        values[indices] = others.values[indices]
        present[indices] = others.is_at(indices)
        return Column(values, present)


def success_of(info: Mapping[str, Any]) -> float | None:
    """Whether an episode had success, by `is_success` or `success` in the info of its last step.

    Returns:
        0 or 1 as a rule; None if it does not say.
    """
    for key in _SUCCESS:
        value = number(info.get(key))
        if value is not None:
            return value
    return None


def columns_of_dicts(
    keys: Sequence[str], infos: Sequence[Mapping[str, Any]], faults: Faults
) -> list[Column]:
    """Info metrics of M environments that give an info each, as those of SB3 do.

    Args:
        keys: Of the metrics.
        infos: One each.
        faults: Says what is left out because it is no number.
    """
    return [_column((info.get(key) for info in infos), len(infos), key, faults) for key in keys]


def successes_of_dicts(infos: Sequence[Mapping[str, Any]], ended: Integers) -> Column | None:
    """Whether the episodes that ended had success; None if no info says so."""
    values, present = np.full(len(infos), math.nan), np.zeros(len(infos), bool)
    for index in ended.tolist():
        value = success_of(infos[index])
        if value is not None:
            values[index], present[index] = value, True
    return Column(values, present) if present.any() else None


def columns_of_arrays(
    keys: Sequence[str], infos: Mapping[str, Any], num_envs: int, faults: Faults
) -> list[Column]:
    """Info metrics of M environments that give one info, as those of Gymnasium do.

    Args:
        keys: Of the metrics.
        infos: Under each key the values of all; under `_key`, where it has any.
        num_envs: How many environments there are.
        faults: Says what is left out because it is no number.
    """
    return [_column_of_array(key, infos, num_envs, faults) for key in keys]


def successes_of_arrays(infos: Mapping[str, Any], num_envs: int, faults: Faults) -> Column | None:
    """Whether episodes had success, of all environments; None if the info does not say so."""
    for key in _SUCCESS:
        if key in infos:
            return _column_of_array(key, infos, num_envs, faults)
    return None


def empty_column(num_envs: int) -> Column:
    """A column of nothing."""
    return Column(np.full(num_envs, math.nan), np.zeros(num_envs, bool))


def _column_of_array(key: str, infos: Mapping[str, Any], num_envs: int, faults: Faults) -> Column:
    given = infos.get(key)
    if given is None:
        return empty_column(num_envs)
    array = given if type(given) is np.ndarray else _host_array(key, given)
    if array.shape != (num_envs,):
        warn_of(faults, key, given)
        return empty_column(num_envs)
    mask = infos.get("_" + key)
    present = None if mask is None else flags_of(f"_{key}", mask, num_envs)
    # Asking its bytes takes a tenth of the time that `all` takes.
    if present is not None and 0 not in present.tobytes():
        present = None
    if array.dtype.kind not in "biuf":
        there = itertools.repeat(True) if present is None else present
        items = (item if is_there else None for item, is_there in zip(array, there, strict=False))
        return _column(items, num_envs, key, faults)
    if present is not None:
        return Column(np.where(present, array, math.nan), present)
    return Column(array if array.dtype.kind == "f" else array.astype(np.float64), None)


def _host_array(key: str, given: Any) -> npt.NDArray[Any]:
    """An array of whatever library, on whatever device; of objects for what holds no numbers."""
    try:
        return np.asarray(as_values(given, key))
    except MetranaValidationError:
        return np.asarray(given)


def _column(items: Iterable[Any], num_envs: int, key: str, faults: Faults) -> Column:
    values, present = np.full(num_envs, math.nan), np.zeros(num_envs, bool)
    for index, item in enumerate(items):
        value = None if item is None else number(item)
        if value is not None:
            values[index], present[index] = value, True
        elif item is not None:
            warn_of(faults, key, item)
    return Column(values, present)


def warn_of(faults: Faults, key: str, value: object) -> None:
    """Say once that an info metric is left out, being no number."""
    faults.warn_once(
        f"left out {key}",
        f"{faults.adapter} leaves out info[{key!r}]: one number was expected for each environment, "
        f"not {checks.shown(value)}",
    )


def reward_of(given: Any, faults: Faults) -> float:
    """The reward of a step as a number; NaN, which is said once, for what is none."""
    value = number(given)
    if value is None:
        faults.warn_once(
            "reward",
            f"{faults.adapter} leaves out the reward {checks.shown(given)}, which is no number",
        )
        return math.nan
    return value


def is_plain(array: npt.NDArray[Any], num_envs: int) -> bool:
    """Whether an array is what environments usually give: a real number each."""
    return array.dtype.kind in "biuf" and array.shape == (num_envs,)


def rewards_of(given: Any, num_envs: int, faults: Faults) -> Floats:
    """The rewards of a step of M environments as numbers.

    Args:
        given: An array of any library or a list, of any shape that has M elements.
        num_envs: How many environments there are.
        faults: Says once what is left out because it is no number.

    Returns:
        NaN for what is no number. Shape: `(num_envs,)`.
    """
    try:
        found = np.asarray(as_values(given, "rewards"), np.float64).ravel()
    except MetranaValidationError:  # of some at least
        items = given.ravel().tolist() if isinstance(given, np.ndarray) else given
        items = items if isinstance(items, (list, tuple)) else []
        found = np.array([reward_of(item, faults) for item in items])
    if found.size == num_envs:
        return found
    faults.warn_once(
        "rewards",
        f"{faults.adapter} leaves out rewards: one number was expected for each environment, not "
        f"{checks.shown(given)}",
    )
    return np.full(num_envs, math.nan)


def flags_of(name: str, given: Any, num_envs: int) -> Bools:
    """What environments say of each of them, as bools, of whatever library the array is.

    Args:
        name: What it is, for the error.
        given: An array or list of any shape that has `num_envs` elements.
        num_envs: How many environments there are.

    Raises:
        MetranaValidationError: For any other size, and for what holds no numbers.
    """
    if type(given) is np.ndarray and given.dtype.kind == "b" and given.shape == (num_envs,):
        return given
    if isinstance(given, np.ndarray) and given.dtype.kind == "O":
        given = given.tolist()
    found = np.asarray(as_values(given, name)).ravel()
    if found.size != num_envs:
        raise MetranaValidationError(f"{name}: must be {num_envs} bools, not {found.size}")
    return found.astype(bool)
