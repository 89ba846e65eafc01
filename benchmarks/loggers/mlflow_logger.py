"""MLflow with SQLite as its tracking store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.loggers import LoggerBase


class MlflowSqlite(LoggerBase):
    """A run in a database file."""

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

    def count(self, folder: Path) -> int:
        """Counts the committed rows of "loss"."""
        with closing(sqlite3.connect(_database(folder))) as database:
            (count,) = database.execute(
                "SELECT count(*) FROM metrics WHERE key = 'loss'"
            ).fetchone()
        return int(count)


def _database(folder: Path) -> Path:
    return folder / "mlflow.db"


def create() -> MlflowSqlite:
    """Returns the logger."""
    return MlflowSqlite()
