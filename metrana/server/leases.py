"""Leases: a writer that nobody hears of for long enough is lost, and its run's status says so."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from metrana.server.store_faults import reason

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
        self._fault: str | None = None

    @property
    def fault(self) -> str | None:
        """Why leases cannot be kept at present; None if all is well."""
        return self._fault

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
            except Exception as error:  # noqa: BLE001 - without leases every run would seem to live on
                # The catalog is busy or away; the next round is soon enough.
                _log.warning("leases could not be renewed: %s", error)
                self._fault = f"leases could not be renewed: {reason(error)}"
            else:
                self._fault = None
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
