"""Brings a catalog's schema to the version this metrana is made for."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import sqlalchemy as sa

import metrana
from metrana.server.catalog.engine import Database, insert
from metrana.server.catalog.errors import CatalogVersionError
from metrana.server.catalog.migrations import HEAD
from metrana.server.catalog.tables import meta

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "catalog_version"
POINTS_ID = "points_id"


def upgrade(database: Database) -> None:
    """Upgrade to the newest schema, one process at a time; all of it or nothing.

    Raises:
        CatalogVersionError: If a newer metrana has upgraded the catalog already.
    """
    with database.read() as connection:
        current = _version(connection)
    if current != HEAD:
        database.write(_upgrade_locked)


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration for the migrations inside this package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "metrana.server.catalog:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade_locked(connection: sa.Connection) -> None:
    # Imported only when there is something to do: Alembic takes longer than opening the catalog.
    from alembic import command
    from alembic.script import ScriptDirectory

    if connection.dialect.name == "postgresql":
        # On SQLite the transaction itself is the lock.
        connection.execute(
            sa.text("SELECT pg_advisory_xact_lock(hashtext('metrana ' || current_schema()))")
        )
    current = _version(connection)
    if current == HEAD:
        return
    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise CatalogVersionError(_too_new(connection, current))
    command.upgrade(config, "head")
    note(connection, "written_by", metrana.__version__)
    if current is None:
        note(connection, "catalog_id", secrets.token_hex(16))


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    version = sa.select(sa.column("version_num", sa.String)).select_from(sa.table(VERSION_TABLE))
    return connection.execute(version).scalar_one_or_none()


def _too_new(connection: sa.Connection, current: str) -> str:
    writer = connection.scalar(sa.select(meta.c.value).where(meta.c.key == "written_by"))
    return (
        f"the catalog was upgraded by metrana {writer} to schema {current}; this is metrana "
        f"{metrana.__version__} with schema {HEAD}: upgrade metrana here to {writer} or newer"
    )


def note(connection: sa.Connection, key: str, value: str) -> None:
    """Write an entry of `meta`."""
    statement = insert(connection, meta).values(key=key, value=value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[meta.c.key], set_={"value": value})
    )
