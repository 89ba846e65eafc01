"""Typed values of attributes as table columns.

`text` is the exact value, `number` what comparisons use:

| type | number | text |
|---|---|---|
| null, empty_mapping, empty_list | null | null |
| bool | 0 or 1 | `true`, `false` |
| int | nearest float64, ±inf beyond | decimal digits |
| float | the float; null for NaN | its shortest exact form, `nan`, `inf`, `-inf` |
| string | null | the string |
| datetime | Unix milliseconds; null if unreadable | ISO 8601 with its offset |
| string_list | null | JSON array |

Floats are read back from `text` because SQLite keeps neither NaN nor the sign of zero.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import NamedTuple

from metrana import integers
from metrana.server.catalog.errors import MalformedError


class StoredValue(NamedTuple):
    """The three columns of a value."""

    type: str
    number: float | None
    text: str | None


CONTAINERS = frozenset({"empty_mapping", "empty_list"})


def store(kind: str, value: object) -> StoredValue:
    """The columns for a value as `_native.decode_attributes` gives it.

    Raises:
        MalformedError: For a type nobody knows, or a value that is not of it.
    """
    match kind, value:
        case ("null", None):
            return StoredValue(kind, None, None)
        case ("empty_mapping" | "empty_list", _):
            return StoredValue(kind, None, None)
        case ("bool", bool()):
            return StoredValue(kind, float(value), "true" if value else "false")
        case ("int", int()) if not isinstance(value, bool):
            return _stored_int(integers.digits(value))
        case ("int", str()):
            return _stored_int(value)
        case ("float", float()):
            return StoredValue(kind, None if math.isnan(value) else value, repr(value))
        case ("string", str()):
            return StoredValue(kind, None, value)
        case ("datetime", str()):
            return StoredValue(kind, _unix_ms(value), value)
        case ("string_list", list() | tuple()):
            return StoredValue(kind, None, json.dumps(value, ensure_ascii=False))
    raise MalformedError(f"no attribute value of type {kind!r}: {value!r:.80}")


def load(kind: str, text: str | None) -> object:
    """The Python value behind stored columns."""
    match kind:
        case "null":
            return None
        case "empty_mapping":
            return {}
        case "empty_list":
            return []
    assert text is not None, f"a stored {kind} has a text"
    match kind:
        case "bool":
            return text == "true"
        case "int":
            return integers.from_digits(text)
        case "float":
            return float(text)
        case "datetime":
            return _parse_datetime(text)
        case "string_list":
            return json.loads(text)
    return text


def _stored_int(digits: str) -> StoredValue:
    body = digits.removeprefix("-")
    if not (body.isascii() and body.isdigit()):
        raise MalformedError(f"no decimal integer: {digits!r:.80}")
    # float() rounds a string correctly whatever its length; too large a one is an infinity.
    return StoredValue("int", float(digits), digits)


def _unix_ms(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() * 1000.0
    except (ValueError, OverflowError):
        return None


def _parse_datetime(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text  # another client's spelling: better shown than refused
