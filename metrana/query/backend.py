"""Where answers come from: a server over HTTP, or the embedded store in this process.

Both give the same Arrow tables and the same errors; `Client` turns them into frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

# Names of an HTTP query string and of the fields of the server's requests alike.
Arguments: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Video:
    """A rendering that is read.

    Attributes:
        row: Its row of the frame `renderings`.
        chunks: Its file, some bytes at a time.
    """

    row: Mapping[str, Any]
    chunks: Iterator[bytes]


class Backend(Protocol):
    """Answers by the names of the routes under `/api/v1`. Thread-safe; every call blocks."""

    def frame(self, route: str, arguments: Arguments) -> Any:
        """Gives an Arrow table.

        Raises:
            MetranaNotFoundError: No such run, metric or environment.
            MetranaQueryError: It could not be answered.
        """

    def value(self, route: str, arguments: Arguments) -> Any:
        """Gives plain Python values; raises as `frame` does."""

    def rendering(self, rendering_id: str) -> AbstractContextManager[Video]:
        """Opens a rendering's file for a block; raises as `frame` does, and while it is read."""

    def hold(self) -> AbstractContextManager[None]:
        """Keeps open for a block what a call would open; for this thread's calls. May be nested."""

    def close(self) -> None:
        """Lets go of connections; twice is once."""
