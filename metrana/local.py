"""The local default: which server a run goes to, and how to look at one that goes to none."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from pathlib import Path

from metrana import _native
from metrana.errors import MetranaLoggerInitError
from metrana.faults import warn
from metrana.settings import LOCAL_DESTINATION, Settings

_PROBE_S = 0.2
# What `metrana ui` cannot do without.
_SERVER_PACKAGES = ("chdb", "fastapi", "grpc", "sqlalchemy", "uvicorn")


def choose_server(settings: Settings) -> str | None:
    """Where a run is sent: a URL, `local` for the running local server, None for the spool alone.

    Blocks for a moment, with mode `online` up to `init_timeout_secs`.

    Raises:
        MetranaLoggerInitError: For mode `online` without a URL and without a local server.
    """
    if settings.mode == "offline":
        return None
    if settings.ingestion_url is not None:
        return settings.ingestion_url
    deadline = time.monotonic() + (settings.init_timeout_secs if settings.mode == "online" else 0)
    while True:
        if _local_server_runs(settings.data_dir):
            return LOCAL_DESTINATION
        if time.monotonic() >= deadline:
            break
        time.sleep(_PROBE_S)
    if settings.mode == "online":
        raise MetranaLoggerInitError(
            f"no local server runs for {settings.data_dir} after "
            f"{settings.init_timeout_secs:g} s: start one with `metrana server`, or pass "
            "ingestion_url= to metrana.init()"
        )
    return None


def needs_hint(settings: Settings, server: str | None) -> bool:
    """Whether a user who asked for nothing in particular would wonder where the run is."""
    return server is None and settings.ingestion_url is None


def print_hint(run_name: str, data_dir: Path) -> None:
    """Say in one line where a run without a server goes and how to look at it."""
    missing = [name for name in _SERVER_PACKAGES if importlib.util.find_spec(name) is None]
    how = "pip install 'metrana[server]', then metrana ui" if missing else "metrana ui"
    if sys.stderr is None:
        return
    # A closed or full standard error is no reason to end a training.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f'metrana: logging "{run_name}" to {data_dir} — look at it with: {how}\n')


def _local_server_runs(data_dir: Path) -> bool:
    try:
        return _native.find_local_server(data_dir, _PROBE_S) is not None
    except RuntimeError as error:
        warn(f"{error}; logging to the spool")
        return False
