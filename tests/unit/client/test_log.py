"""`log` and `log_distributed`, read back from the spool."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import metrana
from tests.reading import Point, read_one


def test_steps_count_from_zero_per_series(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        for value in (0.5, 0.25):
            metrana.log("loss", value)
        metrana.log("accuracy", 1)
        metrana.log("loss", 0.125)
    logged = read_one(data_dir)
    assert logged.of("loss") == [
        Point("loss", 0.5, 0),
        Point("loss", 0.25, 1),
        Point("loss", 0.125, 2),
    ]
    assert logged.of("accuracy") == [Point("accuracy", 1.0, 0)]


def test_a_sequence_continues_from_its_first_step(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log("loss", [1, 2, 3], step=100)
        metrana.log("loss", 4)
        metrana.log("loss", [5, 6], step=[10, 20])
        metrana.log("loss", 7)
    by_step = [(5, 10), (6, 20), (1, 100), (2, 101), (3, 102), (4, 103), (7, 104)]
    assert [(p.value, p.step) for p in read_one(data_dir).of("loss")] == by_step


def test_a_mapping_logs_each_of_its_metrics(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log({"loss": 0.5, "lr": np.float32(0.25)})
        metrana.log(MappingProxyType({"loss": [1.0, 2.0], "lr": np.array([3, 4])}), step=[7, 8])
    logged = read_one(data_dir)
    assert [(p.step, p.value) for p in logged.of("loss")] == [(0, 0.5), (7, 1.0), (8, 2.0)]
    assert [(p.step, p.value) for p in logged.of("lr")] == [(0, 0.25), (7, 3.0), (8, 4.0)]


def test_labels_identify_a_series_in_any_order(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log("reward", 1, labels={"policy": "greedy", "arm": "a"})
        metrana.log("reward", 2, labels={"arm": "a", "policy": "greedy"})
        metrana.log("reward", 3, evaluation=True)
        metrana.log("reward", 4, labels={"evaluation": "final"}, evaluation=True)
        metrana.log("reward", 5, labels={"evaluation": "true"})
        metrana.log("reward", 6)
    points = [(p.labels, p.step, p.value) for p in read_one(data_dir).of("reward")]
    assert sorted(points, key=lambda point: point[2]) == [
        ({"arm": "a", "policy": "greedy"}, 0, 1.0),
        ({"arm": "a", "policy": "greedy"}, 1, 2.0),
        ({"evaluation": "true"}, 0, 3.0),
        ({"evaluation": "final"}, 0, 4.0),
        ({"evaluation": "true"}, 1, 5.0),
        ({}, 0, 6.0),
    ]


@pytest.mark.parametrize("scale", ["EPISODE", "episode", metrana.StandardMetricScale.EPISODE])
def test_a_scale_is_taken_as_string_or_member(data_dir: Path, scale: Any) -> None:
    with metrana.init(mode="offline"):
        metrana.log("return", 2, scale=scale)
    (point,) = read_one(data_dir).points
    assert (point.scale, point.episode, point.step) == ("EPISODE", 0, None)


def test_nan_and_infinities_are_kept(data_dir: Path) -> None:
    values = [math.nan, math.inf, -math.inf, -0.0]
    with metrana.init(mode="offline"):
        for value in values:
            metrana.log("x", value)
    logged = read_one(data_dir).values("x")
    assert [math.copysign(1, v) for v in logged[1:]] == [1, -1, -1]
    assert math.isnan(logged[0])
    assert logged[1:] == values[1:]


def test_an_empty_array_logs_nothing(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log("x", [])
        metrana.log({"x": np.empty(0), "y": 1})
        metrana.log("x", 5)
    logged = read_one(data_dir)
    assert logged.steps("x") == [0]
    assert logged.steps("y") == [0]


def test_timestamps_are_given_or_those_of_the_call(data_dir: Path) -> None:
    before = time.time_ns() // 1_000_000
    with metrana.init(mode="offline"):
        metrana.log("now", 1)
        metrana.log("all", [1, 2], timestamp=1_700_000_000_000)
        metrana.log("each", [1, 2], timestamp=[5, 4])
    after = time.time_ns() // 1_000_000
    logged = read_one(data_dir)
    # The engine reads a coarse clock, which may be a few milliseconds behind.
    assert before - 20 <= logged.of("now")[0].timestamp_ms <= after
    assert [p.timestamp_ms for p in logged.of("all")] == [1_700_000_000_000] * 2
    assert [p.timestamp_ms for p in logged.of("each")] == [5, 4]


def test_log_distributed_keeps_the_logger(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        metrana.log_distributed("loss", [1, 2], step=4)
        metrana.log("own", 3)
    logged = read_one(data_dir)
    assert [(p.step, p.logger_no) for p in logged.of("loss")] == [(4, 1), (5, 1)]
    assert logged.of("own")[0].logger_no == 0


def test_a_name_that_stays_is_kept_after_many_that_went_and_few_of_those() -> None:
    names = [f"name{i}"[:4] for i in range(1000)]
    stays = names.pop()
    unused = sys.getrefcount(stays)
    with metrana.init(mode="offline"):
        for i in range(len(names)):
            metrana.log(names[i], 1)
        assert sum(sys.getrefcount(names[i]) > unused for i in range(len(names))) == 8
        for _ in range(100):
            metrana.log(stays, 1)
        assert sys.getrefcount(stays) > unused


def test_a_name_at_the_address_of_one_that_went_finds_its_own_series(data_dir: Path) -> None:
    with metrana.init(mode="offline", backpressure_strategy="block"):
        mapping = {"/".join(["first", "name"]): 1}
        address = id(next(iter(mapping)))
        # As many as it takes until the first one is not kept any more.
        anew = ["/".join(["first", "name"]) for _ in range(200)]
        for _ in range(3):
            metrana.log(mapping)
        del mapping
        for i in range(len(anew)):
            metrana.log(anew[i], 1)
        others = [f"other/{i:04}" for i in range(5000)]
        there = [name for name in others if id(name) == address]
        assert len(there) == 1, "nothing took its place in memory"
        metrana.log({there[0]: 2})
    logged = read_one(data_dir)
    assert logged.values("first/name") == [1] * 203
    assert logged.values(there[0]) == [2]


def test_names_built_anew_find_their_series(data_dir: Path) -> None:
    count = 20_000  # more than are remembered by address
    with metrana.init(mode="offline", backpressure_strategy="block"):
        for index in range(count):
            metrana.log(f"metric_{index % 7}", index)
    logged = read_one(data_dir)
    for name in range(7):
        assert logged.values(f"metric_{name}") == list(range(name, count, 7))


BAD_CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "no value": (("x",), {}, "value"),
    "None": (("x", None), {}, "value"),
    "a string": (("x", "1"), {}, "value"),
    "complex": (("x", 1j), {}, "value"),
    "a complex array": (("x", np.ones(2, dtype=complex)), {}, "value"),
    "a set": (("x", {1}), {}, "value"),
    "bytes": (("x", b"1"), {}, "value"),
    "a datetime": (("x", np.datetime64("2026-01-01")), {}, "value"),
    "None in a list": (("x", [1, None]), {}, r"value\[1\]"),
    "two dimensions": (("x", np.ones((1, 2))), {}, "value"),
    "a ragged list": (("x", [[1], [1, 2]]), {}, "value"),
    "a generator": (("x", iter([1])), {}, "value"),
    "an int beyond float64": (("x", 10**400), {}, "value"),
    "a name that is no string": ((1, 1), {}, "metric_name"),
    "an empty name": (("", 1), {}, "metric_name"),
    "a long name": (("x" * 513, 1), {}, "metric_name"),
    "a control character": (("a\nb", 1), {}, "metric_name"),
    "a lone surrogate": (("\ud800", 1), {}, "metric_name"),
    "a mapping and a value": (({"x": 1}, 1), {}, "value"),
    "a mapping's bad value": (({"good": 1, "bad": None},), {}, 'value of "bad"'),
    "a mapping's bad key": (({"good": 1, 2: 1},), {}, "metric_name"),
    "a mapping's bad shape": (({"good": [1, 2], "bad": [1]},), {"step": [1, 2]}, "step"),
    "a fraction as step": (("x", 1), {"step": 1.5}, "step"),
    "NaN as step": (("x", 1), {"step": math.nan}, "step"),
    "a bool as step": (("x", 1), {"step": True}, "step"),
    "a bool among steps": (("x", [1, 2]), {"step": [True, 2]}, "step"),
    "a bool array as step": (("x", [1]), {"step": np.array([True])}, "step"),
    "a negative step": (("x", 1), {"step": -1}, "step"),
    "a step too large": (("x", 1), {"step": 2**53}, "step"),
    "a huge step": (("x", 1), {"step": 10**30}, "step"),
    "a string as step": (("x", 1), {"step": "1"}, "step"),
    "too few steps": (("x", [1, 2]), {"step": [1]}, "step"),
    "too many steps": (("x", 1), {"step": [1, 2]}, "step"),
    "a fraction as timestamp": (("x", 1), {"timestamp": 0.5}, "timestamp"),
    "a negative timestamp": (("x", 1), {"timestamp": -1}, "timestamp"),
    "too few timestamps": (("x", [1, 2]), {"timestamp": [1]}, "timestamp"),
    "an unknown scale": (("x", 1), {"scale": "EPOCH"}, "scale"),
    "labels that are no mapping": (("x", 1), {"labels": ["a"]}, "labels"),
    "a label that is no string": (("x", 1), {"labels": {"a": 1}}, r'labels\["a"\]'),
    "a label key that is no string": (("x", 1), {"labels": {1: "a"}}, "labels"),
    "too many labels": (("x", 1), {"labels": {str(i): "" for i in range(33)}}, "labels"),
    "evaluation that is no bool": (("x", 1), {"evaluation": 1}, "evaluation"),
}


@pytest.mark.parametrize("mode", ["offline", "disabled"])
@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_input_is_refused_by_name(case: str, mode: str) -> None:
    arguments, options, name = BAD_CALLS[case]
    with (
        metrana.init(mode=mode) as run,
        pytest.raises(metrana.MetranaValidationError, match=f"(?<![a-z_]){name}"),
    ):
        run.log(*arguments, **options)


def test_nothing_of_a_refused_call_is_logged(data_dir: Path) -> None:
    with metrana.init(mode="offline") as run:
        for arguments, options, _ in BAD_CALLS.values():
            with pytest.raises(metrana.MetranaValidationError):
                run.log(*arguments, **options)
        run.log("good", 9)
    logged = read_one(data_dir)
    assert [(p.metric, p.step, p.value) for p in logged.points] == [("good", 0, 9.0)]


def test_log_distributed_needs_a_step() -> None:
    with (
        metrana.init(mode="offline") as run,
        pytest.raises(metrana.MetranaValidationError, match="step"),
    ):
        run.log_distributed("loss", 1)


def test_the_last_step_is_the_greatest() -> None:
    with metrana.init(mode="offline"):
        assert metrana.get_last_step("loss") is None
        metrana.log("loss", [1, 2], step=[7, 3])
        metrana.log("loss", 1, evaluation=True)
        assert metrana.get_last_step("loss") == 7
        assert metrana.get_last_step("loss", labels={"evaluation": "true"}) == 0
        assert metrana.get_last_step("loss", "EPISODE") is None
