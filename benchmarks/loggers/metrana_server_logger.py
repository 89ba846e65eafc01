"""metrana with a local server, which runs in a process of its own on the same cores."""

from __future__ import annotations

from pathlib import Path

from benchmarks.loggers.metrana_logger import MetranaOffline
from tests.local_server import LocalServer


class MetranaServed(MetranaOffline):
    """Logs to the local server of its data directory."""

    opening = MetranaOffline.opening.replace("offline", "online")

    def prepare(self, folder: Path) -> None:
        """Starts the server."""
        folder.mkdir(parents=True, exist_ok=True)
        self._server = LocalServer(folder)

    def release(self) -> None:
        """Stops the server in order."""
        self._server.stop()


def create() -> MetranaServed:
    """Returns the logger."""
    return MetranaServed()
