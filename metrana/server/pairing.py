"""Catalog and points belong together: numbers of one mean nothing to another one of the other.

Each store notes both ids when the two first meet. A catalog that was lost and made anew, or came
out of an older copy, would give numbers again under which there are points already; those would be
shown as the new runs'. So such a pair is not opened.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from metrana.server.catalog import CatalogError

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog
    from metrana.server.points import PointsStore


class StoresDisagreeError(CatalogError, RuntimeError):
    """Catalog and points of a data directory are not each other's; the message says what to do."""


def pair(catalog: Catalog, points: PointsStore, server_dir: Path) -> None:
    """Makes sure that two stores belong together; at their first meeting notes that they do.

    Args:
        catalog: The catalog in `server_dir`.
        points: The points store in `server_dir`.
        server_dir: Named in errors.

    Raises:
        StoresDisagreeError: They do not.
    """
    known = points.pairing()
    if known is None:
        if catalog.points_id is not None:
            raise StoresDisagreeError(
                f"the points in {server_dir / 'points'} are gone, though catalog.sqlite beside "
                f"knows of them: put the folder back from a copy{_OR_ANEW.format(server_dir)}"
            )
        # The points first: a catalog says that there are some only when there are.
        known = points.pair(secrets.token_hex(16), catalog.catalog_id)
    points_id, catalog_id = known
    if catalog_id != catalog.catalog_id or catalog.points_id not in {None, points_id}:
        raise StoresDisagreeError(
            f"{server_dir}/catalog.sqlite and the points in {server_dir / 'points'} do not belong "
            "together, so runs would show each other's points: was one of them lost or replaced? "
            f"Put back the one that is missing from a copy{_OR_ANEW.format(server_dir)}"
        )
    if catalog.points_id is None:
        catalog.note_points_id(points_id)
    _require_known_numbers(catalog, points, server_dir)


_OR_ANEW = ", or move all of {} away to begin anew (what spools still hold is delivered again)"


def _require_known_numbers(catalog: Catalog, points: PointsStore, server_dir: Path) -> None:
    """Refuses a catalog that is older than the points: it would give their numbers again."""
    issued = catalog.greatest_numbers()
    for name, number in points.greatest_numbers().items():
        if number > issued[name]:
            raise StoresDisagreeError(
                f"{server_dir}/catalog.sqlite is older than the points in {server_dir / 'points'} "
                f"({name} {number} is not known): put back a catalog as new as they are, or points "
                f"as old as it is{_OR_ANEW.format(server_dir)}"
            )
