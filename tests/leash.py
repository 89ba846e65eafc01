"""Processes that end with the tests, whatever ends these: a signal, a crash, a limit of time."""

from __future__ import annotations

# Before a command: the kernel kills its process when the thread that started it is gone. It need
# not be able to notice, for it may be stopped.
LEASH = ["setpriv", "--pdeathsig", "KILL", "--"]
