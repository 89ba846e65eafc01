"""The way in for `Run`: imports PyAV at the first frame, and says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metrana.rendering.frames import checked_fps, checked_pixels, checked_place

if TYPE_CHECKING:
    from metrana.rendering.recorder import Recorder
    from metrana.settings import Settings


def open_recorder(
    settings: Settings, *, folder: Callable[[], str], finished: Callable[[str], None]
) -> Recorder:
    """The recorder of a run's videos. Starts no thread yet.

    Args:
        settings: The run's.
        folder: Makes and gives the folder that videos are written in. Called by a worker.
        finished: Told by a worker the `rendering_id` of each `.mp4` that is in that folder.

    Raises:
        ModuleNotFoundError: If PyAV is not installed.
    """
    try:
        from metrana.rendering.recorder import Recorder
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"log_rendering needs {error.name}, which is not installed: "
            "pip install 'metrana[rendering]'",
            name=error.name,
        ) from error
    from metrana.rendering.options import RecordingOptions

    return Recorder(RecordingOptions.of(settings, lambda: Path(folder()), finished))


def check(frame: Any, rl_step: Any, episode: Any, env_id: Any, fps: Any) -> None:
    """Check what `log_rendering` is given, and do nothing else.

    Raises:
        MetranaValidationError: For what is not allowed.
    """
    checked_place(rl_step, episode, env_id)
    checked_pixels(frame)
    if fps is not None:
        checked_fps(fps)
