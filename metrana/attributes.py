"""Attributes: nested mappings and lists as typed values under `/`-delimited paths.

`{"optimizer": {"lr": 3e-4}, "layers": [64, 64]}` under `config` becomes `config/optimizer/lr`,
`config/layers/0` and `config/layers/1`. A non-empty list of strings only is one attribute; empty
containers are attributes too, so that reading back gives what was logged.

An attribute replaces all that was below its path. So a mapping merges into the one logged before it
at its path, and a list replaces what was there, for it is preceded by the attribute of an empty
one. A mapping whose keys are numbers only would be taken for a list, or for some entries of one: it
replaces what was there too, preceded by the attribute of an empty mapping.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import date, datetime, timezone
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from metrana import integers
from metrana.checks import mapping, refusal, shown, text
from metrana.errors import MetranaValidationError

MAX_BYTES: Final = 64 * 1024
"""Most bytes of one attribute's value."""

MAX_PATH_BYTES: Final = 1024
"""Most bytes of a path; the catalog has an index over them, which takes no long ones."""

_PATH: Final = re.compile(r"[a-zA-Z0-9._:\-]+(?:/[a-zA-Z0-9._:\-]+)*")
_ALLOWED_KEYS: Final = "non-empty and of the characters a-z A-Z 0-9 . _ - : /"
# Deeper nesting is a mistake, such as a mapping that makes itself anew.
_MAX_DEPTH: Final = 64

_INDEX: Final = re.compile("0|[1-9][0-9]*")

Entry = tuple[str, str, Any]
"""Path, type and value, in the form that the native module takes."""


class _Leaf(NamedTuple):
    """The type and value of one attribute."""

    type: str
    value: Any


_Tree: TypeAlias = "_Leaf | list[_Tree] | dict[str, _Tree]"


def flatten(prefix_path: str, value: Any, name: str) -> list[Entry]:
    """Flatten a value into attributes.

    Args:
        prefix_path: Path of the value; empty for a mapping whose keys are paths.
        value: None, bool, int (exact at any size), float, str, datetime, or containers of them.
            Dataclasses and `argparse.Namespace` count as mappings; NumPy scalars, enum members
            and `pathlib` paths as what they stand for.
        name: The argument's name, for errors.

    Returns:
        Attributes, in order.

    Raises:
        MetranaValidationError: For a path or value that is not allowed, cycles included.
    """
    if prefix_path:
        check_path(prefix_path, name)
    tree = _tree(prefix_path, value, name, ())
    if not prefix_path and isinstance(tree, dict):
        return [entry for key, item in tree.items() for entry in _entries(key, item)]
    return list(_entries(prefix_path, tree))


def flatten_config(config: object) -> list[Entry]:
    """Flatten hyperparameters under `config`; they never replace the whole of those before them.

    Raises:
        MetranaValidationError: For a key or value that is not allowed, cycles included.
    """
    tree = _tree("config", mapping("config", config), "config", ())
    assert isinstance(tree, dict), "a mapping makes one"
    return [entry for key, item in tree.items() for entry in _entries(f"config/{key}", item)]


def check_description(description: object) -> str:
    """A text that fits an attribute.

    Raises:
        MetranaValidationError: For anything else.
    """
    checked = text("description", description)
    if len(checked.encode()) > MAX_BYTES:
        raise refusal("description", checked, f"at most {MAX_BYTES} bytes")
    return checked


def is_index(key: str) -> bool:
    """Whether a part of a path may number an entry of a list."""
    return _INDEX.fullmatch(key) is not None


def check_path(path: object, name: str) -> str:
    """A `/`-delimited path without empty parts.

    Raises:
        MetranaValidationError: For any other.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise refusal(name, path, f"a path whose parts are {_ALLOWED_KEYS}")
    _check_path_size(path, name)
    return path


def _tree(path: str, value: Any, name: str, parents: tuple[int, ...]) -> _Tree:
    """Nested dicts by part of a path, lists, and leaves."""
    _check_path_size(path, name)
    scalar = _scalar(value, path, name)
    if scalar is not None:
        _required(path, value, name)
        return _Leaf(*scalar)
    if id(value) in parents or len(parents) >= _MAX_DEPTH:
        raise MetranaValidationError(f"{name}: {path or 'the value'} contains itself")
    parents = (*parents, id(value))
    mapping = as_mapping(value)
    if mapping is not None:
        return _mapping_tree(path, mapping, name, parents)
    sequence = _as_sequence(value)
    if sequence is None:
        raise refusal(
            _at(path, name), value, "None, a bool, number, string, datetime, mapping or list"
        )
    return _sequence_tree(path, sequence, name, parents)


def _mapping_tree(
    path: str, mapping: Mapping[Any, Any], name: str, parents: tuple[int, ...]
) -> dict[str, _Tree]:
    tree: dict[str, _Tree] = {}
    for given, item in mapping.items():
        key = _key(given, name)
        *outer, last = key.split("/")
        grown: dict[str, _Tree] = {last: _tree(_join(path, key), item, name, parents)}
        for part in reversed(outer):
            grown = {part: grown}
        _merge(tree, grown, path, name)
    return tree


def _merge(tree: dict[str, _Tree], grown: dict[str, _Tree], path: str, name: str) -> None:
    """Put a tree into another: a `/` in a key may lead into what another key holds."""
    for part, item in grown.items():
        here = _join(path, part)
        present = tree.setdefault(part, item)
        if present is item:
            continue
        if not (isinstance(present, dict) and isinstance(item, dict)):
            raise MetranaValidationError(f"{name}: two values for the path {here!r}")
        _merge(present, item, here, name)


def _sequence_tree(
    path: str, items: Sequence[Any], name: str, parents: tuple[int, ...]
) -> _Leaf | list[_Tree]:
    _required(path, items, name)
    if items and all(isinstance(item, str) for item in items):
        texts = [_text(item, path, name) for item in items]
        # Each has its length in front of it.
        _check_size(sum(len(text.encode()) + 1 for text in texts), path, name)
        return _Leaf("string_list", texts)
    return [_tree(_join(path, str(i)), item, name, parents) for i, item in enumerate(items)]


def _entries(path: str, tree: _Tree) -> Iterator[Entry]:
    if isinstance(tree, _Leaf):
        yield path, tree.type, tree.value
        return
    if isinstance(tree, list):
        yield path, "empty_list", None
        tree = {str(index): item for index, item in enumerate(tree)}
    elif all(map(is_index, tree)):
        yield path, "empty_mapping", None
    # What is no number goes first: it ends a list that is there, and the numbers with it.
    for key in sorted(tree, key=is_index):
        yield from _entries(f"{path}/{key}", tree[key])


def _scalar(value: Any, path: str, name: str) -> tuple[str, Any] | None:
    """Type and value of what is one attribute; None for containers and the unknown."""
    value = _plain(value, _at(path, name))
    if value is None:
        return "null", None
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int):
        digits = _decimal(value)
        _check_size(len(digits), path, name)
        return "int", digits
    if isinstance(value, float):
        return "float", float(value)
    if isinstance(value, str):
        text = _text(value, path, name)
        _check_size(len(text.encode()), path, name)
        return "string", text
    if isinstance(value, datetime):
        # A naive time is the machine's local one; without its offset it would mean nothing later.
        return "datetime", _with_offset(value, path, name).isoformat()
    if isinstance(value, date):
        return "string", value.isoformat()
    return None


def _plain(value: Any, name: str) -> Any:
    """What a wrapper of one value stands for."""
    if isinstance(value, Enum):
        return _plain(value.value, name)
    if _is_of("pathlib", "PurePath", value):
        return str(value)
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind == "M" and getattr(value, "ndim", None) == 0:
        return _datetime64(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        try:
            return value.item()
        except Exception as error:  # whatever a framework raises: a traced array, a lost device
            raise MetranaValidationError(f"{name}: cannot read {shown(value)}: {error}") from error
    return value


def _with_offset(value: datetime, path: str, name: str) -> datetime:
    try:
        return value if value.tzinfo else value.astimezone()
    except (ValueError, OverflowError, OSError):  # the first and last days of the calendar
        raise refusal(
            _at(path, name), value, "a datetime with a time zone, or one that the local time has"
        ) from None


def _datetime64(value: Any) -> datetime | None:
    item = value.astype("datetime64[us]").item()
    # NumPy's times have no zone and are meant as UTC.
    return None if item is None else item.replace(tzinfo=timezone.utc)


def as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """What counts as a mapping, as one; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, types.SimpleNamespace) or _is_of("argparse", "Namespace", value):
        names: Mapping[Any, Any] = vars(value)
        return names
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        result: Mapping[Any, Any] = value._asdict()
        return result
    return None


def _is_of(module_name: str, class_name: str, value: Any) -> bool:
    """Whether a value is of a class whose module need not be imported to know that it is not."""
    # Whoever has such a value has imported it; importing it here would be felt at `import metrana`.
    module = sys.modules.get(module_name)
    return module is not None and isinstance(value, getattr(module, class_name))


def _as_sequence(value: Any) -> Sequence[Any] | None:
    if isinstance(value, (bytes, bytearray)):
        return None
    if isinstance(value, (list, tuple, range)):
        return value
    if isinstance(value, Set):
        # A set has no order of its own, so that of its texts makes two runs comparable.
        return sorted(value, key=lambda item: (type(item).__name__, str(item)))
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        items = value.tolist()
        return items if isinstance(items, list) else None
    return value if isinstance(value, Sequence) else None


def _key(key: Any, name: str) -> str:
    key = _plain(key, f"a key of {name}")
    if isinstance(key, (bool, int)):
        key = str(key)
    if not isinstance(key, str) or not _PATH.fullmatch(key):
        raise refusal(f"a key of {name}", key, _ALLOWED_KEYS)
    return key


def _required(path: str, value: Any, name: str) -> str:
    if not path:
        raise refusal(name, value, "a mapping")
    return path


def _text(value: str, path: str, name: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refusal(_at(path, name), value, "text without lone surrogates") from None
    return str(value)


def _check_path_size(path: str, name: str) -> None:
    if len(path) > MAX_PATH_BYTES:
        raise MetranaValidationError(
            f"{name}: a path must be at most {MAX_PATH_BYTES} bytes, not {len(path)}: {path[:80]}…"
        )


def _check_size(size: int, path: str, name: str) -> None:
    if size > MAX_BYTES:
        raise MetranaValidationError(
            f"{_at(path, name)}: must be at most {MAX_BYTES} bytes, not {size}"
        )


def _decimal(value: int) -> str:
    """The digits of an int of any size."""
    if value.bit_length() > MAX_BYTES * math.log2(10) + 1:
        return "0" * (MAX_BYTES + 1)  # too long whatever its digits are, and slow to find out
    return integers.digits(value)


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def _at(path: str, name: str) -> str:
    return f"{name} at {path!r}" if path else name
