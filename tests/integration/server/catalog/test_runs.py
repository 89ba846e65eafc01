"""Listing runs, and deleting them."""

from __future__ import annotations

from typing import Any

import pytest

from metrana.server.catalog import Catalog, NotFoundError, RefusalCode, RunFilter
from tests.integration.server.catalog.requests import an_id, opened, refused, writer


@pytest.fixture
def four(catalog: Catalog) -> Catalog:
    """Runs d (newest) to a (oldest), with tags, in two projects and two workspaces."""
    given = [
        ("a", "default", "default", ["x"]),
        ("b", "default", "p", ["x", "y"]),
        ("c", "team", "p", ["y", "z"]),
        ("d", "default", "default", []),
    ]
    writer_nos = {}
    for created_at, (name, workspace, project, tags) in enumerate(given):
        run = opened(
            catalog,
            name,
            f"w {name}",
            workspace_name=workspace,
            project_name=project,
            created_at_ms=created_at,
        )
        catalog.apply_attributes(run.writer_no, [(1, [("set_tags", tags, False)])])
        writer_nos[name] = run.writer_no
    catalog.end_writer(writer_nos["a"], died=False)
    catalog.end_writer(writer_nos["d"], died=True)
    return catalog


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, "dcba"),
        ({"project_name": "p"}, "cb"),
        ({"workspace_name": "default", "project_name": "p"}, "b"),
        ({"workspace_name": "nobody"}, ""),
        ({"tags": ["x"]}, "ba"),
        ({"tags": ["x", "y"]}, "b"),
        ({"tags": []}, "dcba"),
        ({"status": "running"}, "cb"),
        ({"status": ["finished", "lost"]}, "da"),
        ({"names": ["a", "c", "nobody"]}, "ca"),
        ({"names": []}, ""),
        ({"limit": 2}, "dc"),
        ({"limit": 2, "offset": 1}, "cb"),
        ({"offset": 3}, "a"),
        ({"limit": 0}, ""),
    ],
)
def test_runs_are_filtered(four: Catalog, wanted: dict[str, Any], names: str) -> None:
    assert "".join(run.run_name for run in four.runs(RunFilter(**wanted))) == names


def test_runs_bring_their_tags(four: Catalog) -> None:
    assert [run.tags for run in four.runs()] == [(), ("y", "z"), ("x", "y"), ("x",)]


def test_projects_count_their_runs(four: Catalog) -> None:
    found = [(p.workspace_name, p.project_name, p.run_count) for p in four.projects()]

    assert found == [("default", "default", 2), ("default", "p", 1), ("team", "p", 1)]


def test_writers_are_found_by_run_and_number(catalog: Catalog) -> None:
    run = opened(catalog, "a", writer("w0", logger_id="rank 0", host="node", pid=12))
    other = opened(catalog, "a", writer("w1", 2))

    first, second = catalog.writers(run_no=run.run_no)
    assert (first.writer_no, second.writer_no) == (run.writer_no, other.writer_no)
    assert (first.writer_id, first.run_id, first.logger_id) == (an_id("w0"), run.run_id, "rank 0")
    assert (first.host, first.pid, first.number, first.created_run) == ("node", 12, 1, True)
    assert catalog.writers(writer_nos=[other.writer_no, 999]) == [second]
    assert catalog.writer(an_id("nobody")) is None


def test_deleted_run_is_gone_and_its_writers_are_told(catalog: Catalog) -> None:
    run = opened(catalog, "a", "w")
    catalog.delete_run(run.run_no)

    assert catalog.runs() == []
    with pytest.raises(NotFoundError):
        catalog.run("a")
    with pytest.raises(NotFoundError):
        catalog.run(run_id=run.run_id)
    record = catalog.writer(an_id("w"))
    assert record is not None
    assert (record.run_deleted, record.lives, record.close_status) == (True, False, "lost")
    assert catalog.renew_leases([run.writer_no]) == [run.writer_no]


@pytest.mark.parametrize("name_conflict", ["refuse", "rename"])
def test_writers_of_a_deleted_run_are_refused(catalog: Catalog, name_conflict: str) -> None:
    run = opened(catalog, "a", "w0")
    opened(catalog, "a", "w1", run="alias")
    catalog.delete_run(run.run_no)

    fields = {"name_conflict": name_conflict}
    for by in ("w0", writer("new", 2)):
        assert refused(catalog, "a", by, **fields).code is RefusalCode.RUN_DELETED
    refusal = refused(catalog, "a", writer("new", 2), run="alias", **fields)
    assert refusal.code is RefusalCode.RUN_DELETED
    refusal = refused(catalog, "", writer("new", 2), run="a", by_run_id=True, **fields)
    assert refusal.code is RefusalCode.RUN_DELETED


def test_name_of_a_deleted_run_is_free(catalog: Catalog) -> None:
    first = opened(catalog, "a", "w0")
    catalog.delete_run(first.run_no)
    second = opened(catalog, "a", "w1", run="new", orchestration_id="job-2")

    assert second.created
    assert second.run_no > first.run_no
    catalog.delete_run(second.run_no)
    assert opened(catalog, "a", "w2", run="newer").created


def test_purge_takes_what_was_written_and_keeps_the_tombstone(catalog: Catalog) -> None:
    run = opened(catalog, "a", "w")
    [env_no] = catalog.declare(run.project_id, [("environment", 1, "env-0")])
    operations = [
        ("set", "x", "int", "1", False),
        ("set_env", env_no, None, "x", "int", "1"),
        ("set_tags", ["t"], False),
    ]
    catalog.apply_attributes(run.writer_no, [(1, operations)])
    with pytest.raises(ValueError, match="was not deleted"):
        catalog.purge_run(run.run_no)
    catalog.delete_run(run.run_no)
    assert catalog.unpurged_runs() == [run.run_no]
    catalog.purge_run(run.run_no)

    assert catalog.unpurged_runs() == []
    assert catalog.attributes(run.run_no) == {}
    assert catalog.env_attributes(run.run_no) == []
    assert refused(catalog, "a", "w").code is RefusalCode.RUN_DELETED


def test_numbers_are_not_used_again(catalog: Catalog) -> None:
    numbers = []
    for turn in range(3):
        run = opened(catalog, "a", f"w{turn}", run=f"r{turn}")
        numbers.append(run.run_no)
        catalog.delete_run(run.run_no)
        catalog.purge_run(run.run_no)
    assert len(set(numbers)) == 3
