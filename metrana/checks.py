"""Checks of arguments, and the one wording of refusals: the name, what it was, what is allowed."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from metrana.errors import MetranaValidationError

if TYPE_CHECKING:
    from pathlib import Path

_Choice = TypeVar("_Choice", bound=Enum)

_MAX_NAME_BYTES = 256
_MAX_FILE_NAME_BYTES = 255
# They travel as one attribute.
_MAX_TAG_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 80
# Of seconds it is 30 years; what is above is a mistake, and more than clocks can add up.
_MAX_NUMBER = 1e9


def refusal(name: str, value: object, allowed: str) -> MetranaValidationError:
    """The error for an argument that was `value` where only `allowed` is."""
    return MetranaValidationError(f"{name}: must be {allowed}, not {shown(value)}")


def path_refusal(name: str, value: object, allowed: str) -> MetranaValidationError:
    """The same for a path, which is shown whole: its end tells which one is meant."""
    return MetranaValidationError(f"{name}: must be {allowed}, not {shown(value, most=None)}")


def shown(value: object, most: int | None = _SHOWN_CHARACTERS) -> str:
    """A value as error messages show it, with its type where that is what is wrong.

    Args:
        value: Anything.
        most: Characters that are shown of it; None: all.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a broken __repr__, an int too long to write out
        return f"a value of type {type(value).__name__}"
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    if value is None or isinstance(value, (str, bool, int, float)):
        return text
    return f"{text} ({type(value).__name__})"


def choice(name: str, value: object, kind: type[_Choice]) -> _Choice:
    """A member of an enumeration, given as itself or as its string in any case."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return kind(value)
    raise refusal(name, value, " or ".join(repr(member.value) for member in kind))


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


def api_key(name: str, value: object) -> str:
    """A key: it travels in a header, which has printable ASCII only."""
    key = text(name, value)
    if key.isascii() and key.isprintable() and key and key == key.strip():
        return key
    # Not `refusal`: what was given may be the key with a line's end.
    raise MetranaValidationError(f"{name}: must be a key of printable ASCII characters")


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
    items = listed(name, value, "a list of strings")
    checked = tuple(entity_name(f"{name}[{i}]", tag) for i, tag in enumerate(items))
    size = sum(len(tag.encode()) for tag in checked)
    if size > _MAX_TAG_BYTES:
        raise MetranaValidationError(f"{name}: must be at most {_MAX_TAG_BYTES} bytes, not {size}")
    return checked


def listed(name: str, value: object, allowed: str) -> list[object]:
    """The items of a collection; a lone string is refused, being a collection of letters."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise refusal(name, value, allowed)
    try:
        return list(value)
    except Exception:  # noqa: BLE001 - their iterator may raise anything
        raise refusal(name, value, allowed) from None


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """A mapping; what it holds is checked when it is flattened."""
    if isinstance(value, Mapping):
        return value
    raise refusal(name, value, "a mapping")


def directory(name: str, value: object) -> Path:
    """A path of a folder, absolute, because a training script may change its directory later."""
    from pathlib import Path

    try:
        text = os.fspath(value)  # type: ignore[call-overload]  # its TypeError is the check
        if not text:
            raise ValueError("no path")
        path = Path(text).expanduser().absolute()
        if not all(_is_file_name(part) for part in path.parts):
            raise ValueError("a part that no file system takes")
    except Exception:  # noqa: BLE001 - no home of that name; and their __fspath__ may raise anything
        raise path_refusal(name, value, "a path") from None
    return path


def flag(name: str, value: object) -> bool:
    """True or False; NumPy's too."""
    if _is_bool(value):
        return bool(value)
    raise refusal(name, value, "True or False")


def number(name: str, value: object, *, minimum: float, maximum: float = _MAX_NUMBER) -> float:
    """A finite number within bounds; a bool or string is none."""
    allowed = f"a number of at least {minimum:g} and at most {maximum:g}"
    if _is_bool(value) or isinstance(value, str) or not hasattr(value, "__float__"):
        raise refusal(name, value, allowed)
    try:
        result = float(value)
    except Exception:  # noqa: BLE001 - their __float__ may raise anything
        raise refusal(name, value, allowed) from None
    if not minimum <= result <= maximum:  # NaN neither
        raise refusal(name, value, allowed)
    return result


def whole_number(name: str, value: object, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
    """A whole number within bounds; a float counts if it is one (`100.0`), a bool does not."""
    upper = "" if maximum == 2**63 - 1 else f" and at most {maximum}"
    allowed = f"a whole number of at least {minimum}{upper}"
    if _is_bool(value):
        raise refusal(name, value, allowed)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        result = operator.index(value)  # type: ignore[arg-type]  # its TypeError is the check
    except Exception:  # noqa: BLE001 - their __index__ may raise anything
        raise refusal(name, value, allowed) from None
    if not minimum <= result <= maximum:
        raise refusal(name, value, allowed)
    return result


def _is_file_name(part: str) -> bool:
    name = os.fsencode(part)
    return len(name) <= _MAX_FILE_NAME_BYTES and b"\0" not in name


def _is_bool(value: object) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def _printable(value: str) -> bool:
    return not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in value)
