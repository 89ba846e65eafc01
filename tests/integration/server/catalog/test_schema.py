"""The migrations, and what they amount to."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from metrana.server.catalog import Catalog, CatalogVersionError
from metrana.server.catalog.engine import Database, connect
from metrana.server.catalog.migrations import HEAD
from metrana.server.catalog.schema import VERSION_TABLE, alembic_config
from metrana.server.catalog.tables import metadata
from tests.integration.server.catalog.racing import open_and_close
from tests.integration.server.catalog.requests import opened


@pytest.fixture
def database(empty_url: sa.URL) -> Iterator[Database]:
    made = Database(connect(empty_url))
    yield made
    made.close()


def test_head_is_the_newest_revision() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]


def test_migrations_and_tables_do_not_drift(empty_url: sa.URL, database: Database) -> None:
    Catalog.open(empty_url).close()
    with database.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, metadata) == []


def test_migrations_write_the_very_ddl_of_the_tables(empty_url: sa.URL, database: Database) -> None:
    # Alembic does not compare conditions of indexes, checks, collations and numbering.
    Catalog.open(empty_url).close()
    migrated = database.write(definitions)
    database.write(lambda connection: command.downgrade(alembic_config(connection), "base"))
    database.write(metadata.create_all)

    assert database.write(definitions) == migrated
    assert len(migrated) > 2 * len(metadata.tables)


def definitions(connection: sa.Connection) -> set[str]:
    """Every table, constraint and index, as the engine spells it."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(
            sa.text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        ).scalars()
        found = {line.strip(" ,") for sql in rows for line in sql.splitlines()}
        return {line for line in found if VERSION_TABLE not in line}
    queries = [
        "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()",
        "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) || ' ' || conname"
        " FROM pg_constraint WHERE connamespace = current_schema()::regnamespace",
        "SELECT concat_ws(' ', table_name, column_name, data_type, character_maximum_length,"
        " collation_name, column_default, is_nullable) FROM information_schema.columns"
        " WHERE table_schema = current_schema()",
    ]
    found = {row for query in queries for row in connection.scalars(sa.text(query))}
    return {row for row in found if VERSION_TABLE not in row}


def test_downgrade_leaves_nothing(empty_url: sa.URL, database: Database) -> None:
    Catalog.open(empty_url).close()
    database.write(lambda connection: command.downgrade(alembic_config(connection), "base"))

    with database.read() as connection:
        assert sa.inspect(connection).get_table_names() == [VERSION_TABLE]
    Catalog.open(empty_url).close()


def test_open_again_keeps_the_catalog(empty_url: sa.URL) -> None:
    with Catalog.open(empty_url) as first, Catalog.open(empty_url) as second:
        assert len(first.catalog_id) == 32
        assert first.catalog_id == second.catalog_id


def test_processes_that_open_a_new_catalog_at_once_agree(empty_url: sa.URL) -> None:
    context = multiprocessing.get_context("spawn")
    url = empty_url.render_as_string(hide_password=False)
    with context.Pool(4) as pool:
        assert len(set(pool.map(open_and_close, [url] * 4))) == 1


def test_newer_schema_is_refused_saying_what_to_upgrade(
    empty_url: sa.URL, database: Database
) -> None:
    Catalog.open(empty_url).close()

    def upgrade(connection: sa.Connection) -> None:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        connection.execute(sa.text("UPDATE meta SET value = '7.1' WHERE key = 'written_by'"))

    database.write(upgrade)
    with pytest.raises(CatalogVersionError, match=r"metrana 7\.1 .* upgrade metrana"):
        Catalog.open(empty_url)
    with database.read() as connection:
        version = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))
    assert version == "9999"


def test_migration_that_fails_leaves_nothing(
    empty_url: sa.URL, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = command.upgrade

    def fail_afterwards(*arguments: object) -> None:
        upgrade(*arguments)  # type: ignore[arg-type]
        raise OSError("the power went")

    monkeypatch.setattr(command, "upgrade", fail_afterwards)
    with pytest.raises(OSError, match="the power went"):
        Catalog.open(empty_url)
    with database.read() as connection:
        assert sa.inspect(connection).get_table_names() == []


def test_a_catalog_of_the_first_schema_is_upgraded_and_kept(
    empty_url: sa.URL, database: Database
) -> None:
    with Catalog.open(empty_url) as catalog:
        run = opened(catalog, "r", "w")
    database.write(lambda connection: command.downgrade(alembic_config(connection), "0001"))
    with Catalog.open(empty_url) as upgraded:
        assert upgraded.run("r").run_id == run.run_id
        (writer,) = upgraded.writers(run_no=run.run_no)
        assert writer.rendering_seq == 0
        assert upgraded.renderings(run.run_no) == []


def test_a_catalog_that_knew_no_gaps_has_none(empty_url: sa.URL, database: Database) -> None:
    with Catalog.open(empty_url) as catalog:
        run = opened(catalog, "r", "w")
        catalog.apply_attributes(run.writer_no, [(7, [("set", "x", "int", "1", False)])])
    database.write(lambda connection: command.downgrade(alembic_config(connection), "0002"))
    with Catalog.open(empty_url) as upgraded:
        (writer,) = upgraded.writers(run_no=run.run_no)
        assert writer.attr_seq == 7
        assert upgraded.gaps(run.writer_no) == ()
        upgraded.add_gap(run.writer_no, 1 << 40, 1 << 41)
        assert upgraded.gaps(run.writer_no) == ((1 << 40, 1 << 41),)


def test_revisions_are_in_the_package() -> None:
    folder = Path(ScriptDirectory.from_config(alembic_config()).versions)
    assert folder.parts[-4:] == ("server", "catalog", "migrations", "versions")
