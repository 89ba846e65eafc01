"""Hyperparameters of any framework, as attributes of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from metrana import attributes
from metrana.errors import MetranaError, MetranaValidationError
from metrana.run import Run

if TYPE_CHECKING:
    from metrana.integrations._common import Faults

_PATH_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
)
_NO_LISTS: Final = (str, bytes, bytearray, memoryview, range)
# Deeper than any config is on purpose.
_MAX_CONFIG_DEPTH: Final = 32


def config_of(value: Any) -> dict[str, Any]:
    """Hyperparameters as `Run.log_config` takes them, item by item, so that none is lost.

    Keys become strings, and each character that a path may not have a `_`; two that become the same
    are told apart by `_2` and so on. A value that no attribute can be is kept as its text, and so
    is a container inside of itself.

    Args:
        value: A mapping, `Namespace`, dataclass or the like, nested as it may be.
    """
    found = _config_mapping(value, ())
    return {} if found is None else found


def _config_mapping(value: Any, parents: tuple[int, ...]) -> dict[str, Any] | None:
    if not _may_enter(value, parents):
        return None
    items = _items(value)
    if items is None:
        return None
    found: dict[str, Any] = {}
    for key, read in items:
        name = part = _config_key(key)
        number_ = 1
        while name in found:
            number_ += 1
            name = f"{part}_{number_}"
        try:
            found[name] = _config_value(read(), (*parents, id(value)))
        except Exception as error:  # noqa: BLE001 - a container that makes its values when asked
            found[name] = f"<unreadable: {type(error).__name__}: {error}>"
    return found


def _items(value: Any) -> list[tuple[Any, Callable[[], Any]]] | None:
    """Keys, and what reads the value of each; None for what is no mapping."""
    if isinstance(value, Mapping):
        # A value that is missing or interpolated may raise when it is read.
        return [(key, functools.partial(value.__getitem__, key)) for key in value]
    found = attributes.as_mapping(value)
    if found is None:
        return None
    return [(key, functools.partial(found.__getitem__, key)) for key in found]


def _config_key(key: Any) -> str:
    text = "".join(c if c in _PATH_CHARACTERS else "_" for c in str(key))
    return text[: attributes.MAX_PATH_BYTES // 8] or "_"


def _may_enter(value: Any, parents: tuple[int, ...]) -> bool:
    # One that contains itself twice would double with each level.
    return id(value) not in parents and len(parents) <= _MAX_CONFIG_DEPTH


def _config_value(value: Any, parents: tuple[int, ...]) -> Any:
    nested = _config_mapping(value, parents)
    if nested is not None:
        return nested
    is_list = isinstance(value, Sequence) and not isinstance(value, _NO_LISTS)
    if is_list and _may_enter(value, parents):
        return [_config_value(item, (*parents, id(value))) for item in value]
    try:
        attributes.flatten("config", value, "config")
    except MetranaError:
        return _text(value)
    return value


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - whatever their __str__ raises
        return f"<{type(value).__qualname__}: {type(error).__name__}>"
    kept = text.encode(errors="replace")[: attributes.MAX_BYTES]
    return kept.decode(errors="ignore")


def log_config(run: Run, config: Any, faults: Faults) -> None:
    """Logs hyperparameters as `config_of` gives them; what is refused at all is left out alone."""
    found = config_of(config)
    try:
        run.log_config(found)
    except MetranaValidationError:
        _log_each(run, found.items(), faults)


def _log_each(run: Run, items: Iterable[tuple[str, Any]], faults: Faults) -> None:
    for name, value in items:
        with faults:
            run.log_config({name: value})
