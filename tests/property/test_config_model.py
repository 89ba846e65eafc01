"""Nested configs logged one over the other come back as plain Python says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metrana
from metrana.server.embedded import Stores, deliver_spools, open_stores

KEYS = st.sampled_from(["a", "b", "0", "1", "2", "lr.x"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(st.text("xy", max_size=2), max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=8,
)
CONFIGS = st.lists(st.dictionaries(KEYS, VALUES, max_size=3), min_size=2, max_size=4)

_counter = itertools.count()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with open_stores(tmp_path_factory.mktemp("stores")) as opened:
        yield opened


def merged(old: Any, new: Any) -> Any:
    """Mappings merge, unless the new one has numbers for all its keys; else the new replaces."""
    if not isinstance(old, dict) or not isinstance(new, dict) or all(map(str.isdigit, new)):
        return new
    return old | {key: merged(old.get(key), item) for key, item in new.items()}


def flattened(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Path and value of everything that is not a container with entries."""
    is_text_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not isinstance(value, dict | list) or not value or is_text_list:
        yield path, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from flattened(f"{path}/{key}", item)


@given(configs=CONFIGS, in_one_batch=st.booleans())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_config_comes_back_as_it_was_logged(
    stores: Stores, tmp_path: Path, configs: list[dict[str, Any]], in_one_batch: bool
) -> None:
    first, *others = configs
    name = f"run-{next(_counter)}"
    with metrana.init(mode="offline", data_dir=tmp_path, run_name=name, config=first) as run:
        for config in others:
            run.log_config(config)
            if not in_one_batch:
                run.flush()
    assert deliver_spools(tmp_path, stores).problems == []

    expected: dict[str, Any] = {}
    for config in configs:
        # The whole is always merged: no call of log_config empties it.
        expected |= {key: merged(expected.get(key), item) for key, item in config.items()}
    run_no = stores.catalog.run(name).run_no
    assert same(stores.catalog.config(run_no), expected)
    attributes = stores.catalog.attributes(run_no)
    found = {path: item for path, item in attributes.items() if path.startswith("config/")}
    leaves = dict(flattened("config", expected)) if expected else {}
    assert found.keys() == leaves.keys()
    assert all(same(found[path], leaves[path]) for path in leaves)


def same(found: Any, expected: Any) -> bool:
    """Equal in value and in type, signs of zeros too."""
    if type(found) is not type(expected):
        return False
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    if isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(found, float):
        return found == expected and math.copysign(1, found) == math.copysign(1, expected)
    return bool(found == expected)
