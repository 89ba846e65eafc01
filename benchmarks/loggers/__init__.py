"""The loggers that are measured, each as its users call it in its usual local mode."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from benchmarks.place import Figures

WITHOUT_SERVER = "metrana"
METRANA = (WITHOUT_SERVER, "metrana-server")
PEERS = {
    "tensorboardx": "TensorBoardX",
    "wandb": "W&B offline",
    "aim": "Aim",
    "mlflow": "MLflow SQLite",
    "trackio": "Trackio",
}


class Logger(Protocol):
    """How one logger is used.

    Attributes:
        imports: The statement that its users begin with.
        opening: The one that opens a run in `folder`, a path as text; `number` is different each
            time.
        closing: The one that closes it.
        scalar: The statement that logs `x` as metric "loss", where `i` counts the calls.
        mapping: The statement that logs the numbers in `values`, a dict by metric name.
    """

    imports: str
    opening: str
    closing: str
    scalar: str
    mapping: str

    def prepare(self, folder: Path) -> None:
        """Does what a user has done before a run starts."""

    def open(self, folder: Path) -> dict[str, Any]:
        """Opens a run; returns the names that the statements use."""

    def close(self) -> None:
        """Closes the run as a user would."""

    def release(self) -> None:
        """Undoes what `prepare` did."""

    def dropped(self) -> Figures:
        """How many points of the open run it refused, as "dropped"; {} if it does not count."""

    def values(self, folder: Path) -> list[float]:
        """All values of "loss" that can be read back, repeated ones too, in any order."""


def logger_of(name: str) -> Logger:
    """Returns the logger of that name."""
    module = importlib.import_module(f"benchmarks.loggers.{name.replace('-', '_')}_logger")
    logger: Logger = module.create()
    return logger


@contextmanager
def prepared(logger: Logger, folder: Path) -> Iterator[None]:
    """Has it prepared for as long as the block runs."""
    logger.prepare(folder)
    try:
        yield
    finally:
        logger.release()


@contextmanager
def opened(logger: Logger, folder: Path) -> Iterator[dict[str, Any]]:
    """Has a run open for as long as the block runs; gives what the statements use."""
    with prepared(logger, folder):
        names = logger.open(folder)
        try:
            yield names
        finally:
            logger.close()


class LoggerBase:
    """What most loggers have in common: nothing has to be there before, and nothing is counted."""

    imports: str
    opening: str
    closing: str

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def open(self, folder: Path) -> dict[str, Any]:
        """Opens a run."""
        self._names: dict[str, Any] = {"folder": str(folder), "number": next(self._numbers)}
        exec(f"{self.imports}\n{self.opening}", self._names)
        return dict(self._names)

    def close(self) -> None:
        """Closes the run."""
        exec(self.closing, self._names)

    def prepare(self, _folder: Path) -> None:
        """Does nothing."""

    def release(self) -> None:
        """Does nothing."""

    def dropped(self) -> Figures:
        """Returns nothing."""
        return {}
