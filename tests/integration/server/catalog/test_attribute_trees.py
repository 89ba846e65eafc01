"""Attribute trees against a model: in whatever batches they come, the last operation decides."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrana.server.catalog import Catalog
from metrana.server.catalog.attribute_paths import MAX_PATH_BYTES, fitting, nested
from metrana.server.catalog.attribute_values import load, store
from tests.integration.server.catalog.requests import opened

_counter = itertools.count()
_parts = st.sampled_from(["a", "b", "0", "1", "a-", "a0"])
_paths = st.lists(_parts, min_size=1, max_size=3).map("/".join)
_kinds = st.sampled_from(["int", "int", "empty_mapping", "empty_list"])
_batches = st.lists(st.lists(st.tuples(_paths, _kinds), min_size=1, max_size=6), max_size=4)


def model(batches: list[list[tuple[str, str]]]) -> dict[str, tuple[str, str | None]]:
    """What remains, by the rule as it is written: one operation after the other."""
    rows: dict[str, tuple[str, str | None]] = {}
    for number, (path, kind) in enumerate(itertools.chain.from_iterable(batches)):
        parts = path.split("/")
        for size in range(1, len(parts)):
            above = "/".join(parts[:size])
            if rows.get(above, ("", None))[0] == "empty_list" and not parts[size].isdigit():
                rows = {p: row for p, row in rows.items() if not f"{p}/".startswith(f"{above}/")}
        rows = {
            other: row
            for other, row in rows.items()
            if not other.startswith(f"{path}/")
            and not (path.startswith(f"{other}/") and row[0] == "int")
        }
        rows[path] = (kind, str(number) if kind == "int" else None)
    return rows


@given(batches=_batches)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_tree_is_what_one_operation_after_the_other_makes(
    catalog: Catalog, batches: list[list[tuple[str, str]]]
) -> None:
    name = f"run {next(_counter)}"
    run = opened(catalog, name, f"w {name}")
    [env_no] = catalog.declare(run.project_id, [("environment", 1, "env-0")])
    numbers = itertools.count()
    for seq, batch in enumerate(batches, start=1):
        operations: list[tuple[object, ...]] = []
        for path, kind in batch:
            number = next(numbers)
            value = str(number) if kind == "int" else None
            operations.append(("set", f"config/{path}", kind, value, False))
            operations.append(("set_env", env_no, 1, path, kind, value))
        catalog.apply_attributes(run.writer_no, [(seq, operations)])

    expected = model(batches)
    under_config = {f"config/{path}": row for path, row in expected.items()}
    assert catalog.config(run.run_no) == nested(under_config, "config")
    found = {a.path: a.value for a in catalog.env_attributes(run.run_no)}
    filled = {p for p in expected if any(other.startswith(f"{p}/") for other in expected)}
    assert found == {p: load(*row) for p, row in expected.items() if p not in filled}


@given(st.integers())
def test_ints_are_stored_exactly(value: int) -> None:
    assert load("int", store("int", value).text) == value


@pytest.mark.parametrize("digits", [4_000, 4_001, 12_345])
@pytest.mark.parametrize("sign", [1, -1])
def test_ints_longer_than_python_converts_are_stored_exactly(digits: int, sign: int) -> None:
    value = sign * (10**digits // 7)
    assert load("int", store("int", value).text) == value


@given(st.floats(allow_nan=False))
def test_floats_are_stored_exactly(value: float) -> None:
    found = load("float", store("float", value).text)
    assert isinstance(found, float)
    assert found.hex() == value.hex()


@given(st.text(st.characters(codec="utf-8", exclude_characters="~"), max_size=600))
def test_paths_fit_and_stay_apart(path: str) -> None:
    assert fitting(path) == path or len(path.encode()) > MAX_PATH_BYTES
    longer = [fitting(path + "é" * 600 + end) for end in "12"]
    assert all(len(fitted.encode()) <= MAX_PATH_BYTES for fitted in longer)
    assert longer[0] != longer[1]
    assert all(fitting(fitted) == fitted for fitted in longer)


def test_shortened_path_never_changes() -> None:
    # These are on disks: another hash would give an attribute a second path.
    assert fitting("k" * 2000) == "k" * 991 + "~1c8123314be794fecd4622dd336c932c"
