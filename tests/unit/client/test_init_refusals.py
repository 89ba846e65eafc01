"""Whatever `init()` is given, it opens the run or refuses an argument by name, without a trace."""

from __future__ import annotations

import inspect
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrana
from metrana import lifecycle


class Broken:
    """Raises what nobody expects, whatever it is asked."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("broken")

    __repr__ = __float__ = __index__ = __fspath__ = __iter__ = __hash__ = __eq__ = _refuse


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"x"


# Of every type that somebody may pass by mistake, and the edges of those that are right.
VALUES: tuple[Any, ...] = (
    *(True, False, np.True_, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**400)),
    *(1.5, -1.5, 1e-300, 1e308, math.nan, math.inf, -math.inf, 1j),
    *(np.int64(-1), np.float32(1), np.float64("nan"), np.array(1), np.array([1, 2]), np.array([])),
    *(
        "",
        " ",
        "x",
        "é",
        "\0",
        "a\nb",
        "\ud800",
        "x" * 300,
        "x" * 70_000,
        "1",
        "1_000",
        "٣",
        "warn",
    ),
    *("http://[bad", "http://[::1", "[", "::::", "http://℀", "http://h:99999", "http://h:-1"),
    *(
        "http://h:٣",
        "https://ex ample.org",
        "https://a\nb",
        "http://:secret@h",
        "http://h/?q",
        "~x",
    ),
    *("~no-such-user/x", "g" * 32, "0" * 31 + "\n", "\u0660" * 32),
    *(b"", b"x", bytearray(b"x"), [], [1], ["a"], [""], ["\ud800"], ["x" * 257], [b"x"], [None]),
    *((), set(), {1}, range(3), np.array(["a"]), {}, {"a": 1}, {1: 2}, {"": 1}, {"a b": 1}),
    *({"x": object()}, {"x": 1, "x/y": 2}, {None: 1}, {"x": {"y": b""}}),
    *(object(), Broken(), BytesPath(), Path(), Path("x"), type, len, metrana.LogLevel.INFO),
)
ARGUMENTS = tuple(inspect.signature(metrana.init).parameters)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some of the values are relative paths.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def attempt(**arguments: Any) -> Exception | None:
    """Opens a run and closes it, or gives the error."""
    try:
        run = metrana.init(**arguments)
    except Exception as error:  # noqa: BLE001 - the caller looks which it is
        return error
    run.close(0)
    return None


@pytest.mark.parametrize("mode", ["offline", "disabled"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_init_opens_or_refuses_by_name(name: str, mode: str, tmp_path: Path) -> None:
    check_each(name, tmp_path, {"mode": mode})


def test_init_connects_or_refuses_the_url(tmp_path: Path) -> None:
    # Nothing listens there; the run goes on into the spool.
    check_each("ingestion_url", tmp_path, {"connect_timeout_secs": 0.0})


def check_each(name: str, folder: Path, arguments: dict[str, Any]) -> None:
    """Passes every value as this argument."""
    for value in VALUES:
        environ, files = dict(os.environ), sorted(folder.iterdir())
        error = attempt(**{**arguments, name: value})
        if error is None:
            continue
        if not isinstance(error, metrana.NoMetranaApiKeyError | metrana.MetranaUnavailableError):
            assert isinstance(error, metrana.MetranaValidationError), (name, error)
            assert str(error).startswith((name, f"a key of {name}")), error
            assert ": must be " in str(error) or "two values for the path" in str(error)
        assert (dict(os.environ), sorted(folder.iterdir())) == (environ, files), (name, error)
        assert not metrana.is_initialized()
        assert lifecycle.open_runs() == []
