"""Whether the files of a part of the embedded engine are as long as they were meant to be."""

from pathlib import Path
from typing import Final

# What the engine does not count as the part's bytes. They are short: a full disk leaves them empty,
# or cut at the end of a block.
_UNCOUNTED: Final = frozenset(
    {
        "checksums.txt",
        "columns.txt",
        "columns_substreams.txt",
        "default_compression_codec.txt",
        "metadata_version.txt",
    }
)
_SECTOR_BYTES: Final = 512


def is_surely_whole(part: Path, byte_count: int) -> bool:
    """Tells whether a part's files have the length that the engine counted while writing them.

    The engine keeps the count as it meant to write, whatever the disk took of it. False says
    nothing: another version may count otherwise, and a merge may have removed the part meanwhile.

    Args:
        part: The part's folder.
        byte_count: Its `bytes_on_disk` in `system.parts`.
    """
    found = 0
    try:
        for file in part.rglob("*"):
            if file.is_dir():
                continue
            size = file.stat().st_size
            if file.name not in _UNCOUNTED:
                found += size
            elif size % _SECTOR_BYTES == 0:
                return False
    except OSError:
        return False
    return found == byte_count
