"""Rows of runs, writers and loggers as an open needs them."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from metrana.server.catalog.attribute_values import store
from metrana.server.catalog.engine import insert
from metrana.server.catalog.records import OpenRun, WriterOpening
from metrana.server.catalog.tables import attributes, loggers, projects, runs, writers


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What the writers of one request share."""

    run_no: int
    alias_run_id: str | None
    orchestration_id: str | None
    is_delivery: bool
    now_ms: int
    lease_until_ms: int


def run_of_writer(connection: sa.Connection, writer_id: str) -> int | None:
    """The run of a writer; None for one that was never enrolled."""
    return connection.scalar(sa.select(writers.c.run_no).where(writers.c.writer_id == writer_id))


def create_run(
    connection: sa.Connection, request: OpenRun, project_id: int, name: str, now_ms: int
) -> int:
    """Insert a run. Fails by its unique keys if somebody else just did."""
    workspace_id = sa.select(projects.c.workspace_id).where(projects.c.project_id == project_id)
    creator = (*request.earlier_writers, request.writer)[0]
    result = connection.execute(
        runs.insert().values(
            run_id=request.run_id,
            workspace_id=workspace_id.scalar_subquery(),
            project_id=project_id,
            name=name,
            requested_name=request.run_name if name != request.run_name else None,
            orchestration_id=request.orchestration_id or None,
            experiment_name=request.experiment_name or None,
            status="running",
            host=creator.host or None,
            client_version=creator.client_version or None,
            created_at=request.created_at_ms,
            updated_at=now_ms,
        )
    )
    assert result.inserted_primary_key is not None
    run_no: int = result.inserted_primary_key[0]
    if name != request.run_name:
        value = store("string", request.run_name)._asdict()
        connection.execute(
            attributes.insert().values(run_no=run_no, path="metrana/requested_name", **value)
        )
    return run_no


def enrol_earlier(
    connection: sa.Connection, enrolment: Enrolment, writer: WriterOpening, *, created_run: bool
) -> bool:
    """Enrol an earlier writer that is not known yet; being listed is no sign of life of it."""
    if run_of_writer(connection, writer.writer_id) is not None:
        return False
    _insert_writer(connection, enrolment, writer, created_run=created_run)
    return True


def enrol(
    connection: sa.Connection, enrolment: Enrolment, writer: WriterOpening, *, created_run: bool
) -> bool:
    """Enrol the writer that opens, or take up again the one that is known.

    Returns:
        Whether it is new.
    """
    if run_of_writer(connection, writer.writer_id) is None:
        _insert_writer(connection, enrolment, writer, created_run=created_run)
        return True
    _take_up(connection, enrolment, writer)
    return False


def _insert_writer(
    connection: sa.Connection, enrolment: Enrolment, writer: WriterOpening, *, created_run: bool
) -> None:
    lives = writer.alive is not False
    connection.execute(
        writers.insert().values(
            writer_id=writer.writer_id,
            run_no=enrolment.run_no,
            number=writer.number,
            logger_no=_logger(connection, enrolment.run_no, writer),
            alias_run_id=enrolment.alias_run_id,
            orchestration_id=enrolment.orchestration_id,
            host=writer.host or None,
            pid=writer.pid or None,
            client_version=writer.client_version or None,
            created_run=created_run,
            is_lead=True,  # until status.refresh finds somebody who lives
            lives=lives,
            delivered=_is_delivered(enrolment, writer),
            opened_at=writer.opened_at_ms,
            registered_at=enrolment.now_ms,
            heard_at=enrolment.now_ms,
            lease_until=enrolment.lease_until_ms if lives else None,
        )
    )


def _take_up(connection: sa.Connection, enrolment: Enrolment, writer: WriterOpening) -> None:
    known = writers.c.writer_id == writer.writer_id
    delivered = _is_delivered(enrolment, writer)
    changes: dict[str, object] = {"delivered": delivered}
    if writer.alive is False:
        changes |= {"lives": False}
    elif not delivered:
        # It speaks for itself, so it lives, lease or no lease.
        changes |= {
            "lives": True,
            "close_status": None,
            "closed_at": None,
            "ended_at": None,
            "heard_at": enrolment.now_ms,
            "lease_until": enrolment.lease_until_ms,
        }
    closed = writers.c.close_status.in_(("finished", "failed"))
    connection.execute(
        sa.update(writers).where(known, sa.or_(~closed, closed.is_(None))).values(changes)
    )


def _is_delivered(enrolment: Enrolment, writer: WriterOpening) -> bool:
    return enrolment.is_delivery and writer.alive is not True


def _logger(connection: sa.Connection, run_no: int, writer: WriterOpening) -> int:
    logger_id = writer.logger_id or writer.writer_id
    row = insert(connection, loggers).values(run_no=run_no, logger_id=logger_id)
    connection.execute(row.on_conflict_do_nothing())
    number: int = connection.execute(
        sa.select(loggers.c.logger_no).where(
            loggers.c.run_no == run_no, loggers.c.logger_id == logger_id
        )
    ).scalar_one()
    return number
