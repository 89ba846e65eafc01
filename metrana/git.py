"""The commit a training script runs from, read from files: no process is started, nothing waits."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SHA: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
# Symbolic references may point at each other.
_MAX_REFERENCES: Final = 5


def commit_sha() -> str | None:
    """The commit that is checked out where the process works, else where its script lies.

    Returns:
        40 or 64 hexadecimal digits; None outside a repository or if it cannot be read.
    """
    for folder in _starting_folders():
        try:
            sha = _commit_at(folder)
        except (OSError, ValueError):  # unreadable: a run without a commit is better than none
            continue
        if sha is not None:
            return sha
    return None


def _starting_folders() -> Iterator[Path]:
    with contextlib.suppress(OSError):  # the working directory may be gone
        yield Path.cwd()
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script:
        yield Path(os.path.realpath(script)).parent


def _commit_at(folder: Path) -> str | None:
    for parent in (folder, *folder.parents):
        entry = parent / ".git"
        if entry.is_dir():
            return _resolve(entry, entry, "HEAD")
        if entry.is_file():  # a worktree or submodule: "gitdir: <path>"
            git_dir = parent / entry.read_text().removeprefix("gitdir:").strip()
            return _resolve(git_dir, _common_dir(git_dir), "HEAD")
    return None


def _common_dir(git_dir: Path) -> Path:
    """Where a worktree's branches lie."""
    pointer = git_dir / "commondir"
    return git_dir / pointer.read_text().strip() if pointer.is_file() else git_dir


def _resolve(git_dir: Path, common_dir: Path, reference: str) -> str | None:
    for _ in range(_MAX_REFERENCES):
        text = _read_reference(git_dir, common_dir, reference)
        if text is None or _SHA.fullmatch(text):
            return text
        if not text.startswith("ref:"):
            return None
        reference = text.removeprefix("ref:").strip()
    return None


def _read_reference(git_dir: Path, common_dir: Path, reference: str) -> str | None:
    for folder in (git_dir, common_dir):
        path = folder / reference
        if path.is_file():
            return path.read_text().strip()
    packed = common_dir / "packed-refs"
    if packed.is_file():
        for line in packed.read_text().splitlines():
            sha, _, name = line.partition(" ")
            if name == reference:
                return sha
    return None
