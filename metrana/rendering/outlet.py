"""Where finished videos go: to the engine, and to the user's own folder."""

from __future__ import annotations

from pathlib import Path

from metrana.rendering import files
from metrana.rendering.encoder import Encoders
from metrana.rendering.frames import Format, Place
from metrana.rendering.names import canonical_name
from metrana.rendering.options import RecordingOptions
from metrana.rendering.reports import Reports
from metrana.rendering.video import Video


class Outlet:
    """Begins and finishes videos, each on one worker's thread, and reports what goes wrong.

    Args:
        options: The folders, and whom to tell.
        reports: Takes the faults.
    """

    def __init__(self, options: RecordingOptions, reports: Reports) -> None:
        self._options = options
        self.reports = reports
        self.encoders = Encoders()

    def begin(self, place: Place, part: int, format_: Format) -> Video:
        """Begin a video.

        Raises:
            OSError: If its folder or files cannot be made.
            av.error.FFmpegError: If its encoder cannot be opened.
        """
        # Another folder, if somebody deleted that of the last one.
        folder = self._options.folder().absolute()
        return Video(folder, place, part, self.encoders.take(format_))

    def finish(self, video: Video) -> None:
        """End a video and hand it over. Never raises: what is left is for recovery."""
        try:
            path = video.finish()
        except Exception as error:  # noqa: BLE001 - whatever the encoder raises at its end
            self.broken(video.place.env_id, video.place.episode, error)
            return
        self.encoders.give_back(video.encoder)
        if path is None:
            return
        self._publish(path, video)
        try:
            self._options.finished(video.rendering_id)
        except Exception as error:  # noqa: BLE001 - it is not ours, and the file is there
            self.reports.fault(
                f"finished {type(error).__name__}",
                f"a video waits in {path.parent} and could not be handed over: {error}",
            )

    def broken(self, env_id: str, episode: int, error: Exception) -> None:
        """Report that a video cannot go on."""
        self.reports.fault(
            f"write {type(error).__name__} {getattr(error, 'errno', None)}",
            f"the video of episode {episode} of environment {env_id!r} could not be written, its "
            f"further frames are dropped: {error}",
        )

    def _publish(self, path: Path, video: Video) -> None:
        folder = self._options.output_dir
        if folder is None:
            return
        name = canonical_name(video.place.env_id, video.place.episode, video.part)
        try:
            files.publish(path, folder, name)
        except OSError as error:
            self.reports.fault(
                f"publish {error.errno}",
                f"the video {name} could not be written to {folder} (rendering_output_dir), the "
                f"run has it: {error}",
            )
