"""Reading runs and what was written about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import sqlalchemy as sa

from metrana.server.catalog import attribute_paths, naming
from metrana.server.catalog.engine import chunks
from metrana.server.catalog.errors import NotFoundError
from metrana.server.catalog.records import EnvAttribute, ProjectRecord, RunFilter, RunRecord
from metrana.server.catalog.tables import (
    attributes,
    env_attributes,
    envs,
    projects,
    run_aliases,
    runs,
    tags,
    workspaces,
)

_RUN = (
    sa.select(
        *runs.c["run_no", "run_id", "project_id", "requested_name", "experiment_name"],
        *runs.c["orchestration_id", "parent_run_id", "fork_step", "status", "host"],
        *runs.c["client_version", "description", "git_sha"],
        workspaces.c.name.label("workspace_name"),
        projects.c.name.label("project_name"),
        runs.c.name.label("run_name"),
        runs.c.lease_until.label("lease_until_ms"),
        runs.c.created_at.label("created_at_ms"),
        runs.c.updated_at.label("updated_at_ms"),
        runs.c.finished_at.label("finished_at_ms"),
    )
    .join_from(runs, projects, projects.c.project_id == runs.c.project_id)
    .join(workspaces, workspaces.c.workspace_id == runs.c.workspace_id)
    .where(runs.c.deleted_at.is_(None))
)


def find_runs(connection: sa.Connection, wanted: RunFilter) -> list[RunRecord]:
    """Runs that pass the filter, newest first."""
    query = _RUN.order_by(runs.c.created_at.desc(), runs.c.run_no.desc())
    if wanted.workspace_name is not None:
        query = query.where(workspaces.c.name == wanted.workspace_name)
    if wanted.project_name is not None:
        query = query.where(projects.c.name == wanted.project_name)
    if wanted.names is not None:
        query = query.where(runs.c.name.in_(list(wanted.names)))
    if wanted.status is not None:
        statuses = [wanted.status] if isinstance(wanted.status, str) else list(wanted.status)
        query = query.where(runs.c.status.in_(statuses))
    for tag in set(wanted.tags or ()):
        tagged = sa.select(tags.c.run_no).where(tags.c.tag == attribute_paths.fitting(tag))
        query = query.where(runs.c.run_no.in_(tagged))
    if wanted.limit is not None:
        query = query.limit(wanted.limit)
    if wanted.offset:
        query = query.offset(wanted.offset)
    return _with_tags(connection, query)


def find_run(
    connection: sa.Connection,
    run_name: str | None,
    project_name: str,
    workspace_name: str,
    run_id: str | None,
) -> RunRecord:
    """One run, by its id or an alias of it, or else by its name.

    Raises:
        NotFoundError: If it is not there or was deleted.
    """
    if run_id is not None:
        alias = sa.select(run_aliases.c.run_no).where(run_aliases.c.run_id == run_id)
        found = _with_tags(
            connection, _RUN.where((runs.c.run_id == run_id) | runs.c.run_no.in_(alias))
        )
        if not found:
            raise NotFoundError(f"no run has the run_id {run_id!r}")
        return found[0]
    project_id = naming.find_project(connection, workspace_name, project_name)
    if project_id is None:
        # The sentence names the likely projects itself.
        raise NotFoundError(naming.project_missing(connection, workspace_name, project_name))
    in_project = _RUN.where(runs.c.project_id == project_id)
    found = _with_tags(connection, in_project.where(runs.c.name == run_name))
    if not found:
        near = naming.nearest(run_name or "", naming.run_names(connection, project_id))
        raise NotFoundError(f"no run {run_name!r} in project {project_name!r}", near)
    return found[0]


def find_projects(connection: sa.Connection) -> list[ProjectRecord]:
    """Every project with its number of runs, by workspace and name."""
    query = (
        sa.select(
            projects.c.project_id,
            workspaces.c.name.label("workspace_name"),
            projects.c.name.label("project_name"),
            sa.func.count(runs.c.run_no).label("run_count"),
        )
        .join_from(projects, workspaces)
        .outerjoin(runs, (runs.c.project_id == projects.c.project_id) & runs.c.deleted_at.is_(None))
        .group_by(projects.c.project_id, workspaces.c.name, projects.c.name)
        .order_by(workspaces.c.name, projects.c.name)
    )
    return [ProjectRecord(**row) for row in connection.execute(query).mappings()]


def attribute_rows(connection: sa.Connection, run_no: int) -> dict[str, tuple[str, str | None]]:
    """Type and text of each of a run's attributes, by path in order."""
    rows = connection.execute(
        sa.select(*attributes.c["path", "type", "text"])
        .where(attributes.c.run_no == run_no)
        .order_by(attributes.c.path)
    )
    return {path: (kind, text) for path, kind, text in rows}


def find_env_attributes(
    connection: sa.Connection, run_no: int, env_id: str | None, episode: int | None
) -> list[EnvAttribute]:
    """Attributes of a run's environments and episodes, by environment, episode and path."""
    query = (
        sa.select(envs.c.env_id, *env_attributes.c["episode", "path", "type", "text"])
        .join_from(env_attributes, envs, envs.c.env_no == env_attributes.c.env_no)
        .where(env_attributes.c.run_no == run_no)
        .order_by(envs.c.env_id, env_attributes.c.episode, env_attributes.c.path)
    )
    if env_id is not None:
        query = query.where(envs.c.env_id == env_id)
    if episode is not None:
        query = query.where(env_attributes.c.episode == episode)
    trees: dict[tuple[str, int], dict[str, tuple[str, str | None]]] = defaultdict(dict)
    for found, number, path, kind, text in connection.execute(query):
        trees[found, number][path] = (kind, text)
    return [
        EnvAttribute(found, None if number == -1 else number, path, value)
        for (found, number), rows in trees.items()
        for path, value in attribute_paths.flat(rows).items()
    ]


def _with_tags(connection: sa.Connection, query: sa.Select[tuple[object, ...]]) -> list[RunRecord]:
    rows = connection.execute(query).mappings().all()
    tagged = _tags_of(connection, [row["run_no"] for row in rows])
    return [RunRecord(**row, tags=tuple(tagged[row["run_no"]])) for row in rows]


def _tags_of(connection: sa.Connection, run_nos: Collection[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for chunk in chunks(run_nos):
        query = sa.select(tags).where(tags.c.run_no.in_(chunk)).order_by(tags.c.tag)
        for run_no, tag in connection.execute(query):
            found[run_no].append(tag)
    return found
