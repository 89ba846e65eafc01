"""How faults of background threads reach the user as warnings."""

from __future__ import annotations

import warnings

from metrana.errors import MetranaWarning


def warn_of_fault(message: str) -> None:
    """Warn of a fault; the native module calls it from within a log call."""
    # No frame of ours lies between: level 2 is the line that logged.
    warnings.warn(message, MetranaWarning, stacklevel=2)
