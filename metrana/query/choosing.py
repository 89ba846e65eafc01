"""Whom a `Client` asks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from metrana import _native
from metrana.errors import MetranaError
from metrana.query.backend import Backend
from metrana.settings import default_api_key, normalise_url

_LOCAL_PROBE_S: Final = 0.2


def open_backend(
    url: str | None, api_key: str | None, data_dir: Path, timeout_secs: float
) -> Backend:
    """Chooses by what `Client` was given: a server, else the local one, else the embedded store.

    Raises:
        MetranaValidationError: No URL.
        MetranaError: What is needed for it is not installed.
    """
    local = _native.find_local_server(data_dir, _LOCAL_PROBE_S)
    if url is not None:
        url = normalise_url(url, "url")
        if local is not None and url == normalise_url(local["http_url"]):
            return _remote(url, api_key or local["token"], timeout_secs)
        return _remote(url, api_key or default_api_key(), timeout_secs)
    if local is not None:
        return _remote(local["http_url"], api_key or local["token"], timeout_secs)
    try:
        from metrana.query.embedded import EmbeddedBackend
    except ImportError as error:
        raise MetranaError(
            f"no local server runs for {data_dir}, and the embedded store is not installed "
            f"({error.name} is missing): pip install 'metrana[server]'"
        ) from error
    return EmbeddedBackend(data_dir)


def _remote(url: str, token: str | None, timeout_secs: float) -> Backend:
    try:
        from metrana.query.remote import RemoteBackend  # only who asks a server needs httpx
    except ModuleNotFoundError as error:
        raise MetranaError(
            f"reading from a server needs {error.name}, which is not installed: "
            "pip install 'metrana[query]'"
        ) from error
    return RemoteBackend(url, token, timeout_secs)
