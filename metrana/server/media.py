"""The media store: the files of renderings, and what has come of those that are still sent.

```
<folder>/<run_id>/<rendering_id>.mp4                what arrived whole
<folder>/<run_id>/<writer_id>/<rendering_id>.part   what is arriving
```

Folders are 0700, files 0600. A name that was written stays: each folder is forced to the disk with
what is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class MediaName:
    """Which rendering is meant; every part is 32 hex digits.

    Attributes:
        run_id: The run's own, never an alias's.
        writer_id: Who sends it.
        rendering_id: Its own.
    """

    run_id: str
    writer_id: str
    rendering_id: str


class MediaStore(Protocol):
    """Keeps the files of renderings. Every call blocks; one thread at a time may write."""

    def write(self, name: MediaName, pieces: Iterable[tuple[int, bytes | memoryview]]) -> None:
        """Puts pieces, each behind its offset, where they belong; durable on return.

        Pieces of what is complete change nothing.

        Raises:
            OSError: They could not be written; to do so again is right.
        """

    def is_complete(self, name: MediaName) -> bool:
        """Whether a rendering arrived whole."""

    def complete(self, name: MediaName, size_bytes: int, sha256: bytes) -> bool:
        """Reads a rendering whose last piece was written, and keeps it if it is what was sent.

        Returns:
            Whether it is; what is not is removed. Durable on return.

        Raises:
            OSError: It could not be read or renamed; to try again is right.
        """

    def path(self, run_id: str, rendering_id: str) -> Path:
        """Where a complete rendering's file is."""

    def open(self, run_id: str, rendering_id: str) -> BinaryIO:
        """Opens a complete rendering for reading.

        Raises:
            FileNotFoundError: It is not there.
        """

    def end_writer(self, run_id: str, writer_id: str) -> None:
        """Removes what a writer has begun to send and will not go on with."""

    def remove_run(self, run_id: str) -> None:
        """Removes everything of a run."""


class MediaFolder:
    """The media store that is a directory.

    Args:
        folder: Where; made with the first piece.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Known to be there for good, in this process.
        self._durable: set[Path] = set()

    def write(self, name: MediaName, pieces: Iterable[tuple[int, bytes | memoryview]]) -> None:
        """Puts pieces where they belong."""
        if self.is_complete(name):
            return
        part = self._part(name)
        try:
            self._prepare(part.parent)
            with _opened(part) as fd:
                for offset, data in pieces:
                    _write_at(fd, data, offset)
                os.fsync(fd)
        except FileNotFoundError:
            # Somebody removed a folder: the next attempt makes it anew.
            self._durable.clear()
            raise
        # Always, even if the file was there: who made it may have died before it came to this.
        _sync_folder(part.parent)

    def is_complete(self, name: MediaName) -> bool:
        """Whether a rendering arrived whole."""
        return self.path(name.run_id, name.rendering_id).exists()

    def complete(self, name: MediaName, size_bytes: int, sha256: bytes) -> bool:
        """Compares what arrived with what was sent."""
        part, whole = self._part(name), self.path(name.run_id, name.rendering_id)
        # A process that died behind the rename left the whole one, which nobody has heard of.
        arrived = whole if whole.exists() else part
        if not _is(arrived, size_bytes, sha256):
            arrived.unlink(missing_ok=True)
            return False
        if arrived is part:
            part.replace(whole)
        _sync_folder(whole.parent)
        return True

    def path(self, run_id: str, rendering_id: str) -> Path:
        """Where a complete rendering's file is."""
        return self._folder / run_id / f"{rendering_id}.mp4"

    def open(self, run_id: str, rendering_id: str) -> BinaryIO:
        """Opens a complete rendering."""
        return self.path(run_id, rendering_id).open("rb")

    def end_writer(self, run_id: str, writer_id: str) -> None:
        """Removes what a writer left unfinished."""
        self._remove(self._folder / run_id / writer_id)

    def remove_run(self, run_id: str) -> None:
        """Removes everything of a run."""
        self._remove(self._folder / run_id)

    def _part(self, name: MediaName) -> Path:
        return self._folder / name.run_id / name.writer_id / f"{name.rendering_id}.part"

    def _prepare(self, folder: Path) -> None:
        """Makes a folder, and those above it, that survive the machine."""
        if folder in self._durable:
            return
        if folder != self._folder:
            self._prepare(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _sync_folder(folder.parent)
        self._durable.add(folder)

    def _remove(self, folder: Path) -> None:
        for known in [*self._durable]:
            if known.is_relative_to(folder):
                self._durable.discard(known)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(fd, left, offset)
        left, offset = left[written:], offset + written


def _is(path: Path, size_bytes: int, sha256: bytes) -> bool:
    """Whether a file has these bytes; its length says most, and tells at once."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size_bytes:
                return False
            return hashlib.file_digest(file, "sha256").digest() == sha256
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
