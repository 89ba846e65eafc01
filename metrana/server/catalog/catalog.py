"""The catalog: a facade over one database.

Every method is one transaction, blocks, and may be called from any thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import sqlalchemy as sa

from metrana.server.catalog import (
    attribute_paths,
    declarations,
    deletion,
    gaps,
    opening,
    operations,
    renderings,
    run_reads,
    schema,
    series_reads,
    writers,
)
from metrana.server.catalog.engine import Database, connect, now_ms
from metrana.server.catalog.errors import NotFoundError
from metrana.server.catalog.records import (
    EnvAttribute,
    MetricRecord,
    NewRendering,
    OpenedRun,
    OpenRun,
    ProjectRecord,
    RenderingRecord,
    RunFilter,
    RunRecord,
    RunRefusal,
    WriterRecord,
)
from metrana.server.catalog.tables import meta

LEASE_MS: Final = 45_000
"""How long a writer is taken to live after its last sign of life: three heartbeats."""


class Catalog:
    """Runs, writers, names and attributes on SQLite or PostgreSQL. Made by `Catalog.open`.

    Attributes:
        catalog_id: 32 hex digits that tell this catalog from any other.
        points_id: The same of the points store that it belongs with; None before they met.
    """

    def __init__(self, database: Database, lease_ms: int) -> None:
        self._database = database
        self._lease_ms = lease_ms
        with database.read() as connection:
            query = sa.select(meta.c.value).where(meta.c.key == "catalog_id")
            self.catalog_id: Final[str] = connection.execute(query).scalar_one()
            query = sa.select(meta.c.value).where(meta.c.key == schema.POINTS_ID)
            self.points_id: str | None = connection.execute(query).scalar_one_or_none()

    @classmethod
    def open(
        cls,
        url: str | sa.URL,
        *,
        clock: Callable[[], int] = now_ms,
        lease_ms: int = LEASE_MS,
    ) -> Catalog:
        """Connect, and upgrade the schema under a lock.

        Args:
            url: `sqlite:///PATH` (made if missing, mode 0600) or `postgresql://USER@HOST/DATABASE`.
            clock: The server's time in Unix milliseconds.
            lease_ms: How long a writer lives without a sign of life.

        Raises:
            CatalogVersionError: A newer metrana upgraded it; the message says to which.
            ValueError: For another kind of URL.
        """
        database = Database(connect(url), clock)
        try:
            schema.upgrade(database)
            return cls(database, lease_ms)
        except BaseException:  # whatever it is, the connections go first
            database.close()
            raise

    def close(self) -> None:
        """Close the connections; twice does nothing more."""
        self._database.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ── Writing ─────────────────────────────────────────────────────────────────────────────────

    def open_run(self, request: OpenRun) -> OpenedRun | RunRefusal:
        """Create, join or resume a run for a writer, or refuse.

        Asking again for the same writer gives the same answer. `RunRefusal` is returned, not
        raised, and leaves nothing behind.
        """
        try:
            return self._database.write(
                lambda connection: opening.open_run(
                    connection, request, self._database.clock(), self._lease_ms
                )
            )
        except opening.RefusedError as refused:
            return refused.refusal

    def declare(self, project_id: int, entries: Sequence[tuple[Any, ...]]) -> list[int]:
        """Number metrics and environments of a project; durable before it returns.

        Args:
            project_id: Of the run, as `OpenedRun` and `WriterRecord` have it.
            entries: What `_native.decode_declarations` gives.

        Returns:
            The catalog's number for each entry, in order; the same for ever.

        Raises:
            MalformedError: For names or labels outside the limits.
        """
        if not entries:
            return []
        return self._database.write(
            lambda connection: declarations.declare(connection, project_id, entries)
        )

    def apply_attributes(
        self,
        writer_no: int,
        batches: Sequence[tuple[int, Sequence[tuple[Any, ...]]]],
        *,
        first_seq: int = 1,
    ) -> int:
        """Apply attribute batches of a writer, each once whatever is sent again.

        One that fills a gap comes late: those behind it are applied once more when they come.

        What `init()` was given counts only from the writer that created the run; an alias's is
        kept under `metrana/writers/<writer_id>/`. A close record decides the run's status.

        Args:
            writer_no: Whose they are.
            batches: `(seq, operations)` by rising seq, as `_native.decode_attributes` gives them
                but with the catalog's number for each environment.
            first_seq: All of the writer from here to the last of these is stored with them.

        Returns:
            The seq up to which they are applied.

        Raises:
            RunDeletedError: The writer has to stop.
            MalformedError: For an operation nobody knows; nothing of the call is applied.
            NotFoundError: If there is no such writer.
        """
        return self._database.write(
            lambda connection: operations.apply_attributes(
                connection, writer_no, batches, self._database.clock(), first_seq
            )
        )

    def add_gap(self, writer_no: int, first: int, last: int) -> None:
        """Note that batches of a writer, both ends included, are missing before others.

        Raises:
            NotFoundError: If there is no such writer.
        """
        self._database.write(lambda connection: gaps.add(connection, writer_no, first, last))

    def fill_gaps(self, writer_no: int, first: int, last: int) -> None:
        """Note that batches of a writer, both ends included, are stored.

        Raises:
            NotFoundError: If there is no such writer.
        """
        self._database.write(lambda connection: gaps.fill(connection, writer_no, first, last))

    def add_renderings(self, writer_no: int, seq: int, complete: Sequence[NewRendering]) -> None:
        """Register what is complete in the media store; what is registered stays as it is.

        Args:
            writer_no: Whose they are; its run is theirs, also if it knows it by an alias.
            seq: Pieces of renderings up to here are stored.
            complete: May be empty.

        Raises:
            RunDeletedError: The writer has to stop.
            NotFoundError: If there is no such writer.
        """
        self._database.write(
            lambda connection: renderings.add(
                connection, writer_no, seq, complete, self._database.clock()
            )
        )

    def renew_leases(self, writer_nos: Collection[int] | None) -> list[int]:
        """Note that writers were heard from.

        Args:
            writer_nos: Who. None: nobody, but all who live get a new lease: for a server that
                starts, while whose absence nobody could renew.

        Returns:
            Those whose run was deleted: they have to stop.
        """
        now = self._database.clock()
        return self._database.write(
            lambda connection: writers.renew_leases(
                connection, writer_nos, now, now + self._lease_ms
            )
        )

    def expire_leases(self) -> list[int]:
        """Give up writers whose lease ran out, which may make their runs `lost`; returns them."""
        now = self._database.clock()
        with self._database.read() as connection:
            run_nos = writers.expired_runs(connection, now)
        expired: list[int] = []
        for run_no in run_nos:
            expired += self._database.write(
                functools.partial(writers.expire_leases, run_no=run_no, now_ms=now)
            )
        return expired

    def end_writer(self, writer_no: int, *, died: bool) -> None:
        """Note that all of a writer's data is here.

        Args:
            writer_no: Who.
            died: It left no close record.

        Raises:
            NotFoundError: If there is no such writer.
        """
        self._database.write(
            lambda connection: writers.end_writer(
                connection, writer_no, self._database.clock(), died=died
            )
        )

    def note_points_id(self, points_id: str) -> None:
        """Note which points store this catalog belongs with."""
        self._database.write(
            lambda connection: schema.note(connection, schema.POINTS_ID, points_id)
        )
        self.points_id = points_id

    def delete_run(self, run_no: int) -> None:
        """Delete a run: its name is free and its writers are refused from now on."""
        self._database.write(
            lambda connection: deletion.delete_run(connection, run_no, self._database.clock())
        )

    def purge_run(self, run_no: int) -> None:
        """Remove what is left of a deleted run but its tombstone; points and files must be gone.

        Raises:
            ValueError: If the run was not deleted.
        """
        self._database.write(
            lambda connection: deletion.purge_run(connection, run_no, self._database.clock())
        )

    # ── Reading ─────────────────────────────────────────────────────────────────────────────────

    def greatest_numbers(self) -> dict[str, int]:
        """The greatest number given of each kind that points carry, 0 if none was."""
        with self._database.read() as connection:
            return series_reads.greatest_numbers(connection)

    def unpurged_runs(self) -> list[int]:
        """Deleted runs whose points may still be there."""
        with self._database.read() as connection:
            return deletion.unpurged_runs(connection)

    def projects(self) -> list[ProjectRecord]:
        """Every project, by workspace and name."""
        with self._database.read() as connection:
            return run_reads.find_projects(connection)

    def runs(self, wanted: RunFilter | None = None) -> list[RunRecord]:
        """Runs that pass the filter, newest first."""
        with self._database.read() as connection:
            return run_reads.find_runs(connection, wanted or RunFilter())

    def run(
        self,
        run_name: str | None = None,
        *,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
    ) -> RunRecord:
        """One run by its name, or by its `run_id` (or an alias's) alone.

        Raises:
            NotFoundError: Naming the nearest names.
        """
        with self._database.read() as connection:
            return run_reads.find_run(connection, run_name, project_name, workspace_name, run_id)

    def attributes(self, run_no: int) -> dict[str, object]:
        """Every attribute of a run, value by path."""
        with self._database.read() as connection:
            return attribute_paths.flat(run_reads.attribute_rows(connection, run_no))

    def config(self, run_no: int) -> dict[str, object]:
        """The run's config, nested as it was logged."""
        with self._database.read() as connection:
            return attribute_paths.nested(run_reads.attribute_rows(connection, run_no), "config")

    def env_attributes(
        self, run_no: int, *, env_id: str | None = None, episode: int | None = None
    ) -> list[EnvAttribute]:
        """Attributes of environments and episodes, by env_id, episode (None first) and path."""
        with self._database.read() as connection:
            return run_reads.find_env_attributes(connection, run_no, env_id, episode)

    def has_rendering(self, rendering_id: str) -> bool:
        """Whether a rendering is registered."""
        with self._database.read() as connection:
            return renderings.exists(connection, rendering_id)

    def rendering(self, rendering_id: str) -> RenderingRecord:
        """One rendering of a run that is not deleted.

        Raises:
            NotFoundError: If there is none.
        """
        with self._database.read() as connection:
            for record in renderings.find(connection, rendering_id=rendering_id):
                return record
        raise NotFoundError(f"no rendering has the rendering_id {rendering_id!r}")

    def renderings(self, run_no: int, *, env_id: str | None = None) -> list[RenderingRecord]:
        """Renderings of a run, or of one of its environments, by env_id, episode and part."""
        with self._database.read() as connection:
            return renderings.find(connection, run_no=run_no, env_id=env_id)

    def metrics(
        self,
        *,
        project_id: int | None = None,
        metric_nos: Collection[int] | None = None,
        name: str | None = None,
        scale: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[MetricRecord]:
        """Metrics by name, scale and labels, sorted by these.

        Args:
            project_id: Of this project.
            metric_nos: Of these numbers: what a run has, the points store knows.
            name: Of exactly this name.
            scale: On this scale.
            labels: With at least these labels; `{}`: without any.
        """
        with self._database.read() as connection:
            return series_reads.find_metrics(
                connection,
                project_id=project_id,
                metric_nos=metric_nos,
                name=name,
                scale=scale,
                labels=labels,
            )

    def nearest_metrics(
        self, name: str, project_id: int, metric_nos: Collection[int] | None = None
    ) -> list[str]:
        """Names that come closest to a metric nobody knows, of a project or of these numbers."""
        with self._database.read() as connection:
            return series_reads.nearest_metrics(connection, name, project_id, metric_nos)

    def env_ids(self, env_nos: Collection[int]) -> dict[int, str]:
        """The env_id of each number that is known."""
        with self._database.read() as connection:
            return series_reads.env_ids(connection, env_nos)

    def env_nos(self, project_id: int, env_ids: Collection[str] | None = None) -> dict[str, int]:
        """The number of each env_id of a project that is known; None: of all."""
        with self._database.read() as connection:
            return series_reads.env_nos(connection, project_id, env_ids)

    def logger_ids(self, run_no: int) -> dict[int, str]:
        """The logger_id of each logger number of a run."""
        with self._database.read() as connection:
            return series_reads.logger_ids(connection, run_no)

    def writer(self, writer_id: str) -> WriterRecord | None:
        """A writer by its id; None if no run was opened for it."""
        with self._database.read() as connection:
            return next(iter(writers.find(connection, writer_id=writer_id)), None)

    def gaps(self, writer_no: int) -> gaps.SeqRanges:
        """Ranges of a writer's batches, both ends included, that are missing before others."""
        with self._database.read() as connection:
            return gaps.of(connection, writer_no)

    def writers(
        self, *, run_no: int | None = None, writer_nos: Collection[int] | None = None
    ) -> list[WriterRecord]:
        """Writers of a run, or of these numbers, by rising number."""
        with self._database.read() as connection:
            return writers.find(connection, run_no=run_no, writer_nos=writer_nos)
