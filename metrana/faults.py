"""Warnings, attributed to the line of the user's program that they are about."""

from __future__ import annotations

import sys
import warnings
from typing import Final

from metrana.errors import MetranaWarning

_PACKAGE: Final = __file__.removesuffix("faults.py")


def warn(message: str) -> None:
    """Warn of something that stops nothing. The native module calls this too."""
    warnings.warn(message, MetranaWarning, stacklevel=_users_level())


def _users_level() -> int:
    """The stack level of the nearest frame outside this package, as `warn` counts it."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - what `warnings` itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
