"""Checks of arguments, and the one wording of refusals: the name, what it was, what is allowed."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from metrana.errors import MetranaValidationError

_Choice = TypeVar("_Choice", bound=Enum)

_MAX_NAME_BYTES = 256
_SHOWN_CHARACTERS = 80


def refusal(name: str, value: object, allowed: str) -> MetranaValidationError:
    """The error for an argument that was `value` where only `allowed` is."""
    return MetranaValidationError(f"{name}: must be {allowed}, not {shown(value)}")


def shown(value: object) -> str:
    """A value as error messages show it: short, with its type where that is what is wrong."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a broken __repr__, an int too long to write out
        return f"a value of type {type(value).__name__}"
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 1] + "…"
    if value is None or isinstance(value, (str, bool, int, float)):
        return text
    return f"{text} ({type(value).__name__})"


def choice(name: str, value: object, kind: type[_Choice]) -> _Choice:
    """A member of an enumeration, given as itself or as its string in any case."""
    try:
        return kind(value)
    except ValueError:
        allowed = " or ".join(repr(member.value) for member in kind)
        raise refusal(name, value, allowed) from None


def word(name: str, value: object, words: Sequence[str]) -> str:
    """One of a few words, in any case."""
    if isinstance(value, str) and value.strip().lower() in words:
        return value.strip().lower()
    raise refusal(name, value, " or ".join(repr(word) for word in words))


def text(name: str, value: object) -> str:
    """A string that UTF-8 can hold."""
    if not isinstance(value, str):
        raise refusal(name, value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refusal(name, value, "text without lone surrogates") from None
    return str(value)


def entity_name(name: str, value: object) -> str:
    """The name of a workspace, project, run or the like: 1 to 256 bytes of printable Unicode."""
    allowed = f"a string of 1 to {_MAX_NAME_BYTES} bytes without control characters"
    if not isinstance(value, str):
        raise refusal(name, value, allowed)
    size = len(text(name, value).encode())
    if not 1 <= size <= _MAX_NAME_BYTES or not _printable(value) or not value.strip():
        raise refusal(name, value, allowed)
    return str(value)


def tags(name: str, value: object) -> tuple[str, ...]:
    """A collection of tags; a lone string is refused, being a collection of letters."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise refusal(name, value, "a list of strings")
    return tuple(entity_name(f"{name}[{i}]", tag) for i, tag in enumerate(value))


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """A mapping; what it holds is checked when it is flattened."""
    if isinstance(value, Mapping):
        return value
    raise refusal(name, value, "a mapping")


def path(name: str, value: object) -> str:
    """A path of a file or folder."""
    if isinstance(value, (str, os.PathLike)):
        fspath = os.fspath(value)
        if isinstance(fspath, str) and fspath and "\0" not in fspath:
            return fspath
    raise refusal(name, value, "a path")


def flag(name: str, value: object) -> bool:
    """True or False; NumPy's too."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise refusal(name, value, "True or False")


def number(name: str, value: object, *, minimum: float) -> float:
    """A finite number of at least `minimum`."""
    allowed = f"a number of at least {minimum:g}"
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise refusal(name, value, allowed)
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise refusal(name, value, allowed) from None
    if not math.isfinite(result) or result < minimum:
        raise refusal(name, value, allowed)
    return result


def whole_number(name: str, value: object, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
    """A whole number within bounds; a float counts if it is one (`100.0`), a bool does not."""
    upper = "" if maximum == 2**63 - 1 else f" and at most {maximum}"
    allowed = f"a whole number of at least {minimum}{upper}"
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        raise refusal(name, value, allowed)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        result = operator.index(value)  # type: ignore[arg-type]  # its TypeError is the check
    except TypeError:
        raise refusal(name, value, allowed) from None
    if not minimum <= result <= maximum:
        raise refusal(name, value, allowed)
    return result


def _printable(value: str) -> bool:
    return not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in value)
