"""The engines of the points store: what runs SQL, and where.

`Engine` is the seam. `ChdbEngine` runs ClickHouse inside this process; one for a cluster implements
the same six methods. Nothing above this file knows which of them it talks to.
"""

import fcntl
import importlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import pyarrow as pa

from metrana.server.points.errors import (
    PointsClosedError,
    PointsError,
    PointsInUseError,
    PointsRefusedError,
)
from metrana.server.points.parts import is_surely_whole
from metrana.server.points.schema import MAX_INSERT_ROWS


class Batches:
    """Record batches as the engine produces them: iterate, or `read_all`; then or before, `close`.

    A stream that is not read to its end holds engine memory until it is closed. One thread at a
    time may use it.

    Attributes:
        schema: The Arrow schema of every batch.
    """

    def __init__(self, schema: Any, batches: Iterator[Any], close: Callable[[], None]) -> None:
        self.schema = schema
        self._batches = batches
        self._close = close

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._batches)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_all(self) -> Any:
        """Returns what is left as one Arrow table, and closes."""
        with self:
            return pa.Table.from_batches(self, self.schema)

    def close(self) -> None:
        """Lets go of the engine; what was not read is lost. Twice is once."""
        self._close()


class Engine(Protocol):
    """What the store needs of an engine. Every method may block and is thread-safe."""

    def command(self, sql: str) -> None:
        """Runs a statement that answers nothing."""

    def insert(self, columns: dict[str, Any]) -> None:
        """Inserts equally long NumPy columns into `points` as one atomic, durable part."""

    def read(self, sql: str, schema: Any) -> Any:
        """Returns a query's rows as an Arrow table of `schema`."""

    def stream(self, sql: str, schema: Any) -> Batches:
        """Returns a query's rows as they come."""

    def start_merging(self) -> None:
        """Merges parts and runs mutations from now on; may cancel streams. Twice is once."""

    def close(self) -> None:
        """Waits for running statements, cancels streams and lets go of the store."""


@dataclass(frozen=True, slots=True)
class ChdbLimits:
    """How much of the machine the embedded engine may take; a training process may live in it too.

    Attributes:
        memory_ratio: Share of the memory (the container's, if it has a limit) for all statements
            and merges together. A statement that would exceed it fails.
        merge_thread_count: Threads that merge parts in the background.
        merging: Whether parts are merged and mutations run from the start, else once
            `start_merging` is called. Each opening that merges leaves threads behind for good.
        read_thread_count: The most threads of one query.
        concurrent_read_count: The most queries at a time, not counting open streams.
        free_disk_bytes: Inserts fail while less than this is free, so that a merge that goes on
            finds room: one that meets a full disk loses what it merges. None: 5 % of the disk,
            256 MiB to 1 GiB, but at most a tenth.
    """

    memory_ratio: float = 0.25
    merge_thread_count: int = 2
    merging: bool = True
    read_thread_count: int = 4
    concurrent_read_count: int = 4
    free_disk_bytes: int | None = None


# One insert is one block (squashed, never cut, by its own thread), hence one part.
_ONE_BLOCK: Final = ", ".join(
    (
        "max_threads = 1",
        "max_insert_threads = 1",
        f"max_block_size = {MAX_INSERT_ROWS}",
        f"min_insert_block_size_rows = {MAX_INSERT_ROWS}",
        "min_insert_block_size_bytes = 0",
        "preferred_block_size_bytes = 0",
    )
)

# ClickHouse's codes for a statement that what it is given makes impossible: types and ranges,
# broken constraints, columns and syntax. Everything else may pass: disk, memory, files, too many
# parts.
_CODE: Final = re.compile(r"Code: (\d+)")
_CODES_FOR_EVER: Final = frozenset(
    {6, 8, 10, 16, 20, 27, 36, 42, 43, 44, 47, 50, 53, 62, 69, 70, 72, 117, 128, 131}
    | {190, 306, 321, 349, 407, 469}
)

_PLAIN: Final = (
    "SETTINGS output_format_arrow_compression_method = 'none', "
    "output_format_arrow_string_as_string = 1"
)
# Of the last insert: blocks are numbered as they come, and a part of level 0 was not merged.
_NEWEST_PART: Final = (
    "SELECT name, path, bytes_on_disk FROM system.parts "
    "WHERE database = currentDatabase() AND table = 'points' AND level = 0 "
    f"ORDER BY max_block_number DESC LIMIT 1 {_PLAIN}"
)

_NO_SUCH_PART: Final = 232

_MARK_CACHE_BYTES: Final = 256 << 20  # the default is 5 GiB


class ChdbEngine:
    """ClickHouse in this process, on one directory.

    chDB holds one directory at a time in a process, and one process a directory; after `close` the
    process may open another. A connection runs one statement at a time, so each statement gets a
    connection of its own: making one takes 0.3 ms. The GIL is released while a statement runs.
    A forked child must not use an engine of its parent.

    chDB never frees the pools of background threads of what it has closed. So an opening that
    merges leaves `merge_thread_count` + 1 idle threads and some megabytes for as long as the
    process lives; one that does not leaves none (`python -m benchmarks.reopening`). The pools for
    replicas and for moves between disks, of which there are none, are left out of both.

    Args:
        path: The directory, made if missing. Not on a network file system.
        limits: How much of the machine it may take.

    Raises:
        PointsInUseError: This process has another store open, or another process has this one.
        PointsError: The engine cannot open the directory.
    """

    def __init__(self, path: Path, limits: ChdbLimits | None = None) -> None:
        if "?" in str(path.absolute()):
            # The engine takes what follows for its options, whatever one does to escape it.
            raise PointsError(
                f"points cannot be kept in {path}: the engine takes no path with a question mark; "
                "use another data directory"
            )
        self._limits = limits or ChdbLimits()
        self._merging = self._limits.merging
        self._path = path.absolute()
        self._gate = threading.Condition()
        self._running = 0
        self._streams: set[_ChdbStream] = set()
        self._inserting = threading.Lock()
        # The name of a part that an insert left cut short and that could not be dropped yet.
        self._broken: str | None = None
        self._reading = threading.BoundedSemaphore(self._limits.concurrent_read_count)
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._free_disk_bytes = self._limits.free_disk_bytes
        if self._free_disk_bytes is None:
            self._free_disk_bytes = _kept_free(shutil.disk_usage(self._path).total)
        self._keeper: Any = self._connect_first()

    def _connect_first(self) -> Any:
        # The engine lives as long as a connection does; this one runs nothing and keeps it.
        limits = self._limits
        try:
            return _connect(
                self._path,
                f"background_pool_size={limits.merge_thread_count if self._merging else 0}"
                f"&background_common_pool_size={int(self._merging)}"
                "&background_fetches_pool_size=0&background_move_pool_size=0"
                f"&max_server_memory_usage_to_ram_ratio={limits.memory_ratio}"
                f"&mark_cache_size={_MARK_CACHE_BYTES}",
            )
        except RuntimeError as error:
            raise _opening_error(self._path, error) from error

    def command(self, sql: str) -> None:
        """Runs a statement that answers nothing."""
        with self._connection() as connection:
            _query(connection, sql)

    def insert(self, columns: dict[str, Any]) -> None:
        """Inserts equally long NumPy columns into `points` as one atomic, durable part.

        Inserts queue: two at a time would only share the disk, and would need twice the memory.

        chDB answers an insert as done though the disk was full when it wrote the part, whose files
        are cut short then. So their lengths are looked at, and where those do not settle it the
        part is read and dropped if it is not whole.
        """
        # The engine finds `block` by its name in the frames that lead to the query.
        block = pa.table({name: pa.array(column) for name, column in columns.items()})
        names = ", ".join(columns)
        sql = (
            f"INSERT INTO points ({names}) SELECT {names} FROM Python(block) "
            f"SETTINGS {_ONE_BLOCK}, "
            f"min_free_disk_bytes_to_perform_insert = {self._free_disk_bytes}"
        )
        with self._inserting:
            self._drop_broken()
            with self._connection() as connection:
                _query(connection, sql)
            self._require_whole()
        del block

    def read(self, sql: str, schema: Any) -> Any:
        """Returns a query's rows as an Arrow table of `schema`."""
        self._clear_broken()
        with self._reading, self._connection() as connection:
            result = _query(connection, self._with_settings(sql))
        view = pa.py_buffer(result.get_memview().view())
        # Nothing is copied, so the result has to live as long as the table: the view alone does not
        # keep it when the connection closes.
        return _table(pa.foreign_buffer(view.address, view.size, base=result), schema)

    def stream(self, sql: str, schema: Any) -> Batches:
        """Returns a query's rows as they come, from a connection of the stream's own."""
        self._clear_broken()
        with self._gate:
            self._require_open()
            stream = _ChdbStream(_connect(self._path), self._with_settings(sql), schema)
            self._streams.add(stream)
        return Batches(schema, stream.batches(), lambda: self._end_stream(stream))

    def start_merging(self) -> None:
        """Merges parts and runs mutations from now on; opens the directory anew if it did not.

        Then it waits for running statements, and cancels streams.

        Raises:
            PointsInUseError: Another process took the directory meanwhile; the engine is closed.
        """
        with self._gate:
            self._gate.wait_for(lambda: self._merging or not self._running)
            self._require_open()
            if self._merging:
                return
            for stream in self._streams:
                stream.close()
            self._streams.clear()
            self._merging = True
            keeper, self._keeper = self._keeper, None
            keeper.close()
            self._keeper = self._connect_first()

    def close(self) -> None:
        """Waits for running statements, cancels streams and lets go of the directory."""
        with self._gate:
            keeper, self._keeper = self._keeper, None
            self._gate.wait_for(lambda: not self._running)
            streams = list(self._streams)
        for stream in streams:
            self._end_stream(stream)
        if keeper is not None:
            keeper.close()

    def _require_whole(self) -> None:
        with self._connection() as connection:
            for part in _rows(_query(connection, _NEWEST_PART)):
                if is_surely_whole(Path(part["path"]), part["bytes_on_disk"]):
                    return
                try:
                    (check,) = _rows(
                        _query(connection, f"CHECK TABLE points PART '{part['name']}' {_PLAIN}")
                    )
                except PointsError as error:
                    if _code(str(error)) == _NO_SUCH_PART:
                        return  # merged already, for which every byte of it was read
                    self._broken = part["name"]
                    raise
                if check["is_passed"]:
                    return
                self._broken = part["name"]
                self._drop_broken()
                raise PointsError(f"an insert was cut short, is the disk full? {check['message']}")

    def _clear_broken(self) -> None:
        """Removes what an insert left before anything is read: it must not be taken for stored."""
        if self._broken is not None:
            with self._inserting:
                self._drop_broken()

    def _drop_broken(self) -> None:
        """Removes what an insert left cut short; the caller holds `_inserting`."""
        if self._broken is not None:
            self.command(f"ALTER TABLE points DROP PART '{self._broken}'")
            self._broken = None

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with self._gate:
            self._require_open()
            self._running += 1
        try:
            connection = _connect(self._path)
            try:
                yield connection
            finally:
                connection.close()
        finally:
            with self._gate:
                self._running -= 1
                self._gate.notify_all()

    def _require_open(self) -> None:
        if self._keeper is None:
            raise PointsClosedError(f"the points store at {self._path} is closed")

    def _end_stream(self, stream: "_ChdbStream") -> None:
        stream.close()
        with self._gate:
            self._streams.discard(stream)

    def _with_settings(self, sql: str) -> str:
        return (
            f"{sql} SETTINGS max_threads = {self._limits.read_thread_count}, "
            "output_format_arrow_compression_method = 'none'"
        )


class _ChdbStream:
    """One streaming query on its own connection.

    While it is open, that connection would answer any other statement with nothing.
    """

    def __init__(self, connection: Any, sql: str, schema: Any) -> None:
        self._lock = threading.Lock()
        self._connection = connection
        self._schema = schema
        try:
            self._result = connection.send_query(sql, "Arrow")
        except RuntimeError as error:
            connection.close()
            raise PointsError(str(error)) from error

    def batches(self) -> Iterator[Any]:
        while (table := self._fetch()) is not None:
            yield from table.to_batches()

    def _fetch(self) -> Any:
        from chdb import ChdbError

        with self._lock:
            if self._connection is None:
                raise PointsClosedError("the stream of points is closed")
            try:
                chunk = self._result.fetch()
            except ChdbError as error:
                raise PointsError(str(error)) from error
            if chunk is None:
                self._close()
                return None
            # Copied: the next fetch may reuse what the chunk points to.
            return _table(pa.py_buffer(chunk.bytes()), self._schema)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._result.close()
            connection.close()


def _table(buffer: Any, schema: Any) -> Any:
    """Returns an Arrow file's rows; columns are matched by place, for expressions have no name."""
    return pa.ipc.open_file(buffer).read_all().rename_columns(schema.names).cast(schema)


def import_for_inserts() -> None:
    """Imports what chDB will at its first `Python(table)`, pandas: seconds of a first commit."""
    importlib.import_module("pandas")


def _kept_free(total_bytes: int) -> int:
    """Returns how much of a disk inserts leave free for merges."""
    return min(max(total_bytes // 20, 256 << 20), 1 << 30, total_bytes // 10)


def _connect(path: Path, options: str = "") -> Any:
    # Imported here: it takes a second and 270 MB, which a server on ClickHouse need not spend.
    from chdb.state import connect

    return connect(f"file:{path}?{options}" if options else f"file:{path}")


def _query(connection: Any, sql: str) -> Any:
    from chdb import ChdbError

    try:
        return connection.query(sql, "Arrow")
    except ChdbError as error:
        raise _failure(str(error)) from error


def _failure(message: str) -> PointsError:
    """Tells what will never work from what may work later, by the code in the engine's message."""
    return (PointsRefusedError if _code(message) in _CODES_FOR_EVER else PointsError)(message)


def _code(message: str) -> int | None:
    found = _CODE.search(message)
    return None if found is None else int(found[1])


def _rows(result: Any) -> list[dict[str, Any]]:
    """Gives a small answer as rows, copied from the engine's memory."""
    rows: list[dict[str, Any]] = (
        pa.ipc.open_file(pa.py_buffer(result.bytes())).read_all().to_pylist()
    )
    return rows


def _opening_error(path: Path, error: RuntimeError) -> PointsError:
    message = str(error)
    if "already initialized with path" in message:
        return PointsInUseError(
            f"this process holds another points store open: close it before {path} ({message})"
        )
    # The engine tells why on standard error only, so the commonest reason is looked up.
    if holder := _holder(path / "status"):
        return PointsInUseError(f"the points store at {path} is open in another process: {holder}")
    return PointsError(f"cannot open the points store at {path}: {message}")


def _holder(status: Path) -> str | None:
    """Returns what the engine wrote about the process that has locked `status`."""
    try:
        with status.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return " ".join(status.read_text(errors="replace").split())
    except OSError:
        return None
    return None
