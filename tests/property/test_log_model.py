"""Random calls of `log` against a model: the same positions and values come out of the spool."""

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

NAMES = st.sampled_from(["loss", "acc", "a/b", "ü"])
LABELS = st.dictionaries(st.sampled_from("pq"), st.sampled_from("xy"), max_size=2)
FLOATS = st.floats(allow_nan=False, width=64)
SCALARS = st.one_of(FLOATS, st.booleans(), st.integers(-(2**53), 2**53))


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """One call: a metric, values in some form, and steps in some form."""
    values = draw(st.one_of(SCALARS, st.lists(SCALARS, max_size=5)))
    form = draw(st.sampled_from(["as it is", "array", "tuple"]))
    count = len(values) if isinstance(values, list) else 1
    step = draw(
        st.one_of(
            st.none(),
            st.integers(0, 50),
            st.lists(st.integers(0, 50), min_size=count, max_size=count),
        )
    )
    return {
        "name": draw(NAMES),
        "labels": draw(st.one_of(st.none(), LABELS)),
        "values": values if isinstance(values, list) else [values],
        "given": _formed(values, form),
        "step": step,
        "evaluation": draw(st.booleans()),
    }


def _formed(values: Any, form: str) -> Any:
    if form == "array":
        return np.array(values, dtype=np.float64)
    return tuple(values) if form == "tuple" and isinstance(values, list) else values


@given(st.lists(calls(), max_size=25))
@settings(max_examples=60, deadline=None)
def test_what_is_logged_comes_back(log_calls: list[dict[str, Any]]) -> None:
    expected: dict[Any, list[tuple[int, float]]] = defaultdict(list)
    greatest: dict[Any, int] = defaultdict(lambda: -1)
    with tempfile.TemporaryDirectory() as folder:
        with metrana.init(mode="offline", data_dir=folder) as run:
            for call in log_calls:
                run.log(
                    call["name"],
                    call["given"],
                    step=call["step"],
                    labels=call["labels"],
                    evaluation=call["evaluation"],
                )
                extra = {"evaluation": "true"} if call["evaluation"] else {}
                series = (call["name"], tuple(sorted({**extra, **(call["labels"] or {})}.items())))
                for index, value in enumerate(call["values"]):
                    step = call["step"]
                    if step is None:
                        step = greatest[series] + 1
                    elif isinstance(step, int):
                        step += index
                    else:
                        step = step[index]
                    greatest[series] = max(greatest[series], step)
                    expected[series].append((step, float(value)))
            for (name, labels), last in greatest.items():
                assert run.get_last_step(name, labels=dict(labels)) == last
        found: dict[Any, list[tuple[int | None, float]]] = defaultdict(list)
        for point in read_one(Path(folder)).points:
            found[point.metric, tuple(sorted(point.labels.items()))].append(
                (point.step, point.value)
            )
    # A batch's points come in the table's order, those of one position as they were logged.
    assert _by_step(found) == _by_step({key: points for key, points in expected.items() if points})


def _by_step(series: dict[Any, list[Any]]) -> dict[Any, list[Any]]:
    return {key: sorted(points, key=lambda point: point[0]) for key, points in series.items()}
