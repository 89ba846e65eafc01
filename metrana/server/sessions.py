"""A writer whose batches are being taken: what its numbers mean and how far it has come."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from metrana import _native
from metrana.server.catalog.gaps import without

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, SeqRanges


class IngestRefusedError(Exception):
    """What a writer sent cannot be taken, now or ever; the stream ends with this.

    Args:
        code: Name of a `RefusalCode` of the wire contract, without its prefix.
        message: One sentence for the user.
        retryable: Sending the same again later may succeed.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


class Listener(Protocol):
    """Who brings a writer's batches, told what became of them. Called from any thread."""

    def durable(self, seq: int) -> None:
        """Everything up to `seq` is in every store."""

    def ended(self) -> None:
        """The end that was submitted is recorded."""

    def damaged(self, problem: str) -> None:
        """Something that was taken is not kept, for it did not come whole; a sentence says what."""

    def refused(self, refusal: IngestRefusedError) -> None:
        """Nothing more of this session is taken."""


class Progress:
    """A listener that remembers, for whoever looks at it now and then.

    Attributes:
        acked: Everything up to this seq is durable.
        is_ended: The writer's end is recorded.
        problems: What did not come whole, in sentences.
        refusal: Why nothing more is taken; None if all is well.
    """

    def __init__(self) -> None:
        self.acked = 0
        self.is_ended = False
        self.problems: list[str] = []
        self.refusal: IngestRefusedError | None = None

    def durable(self, seq: int) -> None:
        """Everything up to `seq` is in every store."""
        self.acked = seq

    def ended(self) -> None:
        """The end that was submitted is recorded."""
        self.is_ended = True

    def damaged(self, problem: str) -> None:
        """Something that was taken did not come whole."""
        self.problems.append(problem)

    def refused(self, refusal: IngestRefusedError) -> None:
        """Nothing more of this session is taken."""
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A batch as it was sealed: from a stream, or from a spool.

    Attributes:
        seq: Its number within the writer, from 1.
        kind: What its payload holds, `points`, `attributes` or `renderings`.
        payload: The sealed bytes.
        crc: CRC32C of the payload, from the frame.
        urgent: Somebody waits for it.
    """

    seq: int
    kind: str
    payload: bytes
    crc: int
    urgent: bool = False


class _Durability:
    """Which batches wait to be durable: stores end with them in an order of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[int] = deque()
        self._ahead: set[int] = set()

    def expect(self, seq: int) -> None:
        """Waits for a batch, behind all others."""
        with self._lock:
            self._waiting.append(seq)

    def settle(self, seqs: Iterable[int]) -> int:
        """Notes that batches are durable; gives up to where all are; 0: as before."""
        with self._lock:
            self._ahead.update(seqs)
            durable = 0
            while self._waiting and self._waiting[0] in self._ahead:
                durable = self._waiting.popleft()
                self._ahead.discard(durable)
            return durable


@dataclass(slots=True)
class WriterSession:
    """One writer's open stream of batches, from wherever they come.

    The side that submits uses `declare` and `admit`, one thread at a time; the rest belongs to the
    ingestor.

    Attributes:
        run_id: The run's own, not an alias's.
        first_seq: The batch that it begins with.
        next_seq: The batch that must come next.
        lost: Ranges of seqs, both ends included, that will never come.
        points_seqs: Points batches that were in the points store when the session began, in order.
            Shape: (batches,).
        attr_seq: Attributes batches up to here are in the catalog.
        stored_seq: Of the batches before the session's first, all up to here are in the stores.
        gaps: What the stores are known to lack of the session's batches, in ranges.
        fill: Notes in the catalog that a range of batches, both ends included, is stored.
        heard_at: When the writer last gave a sign of life, on the monotonic clock.
        closed: Superseded, refused or ended: what still waits is dropped.
    """

    run_no: int
    run_id: str
    project_id: int
    writer_no: int
    writer_id: str
    logger_no: int
    listener: Listener
    first_seq: int
    next_seq: int
    lost: Sequence[tuple[int, int]]
    points_seqs: np.ndarray
    attr_seq: int
    stored_seq: int
    gaps: SeqRanges
    fill: Callable[[int, int], None]
    heard_at: float = field(default_factory=time.monotonic)
    closed: bool = False
    _durability: _Durability = field(default_factory=_Durability)
    # Held while the listener is told, so that of two threads the one that is further is heard last.
    _telling: threading.RLock = field(default_factory=threading.RLock)
    _metric_nos: np.ndarray = field(default_factory=lambda: np.zeros(1, np.uint32))
    _env_nos: np.ndarray = field(default_factory=lambda: np.zeros(1, np.uint32))

    def declare(self, catalog: Catalog, payload: bytes, crc: int) -> None:
        """Commits declarations to the catalog and learns its numbers for them. Blocks.

        Raises:
            IngestRefusedError: The bytes are damaged or no declarations.
        """
        if _native.crc32c(payload) != crc:
            raise IngestRefusedError("MALFORMED", "declarations arrived with a wrong checksum")
        try:
            entries = _native.decode_declarations(payload)
        except ValueError as error:
            raise IngestRefusedError("MALFORMED", f"declarations: {error}") from error
        numbers = catalog.declare(self.project_id, entries)
        for (kind, local, *_), number in zip(entries, numbers, strict=True):
            if kind == "metric":
                self._metric_nos = _set(self._metric_nos, local, number)
            else:
                self._env_nos = _set(self._env_nos, local, number)

    def admit(self, batch: SealedBatch) -> bool:
        """Says whether a batch is the next one; a batch that came before in this stream is not.

        Raises:
            IngestRefusedError: Batches before it are missing that were not announced as lost, or
                its checksum is wrong.
        """
        if batch.seq < self.next_seq:
            return False
        expected = self.next_seq
        while expected < batch.seq:
            after = next((last + 1 for first, last in self.lost if first <= expected <= last), None)
            if after is None:
                raise IngestRefusedError(
                    "SEQUENCE_GAP", f"batch {expected} is missing before batch {batch.seq}"
                )
            expected = after
        if _native.crc32c(batch.payload) != batch.crc:
            raise IngestRefusedError(
                "MALFORMED", f"batch {batch.seq} arrived with a wrong checksum"
            )
        self.next_seq = batch.seq + 1
        return True

    def has(self, batch: SealedBatch) -> bool:
        """Whether a batch is known to be stored: it came before the session began, from wherever.

        Of a piece of a rendering only its rendering's file knows, and to write it again is right.
        """
        if batch.kind == "renderings":
            return False
        if batch.kind == "attributes":
            return batch.seq <= self.attr_seq
        at = int(np.searchsorted(self.points_seqs, np.uint64(batch.seq)))
        return at < len(self.points_seqs) and int(self.points_seqs[at]) == batch.seq

    def number_map(self, seq: int) -> _native.NumberMap:
        """Gives the catalog's numbers for one batch of this writer."""
        return _native.NumberMap(
            self.run_no, self.writer_no, seq, self.logger_no, self._metric_nos, self._env_nos
        )

    def operations(self, batch: SealedBatch) -> list[tuple[Any, ...]]:
        """Gives the operations of an attributes batch, environments by the catalog's numbers.

        Raises:
            IngestRefusedError: The bytes are no operations, or an environment was not declared.
        """
        try:
            operations = _native.decode_attributes(batch.payload)
        except ValueError as error:
            raise IngestRefusedError("MALFORMED", f"batch {batch.seq}: {error}") from error
        return [
            ("set_env", self._env_no(operation[1]), *operation[2:])
            if operation[0] == "set_env"
            else operation
            for operation in operations
        ]

    def expect(self, batch: SealedBatch) -> None:
        """Notes that a batch is on its way to a store; in the order of seqs."""
        self._durability.expect(batch.seq)

    def acknowledge(self, batches: Iterable[SealedBatch]) -> None:
        """Notes that batches are stored, but attributes that were not applied.

        Tells the writer how far it is durable: up to the first batch that is not, of whatever kind.
        """
        stored = (b.seq for b in batches if b.kind != "attributes" or b.seq <= self.attr_seq)
        with self._telling:
            if durable := self._durability.settle(stored):
                self.note_stored(durable)
                self.listener.durable(durable)

    def note_stored(self, seq: int) -> None:
        """Notes what the session's batches up to `seq`, all durable, fill of gaps. Blocks."""
        with self._telling:
            if not self.gaps or self.gaps[0][0] > seq:
                return
            brought: SeqRanges = ((self.first_seq, seq),)
            for first, last in self.lost:
                brought = without(brought, first, last)
            for first, last in brought:
                self.fill(first, last)
            self.gaps = without(self.gaps, self.first_seq, seq)

    def since(self, seq: int) -> int:
        """Gives the first batch from which on the session brings all up to `seq`."""
        return max([self.first_seq, *(last + 1 for _, last in self.lost if last < seq)])

    def _env_no(self, local: int) -> int:
        number = int(self._env_nos[local]) if local < len(self._env_nos) else 0
        if not number:
            raise IngestRefusedError("MALFORMED", f"environment {local} was not declared")
        return number


def _set(numbers: np.ndarray, local: int, number: int) -> np.ndarray:
    """Returns `numbers` with one more entry, grown in doublings if it has to be."""
    if local >= len(numbers):
        numbers = np.concatenate([numbers, np.zeros(max(len(numbers), local + 1), np.uint32)])
    numbers[local] = number
    return numbers
