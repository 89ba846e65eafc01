"""Stores that stop where a test wants them to, so that it can act in the middle of a commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from metrana.server.catalog import Catalog
from metrana.server.embedded import Stores
from metrana.server.ingest import Ingestor
from metrana.server.media import MediaFolder
from metrana.server.points import PointsStore
from metrana.server.points.engine import ChdbEngine


class Gate:
    """Where threads stop until the test lets them go on.

    Attributes:
        failure: Raised in who goes on; None: nothing is.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self._is_reached, self._is_open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Stops here."""
        self._is_reached.set()
        assert self._is_open.wait(30), "nobody opened the gate"
        if self.failure is not None:
            raise self.failure

    def wait(self) -> None:
        """Waits until a thread has stopped here."""
        assert self._is_reached.wait(30), "nobody came to the gate"

    def open(self) -> None:
        """Lets everybody go on, those that come later too."""
        self._is_open.set()


class GatedStore(PointsStore):
    """Stops in front of an insert and behind the question what is stored, if told to."""

    before_insert: Callable[[], object] | None = None
    after_max_seq: Callable[[], object] | None = None

    def insert(self, columns: Mapping[str, np.ndarray]) -> None:
        """Inserts once it may."""
        if self.before_insert is not None:
            self.before_insert()
        super().insert(columns)

    def max_seq(self, run_no: int, writer_no: int, from_seq: int) -> int | None:
        """Asks, and answers once it may."""
        stored = super().max_seq(run_no, writer_no, from_seq)
        if self.after_max_seq is not None:
            self.after_max_seq()
        return stored


@contextmanager
def gated(data_dir: Path) -> Iterator[tuple[Stores, GatedStore, Ingestor]]:
    """Stores with gates, and an ingestor on them."""
    with (
        closing(GatedStore(ChdbEngine(data_dir / "points"))) as points,
        closing(Catalog.open(f"sqlite:///{data_dir / 'catalog.sqlite'}")) as catalog,
    ):
        media = MediaFolder(data_dir / "media")
        ingestor = Ingestor(catalog, points, media)
        try:
            yield Stores(catalog, points, media), points, ingestor
        finally:
            ingestor.close()
