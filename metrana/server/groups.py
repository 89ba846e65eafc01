"""Group commit: what waits for the stores, and when enough of it does to be committed as one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from metrana.server.insertion import Batches
from metrana.server.points import MAX_INSERT_ROWS
from metrana.server.sessions import SealedBatch, WriterSession

# How long the oldest of a group waits. An insert has a price of its own, and one for each series in
# it: where commits take long the groups wait for more rows, which is what keeps up with many.
_LEAST_AGE_S: Final = 0.25
_GREATEST_AGE_S: Final = 1.0
_AGE_PER_COMMIT: Final = 2.0
_MAX_WAITING_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch, or the end of a writer, on its way to the stores.

    Attributes:
        session: Whose it is.
        batch: The batch; None for the end.
        row_count: Points in it.
        arrived: When it came, on the monotonic clock.
        died: The writer ended without a close record.
    """

    session: WriterSession
    batch: SealedBatch | None
    row_count: int
    arrived: float
    died: bool = False

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for it."""
        return self.batch is None or self.batch.urgent

    @property
    def byte_count(self) -> int:
        """Bytes that it holds."""
        return len(self.batch.payload) if self.batch is not None else 0


@dataclass(frozen=True, slots=True)
class Group:
    """What is committed together.

    Attributes:
        items: All of it.
        new: Its points batches that are not stored yet.
        columns: Their rows; None if they could not be decoded.
    """

    items: list[Waiting]
    new: Batches
    columns: dict[str, Any] | None


class Backlog:
    """What waits, of all writers, in the order in which it came.

    Every method but `is_full` needs `changed` held, which some of them give up while they wait.

    Args:
        changed: Notified when something is added or taken.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._items: deque[Waiting] = deque()
        self._bytes = 0
        self._rows = 0
        self._urgent_count = 0
        self._age_s = _LEAST_AGE_S

    @property
    def age_s(self) -> float:
        """How long a group waits for more rows, from the arrival of its oldest."""
        return self._age_s

    def pace(self, commit_s: float) -> None:
        """Sets how long groups wait by what the last commit took."""
        self._age_s = min(max(_LEAST_AGE_S, _AGE_PER_COMMIT * commit_s), _GREATEST_AGE_S)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing more should be added."""
        return self._bytes >= _MAX_WAITING_BYTES

    def add(self, item: Waiting) -> None:
        """Puts an item behind all others."""
        self._items.append(item)
        self._count(item, 1)
        self._changed.notify_all()

    def take_group(self, is_closing: Callable[[], bool]) -> list[Waiting] | None:
        """Waits until a group is due and takes it; None when closing and nothing waits.

        A group has at most `MAX_INSERT_ROWS` rows, unless it is a single batch.
        """
        while True:
            if self._items:
                left_s = self._items[0].arrived + self._age_s - time.monotonic()
                full = self._rows >= MAX_INSERT_ROWS or self.is_full
                if full or self._urgent_count or is_closing() or left_s <= 0:
                    return self._take()
                self._changed.wait(left_s)
            elif is_closing():
                return None
            else:
                self._changed.wait()

    def _take(self) -> list[Waiting]:
        group: list[Waiting] = []
        rows = 0
        while self._items:
            item = self._items[0]
            if group and rows + item.row_count > MAX_INSERT_ROWS:
                break
            self._items.popleft()
            self._count(item, -1)
            rows += item.row_count
            group.append(item)
        self._changed.notify_all()
        return group

    def _count(self, item: Waiting, sign: int) -> None:
        self._bytes += sign * item.byte_count
        self._rows += sign * item.row_count
        self._urgent_count += sign * item.urgent


def by_session(group: list[Waiting]) -> list[tuple[WriterSession, list[Waiting]]]:
    """Groups items by session, in order."""
    sessions: dict[int, tuple[WriterSession, list[Waiting]]] = {}
    for item in group:
        sessions.setdefault(id(item.session), (item.session, []))[1].append(item)
    return list(sessions.values())
