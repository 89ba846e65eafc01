"""Recorders with folders of their own, and what players see of their files."""

from __future__ import annotations

import io
import itertools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from metrana.enums import BackpressureStrategy, ErrorStrategy
from metrana.rendering.options import RecordingOptions
from metrana.rendering.recorder import Recorder
from tests.reading import read_all

Pixels = npt.NDArray[np.uint8]

BARS = (
    *((255, 255, 255), (255, 255, 0), (0, 255, 255), (0, 255, 0)),
    *((255, 0, 255), (255, 0, 0), (0, 0, 255), (0, 0, 0)),
)
"""The colours of `colour_bars`, from the left."""


def recorder(
    folder: Path, /, finished: list[str] | Callable[[str], object] = str, **options: Any
) -> Recorder:
    """A recorder that writes into a folder, which it makes.

    Args:
        folder: Of its videos.
        finished: Gets the rendering_id of each that is whole, or is called with it.
        options: Those of `RecordingOptions` that are to be others.
    """

    def made() -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    usual: dict[str, Any] = {
        "folder": made,
        "finished": finished.append if isinstance(finished, list) else finished,
        "fps": Fraction(30),
        "encoder_count": 1,
        "queue_frames": None,
        "output_dir": None,
        "backpressure_strategy": BackpressureStrategy.BLOCK,
        "enqueue_timeout_s": 0.05,
        "error_strategy": ErrorStrategy.WARN,
        "drops_queue_on_close": False,
        "close_timeout_s": 60.0,
    }
    return Recorder(RecordingOptions(**{**usual, **options}))


@dataclass
class Seen:
    """What a player sees of a video."""

    frames: list[Pixels]
    """In RGB. Shape: `(H, W, 3)` each."""
    times_s: list[float]
    fps: Fraction | None
    colours: tuple[int, int, int, int]
    """Matrix, range, primaries and transfer, as they are written into the file."""

    @property
    def shades(self) -> list[int]:
        """The mean of each frame, which `shade` was given."""
        return [round(float(frame.mean())) for frame in self.frames]


def decode(video: Path | bytes) -> Seen:
    """Play a file, or what there is of one, to its end."""
    source = io.BytesIO(video) if isinstance(video, bytes) else str(video)
    with av.open(source) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        context = stream.codec_context
        return Seen(
            frames=[_rgb(frame) for frame in frames],
            times_s=[float(frame.time or 0.0) for frame in frames],
            fps=stream.average_rate,
            colours=(
                *(int(context.colorspace), int(context.color_range)),
                *(int(context.color_primaries), int(context.color_trc)),
            ),
        )


def _rgb(frame: av.VideoFrame) -> Pixels:
    """A frame's colours, as the tags in the file say that they are to be understood."""
    full_range = 2
    shown = frame.reformat(
        format="rgb24",
        src_colorspace=int(frame.colorspace),
        src_color_range=int(frame.color_range),
        dst_color_range=full_range,
    )
    return shown.to_ndarray()


def shade(level: int, height: int = 32, width: int = 48) -> Pixels:
    """A frame of one shade of gray, by which it is known again."""
    return np.full((height, width, 3), level, np.uint8)


def colour_bars(height: int = 480, width: int = 640) -> Pixels:
    """Eight upright bars."""
    bars = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate(BARS):
        bars[:, i * width // 8 : (i + 1) * width // 8] = colour
    return bars


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """The descriptions in a folder, by rendering_id."""
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def videos(folder: Path) -> dict[tuple[str, int, int], Seen]:
    """The finished videos in a folder, by environment, episode and part."""
    found = {}
    for rendering_id, description in described(folder).items():
        key = (description["env_id"], description["episode"], description["part"])
        assert key not in found
        found[key] = decode(folder / f"{rendering_id}.mp4")
    return found


def delivered(data_dir: Path) -> dict[tuple[str, int, int], Seen]:
    """The videos in all spools, by environment, episode and part; a dead writer's are recovered."""
    found = {}
    for logged in read_all(data_dir):
        for rendering in logged.renderings.values():
            info = rendering.info
            key = (info.env_id, info.episode, info.part)
            assert key not in found
            found[key] = decode(rendering.data)
            assert len(found[key].frames) == info.frame_count
    return found


def leftovers(data_dir: Path) -> list[str]:
    """Files of videos that are in no spool."""
    return [str(path) for path in data_dir.glob("spool/*/*/renderings/*")]


def boxes(data: bytes) -> list[tuple[str, int]]:
    """Kind and end of each whole box of a file."""
    found: list[tuple[str, int]] = []
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > len(data):
            break
        at += size
        found.append((kind.decode(), at))
    return found


def whole_part(data: bytes) -> bytes:
    """A `.part` cut behind its last whole fragment, as recovery cuts it."""
    found = boxes(data)
    ends = [
        end
        for (before, _), (kind, end) in itertools.pairwise(found)
        if (before, kind) == ("moof", "mdat")
    ]
    return data[: ends[-1]] if ends else b""
