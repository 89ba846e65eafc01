"""A `Run` with a place for videos, which the native module does not offer yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import metrana
from metrana import session


class RecordingRun(metrana.Run):
    """Keeps videos in `renderings` of its data directory, and what it was told in `finished`."""

    def _rendering_folder(self) -> str:
        self.log_attributes("recorded", True)  # as the native one will, this takes a writer
        folder = Path(self._settings.data_dir) / "renderings"
        folder.mkdir(mode=0o700, exist_ok=True)
        return str(folder)

    def _rendering_finished(self, rendering_id: str) -> None:
        self.__dict__.setdefault("finished", []).append(rendering_id)


def init(**arguments: Any) -> metrana.Run:
    """`metrana.init`, but for such a run; it stays offline."""
    session.Run = RecordingRun  # type: ignore[misc]
    try:
        return metrana.init(mode="offline", **arguments)
    finally:
        session.Run = metrana.Run  # type: ignore[misc]
