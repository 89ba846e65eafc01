"""What the folders of a run in a spool are called: docs/decisions/003-run-identity.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_WRITERS: Final = "[0-9]" * 6
_PUT_ASIDE: Final = f"{_WRITERS}-*.unreadable"


def has_writers(run_folder: Path) -> bool:
    """Tells whether any writer has a folder there, readable or not."""
    return any(run_folder.glob(_WRITERS))


def put_aside(run_folder: Path) -> list[Path]:
    """Gives the folders of what delivered writers left that nobody can read."""
    return sorted(run_folder.glob(_PUT_ASIDE))
