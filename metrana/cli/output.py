"""What commands print where: data to standard output, everything else to standard error.

The only module that prints.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from metrana import integers

if TYPE_CHECKING:
    from rich.console import Console

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3

_PIPED_WIDTH: Final = 160
# What moves the cursor, rings, or begins a command to the terminal: names come from anywhere.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def complain(message: str) -> None:
    """Says what went wrong."""
    print(f"metrana: {visible(message)}", file=sys.stderr)


def note(message: str) -> None:
    """Says how it goes on."""
    print(visible(message), file=sys.stderr, flush=True)


def show(line: str) -> None:
    """Prints a line of data; at once, since a reader may wait for it."""
    print(visible(line), flush=True)


def visible(text: str) -> str:
    """Gives a text as a terminal may have it: control characters but line ends and tabs escaped."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def written(value: Any) -> str:
    """Writes a value of a config as Python would, integers at any length."""
    return integers.digits(value) if integers.is_long(value) else repr(value)


def console() -> Console:
    """Gives what prints tables; into a pipe lines of up to 160 characters, as it has no width."""
    from rich.console import Console  # no command that does without tables needs it

    # A console asks for the terminal's width by itself, and obeys COLUMNS.
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_PIPED_WIDTH if piped else None, highlight=False)


def print_json(value: Any) -> None:
    """Prints a value as JSON that any reader takes.

    Non-finite numbers, times, and integers of more digits than readers take are text.
    """
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(plain(value), ensure_ascii=not is_unicode, indent=2)
    # What is left of control characters is inside of strings.
    print(re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found.group()):04x}", text))


def plain(value: Any) -> Any:
    """Gives a value as any reader of JSON takes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if integers.is_long(value):
        return integers.digits(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
