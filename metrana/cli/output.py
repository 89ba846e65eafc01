"""What commands print where: data to standard output, everything else to standard error.

The only module that prints.
"""

from __future__ import annotations

import json
import math
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3

_PIPED_WIDTH: Final = 160


def complain(message: str) -> None:
    """Says what went wrong."""
    print(f"metrana: {message}", file=sys.stderr)


def note(message: str) -> None:
    """Says how it goes on."""
    print(message, file=sys.stderr, flush=True)


def show(line: str) -> None:
    """Prints a line of data; at once, since a reader may wait for it."""
    print(line, flush=True)


def console() -> Console:
    """Gives what prints tables; into a pipe whole lines, however long, since nobody wraps there."""
    from rich.console import Console  # no command that does without tables needs it

    # A console asks for the terminal's width by itself, and obeys COLUMNS.
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_PIPED_WIDTH if piped else None, highlight=False)


def print_json(value: Any) -> None:
    """Prints a value as JSON that any reader takes: non-finite numbers and times are text."""
    print(json.dumps(plain(value), ensure_ascii=False, indent=2))


def plain(value: Any) -> Any:
    """Gives a value as any reader of JSON takes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
