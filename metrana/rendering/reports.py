"""What workers have to say, told in the user's thread as `error_strategy` says."""

from __future__ import annotations

import threading
from typing import Final

from metrana.enums import ErrorStrategy
from metrana.errors import MetranaSenderError
from metrana.faults import warn

_RAISING_AT_CLOSE: Final = (ErrorStrategy.RAISE_ON_LOG, ErrorStrategy.RAISE_ON_CLOSE)


class Reports:
    """Faults and remarks that nobody has seen yet. Thread-safe; never blocks for long.

    Args:
        strategy: How faults come to light.
    """

    def __init__(self, strategy: ErrorStrategy) -> None:
        self._strategy = strategy
        # Reentrant: a signal's handler may log or close while its thread is in here.
        self._lock = threading.RLock()
        self._known: set[str] = set()
        # All there ever were: there are few causes.
        self._messages: list[str] = []
        self._faults: list[str] = []
        self._unshown: list[str] = []

    @property
    def fault_count(self) -> int:
        """How many messages `take` gave or will give."""
        return len(self._messages)

    def messages(self) -> list[str]:
        """Those of all faults, the oldest first."""
        with self._lock:
            return list(self._messages)

    def fault(self, cause: str, message: str) -> None:
        """Report what went wrong, unless something did for the same cause."""
        with self._lock:
            if cause not in self._known:
                self._known.add(cause)
                self._messages.append(message)
                self._faults.append(message)
                if self._strategy is ErrorStrategy.WARN:
                    self._unshown.append(message)

    def remark(self, cause: str, message: str) -> None:
        """Say once what is no fault and still not what the user expects."""
        with self._lock:
            if cause not in self._known:
                self._known.add(cause)
                if self._strategy is not ErrorStrategy.SILENT:
                    self._unshown.append(message)

    def take(self) -> list[str]:
        """Take the faults, the oldest first."""
        with self._lock:
            taken, self._faults = self._faults, []
        return taken

    def show(self) -> None:
        """After a log call: warn of what is new.

        Raises:
            MetranaSenderError: If `error_strategy` is `raise_on_log` and there are faults.
        """
        if self._unshown or self._faults:  # a look without the lock: mostly there is nothing
            self._warn()
            if self._strategy is ErrorStrategy.RAISE_ON_LOG:
                self._raise()

    def show_at_close(self) -> None:
        """At the end of a close: warn of what is new.

        Raises:
            MetranaSenderError: If `error_strategy` is a raising one and there are faults.
        """
        self._warn()
        if self._strategy in _RAISING_AT_CLOSE:
            self._raise()

    def show_at_exit(self) -> None:
        """At the end of the process, where there is nobody to raise to: warn of everything."""
        if self._strategy in _RAISING_AT_CLOSE:
            self._unshown += self.take()
        self._warn()

    def _warn(self) -> None:
        with self._lock:
            unshown, self._unshown = self._unshown, []
        for message in unshown:
            warn(message)

    def _raise(self) -> None:
        faults = self.take()
        if faults:
            raise MetranaSenderError("; ".join(faults))
