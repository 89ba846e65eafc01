"""The catalog's tables: everything about runs that is not a point.

What a number in the points store stands for is written here, and committed, before the first point
that uses it. All times are Unix milliseconds, UTC. Ids (`run_id`, `writer_id`) are 32 lower-case
hex digits. Numbers (`…_no`) start at 1 and are never used twice: points may outlive the rows here.

The migrations build the same tables; a test compares the two on every engine.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

_ESCAPES = str.maketrans({"\x1a": "\x1a1", "\x00": "\x1a0"})


def escaped(text: str) -> str:
    """The text as `ExactText` stores it, for statements that carry it inside something else."""
    return text.translate(_ESCAPES) if "\x00" in text or "\x1a" in text else text


class ExactText(TypeDecorator[str]):
    """Text that comes back as it went in, on every engine, and sorts by its UTF-8 bytes.

    PostgreSQL has no NUL in text, so NUL is kept as SUB 0 and SUB as SUB 1; other text as it is.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Bytewise order on PostgreSQL too: ranges of paths rely on it."""
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Escape NUL and SUB."""
        return escaped(value) if value is not None else None

    def process_result_value(self, value: str | None, _dialect: Dialect) -> str | None:
        """Undo the escapes."""
        if value is None or "\x1a" not in value:
            return value
        # Every SUB that is stored is followed by 0 or 1, so splitting by it loses nothing.
        head, *rest = value.split("\x1a")
        return head + "".join(("\x00" if part[0] == "0" else "\x1a") + part[1:] for part in rest)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _number(name: str) -> Column[int]:
    """A number that the database gives out."""
    return Column(name, Integer, primary_key=True)


def _refers(name: str, target: str, **options: Any) -> Column[int]:
    return Column(name, Integer, ForeignKey(target), **{"nullable": False, **options})


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _value_columns() -> tuple[Column[Any], ...]:
    """A typed value: `text` is exact, `number` is for comparing (attribute_values.py)."""
    return (
        Column("type", String(16), nullable=False),
        Column("number", Double),
        Column("text", ExactText),
    )


# Facts about the catalog itself: `catalog_id` (random; tells whether a points store belongs to it)
# and `written_by` (the version of metrana that last changed the schema).
meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

workspaces = Table(
    "workspaces",
    metadata,
    _number("workspace_id"),
    Column("name", ExactText, nullable=False),
    _time("created_at"),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

projects = Table(
    "projects",
    metadata,
    _number("project_id"),
    _refers("workspace_id", "workspaces.workspace_id"),
    Column("name", ExactText, nullable=False),
    _time("created_at"),
    UniqueConstraint("workspace_id", "name"),
    sqlite_autoincrement=True,
)

runs = Table(
    "runs",
    metadata,
    _number("run_no"),
    Column("run_id", String(32), nullable=False),
    _refers("workspace_id", "workspaces.workspace_id"),
    _refers("project_id", "projects.project_id"),
    Column("name", ExactText, nullable=False),
    # Set if another run held the name when this one was delivered.
    Column("requested_name", ExactText),
    Column("parent_run_id", String(32)),
    Column("fork_step", BigInteger),
    Column("orchestration_id", ExactText),
    Column("experiment_name", ExactText),
    Column("status", String(16), nullable=False),
    _time("lease_until", nullable=True),
    # A deleted run stays as a tombstone, so that late writers are told; purged: without points.
    _time("deleted_at", nullable=True),
    _time("purged_at", nullable=True),
    Column("host", ExactText),
    Column("client_version", ExactText),
    Column("description", ExactText),
    Column("git_sha", ExactText),
    _time("created_at"),
    _time("updated_at"),
    _time("finished_at", nullable=True),
    UniqueConstraint("run_id"),
    CheckConstraint("status IN ('running', 'finished', 'failed', 'lost')", name="status"),
    sqlite_autoincrement=True,
)
_kept = text("deleted_at IS NULL")
Index(
    "uq_runs_name_not_deleted",
    runs.c.project_id,
    runs.c.name,
    unique=True,
    sqlite_where=_kept,
    postgresql_where=_kept,
)
Index(None, runs.c.project_id, runs.c.created_at)

# A run_id that lost its name but may join the run that holds it.
run_aliases = Table(
    "run_aliases",
    metadata,
    Column("run_id", String(32), primary_key=True),
    _refers("run_no", "runs.run_no"),
    _time("created_at"),
)

# Who a distributed point is from; 0 in the points store is "no logger".
loggers = Table(
    "loggers",
    metadata,
    _number("logger_no"),
    _refers("run_no", "runs.run_no"),
    Column("logger_id", ExactText, nullable=False),
    UniqueConstraint("run_no", "logger_id"),
    sqlite_autoincrement=True,
)

writers = Table(
    "writers",
    metadata,
    _number("writer_no"),
    Column("writer_id", String(32), nullable=False),
    _refers("run_no", "runs.run_no", index=True),
    Column("number", Integer, nullable=False),
    _refers("logger_no", "loggers.logger_no"),
    # The run_id this writer knows its run by, where that one became an alias.
    Column("alias_run_id", String(32)),
    Column("orchestration_id", ExactText),
    Column("host", ExactText),
    Column("pid", BigInteger),
    Column("client_version", ExactText),
    Column("created_run", Boolean, nullable=False),
    Column("is_lead", Boolean, nullable=False),
    # Whether its process is taken to be there; `delivered`: somebody else sends what it logged.
    Column("lives", Boolean, nullable=False),
    Column("delivered", Boolean, nullable=False),
    # The writer's clock: opened_at, and closed_at if a close record came. The server's: the others.
    _time("opened_at"),
    _time("registered_at"),
    _time("heard_at"),
    _time("closed_at", nullable=True),
    _time("ended_at", nullable=True),
    Column("close_status", String(16)),
    # Attribute batches up to here are in this catalog, but for those in a gap. It goes back to one
    # that comes late: those behind that one count again, in their order.
    Column("attr_seq", BigInteger, nullable=False, server_default=text("0")),
    # Fences replicas of the server: nobody else inserts for the writer before `until`.
    Column("lease_epoch", Integer, nullable=False, server_default=text("0")),
    _time("lease_until", nullable=True),
    Column("lease_owner", ExactText),
    UniqueConstraint("writer_id"),
    CheckConstraint("close_status IN ('finished', 'failed', 'lost')", name="close_status"),
    sqlite_autoincrement=True,
)
Index(
    "ix_writers_living_lease_until",
    writers.c.lease_until,
    sqlite_where=text("lives = 1"),
    postgresql_where=text("lives"),
)

# `identity` stands for (name, scale, labels) in the unique key: with 32 labels the key itself would
# be larger than an index entry may be.
metrics = Table(
    "metrics",
    metadata,
    _number("metric_no"),
    _refers("project_id", "projects.project_id"),
    Column("identity", String(32), nullable=False),
    Column("name", ExactText, nullable=False),
    Column("scale", String(16), nullable=False),
    Column("labels", ExactText, nullable=False),
    UniqueConstraint("project_id", "identity"),
    CheckConstraint("scale IN ('ML_STEP', 'EPISODE', 'ENVIRONMENT_STEP')", name="scale"),
    sqlite_autoincrement=True,
)
Index(None, metrics.c.project_id, metrics.c.name)

metric_labels = Table(
    "metric_labels",
    metadata,
    _refers("metric_no", "metrics.metric_no", primary_key=True),
    Column("key", ExactText, primary_key=True),
    Column("value", ExactText, nullable=False),
)
Index(None, metric_labels.c.key, metric_labels.c.value)

# 0 in the points store is "no environment".
envs = Table(
    "envs",
    metadata,
    _number("env_no"),
    _refers("project_id", "projects.project_id"),
    Column("env_id", String(128), nullable=False),
    UniqueConstraint("project_id", "env_id"),
    sqlite_autoincrement=True,
)

attributes = Table(
    "attributes",
    metadata,
    _refers("run_no", "runs.run_no", primary_key=True),
    Column("path", ExactText, primary_key=True),
    *_value_columns(),
)
Index(None, attributes.c.path, attributes.c.number)

# `episode` -1: the environment's own.
env_attributes = Table(
    "env_attributes",
    metadata,
    _refers("run_no", "runs.run_no", primary_key=True),
    _refers("env_no", "envs.env_no", primary_key=True),
    Column("episode", BigInteger, primary_key=True, autoincrement=False),
    Column("path", ExactText, primary_key=True),
    *_value_columns(),
)

tags = Table(
    "tags",
    metadata,
    _refers("run_no", "runs.run_no", primary_key=True),
    Column("tag", ExactText, primary_key=True),
)
Index(None, tags.c.tag)

# Only what is complete in the media store. An env_id may be here that no point ever had.
renderings = Table(
    "renderings",
    metadata,
    Column("rendering_id", String(32), primary_key=True),
    _refers("run_no", "runs.run_no"),
    _refers("writer_no", "writers.writer_no"),
    Column("env_id", ExactText, nullable=False),
    Column("episode", BigInteger, nullable=False),
    Column("rl_step", BigInteger, nullable=False),
    Column("part", BigInteger, nullable=False),
    Column("frame_count", BigInteger),
    Column("width", BigInteger, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("fps", Double, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    _time("created_at"),
)
Index(None, *renderings.c["run_no", "env_id", "episode", "part"])

# Pieces of a writer's renderings up to here are in the media store; it may have more.
rendering_progress = Table(
    "rendering_progress",
    metadata,
    _refers("writer_no", "writers.writer_no", primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# Batches that are not stored, in the midst of those that are: from first_seq to last_seq.
gaps = Table(
    "gaps",
    metadata,
    _refers("writer_no", "writers.writer_no", primary_key=True),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
)
