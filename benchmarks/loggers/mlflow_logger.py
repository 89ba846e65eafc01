"""MLflow with SQLite as its tracking store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.loggers import LoggerBase

_DATABASE = "mlflow.db"


class MlflowSqlite(LoggerBase):
    """A run in a database file."""

    imports = "import mlflow"
    opening = f'mlflow.set_tracking_uri(f"sqlite:///{{folder}}/{_DATABASE}"); mlflow.start_run()'
    closing = "mlflow.end_run()"
    scalar = 'mlflow.log_metric("loss", x, step=i)'
    mapping = "mlflow.log_metrics(values, step=i)"

    def values(self, folder: Path) -> list[float]:
        """Returns the values of the committed rows of "loss"."""
        with closing(sqlite3.connect(folder / _DATABASE)) as database:
            rows = database.execute("SELECT value FROM metrics WHERE key = 'loss'").fetchall()
        return [value for (value,) in rows]


def create() -> MlflowSqlite:
    """Returns the logger."""
    return MlflowSqlite()
