"""MLflow with SQLite as its tracking store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.loggers import LoggerBase


class MlflowSqlite(LoggerBase):
    """A run in a database file."""

    imports = "import mlflow"
    scalar = 'mlflow.log_metric("loss", x, step=i)'
    mapping = "mlflow.log_metrics(values, step=i)"

    def open(self, folder: Path) -> dict[str, Any]:
        """Opens a run."""
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{_database(folder)}")
        mlflow.start_run()
        self._mlflow = mlflow
        return {"mlflow": mlflow}

    def close(self) -> None:
        """Ends the run."""
        self._mlflow.end_run()

    def values(self, folder: Path) -> list[float]:
        """Returns the values of the committed rows of "loss"."""
        with closing(sqlite3.connect(_database(folder))) as database:
            rows = database.execute("SELECT value FROM metrics WHERE key = 'loss'").fetchall()
        return [value for (value,) in rows]


def _database(folder: Path) -> Path:
    return folder / "mlflow.db"


def create() -> MlflowSqlite:
    """Returns the logger."""
    return MlflowSqlite()
