"""The embedded stores of a data directory: SQLite, chDB, a folder; one owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from metrana import _native, checks
from metrana.server.catalog import Catalog
from metrana.server.ingest import Ingestor
from metrana.server.lock import StoreLock
from metrana.server.media import MediaFolder, MediaStore
from metrana.server.pairing import pair
from metrana.server.points import ChdbLimits, PointsStore, open_points
from metrana.server.spools import DeliveryReport, SpoolDelivery
from metrana.server.store_faults import catalog_failure


class NetworkFileSystemError(RuntimeError):
    """The embedded store cannot be on a network file system; the message names `--data-dir`."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What a run's data is in.

    Attributes:
        catalog: Names, attributes, writers.
        points: Every logged value.
        media: Files of renderings.
    """

    catalog: Catalog
    points: PointsStore
    media: MediaStore


@contextmanager
def open_stores(data_dir: Path, *, wait_s: float = 5.0, merging: bool = True) -> Iterator[Stores]:
    """Opens the stores of a data directory for this process alone, for as long as the block runs.

    Args:
        data_dir: The data directory; its `server` folder is made if missing.
        wait_s: How long to wait for another owner, in seconds.
        merging: Whether points are merged from the start. Who opens the stores for a moment, again
            and again, leaves threads behind by that; without, only what is much is merged.

    Raises:
        StoreInUseError: Another process kept the store.
        MetranaValidationError: The directory's path is no UTF-8.
        NetworkFileSystemError: The directory is on a network file system.
        StoresDisagreeError: Catalog and points are not each other's.
        CatalogFailedError: The catalog's database failed, now or in the block.
    """
    server_dir = data_dir / "server"
    _check_path(data_dir)
    server_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _native.is_network_file_system(server_dir):
        raise NetworkFileSystemError(
            f"{data_dir} is on a network file system, where the embedded store cannot be: pass "
            "--data-dir (or data_dir=) with a local directory; spools may stay where they are"
        )
    with StoreLock(server_dir, wait_s=wait_s):
        try:
            url = sa.URL.create("sqlite", database=str(server_dir / "catalog.sqlite"))
            points_url = f"chdb://{quote(str(server_dir.resolve() / 'points'))}"
            with (
                Catalog.open(url) as catalog,
                open_points(points_url, ChdbLimits(merging=merging)) as points,
            ):
                pair(catalog, points, server_dir)
                yield Stores(catalog, points, MediaFolder(server_dir / "media"))
        except SQLAlchemyError as error:
            raise catalog_failure(error) from error


def _check_path(data_dir: Path) -> None:
    """Refuses what the engine of the points cannot be told, before anything is made there."""
    try:
        str(data_dir.resolve()).encode()
    except UnicodeEncodeError:
        allowed = "a path in UTF-8 to have the embedded store in it"
        raise checks.path_refusal("data_dir", str(data_dir), allowed) from None


def deliver_spools(data_dir: Path, stores: Stores, *, force: bool = False) -> DeliveryReport:
    """Brings everything that is sealed in the directory's local spools into its stores. Blocks.

    Dead writers are finished and their folders removed; live ones without a sender are read as far
    as they have sealed.

    Args:
        data_dir: The data directory whose spools are read.
        stores: Where to; open in this process.
        force: Finish writers of other machines too, of which nobody here knows whether they live.

    Returns:
        What was delivered, and what could not be.
    """
    ingestor = Ingestor(stores.catalog, stores.points, stores.media)
    try:
        report = SpoolDelivery(data_dir, ingestor, force=force).deliver_all()
    finally:
        ingestor.close()
    _end_unheard(stores.catalog, report.sending)
    return report


def purge_deleted_runs(stores: Stores) -> None:
    """Removes what is left of deleted runs, but that they were there. Blocks.

    Writers of theirs must have been refused: what one still brings would stay.
    """
    for run_no in stores.catalog.unpurged_runs():
        for run_id in {writer.run_id for writer in stores.catalog.writers(run_no=run_no)}:
            stores.media.remove_run(run_id)
        stores.points.delete_run(run_no)
        stores.catalog.purge_run(run_no)


def _end_unheard(catalog: Catalog, sending: set[str]) -> None:
    """Gives up writers that nobody has heard of for long: no server may ever run to do it.

    One whose spool went to a server elsewhere would seem to run for ever. Those that are followed
    were heard of just now, and of those that send themselves it is known that they live.
    """
    living = [record.writer_no for one in sending if (record := catalog.writer(one)) is not None]
    if living:
        catalog.renew_leases(living)
    catalog.expire_leases()
