"""Patience with stores: what is done to them is tried again until it works, or cannot ever."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from metrana.server.store_faults import Verdict, judge

_log = logging.getLogger(__name__)

_PAUSES_S: Final = (0.1, 0.5, 2.0, 5.0, 10.0)

Result = TypeVar("Result")


class Patience:
    """Repeats an action on the stores until it succeeds: there is nowhere else to put data.

    Only a fault that passes is waited for. Writers keep everything that is not acknowledged, so
    waiting loses nothing; the fault is logged once and shown by `fault` until it is over. One
    thread may repeat; the rest is for any.
    """

    def __init__(self) -> None:
        self._fault: str | None = None
        self._is_over = threading.Event()

    @property
    def fault(self) -> str | None:
        """Why nothing can be done at present, in a sentence; None if all is well."""
        return self._fault

    def end(self) -> None:
        """From now on the first failure is raised. Does not block."""
        self._is_over.set()

    def repeat(self, what: str, action: Callable[[], Result]) -> Result:
        """Does something until it works. Blocks.

        Args:
            what: What it is, as in "cannot insert points".
            action: Done once or more.

        Returns:
            What `action` returned when it worked.

        Raises:
            Exception: What `action` raised, if it will not pass, or behind `end`.
        """
        attempt = 0
        while True:
            try:
                result = action()
            except Exception as error:  # whatever it is, `judge` says whether it passes
                if judge(error) is not Verdict.PASSING:
                    self._fault = None
                    raise
                if self._fault is None:
                    _log.error("cannot %s, trying again until it works: %s", what, error)
                self._fault = f"cannot {what}: {error}"
                if self._is_over.wait(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]):
                    raise
                attempt += 1
            else:
                if self._fault is not None:
                    _log.warning("could %s after %d failures", what, attempt)
                    self._fault = None
                return result
