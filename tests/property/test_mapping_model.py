"""Mappings one after the other, against a model: whatever object a name is, it is that name."""

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

TEXTS = ["loss", "lost", "a/b", "ü", "long name " * 9]


class Name(str):
    """Strings whose objects are no exact strings."""


# The same object each time, one built anew, one of another class.
OBJECTS = st.sampled_from([lambda text: text, lambda text: text.encode().decode(), Name])
# The numbers that mappings mostly have, and one that takes the way of arrays.
VALUES = st.sampled_from([float, np.float64, np.array])


@st.composite
def mappings(draw: st.DrawFn) -> dict[str, Any]:
    """Some of the names, in any order, and what identifies the series beside them."""
    names = draw(st.permutations(TEXTS))[: draw(st.integers(0, len(TEXTS)))]
    return {
        "names": [draw(OBJECTS)(name) for name in names],
        "form": draw(VALUES),
        "evaluation": draw(st.booleans()),
        "scale": draw(st.sampled_from(["ML_STEP", "EPISODE"])),
        "labels": draw(st.sampled_from([None, {"k": "v"}])),
    }


@given(st.lists(mappings(), max_size=20))
@settings(max_examples=100, deadline=None)
def test_each_value_is_logged_to_its_series(given_mappings: list[dict[str, Any]]) -> None:
    expected: dict[Any, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with metrana.init(mode="offline", data_dir=folder) as run:
            for number, given_mapping in enumerate(given_mappings):
                kinds = {key: given_mapping[key] for key in ("evaluation", "scale", "labels")}
                values = {name: number + i / 8 for i, name in enumerate(given_mapping["names"])}
                run.log({name: given_mapping["form"](v) for name, v in values.items()}, **kinds)
                labels = dict(kinds["labels"] or {})
                if kinds["evaluation"]:
                    labels["evaluation"] = "true"
                for name, value in values.items():
                    expected[str(name), kinds["scale"], tuple(sorted(labels.items()))].append(value)
        found: dict[Any, list[float]] = defaultdict(list)
        for point in read_one(Path(folder)).points:
            found[point.metric, point.scale, tuple(point.labels.items())].append(point.value)
    assert {k: sorted(v) for k, v in found.items()} == expected
