"""Files of videos: nobody else's to read, and never to be seen half written."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from metrana.rendering.names import numbered


def create(path: Path) -> int:
    """A descriptor of a new file to write, mode 0600.

    Raises:
        FileExistsError: If there is a file of that name.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: a disk that is nearly full takes the beginning first."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace(path: Path, temporary: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    with removed_on_error(temporary):
        descriptor = create(temporary)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        temporary.rename(path)


@contextlib.contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Leave nothing behind of what could not be written."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def publish(video: Path, folder: Path, name: str) -> Path:
    """Copy a finished video into a folder of the user's, under the first of its names that is free.

    Args:
        video: The file.
        folder: Made if missing.
        name: What it is to be called. Where another file has that name: with `-2`, `-3` … in it.

    Returns:
        Where it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{secrets.token_hex(16)}.tmp"
    with removed_on_error(temporary):
        os.close(create(temporary))
        shutil.copyfile(video, temporary)
        for number in itertools.count(1):
            path = folder / numbered(name, number)
            if _moved(temporary, path):
                return path
    raise AssertionError("the numbers never end")


def _moved(temporary: Path, path: Path) -> bool:
    """Rename a file, unless there is one of that name."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:  # a file system without links: claim the name, then replace the claim
        try:
            os.close(create(path))
        except FileExistsError:
            return False
        with removed_on_error(path):
            temporary.rename(path)
        return True
    temporary.unlink()
    return True
