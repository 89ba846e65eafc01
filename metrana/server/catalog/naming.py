"""Names of workspaces, projects and runs: finding, creating and suggesting them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import sqlalchemy as sa

from metrana.server.catalog.engine import insert
from metrana.server.catalog.tables import projects, runs, workspaces

_MAX_NAME_BYTES = 256
_SUGGESTIONS = 3
# Comparing is quadratic in the names' lengths; newer names are the likelier ones.
_COMPARED = 5_000


def nearest(wanted: str, names: Iterable[str]) -> list[str]:
    """The few names that look most like the one wanted, best first; case does not count."""
    by_folded: dict[str, str] = {}
    for name in names:
        by_folded.setdefault(name.casefold(), name)
    close = difflib.get_close_matches(wanted.casefold(), by_folded, n=_SUGGESTIONS, cutoff=0.5)
    return [by_folded[folded] for folded in close]


def find_project(connection: sa.Connection, workspace_name: str, project_name: str) -> int | None:
    """The project's number; None if there is no such project."""
    return connection.scalar(
        sa.select(projects.c.project_id)
        .join(workspaces)
        .where(workspaces.c.name == workspace_name, projects.c.name == project_name)
    )


def create_project(
    connection: sa.Connection, workspace_name: str, project_name: str, now_ms: int
) -> int:
    """Create the project, and its workspace where that is missing too, if nobody else did."""
    workspace = insert(connection, workspaces).values(name=workspace_name, created_at=now_ms)
    connection.execute(workspace.on_conflict_do_nothing())
    workspace_id = connection.scalar(
        sa.select(workspaces.c.workspace_id).where(workspaces.c.name == workspace_name)
    )
    project = insert(connection, projects).values(
        workspace_id=workspace_id, name=project_name, created_at=now_ms
    )
    connection.execute(project.on_conflict_do_nothing())
    project_id: int = connection.execute(
        sa.select(projects.c.project_id).where(
            projects.c.workspace_id == workspace_id, projects.c.name == project_name
        )
    ).scalar_one()
    return project_id


def project_missing(connection: sa.Connection, workspace_name: str, project_name: str) -> str:
    """One sentence for a project that does not exist, with what it may be called instead."""
    rows = connection.execute(
        sa.select(projects.c.name)
        .join(workspaces)
        .where(workspaces.c.name == workspace_name)
        .order_by(projects.c.project_id.desc())
        .limit(_COMPARED)
    )
    names = nearest(project_name, rows.scalars())
    suggestion = f"; did you mean {' or '.join(map(repr, names))}?" if names else ""
    return f"no project {project_name!r} in workspace {workspace_name!r}{suggestion}"


def run_names(connection: sa.Connection, project_id: int) -> list[str]:
    """Names of a project's runs, newest first, as many as are worth comparing with."""
    return list(
        connection.scalars(
            sa.select(runs.c.name)
            .where(runs.c.project_id == project_id, runs.c.deleted_at.is_(None))
            .order_by(runs.c.run_no.desc())
            .limit(_COMPARED)
        )
    )


def free_name(connection: sa.Connection, project_id: int, name: str, run_id: str) -> str:
    """`<name>-<first 6 hex of the run_id>`; more digits should that name be taken too."""
    for digits in (6, 12, 32):
        suffix = f"-{run_id[:digits]}"
        head = name.encode()[: _MAX_NAME_BYTES - len(suffix)].decode(errors="ignore")
        candidate = head + suffix
        taken = sa.select(runs.c.run_no).where(
            runs.c.project_id == project_id,
            runs.c.name == candidate,
            runs.c.deleted_at.is_(None),
        )
        if connection.execute(taken).first() is None:
            break
    return candidate
