"""What a recorder is opened with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from metrana.enums import BackpressureStrategy, ErrorStrategy
from metrana.rendering.frames import checked_fps
from metrana.settings import Settings

# What waits in memory at most, when nobody says how many frames may.
_QUEUE_BYTES: Final = 64 * 1024 * 1024
# What a frame takes beside its pixels: there may be very many of very small ones.
_FRAME_BYTES: Final = 700
_MIN_QUEUE_FRAMES: Final = 4
_CLOSE_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class RecordingOptions:
    """The settings of `init()` that concern videos, by their names there, and where videos go."""

    folder: Callable[[], Path]
    """Makes and gives the folder that videos are written in; asked for each."""
    finished: Callable[[str], None]
    """Told the `rendering_id` of each video that is whole."""
    fps: Fraction
    encoder_count: int
    queue_frames: int | None
    output_dir: Path | None
    backpressure_strategy: BackpressureStrategy
    enqueue_timeout_s: float
    error_strategy: ErrorStrategy
    drops_queue_on_close: bool
    close_timeout_s: float

    @classmethod
    def of(
        cls, settings: Settings, folder: Callable[[], Path], finished: Callable[[str], None]
    ) -> RecordingOptions:
        """Those of a run of these settings."""
        timeout_s = settings.rendering_close_timeout
        return cls(
            folder=folder,
            finished=finished,
            fps=checked_fps(settings.rendering_fps),
            encoder_count=settings.rendering_max_concurrent_encoders,
            queue_frames=settings.rendering_queue_max_size,
            output_dir=settings.rendering_output_dir,
            backpressure_strategy=settings.backpressure_strategy,
            enqueue_timeout_s=settings.enqueue_timeout_secs,
            error_strategy=settings.error_strategy,
            drops_queue_on_close=settings.skip_drain_render_on_close,
            close_timeout_s=_CLOSE_TIMEOUT_S if timeout_s is None else timeout_s,
        )

    def queue_limit(self, frame_bytes: int) -> int:
        """How many frames may wait when one of this size comes."""
        if self.queue_frames is not None:
            return self.queue_frames
        return max(_MIN_QUEUE_FRAMES, _QUEUE_BYTES // (frame_bytes + _FRAME_BYTES))
