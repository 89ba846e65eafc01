"""metrana in a process of its own, without a server."""

from __future__ import annotations

from pathlib import Path

import metrana
from benchmarks.loggers import LoggerBase
from benchmarks.place import Figures


class MetranaOffline(LoggerBase):
    """Logs to the spool; what has to be read is delivered to the embedded store."""

    imports = "import metrana"
    # The settings that a user has who gives none.
    opening = 'run = metrana.init(mode="offline", data_dir=folder, run_name=f"run-{number}")'
    closing = "metrana.close()"
    scalar = 'metrana.log("loss", x)'
    mapping = "metrana.log(values)"

    def dropped(self) -> Figures:
        """Returns what the run refused."""
        return dropped_by(self._names["run"])

    def values(self, folder: Path) -> list[float]:
        """Returns what the embedded store has, after it took what the spool and the ring held."""
        from metrana.query import Client

        with Client(data_dir=folder) as client:
            values: list[float] = []
            for run_name in client.runs()["run_name"]:
                found = client.points(run_name, "loss", duplicates="all")
                values += found["value"].tolist()
        return values


def dropped_by(run: metrana.Run) -> Figures:
    """Returns how many points an open run refused: what is not taken is quickly done."""
    metrics = run.get_metrics()
    return {"dropped": float(metrics.float_points_dropped + metrics.rl_float_points_dropped)}


def create() -> MetranaOffline:
    """Returns the logger."""
    return MetranaOffline()
