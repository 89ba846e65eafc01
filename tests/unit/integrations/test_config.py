"""What becomes of hyperparameters that frameworks give."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import metrana
from metrana.integrations import _common
from metrana.integrations._common import Faults, config_of
from metrana.query import Client


class _Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class _Optimizer:
    lr: float
    betas: tuple[float, float]


class _Lazy(Mapping[str, Any]):
    """A container whose values are made when they are read, as those of OmegaConf are."""

    def __getitem__(self, key: str) -> Any:
        if key == "missing":
            raise RuntimeError("mandatory value is missing")
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(("there", "missing"))

    def __len__(self) -> int:
        return 2


class _Listed(Sequence[Any]):
    """A list of no kind that is built in, as those of OmegaConf are."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_config_keeps_every_item(tmp_path: Path) -> None:
    cycle: dict[str, Any] = {"here": 1}
    cycle["self"] = cycle
    config = {
        "lr": 1e-3,
        "label2id": {"New York": 0, "New_York": 1, "": 2},
        "id2label": {0: "New York", 1: "Rome"},
        "optimizer": _Optimizer(0.1, (0.9, 0.99)),
        "namespace": argparse.Namespace(path=Path("/tmp/x"), color=_Color.RED),
        "activation": torch.relu,
        "partial": functools.partial(print, "x"),
        "lambda": lambda: None,
        "lazy": _Lazy(),
        "unprintable": _Unprintable(),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "bytes": b"abc",
        "long": "x" * 100_000,
        "surrogate": "a\ud800",
        "mixed": [1, {"a b": object}, None],
        "listed": _Listed(1, {"a b": _Listed("x")}),
        "range": range(3),
        "cycle": cycle,
        "tensor": torch.tensor(2.0),
    }
    faults = Faults("an adapter")
    with metrana.init(mode="offline", data_dir=tmp_path, run_name="configured") as run:
        _common.log_config(run, config, faults)
    assert faults.count == 0
    with Client(data_dir=tmp_path) as client:
        found = client.run("configured").config
    assert found.keys() == config.keys()
    assert found["lr"] == 1e-3
    assert found["label2id"] == {"New_York": 0, "New_York_2": 1, "_": 2}
    assert found["id2label"] in ({"0": "New York", "1": "Rome"}, ["New York", "Rome"])
    assert found["optimizer"] == {"lr": 0.1, "betas": [0.9, 0.99]}
    assert found["namespace"] == {"path": "/tmp/x", "color": "red"}
    assert found["lazy"]["there"] == 1
    assert "mandatory value is missing" in found["lazy"]["missing"]
    assert found["dtype"] == "torch.float32"
    assert found["bytes"] == "b'abc'"
    assert len(found["long"]) == 64 * 1024
    assert found["mixed"][0] == 1
    assert found["tensor"] == 2.0
    assert found["listed"] == [1, {"a_b": ["x"]}]
    assert found["range"] == [0, 1, 2]
    json.dumps(found["cycle"])


def test_config_of_what_is_no_mapping_is_empty() -> None:
    assert config_of(3) == {}
    assert config_of(None) == {}


def test_config_that_contains_itself_several_times_ends() -> None:
    config: dict[str, Any] = {"lr": 0.1}
    config |= {"parent": config, "root": config, "layers": [config, config]}
    found = config_of(config)
    assert found["lr"] == 0.1
    assert isinstance(found["parent"], str)
    shared = {"lr": 0.1}
    assert config_of({"a": shared, "b": [shared, shared]}) == {"a": shared, "b": [shared] * 2}
