"""What commands print where: data to standard output, everything else to standard error.

The only module that prints.
"""

from __future__ import annotations

import json
import math
import sys
from datetime import datetime
from typing import Any, Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3


def complain(message: str) -> None:
    """Says what went wrong."""
    print(f"metrana: {message}", file=sys.stderr)


def note(message: str) -> None:
    """Says how it goes on."""
    print(message, file=sys.stderr, flush=True)


def show(line: str) -> None:
    """Prints a line of data; at once, since a reader may wait for it."""
    print(line, flush=True)


def print_json(value: Any) -> None:
    """Prints a value as JSON that any reader takes: non-finite numbers and times are text."""
    print(json.dumps(_plain(value), ensure_ascii=False, indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
