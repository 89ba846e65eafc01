"""What the numbers of the points store stand for, and which numbers a name has."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import sqlalchemy as sa

from metrana.server.catalog import naming
from metrana.server.catalog.declarations import canonical_labels
from metrana.server.catalog.engine import chunks
from metrana.server.catalog.records import MetricRecord
from metrana.server.catalog.tables import envs, loggers, metric_labels, metrics, runs, writers


def find_metrics(
    connection: sa.Connection,
    *,
    project_id: int | None,
    metric_nos: Collection[int] | None,
    name: str | None,
    scale: str | None,
    labels: Mapping[str, str] | None,
) -> list[MetricRecord]:
    """Metrics by name, scale and labels; None does not restrict.

    Args:
        connection: In a transaction.
        project_id: Of this project.
        metric_nos: Of these numbers, those of one run for instance.
        name: Of exactly this name.
        scale: On this scale.
        labels: With at least these labels; `{}`: without any.
    """
    query = sa.select(*metrics.c["metric_no", "name", "scale", "labels"])
    if project_id is not None:
        query = query.where(metrics.c.project_id == project_id)
    if name is not None:
        query = query.where(metrics.c.name == name)
    if scale is not None:
        query = query.where(metrics.c.scale == scale)
    if labels is not None and not labels:
        query = query.where(metrics.c.labels == canonical_labels({}))
    for key, value in (labels or {}).items():
        labelled = sa.select(metric_labels.c.metric_no).where(
            metric_labels.c.key == key, metric_labels.c.value == value
        )
        query = query.where(metrics.c.metric_no.in_(labelled))
    queries = (
        [query]
        if metric_nos is None
        else [query.where(metrics.c.metric_no.in_(chunk)) for chunk in chunks(set(metric_nos))]
    )
    found = [
        MetricRecord(number, metric, on, json.loads(text))
        for each in queries
        for number, metric, on, text in connection.execute(each)
    ]
    return sorted(found, key=lambda m: (m.name, m.scale, canonical_labels(m.labels)))


def nearest_metrics(
    connection: sa.Connection, name: str, project_id: int, metric_nos: Collection[int] | None
) -> list[str]:
    """Names of metrics that look most like one that is not there."""
    if metric_nos is None:
        query = sa.select(metrics.c.name).where(metrics.c.project_id == project_id).distinct()
        return naming.nearest(name, connection.scalars(query))
    names = {
        found
        for chunk in chunks(set(metric_nos))
        for found in connection.scalars(
            sa.select(metrics.c.name).where(metrics.c.metric_no.in_(chunk)).distinct()
        )
    }
    return naming.nearest(name, sorted(names))


def env_ids(connection: sa.Connection, env_nos: Collection[int]) -> dict[int, str]:
    """The env_id of each number; unknown numbers are left out."""
    return {
        number: env_id
        for chunk in chunks(set(env_nos))
        for number, env_id in connection.execute(
            sa.select(*envs.c["env_no", "env_id"]).where(envs.c.env_no.in_(chunk))
        )
    }


def env_nos(
    connection: sa.Connection, project_id: int, wanted: Collection[str] | None
) -> dict[str, int]:
    """The number of each env_id of a project; None: of all."""
    query = sa.select(*envs.c["env_id", "env_no"]).where(envs.c.project_id == project_id)
    queries = (
        [query]
        if wanted is None
        else [query.where(envs.c.env_id.in_(chunk)) for chunk in chunks(set(wanted))]
    )
    return {env_id: number for each in queries for env_id, number in connection.execute(each)}


def logger_ids(connection: sa.Connection, run_no: int) -> dict[int, str]:
    """The logger_id of each logger number of a run."""
    query = sa.select(*loggers.c["logger_no", "logger_id"]).where(loggers.c.run_no == run_no)
    return dict(connection.execute(query).all())


def greatest_numbers(connection: sa.Connection) -> dict[str, int]:
    """The greatest number given of each kind that points carry, 0 if none was."""
    numbers = (runs.c.run_no, metrics.c.metric_no, envs.c.env_no, loggers.c.logger_no)
    greatest = {}
    for number in (*numbers, writers.c.writer_no):
        greatest[number.name] = int(connection.scalar(sa.select(sa.func.max(number))) or 0)
    return greatest
