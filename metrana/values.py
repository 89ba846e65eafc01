"""Values and positions that are not plain Python numbers or NumPy float arrays.

The native module converts the common cases itself and calls here for the rest: other dtypes and
layouts, nested lists, and arrays of frameworks, none of which is imported.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence, Set
from decimal import Decimal
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from metrana.checks import refusal, shown
from metrana.errors import MetranaValidationError

_NUMBERS = "a number, or an array or list of numbers"
_WHOLE_NUMBERS = "a whole number, or an array or list of whole numbers"
_ENV_IDS = "a string or int, or a list of them"
# Of NumPy's scalars, those that are environment ids and never change.
NUMPY_ID_KINDS = (np.str_, *(np.dtype(code).type for code in np.typecodes["AllInteger"]))
# bool, signed, unsigned, float.
_REAL_KINDS = "biuf"
# What the native module reads: C-contiguous, aligned, no subclass.
_LAYOUT: Final[tuple[Literal["C"], Literal["A"], Literal["E"]]] = ("C", "A", "E")


def as_values(value: Any, name: str) -> float | npt.NDArray[np.float32] | npt.NDArray[np.float64]:
    """Convert anything that stands for numbers.

    Args:
        value: A number, a sequence of them (nested too), or an array of any library.
        name: The argument's name, for errors.

    Returns:
        A float, or a C-contiguous, aligned array in the machine's byte order.

    Raises:
        MetranaValidationError: For what holds no real numbers.
    """
    array = _as_array(value, name, _NUMBERS)
    if array.dtype.kind not in _REAL_KINDS:
        raise _refused_array(value, array, name, _NUMBERS)
    if array.ndim == 0:
        return float(array)
    # What float32 holds exactly stays half as wide; everything else becomes float64, in which
    # integers above 2**53 lose precision.
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
        return np.require(array, np.float32, _LAYOUT)
    with np.errstate(over="ignore"):  # a long double too large becomes an infinity
        return np.require(array, np.float64, _LAYOUT)


def as_whole_numbers(value: Any, name: str) -> int | npt.NDArray[np.int64]:
    """Convert anything that stands for whole numbers: steps, episodes, timestamps.

    Args:
        value: A whole number, a sequence of them, or an array of any library. A float counts if it
            is whole; a bool never does.
        name: The argument's name, for errors.

    Returns:
        An int, or a C-contiguous, aligned int64 array.

    Raises:
        MetranaValidationError: For what holds anything else.
    """
    array = _as_array(value, name, _WHOLE_NUMBERS)
    if array.dtype.kind == "f":
        flat = array.astype(np.float64).ravel()
        # 2**63 is the first float64 that int64 does not hold.
        bad = ~(np.isfinite(flat) & (flat == np.floor(flat)) & (np.abs(flat) < 2.0**63))
        if bad.any():
            raise _not_whole(float(flat[int(bad.argmax())]), array.ndim, name)
    elif array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:
        raise refusal(name, int(array.max()), "below 2**63")
    elif array.dtype.kind not in "iu" and array.size:
        raise _refused_array(value, array, name, _WHOLE_NUMBERS)
    if array.ndim == 0:
        return int(array)
    return np.require(array, np.int64, _LAYOUT)


def as_env_ids(value: Any) -> str | list[str]:
    """Convert environment ids given as anything but a list of strings: ints become decimal strings.

    Returns:
        One id, or a list of them.

    Raises:
        MetranaValidationError: For what is neither.
    """
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if np.ma.is_masked(value):
            raise MetranaValidationError(f"env_id: must be {_ENV_IDS}, none of them masked")
        # What pandas has of strings are objects, which are no numbers but may well be ids.
        are_objects = getattr(value.dtype, "kind", None) == "O"
        array = _objects(value, "env_id") if are_objects else _as_array(value, "env_id", _ENV_IDS)
        if array.ndim > 1 or array.dtype.kind not in "iuUO":
            raise _refused_array(value, array, "env_id", _ENV_IDS)
        value = array.tolist()
        if array.ndim == 0:
            return _env_id(value, "env_id")
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_env_id(item, f"env_id[{i}]") for i, item in enumerate(value)]
    return _env_id(value, "env_id")


def _env_id(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        try:
            return str(int(value))
        except ValueError:  # Python refuses to write out thousands of digits
            raise refusal(name, value, "an int of at most 128 digits") from None
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return _env_id(value.item(), name)
    raise refusal(name, value, _ENV_IDS if name == "env_id" else "a string or int")


def _objects(value: Any, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # whatever its library raises
        raise MetranaValidationError(f"{name}: cannot read {shown(value)}: {error}") from error


def _as_array(value: Any, name: str, allowed: str) -> npt.NDArray[Any]:
    if isinstance(value, (np.ndarray, np.generic)):
        array = _masked_as_nan(np.asanyarray(value))
        # Python numbers in an array of objects, as pandas makes them of mixed columns.
        return _as_array(array.tolist(), name, allowed) if array.dtype.kind == "O" else array
    if value is None or isinstance(value, (str, bytes, bytearray, complex, Mapping, Set)):
        raise refusal(name, value, allowed)
    if isinstance(value, (int, float, numbers.Real, Decimal)):
        return np.asarray(_scalar(value, name))
    try:
        found = _framework_array(value)
    except MetranaValidationError:
        raise
    except Exception as error:  # whatever a framework raises: a traced array, a lost device
        raise MetranaValidationError(f"{name}: cannot read {shown(value)}: {error}") from error
    if found is not None:
        return found
    if isinstance(value, Sequence):
        return _sequence_array(value, name, allowed)
    if isinstance(value, Iterable):
        # A generator could not be checked before its first points are logged.
        raise refusal(name, value, f"{allowed} of a known length")
    if hasattr(value, "__float__") or hasattr(value, "__index__"):
        return np.asarray(_scalar(value, name))
    raise refusal(name, value, allowed)


def _scalar(value: Any, name: str) -> int | float:
    # Integers stay integers: positions need all of their digits. Bools stay what no position is.
    if isinstance(value, bool):
        return value
    try:
        if hasattr(value, "__index__"):
            whole = int(value.__index__())
            return whole if -(2**63) <= whole < 2**63 else float(whole)
        return float(value)
    except OverflowError:
        raise refusal(name, value, "within the range of a float64") from None
    except (TypeError, ValueError) as error:
        raise MetranaValidationError(f"{name}: cannot read {shown(value)}: {error}") from error


def _framework_array(value: Any) -> npt.NDArray[Any] | None:
    """The array behind a tensor or the like, on the host and detached; None: it is none."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype) or "float8" in str(value.dtype):
            value = value.float()  # NumPy has no such dtype; float32 holds each of its values
        if getattr(value, "is_sparse", False):
            value = value.to_dense()
        # Views that stand for the conjugate or the negative of what lies in memory.
        for resolve in ("resolve_conj", "resolve_neg"):
            value = getattr(value, resolve)() if hasattr(value, resolve) else value
        return np.asarray(value)
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        # ml_dtypes (JAX, TensorFlow) registers its narrow floats as dtypes of kind V.
        return array.astype(np.float32) if "float" in array.dtype.name else array
    if hasattr(value, "__dlpack__"):
        return np.asarray(np.from_dlpack(value))
    if isinstance(value, memoryview) or type(value).__module__ == "array":
        return np.asarray(value)
    return None


def _sequence_array(value: Sequence[Any], name: str, allowed: str) -> npt.NDArray[Any]:
    if allowed is _NUMBERS and not _holds_masked(value):
        try:
            array = np.asarray(value)
        except Exception:  # noqa: BLE001 - ragged, or a tensor in it: the careful way says what
            array = None
        if array is not None and array.dtype.kind in _REAL_KINDS:
            return array
    parts = [_as_array(item, f"{name}[{i}]", allowed) for i, item in enumerate(value)]
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        raise MetranaValidationError(
            f"{name}: its parts must have one shape, not {' and '.join(map(str, sorted(shapes)))}"
        )
    if any(part.dtype.kind not in _REAL_KINDS for part in parts):
        bad = next(part for part in parts if part.dtype.kind not in _REAL_KINDS)
        raise refusal(name, bad.dtype, allowed)
    if len({part.dtype.kind == "b" for part in parts}) > 1 and allowed is _WHOLE_NUMBERS:
        # Stacking would turn the bools into integers, which no position is made of.
        raise refusal(name, value, allowed)
    return np.stack(parts) if parts else np.empty(0)


def _masked_as_nan(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if array.dtype.kind in _REAL_KINDS:
        array = array.astype(np.float64)
    elif array.dtype.kind != "O":
        return np.asarray(array)  # no number, or only in part: its dtype is what is refused
    return np.asarray(np.ma.filled(array, math.nan))


def _holds_masked(value: Sequence[Any]) -> bool:
    """Whether a part is masked: one array of all parts would have the numbers under its mask."""
    return any(issubclass(kind, np.ma.MaskedArray) for kind in set(map(type, value)))


def _refused_array(
    value: Any, array: npt.NDArray[Any], name: str, allowed: str
) -> MetranaValidationError:
    if array.ndim == 0 and not hasattr(value, "dtype"):
        return refusal(name, value, allowed)
    return MetranaValidationError(
        f"{name}: must be {allowed}, not an array of {array.dtype} of shape {array.shape}"
    )


def _not_whole(number: float, ndim: int, name: str) -> MetranaValidationError:
    where = name if ndim == 0 else f"an element of {name}"
    return refusal(where, number, "a whole number")
