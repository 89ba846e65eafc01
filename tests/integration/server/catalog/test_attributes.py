"""Attributes, config, tags and descriptions."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from metrana.server.catalog import (
    Catalog,
    EnvAttribute,
    MalformedError,
    NotFoundError,
    OpenedRun,
    RunDeletedError,
)
from tests.integration.server.catalog.requests import an_id, opened, writer

Operation = tuple[Any, ...]


@pytest.fixture
def run(catalog: Catalog) -> OpenedRun:
    return opened(catalog, "a", "w")


class Log:
    """Applies operations as batches of one writer."""

    def __init__(self, catalog: Catalog, run: OpenedRun) -> None:
        self._catalog = catalog
        self._writer_no = run.writer_no
        self._seq = 0

    def __call__(self, *operations: Operation) -> None:
        self._seq += 1
        self._catalog.apply_attributes(self._writer_no, [(self._seq, operations)])


@pytest.fixture
def log(catalog: Catalog, run: OpenedRun) -> Log:
    return Log(catalog, run)


def put(path: str, kind: str, value: Any, *, initial: bool = False) -> Operation:
    return ("set", path, kind, value, initial)


VALUES = [
    ("null", None, None),
    ("bool", True, True),
    ("bool", False, False),
    ("int", "0", 0),
    ("int", "-9007199254740993", -9007199254740993),
    ("int", "1" + "0" * 400, 10**400),
    ("int", "-" + "7" * 60_000, None),
    ("float", 0.1, 0.1),
    ("float", -0.0, -0.0),
    ("float", 5e-324, 5e-324),
    ("float", math.inf, math.inf),
    ("float", -math.inf, -math.inf),
    ("string", "", ""),
    ("string", "a\x00b\x1a0\x1a", "a\x00b\x1a0\x1a"),
    ("string", "ünï ¢ødé 👩‍🚀\n", "ünï ¢ødé 👩‍🚀\n"),
    ("string", "x" * 65_536, "x" * 65_536),
    ("datetime", "2026-11-24T20:00:00+01:00", None),
    ("datetime", "yesterday", "yesterday"),
    ("string_list", ["b", "", "a\x00", '"'], ["b", "", "a\x00", '"']),
    ("empty_mapping", {}, {}),
    ("empty_list", [], []),
]


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES)
def test_values_come_back_with_their_type(
    catalog: Catalog, run: OpenedRun, log: Log, kind: str, value: Any, expected: Any
) -> None:
    log(put("config/x", kind, value))
    found = catalog.attributes(run.run_no)["config/x"]

    if kind == "int" and expected is None:
        assert isinstance(found, int)
        assert (found % 10**50, found < 0) == (-int("7" * 50) % 10**50, True)
        return
    if kind == "datetime" and expected is None:
        expected = datetime(2026, 11, 24, 20, tzinfo=timezone(timedelta(hours=1)))
    assert found == expected
    assert type(found) is type(expected)
    assert str(found) == str(expected)  # tells -0.0 from 0.0


def test_nan_comes_back(catalog: Catalog, run: OpenedRun, log: Log) -> None:
    log(put("x", "float", math.nan))

    found = catalog.attributes(run.run_no)["x"]
    assert isinstance(found, float)
    assert math.isnan(found)


def test_numbers_are_stored_for_comparing(catalog: Catalog, log: Log) -> None:
    log(
        put("int", "int", "12345678901234567890"),
        put("huge", "int", "9" * 400),
        put("bool", "bool", True),
        put("float", "float", 2.5),
        put("nan", "float", math.nan),
        put("time", "datetime", "1970-01-01T00:00:01+00:00"),
        put("text", "string", "12"),
    )
    with catalog._database.read() as connection:
        rows = connection.execute(sa.text("SELECT path, number FROM attributes"))
        numbers = {path: number for path, number in rows}  # noqa: C416
    assert numbers == {
        "int": 12345678901234567890.0,
        "huge": math.inf,
        "bool": 1.0,
        "float": 2.5,
        "nan": None,
        "time": 1000.0,
        "text": None,
    }


def test_config_is_nested_as_it_was_logged(catalog: Catalog, run: OpenedRun, log: Log) -> None:
    log(
        put("config/optimizer/name", "string", "adam"),
        put("config/optimizer/betas/0", "float", 0.9),
        put("config/optimizer/betas/1", "float", 0.999),
        put("config/layers", "string_list", ["64", "64"]),
        put("config/empty", "empty_mapping", None),
        put("config/none", "empty_list", None),
        put("config/list/0/a", "int", "1"),
        put("config/list/1/a", "int", "2"),
        put("config/sparse/1", "int", "1"),
        put("configuration", "int", "1"),
        put("metrana/git_sha", "string", "abc"),
    )
    assert catalog.config(run.run_no) == {
        "optimizer": {"name": "adam", "betas": [0.9, 0.999]},
        "layers": ["64", "64"],
        "empty": {},
        "none": [],
        "list": [{"a": 1}, {"a": 2}],
        "sparse": {"1": 1},
    }
    assert catalog.run("a").git_sha == "abc"


def test_long_list_is_in_order(catalog: Catalog, run: OpenedRun, log: Log) -> None:
    log(*(put(f"config/x/{i}", "int", str(i)) for i in range(12)))

    assert catalog.config(run.run_no) == {"x": list(range(12))}


def test_run_without_config_has_an_empty_one(catalog: Catalog, run: OpenedRun) -> None:
    assert catalog.config(run.run_no) == {}
    assert catalog.attributes(run.run_no) == {}


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
class TestOverwriting:
    """A path is a value or a mapping: the later operation decides."""

    @pytest.fixture
    def after(self, catalog: Catalog, run: OpenedRun, log: Log, together: bool) -> Any:
        def after(*operations: Operation) -> dict[str, object]:
            if together:
                log(*operations)
            else:
                for operation in operations:
                    log(operation)
            return catalog.config(run.run_no)

        return after

    def test_later_value_of_a_path_wins(self, after: Any) -> None:
        assert after(put("config/a", "int", "1"), put("config/a", "string", "x")) == {"a": "x"}

    def test_value_replaces_what_was_below(self, after: Any) -> None:
        assert after(
            put("config/a/b/c", "int", "1"),
            put("config/a/d", "int", "2"),
            put("config/ab", "int", "3"),
            put("config/a", "int", "4"),
        ) == {"a": 4, "ab": 3}

    def test_value_below_replaces_one_above(self, after: Any) -> None:
        assert after(put("config/a", "int", "1"), put("config/a/b/c", "int", "2")) == {
            "a": {"b": {"c": 2}}
        }

    def test_back_and_forth(self, after: Any) -> None:
        assert after(
            put("config/a", "int", "1"),
            put("config/a/b", "int", "2"),
            put("config/a", "int", "3"),
            put("config/a/c", "int", "4"),
        ) == {"a": {"c": 4}}

    def test_empty_mapping_replaces_and_is_filled(self, after: Any) -> None:
        assert after(
            put("config/a/b", "int", "1"),
            put("config/a", "empty_mapping", None),
            put("config/a/c", "int", "2"),
        ) == {"a": {"c": 2}}

    def test_list_marker_makes_the_list_anew(self, after: Any) -> None:
        assert after(
            put("config/a/0", "int", "1"),
            put("config/a/1", "int", "2"),
            put("config/a", "empty_list", None),
            put("config/a/0", "int", "3"),
        ) == {"a": [3]}

    def test_mapping_marker_keeps_numbers_as_keys(self, after: Any) -> None:
        assert after(put("config/a", "empty_mapping", None), put("config/a/0", "int", "1")) == {
            "a": {"0": 1}
        }

    def test_an_entry_by_name_ends_a_list(self, after: Any) -> None:
        assert after(
            put("config/a", "empty_list", None),
            put("config/a/0", "int", "1"),
            put("config/a/1", "empty_list", None),
            put("config/a/1/0", "int", "2"),
            put("config/a/x/y", "int", "3"),
        ) == {"a": {"x": {"y": 3}}}

    def test_an_entry_by_number_belongs_to_a_list(self, after: Any) -> None:
        assert after(
            put("config/a", "empty_list", None),
            put("config/a/0", "int", "1"),
            put("config/a/0", "int", "2"),
            put("config/a/1/x", "int", "3"),
        ) == {"a": [2, {"x": 3}]}

    def test_marker_that_was_overwritten_is_gone(self, after: Any) -> None:
        assert after(
            put("config/a", "empty_mapping", None),
            put("config/a", "int", "5"),
            put("config/a/0", "int", "1"),
        ) == {"a": [1]}


def test_flat_attributes_leave_out_markers_of_filled_containers(
    catalog: Catalog, run: OpenedRun, log: Log
) -> None:
    log(put("a", "empty_list", None), put("a/0", "int", "1"), put("b", "empty_list", None))

    assert catalog.attributes(run.run_no) == {"a/0": 1, "b": []}


def test_path_too_long_for_an_index_is_shortened(
    catalog: Catalog, run: OpenedRun, log: Log
) -> None:
    long = "config/" + "k" * 60_000
    log(put(long + "1", "int", "1"), put(long + "2", "int", "2"))
    log(put(long + "2", "int", "3"))

    found = catalog.attributes(run.run_no)
    assert sorted(found.values(), key=str) == [1, 3]
    assert all(len(path) == 1024 and "~" in path for path in found)


def test_tags_are_replaced_added_and_removed(catalog: Catalog, log: Log) -> None:
    log(("set_tags", ["b", "a"], False))
    assert catalog.run("a").tags == ("a", "b")
    log(("add_tags", ["c", "a"], False), ("remove_tags", ["b", "nobody"], False))
    assert catalog.run("a").tags == ("a", "c")
    log(("set_tags", ["x"], False), ("add_tags", ["y" * 5000], False))
    assert catalog.run("a").tags[0] == "x"
    log(("set_tags", [], False))
    assert catalog.run("a").tags == ()


def test_description_is_replaced(catalog: Catalog, log: Log) -> None:
    log(("set_description", "one", False), ("set_description", "two\x00", False))

    assert catalog.run("a").description == "two\x00"


INITIAL: list[Operation] = [
    put("config/lr", "float", 0.1, initial=True),
    put("metrana/git_sha", "string", "abc", initial=True),
    ("set_tags", ["t"], True),
    ("set_description", "d", True),
]


def test_what_init_was_given_counts_from_the_creator(
    catalog: Catalog, run: OpenedRun, log: Log
) -> None:
    log(*INITIAL)

    record = catalog.run("a")
    assert (record.tags, record.description, record.git_sha) == (("t",), "d", "abc")
    assert catalog.config(run.run_no) == {"lr": 0.1}


def test_what_init_was_given_to_a_sibling_is_let_go(catalog: Catalog, run: OpenedRun) -> None:
    sibling = opened(catalog, "a", writer("w1", 2))
    Log(catalog, sibling)(*INITIAL, put("config/explicit", "int", "1"))

    assert catalog.config(run.run_no) == {"explicit": 1}
    assert catalog.run("a").tags == ()


def test_what_init_was_given_to_an_alias_is_kept_aside(catalog: Catalog, run: OpenedRun) -> None:
    alias = opened(catalog, "a", "w1", run="elsewhere")
    Log(catalog, alias)(*INITIAL, ("add_tags", ["explicit"], False))

    aside = f"metrana/writers/{an_id('w1')}"
    assert catalog.attributes(run.run_no) == {
        f"{aside}/config/lr": 0.1,
        f"{aside}/metrana/git_sha": "abc",
        f"{aside}/tags": ["t"],
        f"{aside}/description": "d",
    }
    record = catalog.run("a")
    assert (record.tags, record.description, record.git_sha) == (("explicit",), None, None)


def test_batches_are_applied_once(catalog: Catalog, run: OpenedRun) -> None:
    first = (3, [put("x", "int", "1"), ("add_tags", ["a"], False)])
    assert catalog.apply_attributes(run.writer_no, [first]) == 3
    assert catalog.apply_attributes(run.writer_no, [(4, [put("x", "int", "2")])]) == 4
    assert catalog.apply_attributes(run.writer_no, [first, (4, [put("x", "int", "9")])]) == 4

    assert catalog.attributes(run.run_no) == {"x": 2}
    resent = [first, (5, [put("y", "int", "5")])]
    assert catalog.apply_attributes(run.writer_no, resent) == 5
    assert catalog.attributes(run.run_no) == {"x": 2, "y": 5}
    record = catalog.writer(an_id("w"))
    assert record is not None
    assert record.attr_seq == 5


@pytest.mark.parametrize(
    "operation",
    [
        ("explode",),
        put("x", "quaternion", 1),
        put("x", "int", "1.5"),
        put("x", "bool", "yes"),
        ("close", "lost", 1),
    ],
)
def test_malformed_operation_applies_nothing(
    catalog: Catalog, run: OpenedRun, operation: Operation
) -> None:
    with pytest.raises(MalformedError):
        catalog.apply_attributes(run.writer_no, [(1, [put("y", "int", "1"), operation])])

    assert catalog.attributes(run.run_no) == {}
    assert catalog.apply_attributes(run.writer_no, [(1, [put("y", "int", "1")])]) == 1


def test_unknown_writer_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="99"):
        catalog.apply_attributes(99, [(1, [])])


def test_deleted_run_takes_no_attributes(catalog: Catalog, run: OpenedRun, log: Log) -> None:
    catalog.delete_run(run.run_no)

    with pytest.raises(RunDeletedError):
        log(put("x", "int", "1"))


def test_env_attributes_belong_to_environments_and_episodes(
    catalog: Catalog, run: OpenedRun, log: Log
) -> None:
    entries = [("environment", 1, "env-1"), ("environment", 2, "env-0")]
    one, zero = catalog.declare(run.project_id, entries)
    log(
        ("set_env", one, None, "seed", "int", "7"),
        ("set_env", one, 3, "map/name", "string", "maze"),
        ("set_env", one, 3, "map", "string", "plain"),
        ("set_env", zero, 0, "level", "int", "1"),
    )
    log(("set_env", one, 3, "map/name", "string", "maze 2"), ("set_env", one, 3, "z", "null", None))

    expected = [
        EnvAttribute("env-0", 0, "level", 1),
        EnvAttribute("env-1", None, "seed", 7),
        EnvAttribute("env-1", 3, "map/name", "maze 2"),
        EnvAttribute("env-1", 3, "z", None),
    ]
    assert catalog.env_attributes(run.run_no) == expected
    assert catalog.env_attributes(run.run_no, env_id="env-0") == expected[:1]
    assert catalog.env_attributes(run.run_no, env_id="env-1", episode=3) == expected[2:]
    assert catalog.attributes(run.run_no) == {}


def test_close_record_comes_with_the_last_batch(catalog: Catalog, run: OpenedRun, log: Log) -> None:
    end = datetime(2026, 1, 1, tzinfo=UTC)
    log(put("config/x", "int", "1"), ("close", "finished", int(end.timestamp() * 1000)))

    assert catalog.run("a").finished_at_ms == int(end.timestamp() * 1000)
    assert catalog.config(run.run_no) == {"x": 1}
