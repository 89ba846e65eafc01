"""Leases: a writer that nobody hears of for long enough is lost, and its run's status says so."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog
    from metrana.server.ingest import Ingestor

_log = logging.getLogger(__name__)

_RENEW_S: Final = 10.0


class LeaseKeeper:
    """Renews the leases of writers that were heard of, and ends those that ran out.

    Args:
        catalog: Where leases are.
        ingestor: Knows who was heard of, and when.
    """

    def __init__(self, catalog: Catalog, ingestor: Ingestor) -> None:
        self._catalog = catalog
        self._ingestor = ingestor
        self._stop = threading.Event()

    def run(self) -> None:
        """Goes on until `stop`. Blocks."""
        have_time = False
        while True:
            try:
                if have_time:
                    self._renew()
                else:
                    # While the server was away nobody could be heard: everyone gets one lease to
                    # come back, before any is found to have run out.
                    self._catalog.renew_leases(None)
                    have_time = True
            except SQLAlchemyError as error:
                # The catalog is busy or away; the next round is soon enough.
                _log.warning("leases could not be renewed: %s", error)
            if self._stop.wait(_RENEW_S):
                return

    def stop(self) -> None:
        """Ends `run`. Thread-safe; does not block."""
        self._stop.set()

    def _renew(self) -> None:
        heard = self._ingestor.writers_heard_since(time.monotonic() - _RENEW_S)
        if heard:
            self._ingestor.refuse_deleted(self._catalog.renew_leases(heard))
        self._catalog.expire_leases()
