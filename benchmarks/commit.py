"""Which state of the sources was measured."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path


def commit(root: Path, but: Iterable[Path] = ()) -> str:
    """Returns what is checked out; with "-dirty" if there are files that it has not, or others.

    Args:
        root: The work tree.
        but: Files whose changes do not count.
    """
    try:
        sha = _git(root, "rev-parse", "HEAD")
        left_out = [f":(exclude){path.relative_to(root)}" for path in but]
        changed = _git(root, "status", "--porcelain", "--", ".", *left_out)
    except (OSError, subprocess.CalledProcessError):  # no git, or no work tree
        return "no commit"
    return f"{sha}-dirty" if changed else sha


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
