"""Notes in the catalog what sessions fill of gaps, before they acknowledge it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from metrana.server.retrying import Patience

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog


class GapFilling:
    """Fills gaps until it works. Thread-safe.

    Args:
        catalog: Where gaps are noted.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._patience = Patience()
        # One thread may be patient: points and renderings are acknowledged by two.
        self._lock = threading.Lock()

    @property
    def fault(self) -> str | None:
        """Why nothing can be noted at present; None if all is well."""
        return self._patience.fault

    def end(self) -> None:
        """From now on the first failure is raised. Does not block."""
        self._patience.end()

    def fill(self, writer_no: int, first: int, last: int) -> None:
        """Notes that batches of a writer, both ends included, are stored. Blocks.

        Raises:
            Exception: What the catalog raised, if it will not pass, or behind `end`.
        """
        with self._lock:
            self._patience.repeat(
                "note what is stored",
                lambda: self._catalog.fill_gaps(writer_no, first, last),
            )
