"""H.264 by libx264, through PyAV: pixels in, the samples of an MP4 track out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

import av
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from metrana.rendering.frames import Format, Pixels

# A frame comes out as soon as it goes in, none waits for later ones. One thread: the training has
# the other cores. Lengths before the units, not start codes, are what MP4 has.
_OPTIONS: Final = {
    "preset": "veryfast",
    "tune": "zerolatency",
    "crf": "23",
    "bf": "0",
    "x264-params": "annexb=0",
}
# PyAV has names for these only in newer versions. BT.709 is 1 as primaries, as transfer, as matrix
# (ITU-T H.273) and in swscale; of the ranges 1 is limited and 2 is full.
_BT709: Final = 1
_LIMITED_RANGE: Final = 1
_FULL_RANGE: Final = 2
# swscale's: four pixels have one colour, their mean. Exact rounding takes longer; without it the
# dithering gives gray a tint.
_AREA: Final = 0x20
_ACCURATE_ROUNDING: Final = 0x40000


class Sample(NamedTuple):
    """An encoded frame."""

    data: bytes
    is_keyframe: bool


class Encoder:
    """Encodes the frames of one video after the other. Not thread-safe.

    Encoding holds no interpreter's lock.

    Args:
        format_: The size, colours and speed of every frame.

    Raises:
        av.error.FFmpegError: If the encoder cannot be opened.
    """

    def __init__(self, format_: Format) -> None:
        self.format_ = format_
        height, width = format_.shape[:2]
        context = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.framerate, context.time_base = format_.fps, 1 / format_.fps
        context.thread_count = 1
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        context.flags |= Flags.global_header
        context.options = dict(_OPTIONS)
        context.open()
        self._context = context
        self._time_base = context.time_base
        is_gray = len(format_.shape) == 2
        self._layout = "gray" if is_gray else "rgb24"
        self._averaging = _AREA | _ACCURATE_ROUNDING if is_gray else _AREA
        self._reformatter = VideoReformatter()
        self._count = self._held_count = 0
        self._begins_video = True

    @property
    def configuration(self) -> bytes:
        """What a decoder has to know before the first frame: the content of `avcC`."""
        return bytes(self._context.extradata or b"")

    def encode(self, pixels: Pixels) -> Iterator[Sample]:
        """Encode the next frame, which is read and not kept."""
        frame = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(pixels, self._layout),
            format="yuv420p",
            src_color_range=_FULL_RANGE,
            dst_color_range=_LIMITED_RANGE,
            dst_colorspace=_BT709,
            interpolation=self._averaging,
        )
        frame.pts, frame.time_base = self._count, self._time_base
        self._count += 1
        self._held_count += 1
        if self._begins_video:
            frame.pict_type = PictureType.I
            self._begins_video = False
        # One frame makes one sample. To ask for more is to wait for the interpreter's lock again.
        for packet in islice(self._context.encode_lazy(frame), 1):
            self._held_count -= 1
            yield Sample(bytes(packet), bool(packet.is_keyframe))

    def end_video(self) -> Iterator[Sample]:
        """What is still to come of the video: with these options nothing. The next may follow."""
        self._begins_video = True
        if self._held_count:
            for packet in self._context.encode(None):
                yield Sample(bytes(packet), bool(packet.is_keyframe))

    @property
    def is_spent(self) -> bool:
        """Whether no other video may follow, as something had to be flushed out of it."""
        return self._held_count > 0


class Encoders:
    """Those of videos that have ended, for the next ones. Thread-safe; never blocks for long.

    To open one for each video takes time, and where many are open at a time, which end in any
    order, the blocks of memory that they leave and want fit each other ever less.
    """

    def __init__(self) -> None:
        # Reentrant: a signal's handler may close the run while its thread is in here.
        self._lock = threading.RLock()
        self._free: list[Encoder] = []

    def __len__(self) -> int:
        return len(self._free)

    def take(self, format_: Format) -> Encoder:
        """One for a new video.

        Raises:
            av.error.FFmpegError: If it cannot be opened.
        """
        with self._lock:
            for index in reversed(range(len(self._free))):
                if self._free[index].format_ == format_:
                    return self._free.pop(index)
            # There are never more than there were videos open at a time.
            self.drop_one()
        return Encoder(format_)

    def give_back(self, encoder: Encoder) -> None:
        """Take one whose video has ended as it should."""
        with self._lock:
            if not encoder.is_spent:
                self._free.append(encoder)

    def drop_one(self) -> None:
        """Close the one that has been without a video for longest, if there is one."""
        with self._lock:
            del self._free[:1]

    def clear(self) -> None:
        """Close all of them."""
        with self._lock:
            self._free.clear()
