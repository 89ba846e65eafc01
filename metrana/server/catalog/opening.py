"""Opening a run: create it, join it, resume it, or refuse (docs/decisions/003-run-identity.md)."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from metrana.checks import entity_name
from metrana.errors import MetranaValidationError
from metrana.server.catalog import naming, registration
from metrana.server.catalog.records import (
    OpenedRun,
    OpenRun,
    RefusalCode,
    RunRefusal,
)
from metrana.server.catalog.status import lock_run, refresh
from metrana.server.catalog.tables import projects, run_aliases, runs, workspaces, writers

_ID = re.compile(r"[0-9a-f]{32}")


class RefusedError(Exception):
    """Unwinds the transaction of an open that is refused, so that it leaves nothing behind."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.refusal = RunRefusal(code, message)


def open_run(connection: sa.Connection, request: OpenRun, now_ms: int, lease_ms: int) -> OpenedRun:
    """Open a run for a writer; asking again gives the same answer.

    Raises:
        RefusedError: If the run is not opened.
    """
    _check(request)
    run_no = registration.run_of_writer(connection, request.writer.writer_id)
    created = alias = False
    if run_no is None:
        run_no, created, alias = _find_or_create(connection, request, now_ms)
    run = lock_run(connection, run_no)
    if run.deleted_at is not None:
        raise RefusedError(
            RefusalCode.RUN_DELETED,
            f"run {request.run_name or run.run_id!r} (run_id {run.run_id}) was deleted; "
            "start a new one under another run_id",
        )
    enrolment = registration.Enrolment(
        run_no=run_no,
        alias_run_id=request.run_id if alias or run.run_id != request.run_id else None,
        orchestration_id=request.orchestration_id or None,
        is_delivery=request.name_conflict == "rename",
        now_ms=now_ms,
        lease_until_ms=now_ms + lease_ms,
    )
    # Whoever comes first in the folder is the one that created the run there.
    for earlier in request.earlier_writers:
        if registration.enrol_earlier(connection, enrolment, earlier, created_run=created):
            created = False
    new = registration.enrol(connection, enrolment, request.writer, created_run=created)
    refresh(connection, run_no, now_ms)
    return _opened(connection, request.writer.writer_id, new_writer=new)


def _check(request: OpenRun) -> None:
    everyone = (request.writer, *request.earlier_writers)
    for name, value in (
        ("run_id", request.run_id),
        *(("writer_id", writer.writer_id) for writer in everyone),
    ):
        if not _ID.fullmatch(value):
            message = f"{name}: must be 32 hexadecimal digits, not {value!r:.80}"
            raise RefusedError(RefusalCode.INVALID, message)
    if request.by_run_id:
        return
    try:
        entity_name("workspace_name", request.workspace_name)
        entity_name("project_name", request.project_name)
        entity_name("run_name", request.run_name)
        if request.experiment_name:
            entity_name("experiment_name", request.experiment_name)
    except MetranaValidationError as error:
        raise RefusedError(RefusalCode.INVALID, str(error)) from error


def _find_or_create(
    connection: sa.Connection, request: OpenRun, now_ms: int
) -> tuple[int, bool, bool]:
    """Returns: the run's number, whether it was created, whether the run_id became an alias."""
    run = _run_by_id(connection, request.run_id)
    if run is not None:
        # The run_id came out of the run's own folder, where run.json decided. A start is held to
        # the same rule here, in case the folder was copied; data belongs to its run_id anyway.
        if request.name_conflict == "refuse" and run.deleted_at is None:
            _require_permission(request, run)
        return run.run_no, False, False
    if request.by_run_id:
        message = f"no run has the run_id {request.run_id}"
        raise RefusedError(RefusalCode.RUN_NOT_FOUND, message)
    project_id = _project(connection, request, now_ms)
    name = request.run_name
    holder = _run_by_name(connection, project_id, name)
    if holder is not None and _may_join(request, holder):
        connection.execute(
            run_aliases.insert().values(
                run_id=request.run_id, run_no=holder.run_no, created_at=now_ms
            )
        )
        return holder.run_no, False, True
    if holder is not None:
        if request.name_conflict == "refuse":
            _require_permission(request, holder)
        name = naming.free_name(connection, project_id, name, request.run_id)
    return registration.create_run(connection, request, project_id, name, now_ms), True, False


def _run_by_id(connection: sa.Connection, run_id: str) -> sa.Row[Any] | None:
    alias = sa.select(run_aliases.c.run_no).where(run_aliases.c.run_id == run_id)
    return connection.execute(
        sa.select(runs).where(
            sa.or_(runs.c.run_id == run_id, runs.c.run_no == alias.scalar_subquery())
        )
    ).one_or_none()


def _run_by_name(connection: sa.Connection, project_id: int, name: str) -> sa.Row[Any] | None:
    return connection.execute(
        sa.select(runs)
        .where(runs.c.project_id == project_id, runs.c.name == name, runs.c.deleted_at.is_(None))
        .with_for_update()
    ).one_or_none()


def _project(connection: sa.Connection, request: OpenRun, now_ms: int) -> int:
    # What exists already is never refused, so a delivery makes the project it needs.
    may_create = request.create_project_if_missing or request.name_conflict == "rename"
    project_id = naming.find_project(connection, request.workspace_name, request.project_name)
    if project_id is not None:
        return project_id
    if not may_create:
        raise RefusedError(
            RefusalCode.PROJECT_NOT_FOUND,
            naming.project_missing(connection, request.workspace_name, request.project_name),
        )
    return naming.create_project(connection, request.workspace_name, request.project_name, now_ms)


def _may_join(request: OpenRun, run: sa.Row[Any]) -> bool:
    if request.by_run_id or request.resume_strategy == "allow":
        return True
    return bool(request.orchestration_id) and request.orchestration_id == run.orchestration_id


def _require_permission(request: OpenRun, run: sa.Row[Any]) -> None:
    """Refuse a start that may not join the run, naming both sides."""
    if _may_join(request, run):
        return
    theirs, ours = run.orchestration_id, request.orchestration_id
    mismatch = bool(theirs) and bool(ours)
    raise RefusedError(
        RefusalCode.ORCHESTRATION_MISMATCH if mismatch else RefusalCode.RUN_EXISTS,
        f"run {run.name!r} already exists in project {request.project_name!r}: it has the run_id "
        f"{run.run_id} and belongs to orchestration_id {theirs!r}, this process to {ours!r}. "
        "Choose another run_name, pass the same orchestration_id if this is one job, or "
        "resume_strategy='allow' to go on with that run",
    )


def _opened(connection: sa.Connection, writer_id: str, *, new_writer: bool) -> OpenedRun:
    query = (
        sa.select(
            runs.c.run_no,
            runs.c.run_id,
            runs.c.project_id,
            workspaces.c.name.label("workspace_name"),
            projects.c.name.label("project_name"),
            runs.c.name.label("run_name"),
            runs.c.requested_name,
            writers.c.created_run.label("created"),
            writers.c.writer_no,
            writers.c.logger_no,
        )
        .join_from(writers, runs)
        .join(projects, projects.c.project_id == runs.c.project_id)
        .join(workspaces, workspaces.c.workspace_id == runs.c.workspace_id)
        .where(writers.c.writer_id == writer_id)
    )
    row = connection.execute(query).mappings().one()
    return OpenedRun(**row, new_writer=new_writer)
