"""The embedded store of a data directory, opened in this process for each call or for a block.

What is sealed in the spools is delivered first, so a notebook that logged a moment ago sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from metrana.errors import MetranaNotFoundError, MetranaQueryError, MetranaValidationError
from metrana.query.backend import Arguments
from metrana.server.catalog import CatalogError, NotFoundError
from metrana.server.embedded import NetworkFileSystemError, deliver_spools, open_stores
from metrana.server.lock import StoreInUseError
from metrana.server.points import PointsError
from metrana.server.reads import InvalidRequestError, Reads
from metrana.server.reads.routes import answer_frame, answer_value

# A process opens one embedded store at a time, so all clients of this one take turns.
_ONE_AT_A_TIME: Final = threading.Lock()


class EmbeddedBackend:
    """Reads a data directory's stores.

    Args:
        data_dir: The data directory.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        # The reads that this thread holds, if any: others wait for the store as for another client.
        self._held = threading.local()

    def frame(self, route: str, arguments: Arguments) -> Any:
        """Gives an Arrow table."""
        table: pa.Table = self._ask(lambda reads: answer_frame(reads, route, arguments))
        return table

    def value(self, route: str, arguments: Arguments) -> Any:
        """Gives plain Python values."""
        return self._ask(lambda reads: answer_value(reads, route, arguments))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Opens the store once for all calls of this thread in the block; others wait meanwhile."""
        if self._reads is not None:
            yield
            return
        with _translated(), _ONE_AT_A_TIME, open_stores(self._data_dir) as stores:
            deliver_spools(self._data_dir, stores)
            self._held.reads = Reads(stores.catalog, stores.points)
            try:
                yield
            finally:
                self._held.reads = None

    def close(self) -> None:
        """Nothing is held between calls."""

    @property
    def _reads(self) -> Reads | None:
        reads: Reads | None = getattr(self._held, "reads", None)
        return reads

    def _ask(self, question: Callable[[Reads], Any]) -> Any:
        with self.hold(), _translated():
            assert self._reads is not None
            return question(self._reads)


@contextmanager
def _translated() -> Iterator[None]:
    """Raises what the stores raise as the client's errors."""
    try:
        yield
    except NotFoundError as error:
        raise MetranaNotFoundError(str(error)) from error
    except InvalidRequestError as error:
        raise MetranaValidationError(str(error)) from error
    except (StoreInUseError, NetworkFileSystemError, CatalogError, PointsError) as error:
        raise MetranaQueryError(str(error)) from error
