"""Which file system a folder is on."""

from __future__ import annotations

from pathlib import Path

_IN_MEMORY = ("tmpfs", "ramfs")


def file_system(folder: Path) -> str:
    """Returns its type, such as "ext4"."""
    folder = folder.resolve()
    found = (Path(), "unknown")
    # Of mounts at one place the last is seen.
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, source = (part.split() for part in line.split(" - ", 1))
        point = Path(mount[4].encode().decode("unicode_escape"))
        if folder.is_relative_to(point) and len(point.parts) >= len(found[0].parts):
            found = (point, source[0])
    return found[1]


def refuse_memory(folder: Path) -> None:
    """Raises if writing there would not reach a disk."""
    kind = file_system(folder)
    if kind in _IN_MEMORY:
        raise RuntimeError(f"the measured folder is on {kind}, not on a disk: give --folder")
