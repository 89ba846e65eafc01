"""A server over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Final

import httpx
import pyarrow as pa

from metrana.errors import (
    MetranaError,
    MetranaNotFoundError,
    MetranaQueryError,
    MetranaValidationError,
    NoMetranaApiKeyError,
)
from metrana.query import wire
from metrana.query.backend import Arguments, Video

_ERRORS: Final[dict[str, type[MetranaError]]] = {
    "not_found": MetranaNotFoundError,
    "invalid": MetranaValidationError,
    "unauthenticated": NoMetranaApiKeyError,
}


class RemoteBackend:
    """Asks a server.

    Args:
        url: Where it listens for HTTP.
        token: What it asks of everyone; None if nothing.
        timeout_secs: Longest silence while waiting for an answer, in seconds.
    """

    def __init__(self, url: str, token: str | None, timeout_secs: float) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._url = url
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/v1", headers=headers, timeout=timeout_secs
        )

    def frame(self, route: str, arguments: Arguments) -> Any:
        """Gives an Arrow table over the answer's own bytes."""
        answer = self._get(route, arguments)
        try:
            return pa.ipc.open_stream(answer).read_all()
        except (pa.ArrowException, OSError) as error:
            raise MetranaQueryError(f"{self._url} did not answer with a table") from error

    def value(self, route: str, arguments: Arguments) -> Any:
        """Gives plain Python values."""
        answer = self._get(route, arguments)
        try:
            return wire.loads(answer)
        except ValueError as error:
            raise MetranaQueryError(f"{self._url} did not answer with JSON") from error

    @contextmanager
    def rendering(self, rendering_id: str) -> Iterator[Video]:
        """Opens a rendering's file for a block."""
        row = self.value("rendering", {"rendering_id": rendering_id})
        route = f"renderings/{row['rendering_id']}.mp4"
        with ExitStack() as open_answer:
            with self._translated():
                answer = open_answer.enter_context(self._client.stream("GET", route))
                if not answer.is_success:
                    answer.read()
            if not answer.is_success:
                raise _error(answer)
            yield Video(row, self._chunks(answer))

    def _chunks(self, answer: httpx.Response) -> Iterator[bytes]:
        with self._translated():
            yield from answer.iter_bytes()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raises what a connection raises as the client's error."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MetranaQueryError(f"no answer from {self._url}: {error}") from error

    def hold(self) -> AbstractContextManager[None]:
        """Nothing to hold: the server has its stores open, and connections are kept anyway."""
        return nullcontext()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _get(self, route: str, arguments: Arguments) -> bytes:
        parameters = {
            key: json.dumps(value) if isinstance(value, dict) else value
            for key, value in arguments.items()
            if value is not None
        }
        with self._translated():
            answer = self._client.get(route, params=parameters)
        if answer.is_success:
            return answer.content
        raise _error(answer)


def _error(answer: httpx.Response) -> MetranaError:
    try:
        error = answer.json()["error"]
        return _ERRORS.get(error["code"], MetranaQueryError)(error["message"])
    except (ValueError, KeyError, TypeError):
        # Not one of ours: a proxy, or another server altogether.
        return MetranaQueryError(f"{answer.url.host} answered {answer.status_code}")
