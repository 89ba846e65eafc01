"""MP4 files with one H.264 track (ISO/IEC 14496-12 and -15), written as far as they are known.

While it is recorded a file is *fragmented*, a fragment a frame, each written at once and whole:

```
ftyp moov(no samples, mvex)  moof mdat  moof mdat  moof mdat …
```

Finished it is *plain*, its index in front, so that a player that has its beginning can go anywhere:

```
ftyp moov(every sample's size, which of them are keyframes)  mdat
```

FFmpeg's muxer writes the same boxes, but a fragment only when the next frame comes, and it keeps
the interpreter's lock while it moves the index to the front.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

_TRACK: Final = 1
_IDENTITY_MATRIX: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_UNDETERMINED_LANGUAGE: Final = 0x55C4
_DPI_72: Final = 72 << 16
_IS_KEYFRAME: Final = 0x02000000
_NEEDS_OTHERS: Final = 0x01010000
# moof(mfhd, traf(tfhd, tfdt, trun of one sample)) and the head of mdat.
_MOOF_BYTES: Final = 100
FRAGMENT_HEAD_BYTES: Final = _MOOF_BYTES + 8


@dataclass(frozen=True, kw_only=True)
class Track:
    """What is known of a video before its first frame."""

    width: int
    height: int
    fps: Fraction
    configuration: bytes
    """The decoder's: the content of `avcC`."""


@dataclass
class Samples:
    """The frames of a track, in order."""

    sizes: array[int] = field(default_factory=lambda: array("I"))
    """Bytes of each."""
    keyframes: array[int] = field(default_factory=lambda: array("I"))
    """Numbers of those that need no other, from 1."""

    def add(self, size_bytes: int, *, is_keyframe: bool) -> None:
        """Count one more."""
        self.sizes.append(size_bytes)
        if is_keyframe:
            self.keyframes.append(len(self.sizes))


def fragmented_head(track: Track) -> bytes:
    """What stands before the first fragment."""
    track_defaults = _box(b"mvex", _full_box(b"trex", 0, 0, struct.pack(">5I", _TRACK, 1, 0, 0, 0)))
    return _ftyp(b"iso5", b"iso6", b"mp41") + _moov(track, Samples(), 0, track_defaults)


def fragment_head(track: Track, index: int, size_bytes: int, *, is_keyframe: bool) -> bytes:
    """What stands before a frame's bytes: `FRAGMENT_HEAD_BYTES`.

    Args:
        track: The video.
        index: How many frames come before it.
        size_bytes: Of the frame.
        is_keyframe: Whether it needs no other.
    """
    duration = track.fps.denominator
    flags = _IS_KEYFRAME if is_keyframe else _NEEDS_OTHERS
    # Offsets count from the moof; the sample has a duration, size and flags of its own.
    run = struct.pack(">2I3I", 1, FRAGMENT_HEAD_BYTES, duration, size_bytes, flags)
    fragment = _box(
        b"traf",
        _full_box(b"tfhd", 0, 0x020000, struct.pack(">I", _TRACK)),
        _full_box(b"tfdt", 1, 0, struct.pack(">Q", index * duration)),
        _full_box(b"trun", 0, 0x000701, run),
    )
    sequence = _full_box(b"mfhd", 0, 0, struct.pack(">I", index + 1))
    return _box(b"moof", sequence, fragment) + struct.pack(">I4s", 8 + size_bytes, b"mdat")


def plain_head(track: Track, samples: Samples) -> bytes:
    """What stands before the bytes of all frames, which follow one another."""
    size_bytes = sum(samples.sizes)
    is_large = size_bytes + 8 >= 2**32
    data_head = (
        struct.pack(">I4sQ", 1, b"mdat", 16 + size_bytes)
        if is_large
        else struct.pack(">I4s", 8 + size_bytes, b"mdat")
    )
    brands = _ftyp(b"isom", b"iso2", b"avc1", b"mp41")
    # The index says where the frames begin, which its own length decides.
    length = len(brands) + len(_moov(track, samples, 0)) + len(data_head)
    return brands + _moov(track, samples, length) + data_head


def _moov(track: Track, samples: Samples, first_byte: int, extension: bytes = b"") -> bytes:
    scale, duration = track.fps.numerator, len(samples.sizes) * track.fps.denominator
    movie = struct.pack(">2QIQ", 0, 0, scale, duration) + struct.pack(
        ">IH10x36s24xI", 0x10000, 0x100, _IDENTITY_MATRIX, _TRACK + 1
    )
    head = struct.pack(">2QIIQ", 0, 0, _TRACK, 0, duration) + struct.pack(
        ">16x36sII", _IDENTITY_MATRIX, track.width << 16, track.height << 16
    )
    media = struct.pack(">2QIQHH", 0, 0, scale, duration, _UNDETERMINED_LANGUAGE, 0)
    return _box(
        b"moov",
        _full_box(b"mvhd", 1, 0, movie),
        _box(
            b"trak",
            _full_box(b"tkhd", 1, 3, head),  # enabled, and part of the movie
            _box(
                b"mdia",
                _full_box(b"mdhd", 1, 0, media),
                _full_box(b"hdlr", 0, 0, b"\0\0\0\0vide" + bytes(12) + b"VideoHandler\0"),
                _box(
                    b"minf",
                    _full_box(b"vmhd", 0, 1, bytes(8)),
                    _box(b"dinf", _full_box(b"dref", 0, 0, _ONE, _full_box(b"url ", 0, 1))),
                    _sample_table(track, samples, first_byte),
                ),
            ),
        ),
        extension,
    )


def _sample_table(track: Track, samples: Samples, first_byte: int) -> bytes:
    count = len(samples.sizes)
    if count:
        times = struct.pack(">3I", 1, count, track.fps.denominator)
        chunks, offsets = struct.pack(">4I", 1, 1, count, 1), struct.pack(">IQ", 1, first_byte)
        keyframes = _full_box(
            b"stss", 0, 0, struct.pack(">I", len(samples.keyframes)), _big(samples.keyframes)
        )
    else:
        times = chunks = offsets = _NONE
        keyframes = b""
    return _box(
        b"stbl",
        _full_box(b"stsd", 0, 0, _ONE, _sample_entry(track)),
        _full_box(b"stts", 0, 0, times),
        keyframes,
        _full_box(b"stsc", 0, 0, chunks),
        _full_box(b"stsz", 0, 0, struct.pack(">2I", 0, count), _big(samples.sizes)),
        _full_box(b"co64", 0, 0, offsets),
    )


def _sample_entry(track: Track) -> bytes:
    picture = struct.pack(
        ">6xH16xHHIIIH32xHh", 1, track.width, track.height, _DPI_72, _DPI_72, 0, 1, 24, -1
    )
    # Primaries, transfer and matrix of BT.709, not of full range.
    colours = struct.pack(">4sHHHB", b"nclx", 1, 1, 1, 0)
    return _box(
        b"avc1", picture, _box(b"avcC", track.configuration), _box(b"colr", colours), _SQUARE
    )


def _ftyp(major: bytes, *others: bytes) -> bytes:
    return _box(b"ftyp", major, struct.pack(">I", 0x200), major, *others)


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full_box(kind: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *content)


def _big(numbers: array[int]) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


_ONE: Final = struct.pack(">I", 1)
_NONE: Final = struct.pack(">I", 0)
_SQUARE: Final = _box(b"pasp", struct.pack(">2I", 1, 1))
