"""Lists of environment ids that change between calls, against a model: each value is its id's."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import metrana
from tests.reading import read_one

_PLACES = 3
# Few objects, so that lists of the same ones come again.
CONSTANTS = st.sampled_from(["a", "b", 7, 300, np.int64(8), np.str_("c")])
# What a place of the list is before the next call: a constant, or its own array with a number.
CHANGES = st.tuples(st.integers(0, _PLACES - 1), CONSTANTS | st.integers(0, 3).map(np.array))
# How the list is given.
FORMS = st.sampled_from([lambda ids: ids, list, tuple, lambda ids: np.array([*map(str, ids)])])


@given(st.lists(st.tuples(CHANGES, FORMS), max_size=20))
@settings(max_examples=60, deadline=None)
def test_each_value_is_logged_to_its_environment(calls: list[tuple[tuple[int, Any], Any]]) -> None:
    arrays = [np.array(place) for place in range(_PLACES)]
    ids: list[Any] = [*arrays]
    expected: dict[str | None, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with metrana.init(mode="offline", data_dir=folder) as run:
            for number, ((place, change), form) in enumerate(calls):
                ids[place] = change
                if isinstance(change, np.ndarray):
                    ids[place] = arrays[place]
                    ids[place][...] = change
                values = [number + row / _PLACES for row in range(_PLACES)]
                run.log_rl_environment_step("r", np.array(values), 1, form(ids))
                for element, value in zip(ids, values, strict=True):
                    expected[str(element)].append(value)
        found: dict[str | None, list[float]] = defaultdict(list)
        for point in read_one(Path(folder)).of("r"):
            found[point.env_id].append(point.value)
    assert found == expected
