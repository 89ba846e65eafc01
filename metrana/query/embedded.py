"""The embedded store of a data directory, opened in this process for each call or for a block.

What is sealed in the spools is delivered first, so a notebook that logged a moment ago sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import pyarrow as pa
from sqlalchemy.exc import SQLAlchemyError

from metrana.errors import MetranaNotFoundError, MetranaQueryError, MetranaValidationError
from metrana.query.backend import Arguments, Video
from metrana.server.catalog import CatalogError, NotFoundError, RunFilter
from metrana.server.embedded import NetworkFileSystemError, deliver_spools, open_stores
from metrana.server.lock import StoreInUseError
from metrana.server.points import PointsError
from metrana.server.reads import InvalidRequestError, Reads
from metrana.server.reads.routes import answer_frame, answer_value
from metrana.server.reads.schemas import RUNS_SCHEMA

# A process opens one embedded store at a time, so all clients of this one take turns.
_ONE_AT_A_TIME: Final = threading.Lock()
# As long as for another process that has the store.
_WAIT_S: Final = 5.0
_CHUNK_BYTES: Final = 1 << 20


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
    def rendering(self, rendering_id: str) -> Iterator[Video]:
        """Opens a rendering's file for a block, which does not hold the store."""

        def opened(reads: Reads) -> tuple[dict[str, Any], BinaryIO]:
            return reads.rendering(rendering_id), reads.rendering_file(rendering_id).open("rb")

        row, file = self._ask(opened)
        with file:
            yield Video(row, _chunks(file))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Opens the store once for all calls of this thread in the block; others wait meanwhile."""
        if self._reads is not None:
            yield
            return
        held = ExitStack()
        try:
            # Only the opening is translated: what the block itself raises is not the store's.
            with _translated():
                self._held.reads = self._open(held)
            held.callback(setattr, self._held, "reads", None)
            yield
        finally:
            # Without the block's error: the stores would take a database's for their own.
            held.close()

    def _open(self, held: ExitStack) -> Reads | _NoReads:
        """Opens the store until `held` closes; where nothing was logged it is not made."""
        if not any((self._data_dir / part).is_dir() for part in ("spool", "server")):
            return _NoReads(self._data_dir)
        if not _ONE_AT_A_TIME.acquire(timeout=_WAIT_S):
            raise MetranaQueryError(
                f"another Client of this process is reading after {_WAIT_S:g} s: is it in a "
                "`with client.hold():` block?"
            )
        held.callback(_ONE_AT_A_TIME.release)
        stores = held.enter_context(open_stores(self._data_dir, merging=False))
        deliver_spools(self._data_dir, stores)
        return Reads(stores.catalog, stores.points, stores.media)

    def close(self) -> None:
        """Nothing is held between calls."""

    @property
    def _reads(self) -> Reads | _NoReads | None:
        reads: Reads | _NoReads | None = getattr(self._held, "reads", None)
        return reads

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        with self.hold(), _translated():
            assert self._reads is not None
            return question(self._reads)


class _NoReads:
    """Answers for a data directory that has no store yet, and makes none.

    Args:
        data_dir: The directory, which messages name.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def runs(self, _wanted: RunFilter) -> pa.Table:
        """Gives no row."""
        return RUNS_SCHEMA.empty_table()

    def run(self, *_question: object) -> NoReturn:
        """Refuses, as every question about a run.

        Raises:
            NotFoundError: Always.
        """
        raise NotFoundError(f"nothing logged yet in {self._data_dir}")

    series = points = buckets = aggregate = episodes = env_steps = env_attributes = run
    renderings = run

    def rendering(self, rendering_id: str) -> NoReturn:
        """Refuses.

        Raises:
            NotFoundError: Always.
        """
        raise NotFoundError(f"no rendering has the rendering_id {rendering_id!r}")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with _translated():
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


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
    except (SQLAlchemyError, OSError) as error:
        raise MetranaQueryError(f"the store cannot be read: {error}") from error
