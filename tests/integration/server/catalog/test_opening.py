"""Who a run is: created, joined, resumed, refused, renamed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metrana.server.catalog import Catalog, NotFoundError, RefusalCode, RunFilter
from tests.integration.server.catalog.requests import an_id, opened, refused, writer


def test_open_run_creates_a_run_with_its_project(catalog: Catalog) -> None:
    run = opened(catalog, "a", writer("w", host="node", client_version="9"), experiment_name="e")

    assert (run.created, run.new_writer, run.requested_name) == (True, True, None)
    record = catalog.run("a")
    assert (record.run_id, record.status, record.experiment_name) == (an_id("a"), "running", "e")
    assert (record.host, record.client_version, record.created_at_ms) == ("node", "9", 400)
    assert [(p.workspace_name, p.project_name, p.run_count) for p in catalog.projects()] == [
        ("default", "default", 1)
    ]


def test_open_run_gives_the_same_answer_to_the_same_writer(catalog: Catalog) -> None:
    first = opened(catalog, "a", "w")
    again = opened(catalog, "a", "w")

    assert again.created
    assert not again.new_writer
    assert (again.writer_no, again.logger_no) == (first.writer_no, first.logger_no)


def test_sibling_of_the_same_run_id_joins(catalog: Catalog) -> None:
    first = opened(catalog, "a", "w0")
    second = opened(catalog, "a", writer("w1", 2))

    assert second.run_no == first.run_no
    assert not second.created
    assert second.writer_no > first.writer_no


def test_same_orchestration_id_under_another_run_id_becomes_an_alias(catalog: Catalog) -> None:
    first = opened(catalog, "a", "w0")
    other = opened(catalog, "a", "w1", run="from another machine")

    assert (other.run_no, other.run_id, other.created) == (first.run_no, an_id("a"), False)
    assert catalog.run(run_id=an_id("from another machine")).run_no == first.run_no
    # What comes under the alias later goes to the same run.
    later = opened(catalog, "a", writer("w2", 2), run="from another machine")
    assert later.run_no == first.run_no
    record = catalog.writer(an_id("w2"))
    assert record is not None
    assert record.alias_run_id == an_id("from another machine")


def test_another_orchestration_id_is_refused_naming_both(catalog: Catalog) -> None:
    opened(catalog, "a", "w0", orchestration_id="job-1")
    refusal = refused(catalog, "a", "w1", run="other", orchestration_id="job-2")

    assert refusal.code is RefusalCode.ORCHESTRATION_MISMATCH
    assert "'job-1'" in refusal.message
    assert "'job-2'" in refusal.message
    assert catalog.writer(an_id("w1")) is None


def test_empty_orchestration_ids_do_not_agree(catalog: Catalog) -> None:
    opened(catalog, "a", "w0", orchestration_id="")
    refusal = refused(catalog, "a", "w1", run="other", orchestration_id="")

    assert refusal.code is RefusalCode.RUN_EXISTS


def test_copied_folder_is_held_to_the_same_rule(catalog: Catalog) -> None:
    opened(catalog, "a", "w0", orchestration_id="job-1")

    refusal = refused(catalog, "a", "w1", orchestration_id="job-2")
    assert refusal.code is RefusalCode.ORCHESTRATION_MISMATCH
    opened(catalog, "a", "w2", orchestration_id="job-2", name_conflict="rename")


def test_allow_resumes_whoever_created_it(catalog: Catalog) -> None:
    first = opened(catalog, "a", "w0", orchestration_id="job-1")
    second = opened(
        catalog, "a", "w1", run="other", orchestration_id="job-2", resume_strategy="allow"
    )

    assert (second.run_no, second.created) == (first.run_no, False)


def test_by_run_id_resumes_without_a_name(catalog: Catalog) -> None:
    first = opened(catalog, "a", "w0")
    second = opened(
        catalog, "", "w1", run="a", by_run_id=True, orchestration_id="job-2", project_name=""
    )

    assert (second.run_no, second.run_name) == (first.run_no, "a")


def test_by_run_id_of_an_unknown_run_is_refused(catalog: Catalog) -> None:
    refusal = refused(catalog, "", "w", run="nobody", by_run_id=True)

    assert refusal.code is RefusalCode.RUN_NOT_FOUND
    assert an_id("nobody") in refusal.message


def test_delivery_stores_a_foreign_run_under_a_name_of_its_own(catalog: Catalog) -> None:
    opened(catalog, "a", "w0", orchestration_id="job-1")
    delivered = opened(
        catalog, "a", "w1", run="other", orchestration_id="job-2", name_conflict="rename"
    )

    assert delivered.run_name == f"a-{an_id('other')[:6]}"
    assert delivered.requested_name == "a"
    assert delivered.created
    assert delivered.warning is not None
    assert repr(delivered.run_name) in delivered.warning
    assert catalog.attributes(delivered.run_no) == {"metrana/requested_name": "a"}
    assert catalog.run(delivered.run_name).requested_name == "a"


def test_renamed_run_keeps_its_name_for_later_writers(catalog: Catalog) -> None:
    opened(catalog, "a", "w0")
    foreign = {"run": "other", "orchestration_id": "job-2"}
    delivered = opened(catalog, "a", "w1", **foreign, name_conflict="rename")
    starting = opened(catalog, "a", writer("w2", 2), **foreign)

    assert (starting.run_no, starting.run_name) == (delivered.run_no, delivered.run_name)
    assert starting.requested_name == "a"
    assert not starting.created


def test_delivery_may_join_like_a_start(catalog: Catalog) -> None:
    first = opened(catalog, "a", "w0")
    assert opened(catalog, "a", "w1", run="b", name_conflict="rename").run_no == first.run_no


def test_rename_of_a_taken_name_uses_more_digits(catalog: Catalog) -> None:
    opened(catalog, "a", "w0")
    taken = f"a-{an_id('other')[:6]}"
    opened(catalog, taken, "w1")
    delivered = opened(
        catalog, "a", "w2", run="other", orchestration_id="job-2", name_conflict="rename"
    )

    assert delivered.run_name == f"a-{an_id('other')[:12]}"


def test_rename_of_the_longest_name_stays_within_the_limit(catalog: Catalog) -> None:
    name = "é" * 128
    opened(catalog, name, "w0")
    delivered = opened(
        catalog, name, "w1", run="other", orchestration_id="job-2", name_conflict="rename"
    )

    assert len(delivered.run_name.encode()) <= 256
    assert delivered.run_name.endswith(f"é-{an_id('other')[:6]}")


def test_missing_project_is_refused_if_asked_for(catalog: Catalog) -> None:
    opened(catalog, "a", "w0", project_name="cartpole")
    refusal = refused(catalog, "b", "w1", project_name="Cart-pole", create_project_if_missing=False)

    assert refusal.code is RefusalCode.PROJECT_NOT_FOUND
    assert "'cartpole'" in refusal.message
    assert len(catalog.projects()) == 1


def test_missing_project_is_made_for_a_delivery(catalog: Catalog) -> None:
    run = opened(
        catalog,
        "b",
        "w",
        project_name="new",
        create_project_if_missing=False,
        name_conflict="rename",
    )

    assert run.project_name == "new"


def test_earlier_writers_are_opened_first_and_the_first_created_the_run(
    catalog: Catalog,
) -> None:
    earlier = [writer("w1", 1), writer("w2", 2)]
    third = opened(catalog, "a", writer("w3", 3), earlier_writers=earlier)
    first = opened(catalog, "a", writer("w1", 1))
    second = opened(catalog, "a", writer("w2", 2))

    assert (first.created, second.created, third.created) == (True, False, False)
    assert first.writer_no < second.writer_no < third.writer_no
    assert not first.new_writer


def test_loggers_are_numbered_by_run_and_id(catalog: Catalog) -> None:
    first = opened(catalog, "a", writer("w0", logger_id="0"))
    restarted = opened(catalog, "a", writer("w1", 2, logger_id="0"))
    unnamed = opened(catalog, "a", writer("w2", 3))
    elsewhere = opened(catalog, "b", writer("w3", logger_id="0"))

    assert restarted.logger_no == first.logger_no != elsewhere.logger_no
    assert catalog.logger_ids(first.run_no) == {
        first.logger_no: "0",
        unnamed.logger_no: an_id("w2"),
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"run_id": "ABC"},
        {"run_id": an_id("x").upper()},
        {"project_name": ""},
        {"workspace_name": "a\nb"},
        {"run_name": "x" * 257},
        {"run_name": " "},
        {"experiment_name": "\0"},
    ],
)
def test_bad_names_are_refused_as_invalid(catalog: Catalog, fields: dict[str, str]) -> None:
    refusal = refused(catalog, "a", "w", **fields)

    assert refusal.code is RefusalCode.INVALID
    assert next(iter(fields)) in refusal.message
    assert catalog.projects() == []


def test_names_of_any_script_are_kept(catalog: Catalog) -> None:
    name = "läuft 👩‍🚀 走"
    assert opened(catalog, name, "w").run_name == name
    assert catalog.run(name).run_name == name


def test_unknown_run_names_the_nearest(catalog: Catalog) -> None:
    for name in ("cartpole-1", "cartpole-2", "atari"):
        opened(catalog, name, f"w {name}")

    with pytest.raises(NotFoundError, match="did you mean 'cartpole-") as caught:
        catalog.run("Cartpole-3")
    assert set(caught.value.nearest) == {"cartpole-1", "cartpole-2"}
    with pytest.raises(NotFoundError, match="no project 'x' in workspace 'default'"):
        catalog.run("atari", project_name="x")
    with pytest.raises(NotFoundError, match=an_id("nobody")):
        catalog.run(run_id=an_id("nobody"))


def test_names_are_free_in_every_project(catalog: Catalog) -> None:
    opened(catalog, "a", "w0")
    other = opened(catalog, "a", "w1", run="b", project_name="p", orchestration_id="job-2")

    assert other.created
    assert len(catalog.runs(RunFilter(names=["a"]))) == 2


def test_refusal_codes_are_those_of_the_wire() -> None:
    root = next(p for p in Path(__file__).parents if (p / "proto").is_dir())
    wire = (root / "proto/metrana/v1/ingestion.proto").read_text()
    numbers = dict(re.findall(r"REFUSAL_CODE_(\w+) = (\d+);", wire))

    assert {code.name: str(code.value) for code in RefusalCode}.items() <= numbers.items()
