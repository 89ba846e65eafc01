"""Attributes: how values flatten, and how they come out of the spool."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections import OrderedDict, namedtuple
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

import metrana
from metrana.attributes import flatten, flatten_config
from tests.reading import read_one


class Color(Enum):
    RED = "red"


@dataclasses.dataclass
class Optimizer:
    name: str
    lr: float


Pair = namedtuple("Pair", "first second")
WHEN = datetime(2026, 11, 24, 20, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("value", "kind", "stored"),
    [
        (None, "null", None),
        (True, "bool", True),
        (np.bool_(False), "bool", False),
        (3, "int", "3"),
        (-(10**50), "int", "-1" + "0" * 50),
        (np.int16(-4), "int", "-4"),
        (0.1, "float", 0.1),
        (np.float32(0.5), "float", 0.5),
        (math.inf, "float", math.inf),
        ("", "string", ""),
        ("héllo", "string", "héllo"),
        (np.str_("a"), "string", "a"),
        (PurePosixPath("/data/x"), "string", "/data/x"),
        (Color.RED, "string", "red"),
        (metrana.ResumeStrategy.ALLOW, "string", "allow"),
        (date(2026, 1, 2), "string", "2026-01-02"),
        (WHEN, "datetime", "2026-11-24T20:00:00+01:00"),
        (np.datetime64("2026-01-02T03:04:05"), "datetime", "2026-01-02T03:04:05+00:00"),
        (np.float32, "string", "numpy.float32"),
        (["a", "b"], "string_list", ["a", "b"]),
        (("a",), "string_list", ["a"]),
        ({"b", "a"}, "string_list", ["a", "b"]),
        ({}, "empty_mapping", None),
        ([], "empty_list", None),
        ((), "empty_list", None),
    ],
)
def test_one_value_is_one_attribute(value: Any, kind: str, stored: Any) -> None:
    assert flatten("config", {"x": value}, "config") == [("config/x", kind, stored)]


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (
            {"optimizer": {"lr": 1, "betas": [2, 3]}},
            ["optimizer/lr", "optimizer/betas=[]", "optimizer/betas/0", "optimizer/betas/1"],
        ),
        ({"a/b": {"c": 1}}, ["a/b/c"]),
        ({"a/b": 1, "a": {"c": 2}}, ["a/b", "a/c"]),
        ({"a": {1: 1, "x": 3}}, ["a/x", "a/1"]),
        ({"a": {0: 1, 1: 3}}, ["a={}", "a/0", "a/1"]),
        ({"a/0": 1}, ["a={}", "a/0"]),
        ({"a": {"00": 1}}, ["a/00"]),
        ({"a": Optimizer("adam", 0.1)}, ["a/name", "a/lr"]),
        ({"a": argparse.Namespace(x=1, y=2)}, ["a/x", "a/y"]),
        ({"a": Pair(1, 2)}, ["a/first", "a/second"]),
        ({"a": OrderedDict(z=1, b=2)}, ["a/z", "a/b"]),
        ({"a": ["x", 1]}, ["a=[]", "a/0", "a/1"]),
        (
            {"a": np.array([[1, 2], [3, 4]])},
            ["a=[]", "a/0=[]", "a/0/0", "a/0/1", "a/1=[]", "a/1/0", "a/1/1"],
        ),
        ({"a": range(2)}, ["a=[]", "a/0", "a/1"]),
    ],
    ids=repr,
)
def test_containers_nest(value: Any, paths: list[str]) -> None:
    markers = {"empty_list": "=[]", "empty_mapping": "={}"}
    found = [path + markers.get(kind, "") for path, kind, _ in flatten_config(value)]
    assert found == [f"config/{path}" for path in paths]


def test_ints_are_exact_at_any_size(data_dir: Path) -> None:
    # Longer than Python writes out by itself.
    with (
        metrana.init(mode="offline", config={"x": -(10**5000) - 1}) as run,
        pytest.raises(metrana.MetranaValidationError, match="config at 'config/x'"),
    ):
        run.log_config({"x": 10**70_000})
    assert read_one(data_dir).attributes["config/x"] == ("int", "-1" + "0" * 4999 + "1")


def test_a_naive_time_gets_the_local_offset() -> None:
    ((_, kind, stored),) = flatten("config", {"x": datetime(2026, 1, 1)}, "config")
    assert kind == "datetime"
    assert datetime.fromisoformat(stored) == datetime(2026, 1, 1).astimezone()


class _Lost:
    ndim = 0

    def item(self) -> float:
        raise RuntimeError("lost device")


def _cycle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"a b": 1},
        {"": 1},
        {"/a": 1},
        {"a//b": 1},
        {None: 1},
        {"é": 1},
        {"x": object()},
        {"x": b"bytes"},
        {"x": 1j},
        {"x": _Lost()},
        {_Lost(): 1},
        {"x": "\ud800"},
        {"x": "a" * (64 * 1024 + 1)},
        {"x": ["a" * 40_000, "b" * 40_000]},
        {"a/b": 1, "a": {"b": 2}},
        {"a/b": 1, "a": 2},
        {"a": 2, "a/b": 1},
        {"a": [2], "a/1": 1},
        {1: 2, "1": 1},
        _cycle(),
        3,
        "text",
        [1, 2],
    ],
)
def test_bad_configs_are_refused(value: Any) -> None:
    with (
        metrana.init(mode="offline") as run,
        pytest.raises(metrana.MetranaValidationError, match="config"),
    ):
        run.log_config(value)


def test_attributes_reach_the_spool_in_order(data_dir: Path) -> None:
    with metrana.init(mode="offline", config={"lr": 0.1}, tags=["a"], description="first") as run:
        run.log_config({"lr": 0.2})
        run.log_attributes("notes/more", {"x": None})
        run.log_attributes("note", "one")
        run.log_env_attributes("env-0", {"seed": 7}, episode=3)
        run.log_env_attributes(4, {"seed": 8})
        run.set_tags(["b"])
        run.add_tags({"c"})
        run.remove_tags(("b",))
        run.set_description("")
    operations = [op for op in read_one(data_dir).operations if op[1] != "metrana/git_sha"]
    assert operations[:-1] == [
        ("set", "config/lr", "float", 0.1, True),
        ("set_tags", ["a"], True),
        ("set_description", "first", True),
        ("set", "config/lr", "float", 0.2, False),
        ("set", "notes/more/x", "null", None, False),
        ("set", "note", "string", "one", False),
        ("set_env", 1, 3, "seed", "int", "7"),
        ("set_env", 2, None, "seed", "int", "8"),
        ("set_tags", ["b"], False),
        ("add_tags", ["c"], False),
        ("remove_tags", ["b"], False),
        ("set_description", "", False),
    ]
    assert operations[-1][:2] == ("close", "finished")


@pytest.mark.parametrize(
    ("method", "arguments", "name"),
    [
        ("log_attributes", ("", 1), "prefix_path"),
        ("log_attributes", ("a b", 1), "prefix_path"),
        ("log_attributes", (None, 1), "prefix_path"),
        ("log_attributes", ("a", object()), "value"),
        ("log_env_attributes", ("e f", {"a": 1}), "env_id"),
        ("log_env_attributes", (["a", "b"], {"a": 1}), "env_id"),
        ("log_env_attributes", ("e", 1), "value"),
        ("log_env_attributes", ("e", {"a": 1}, 1.5), "episode"),
        ("log_env_attributes", ("e", {"a": 1}, 2**40), "episode"),
        ("set_tags", ("abc",), "tags"),
        ("set_tags", (None,), "tags"),
        ("add_tags", ([1],), r"tags\[0\]"),
        ("add_tags", ([""],), r"tags\[0\]"),
        ("remove_tags", ({"a": 1},), "tags"),
        ("set_description", (3,), "description"),
        ("set_description", ("x" * 70_000,), "description"),
    ],
)
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_bad_input_is_refused_by_name(
    method: str, arguments: tuple[Any, ...], name: str, mode: str
) -> None:
    with (
        metrana.init(mode=mode) as run,
        pytest.raises(metrana.MetranaValidationError, match=name),
    ):
        getattr(run, method)(*arguments)
