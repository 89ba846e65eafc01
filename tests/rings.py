"""What dead writers of tests left in memory."""

from __future__ import annotations

from pathlib import Path

from metrana import _native


def rings_left_behind(folder: Path) -> dict[Path, Path]:
    """Gives the rings of dead writers whose own folders were under this one and are gone."""
    left = {Path(ring["path"]): Path(ring["folder"]) for ring in _native.orphaned_rings()}
    return {ring: of for ring, of in left.items() if of.is_relative_to(folder)}
