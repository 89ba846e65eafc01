"""Forks and the end of the process: hooks that a first `init()` registers, once per process."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Final

from metrana import _native
from metrana.faults import warn

if TYPE_CHECKING:
    from metrana.run import Run

_EXIT_TIMEOUT_S: Final = 5.0

_open_runs: dict[int, Run] = {}
_registered_pid: int | None = None
_fork_hooks_registered = False
_uncaught_exception = False
_opening = (os.getpid(), threading.RLock())


def track(run: Run) -> None:
    """Close this run when the process ends, if nobody has until then."""
    _register()
    _open_runs[id(run)] = run


def untrack(run: Run) -> None:
    """Forget a run that is closed."""
    _open_runs.pop(id(run), None)
    if _native.current_run() is run:
        _native.set_current_run(None)


def opening() -> threading.RLock:
    """Held while a run is looked for and opened, so that two threads do not open one twice."""
    global _opening
    if _opening[0] != os.getpid():  # in a forked child its owner may not exist
        _opening = (os.getpid(), threading.RLock())
    return _opening[1]


def open_runs() -> list[Run]:
    """The runs of this process that are open, the oldest first."""
    return list(_open_runs.values())


def _register() -> None:
    global _registered_pid, _fork_hooks_registered
    if not _fork_hooks_registered and hasattr(os, "register_at_fork"):
        _fork_hooks_registered = True
        os.register_at_fork(
            before=_native.fork_prepare,
            after_in_parent=_native.fork_in_parent,
            after_in_child=_native.fork_in_child,
        )
    if _registered_pid == os.getpid():
        return
    if _registered_pid is None:
        _chain_excepthook()
    _registered_pid = os.getpid()
    # Per process, because newer Pythons drop inherited handlers in the children of multiprocessing.
    atexit.unregister(_close_at_exit)
    atexit.register(_close_at_exit)
    _register_in_multiprocessing_child()


def _register_in_multiprocessing_child() -> None:
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return
    # Such a child ends by os._exit, past atexit, but after its own finalizers.
    from multiprocessing import util

    util.Finalize(None, _close_at_exit, exitpriority=10)


def _chain_excepthook() -> None:
    previous = sys.excepthook

    def excepthook(
        kind: type[BaseException], value: BaseException, traceback: types.TracebackType | None
    ) -> None:
        global _uncaught_exception
        _uncaught_exception = True
        previous(kind, value, traceback)

    sys.excepthook = excepthook


def _close_at_exit() -> None:
    deadline = time.monotonic() + _EXIT_TIMEOUT_S
    sentences: list[str] = []
    raised: list[Warning] = []
    for run in open_runs():
        left = max(0.1, deadline - time.monotonic())
        try:
            undelivered = run._close_at_exit(left, failed=_uncaught_exception)  # noqa: SLF001
        except Warning as warning:  # the user made errors of them; the other runs close first
            raised.append(warning)
        else:
            sentences += [] if undelivered is None else [undelivered]
    for sentence in sentences:
        warn(sentence)
    if raised:
        raise raised[0]
