"""What tests of processes that beget processes share."""

from __future__ import annotations

from collections.abc import Callable

Stored = Callable[[], dict[str, list[float]]]
"""Delivers what dead processes left; returns every stored value by metric, repeats too."""

START = """
import ctypes, os, signal, sys, threading, time

def ended(pid):
    # 0, or what the child died of; one that hangs is killed.
    deadline = time.monotonic() + 30
    while not (status := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(status[1])

def fork(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid

def native_fork(work):
    # As a library does it: no hook of Python's is run.
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid
"""
"""What a script needs to fork children and to wait for them."""


def is_calm(stderr: str) -> bool:
    """Whether no process said that something went wrong."""
    return not any(word in stderr for word in ("Traceback", "panicked", "Warning", "Error"))
