"""One environment's frames, and the video that they go into."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from metrana.rendering.frames import Format, Pixels, Place
from metrana.rendering.outlet import Outlet
from metrana.rendering.video import Video


@dataclass(slots=True, eq=False)
class Frame:
    """A frame in the queue."""

    place: Place
    format_: Format
    pixels: Pixels
    is_last: bool = False
    """Whether the video ends with it."""


class Environment:
    """What becomes of the frames of an environment: an episode is a video, or several parts of one.

    `waiting`, `is_held` and `is_to_end` are the recorder's, under its lock. The methods are for the
    worker that holds it, but `abandon`.

    Args:
        outlet: Begins and finishes its videos.
    """

    def __init__(self, outlet: Outlet) -> None:
        self.waiting: deque[Frame] = deque()
        self.is_held = False
        # Whether the frame that its worker has is the last of its video.
        self.is_to_end = False
        self._outlet = outlet
        self._video: Video | None = None
        # The episode and format of the last frame.
        self._current: tuple[int, Format] | None = None
        self._part = 0
        # Whether further frames of the current video are dropped.
        self._is_broken = False
        self._is_abandoned = False

    @property
    def has_video(self) -> bool:
        """Whether a video is open."""
        return self._video is not None

    def encode(self, frame: Frame, make_room: Callable[[], None]) -> bool:
        """Put a frame into its video.

        Args:
            frame: The next one.
            make_room: Called before a video is opened.

        Returns:
            False: it is dropped, with the rest of a video that could not be written.
        """
        self._turn_to(frame)
        if self._is_broken:
            return False
        try:
            if self._video is None:
                make_room()
                self._open(frame)
            if self._video is not None:
                self._video.add(frame.pixels)
        except Exception as error:  # noqa: BLE001 - whatever the encoder raises; training goes on
            self._break_off(frame.place, error)
            return False
        return True

    def finish(self) -> None:
        """End the open video, if there is one."""
        video, self._video = self._video, None
        if video is None:
            return
        if self._is_abandoned:
            video.give_up()
        else:
            self._outlet.finish(video)

    def abandon(self) -> None:
        """Leave the open video to recovery as it is. From any thread, under the recorder's lock."""
        self._is_abandoned = True
        video = self._video
        if video is not None:
            video.abandon()
        if not self.is_held:  # else its worker ends it, should it ever come back
            self.finish()

    def _turn_to(self, frame: Frame) -> None:
        """End the video that a frame does not belong to, and number the one that it does."""
        current, place = (frame.place.episode, frame.format_), frame.place
        if current == self._current:
            if self._video is None and not self._is_broken:  # it made room for others
                self._part += 1
            return
        self.finish()
        is_same_episode = self._current is not None and self._current[0] == place.episode
        self._current, self._is_broken = current, False
        self._part = self._part + 1 if is_same_episode else 1
        if is_same_episode:
            self._outlet.reports.remark(
                "format",
                f"the frames of environment {place.env_id!r} changed their size, colours or fps "
                f"within episode {place.episode}: a video has one of each, so a further part "
                "begins there",
            )

    def _open(self, frame: Frame) -> None:
        video = self._outlet.begin(frame.place, self._part, frame.format_)
        self._video = video
        if self._is_abandoned:
            video.abandon()

    def _break_off(self, place: Place, error: Exception) -> None:
        self._is_broken = True
        if not self._is_abandoned:
            self._outlet.broken(place.env_id, place.episode, error)
        self.finish()  # with the frames that it has
