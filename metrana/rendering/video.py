"""One video: its file while it grows, and what becomes of that file."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from metrana.rendering import files, mp4
from metrana.rendering.encoder import Encoder, Sample
from metrana.rendering.frames import Pixels, Place

_JSON_VERSION: Final = 1
_COPY_BYTES: Final = 512 * 1024


class Video:
    """A video that is recorded to `<rendering_id>.part`, with `<rendering_id>.json` beside it.

    Not thread-safe: one worker has it at a time.

    Args:
        folder: Where its files are.
        place: Its environment and episode, and the step of its first frame.
        part: From 1: which of the episode's videos it is.
        encoder: For frames of its format; it has no other video.

    Raises:
        OSError: If its files cannot be written; then there are none.

    Attributes:
        rendering_id: 32 hexadecimal digits.
        place, part, encoder: As given.
    """

    def __init__(self, folder: Path, place: Place, part: int, encoder: Encoder) -> None:
        self.rendering_id = secrets.token_hex(16)
        self.place, self.part, self.encoder = place, part, encoder
        self._folder = folder
        self._samples = mp4.Samples()
        self._is_abandoned = False
        self._descriptor = -1
        height, width = encoder.format_.shape[:2]
        self._track = mp4.Track(
            width=width,
            height=height,
            fps=encoder.format_.fps,
            configuration=encoder.configuration,
        )
        head = mp4.fragmented_head(self._track)
        self._head_bytes = self._size_bytes = len(head)
        try:
            files.replace(self._file("json"), self._file("tmp"), self._description())
            self._descriptor = files.create(self._file("part"))
            self._write(head)
        except BaseException:
            self.give_up()
            raise

    def add(self, pixels: Pixels) -> None:
        """Encode a frame and write it; when this returns, no kill of the process takes it away.

        Raises:
            OSError: If the disk does not take it. The file then has what it had before.
        """
        for sample in self.encoder.encode(pixels):
            self._append(sample)

    def abandon(self) -> None:
        """Write nothing more: the file belongs to whoever recovers it. From any thread."""
        self._is_abandoned = True

    def finish(self) -> Path | None:
        """End the video: `<rendering_id>.mp4`, with its index in front.

        Where the disk has no room for it, the file becomes that as it was recorded.

        Returns:
            The file; None if it has no frame, so that nothing is left of it.

        Raises:
            OSError: If it cannot be read or renamed; then the `.part` stays for recovery.
        """
        try:
            for sample in self.encoder.end_video():
                self._append(sample)
            if not self._samples.sizes:
                self._file("part").unlink(missing_ok=True)
                self._file("json").unlink(missing_ok=True)
                return None
            self._describe_whole()
            finished = self._file("mp4")
            try:
                with files.removed_on_error(self._file("tmp")):
                    self._write_plain(self._file("tmp"))
                    self._file("tmp").rename(finished)
            except OSError:
                # Every player reads this too, only that some cannot seek in it.
                self._file("part").rename(finished)
            else:
                self._file("part").unlink()
            return finished
        finally:
            self._close()

    def give_up(self) -> None:
        """End a video that cannot go on, with what it has: the `.part` stays for recovery."""
        self._close()
        if not self._samples.sizes:
            for kind in ("part", "json"):
                with contextlib.suppress(OSError):
                    self._file(kind).unlink(missing_ok=True)

    def _append(self, sample: Sample) -> None:
        if self._is_abandoned:
            raise InterruptedError("the run was closed meanwhile")
        count = len(self._samples.sizes)
        head = mp4.fragment_head(
            self._track, count, len(sample.data), is_keyframe=sample.is_keyframe
        )
        try:
            self._write(head + sample.data)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size_bytes)
                os.lseek(self._descriptor, self._size_bytes, os.SEEK_SET)
            raise
        self._size_bytes += len(head) + len(sample.data)
        self._samples.add(len(sample.data), is_keyframe=sample.is_keyframe)

    def _write(self, data: bytes) -> None:
        files.write_all(self._descriptor, data)

    def _write_plain(self, path: Path) -> None:
        """Write the frames anew without encoding them, the index in front."""
        descriptor = files.create(path)
        try:
            files.write_all(descriptor, mp4.plain_head(self._track, self._samples))
            for data in self._pieces():
                files.write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def _pieces(self) -> Iterator[bytes]:
        """The bytes of all frames, some of them at a time."""
        start = end = self._head_bytes
        spans: list[slice] = []
        for size in self._samples.sizes:
            begin = end - start + mp4.FRAGMENT_HEAD_BYTES
            spans.append(slice(begin, begin + size))
            end += mp4.FRAGMENT_HEAD_BYTES + size
            if end - start >= _COPY_BYTES:
                yield self._read(start, end, spans)
                start, spans = end, []
        yield self._read(start, end, spans)

    def _read(self, start: int, end: int, spans: list[slice]) -> bytes:
        data = memoryview(os.pread(self._descriptor, end - start, start))
        if len(data) < end - start:
            raise OSError(f"{self._file('part')} is shorter than what was written to it")
        return b"".join(data[span] for span in spans)

    def _describe_whole(self) -> None:
        """Say how many frames there are, without which their reader counts them in the file."""
        count = len(self._samples.sizes)
        # In place and longer than before: this needs no room on a disk that is full, and for who
        # finds it beside a `.part` it says nothing new.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._file("json"), os.O_WRONLY | os.O_CLOEXEC)
            try:
                files.write_all(descriptor, self._description(frame_count=count))
            finally:
                os.close(descriptor)

    def _description(self, **more: int) -> bytes:
        description = {
            "version": _JSON_VERSION,
            "env_id": self.place.env_id,
            "episode": self.place.episode,
            "rl_step": self.place.rl_step,
            "part": self.part,
            "width": self._track.width,
            "height": self._track.height,
            "fps": float(self._track.fps),
            **more,
        }
        return json.dumps(description).encode()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self.rendering_id}.{kind}"
