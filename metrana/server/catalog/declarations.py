"""Numbers for metrics and environments, per project.

Known ones are looked up first and only the missing are inserted: on PostgreSQL an insert that meets
an existing row uses up a number.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from metrana.server.catalog.engine import insert
from metrana.server.catalog.errors import MalformedError
from metrana.server.catalog.listing import listed
from metrana.server.catalog.tables import envs, metric_labels, metrics, projects

_ENV_ID = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
_SCALES = frozenset({"ML_STEP", "EPISODE", "ENVIRONMENT_STEP"})
_MAX_NAME_BYTES = 512
_MAX_LABELS = 32
_MAX_LABEL_BYTES = 256
_NO_LABELS = "{}"


class _Metric(NamedTuple):
    # What the unique key holds: 128 bits of a hash of the rest.
    identity: str
    name: str
    scale: str
    labels: str  # JSON, sorted by key


def declare(
    connection: sa.Connection, project_id: int, entries: Sequence[tuple[Any, ...]]
) -> list[int]:
    """Give each declaration its number, the same for ever.

    Args:
        connection: In a write transaction.
        project_id: Whose metrics and environments they are.
        entries: `("metric", _, scale, name, labels)` and `("environment", _, env_id)`, as
            `_native.decode_declarations` gives them; the local numbers are not looked at.

    Returns:
        A number for each entry, in order.

    Raises:
        MalformedError: For an entry outside the limits of names and labels.
    """
    keys = [_key(entry) for entry in entries]
    wanted = {k.identity: k for k in keys if isinstance(k, _Metric)}
    metric_nos = _metric_nos(connection, project_id, wanted)
    env_ids = dict.fromkeys(k for k in keys if isinstance(k, str))
    env_nos = _env_nos(connection, project_id, env_ids)
    return [metric_nos[k.identity] if isinstance(k, _Metric) else env_nos[k] for k in keys]


def canonical_labels(labels: Mapping[str, str]) -> str:
    """The one text that stands for a set of labels."""
    if not labels:
        return _NO_LABELS
    return json.dumps(dict(sorted(labels.items())), ensure_ascii=False, separators=(",", ":"))


def _key(entry: tuple[Any, ...]) -> _Metric | str:
    match entry:
        case ("metric", _, str(scale), str(name), dict(labels)):
            return _metric(scale, name, labels)
        case ("environment", _, str(env_id)) if _ENV_ID.fullmatch(env_id):
            return env_id
    raise MalformedError(f"no declaration within the limits: {entry!r:.200}")


def _metric(scale: str, name: str, labels: dict[str, str]) -> _Metric:
    if (
        scale not in _SCALES
        or not 1 <= len(name.encode()) <= _MAX_NAME_BYTES
        or len(labels) > _MAX_LABELS
        or any(len(text.encode()) > _MAX_LABEL_BYTES for pair in labels.items() for text in pair)
    ):
        raise MalformedError(f"no metric within the limits: {name!r:.200} on {scale}")
    text = canonical_labels(labels)
    identity = hashlib.sha256(f"{scale}\0{len(name)}\0{name}{text}".encode()).hexdigest()[:32]
    return _Metric(identity, name, scale, text)


def _metric_nos(
    connection: sa.Connection, project_id: int, wanted: dict[str, _Metric]
) -> dict[str, int]:
    found = _numbers(connection, metrics, "identity", project_id, wanted)
    missing = [metric for identity, metric in wanted.items() if identity not in found]
    added = _add(connection, metrics, _Metric._fields, project_id, missing)
    labels = (
        (str(added[metric.identity]), key, value)
        for metric in missing
        if metric.labels != _NO_LABELS
        for key, value in json.loads(metric.labels).items()
    )
    _add_labels(connection, labels)
    return found | added


def _env_nos(connection: sa.Connection, project_id: int, wanted: Iterable[str]) -> dict[str, int]:
    found = _numbers(connection, envs, "env_id", project_id, wanted)
    missing = [(env_id,) for env_id in wanted if env_id not in found]
    return found | _add(connection, envs, ("env_id",), project_id, missing)


def _numbers(
    connection: sa.Connection,
    table: sa.Table,
    key: str,
    project_id: int,
    wanted: Iterable[str],
) -> dict[str, int]:
    """The numbers of those of the wanted that are known."""
    query = sa.select(table.c[key], *table.primary_key).where(
        table.c.project_id == project_id,
        table.c[key].in_(sa.select(*listed(connection, ((one,) for one in wanted), 1))),
    )
    return dict(connection.execute(query).all())


def _add(
    connection: sa.Connection,
    table: sa.Table,
    names: Sequence[str],
    project_id: int,
    rows: Sequence[Sequence[str]],
) -> dict[str, int]:
    """Insert what is missing, in its order, the key being its first column; returns the numbers.

    So numbers rise with the order in which names were first logged, and series are listed by it.
    """
    if not rows:
        return {}
    # Two that insert the same names in different orders would wait for each other in a circle, so
    # they come one after the other; SQLite's writers do anyway.
    connection.execute(
        sa.select(projects.c.project_id)
        .where(projects.c.project_id == project_id)
        .with_for_update(key_share=True)
    )
    source = sa.select(sa.literal(project_id), *listed(connection, rows, len(names)))
    if connection.dialect.name == "sqlite":
        source = source.where(sa.true())  # else SQLite reads ON CONFLICT as the ON of a join
    statement = insert(connection, table).from_select(["project_id", *names], source)
    connection.execute(statement.on_conflict_do_nothing())
    # What another process inserted meanwhile has its number as well.
    return _numbers(connection, table, names[0], project_id, (row[0] for row in rows))


def _add_labels(connection: sa.Connection, rows: Iterable[Sequence[str]]) -> None:
    rows = list(rows)
    if not rows:
        return
    number, key, value = listed(connection, rows, 3)
    source = sa.select(sa.cast(number, sa.Integer), key, value)
    if connection.dialect.name == "sqlite":
        source = source.where(sa.true())
    statement = insert(connection, metric_labels).from_select(["metric_no", "key", "value"], source)
    connection.execute(statement.on_conflict_do_nothing())
