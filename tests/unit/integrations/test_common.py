"""What the adapters share: which run is used, and what is a number."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metrana
from metrana.integrations import _common
from metrana.integrations._common import (
    Faults,
    RunHandle,
    claim,
    keeps_training,
    metric_name,
    number,
    numbers,
    release,
)
from metrana.integrations._fits import Fits
from metrana.query import Client


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Arguments of `init`; what is open at the end is closed."""
    yield {"mode": "offline", "data_dir": tmp_path}
    while metrana.is_initialized():
        metrana.close()


# ── Which run ────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_is_given_is_used_and_not_closed(offline: dict[str, Any]) -> None:
    given, current = metrana.init(**offline, run_name="a"), metrana.init(**offline, run_name="b")
    handle = RunHandle(given)
    assert handle.open() is given
    handle.close()
    assert given.is_initialized()
    assert not handle.made
    given.close()
    with pytest.raises(metrana.MetranaLoggerClosedError, match="'a' is closed"):
        handle.open()
    current.close()


def test_without_a_name_the_current_run_is_used_else_one_is_made(offline: dict[str, Any]) -> None:
    current = metrana.init(**offline)
    handle = RunHandle()
    assert handle.run is None
    assert handle.run_id is None
    assert handle.open() is current
    assert not handle.made
    current.close()
    other = metrana.init(**offline, run_name="other")
    assert handle.open() is other


def test_a_run_is_made_where_none_is_open(
    offline: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRANA_MODE", "offline")
    monkeypatch.setenv("METRANA_DIR", str(offline["data_dir"]))
    handle = RunHandle()
    run = handle.open()
    assert handle.made
    assert metrana.is_initialized()
    handle.close()
    assert not run.is_initialized()
    handle.close()


def test_a_name_finds_the_open_run_of_it_or_makes_one(offline: dict[str, Any]) -> None:
    open_one = metrana.init(**offline, run_name="here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = RunHandle(run_name="here", init_args=offline)
        assert found.open() is open_one
        made = RunHandle(run_name="new", project_name="p", init_args=offline)
        run = made.open()
    assert (run.run_name, run.project_name) == ("new", "p")
    assert made.made
    assert not found.made
    made.close()
    open_one.close()


def test_a_run_that_was_made_and_closed_is_resumed(offline: dict[str, Any]) -> None:
    handle = RunHandle(run_name="again", init_args={**offline, "config": {"lr": 1}})
    handle.open().log("loss", 1.0)
    run_id = handle.run_id
    metrana.close()
    assert handle.run is None
    handle.open().log("loss", 2.0)
    assert handle.run_id == run_id
    handle.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.points("again", "loss")["value"].tolist() == [1.0, 2.0]


def test_the_next_trial_has_a_run_of_its_own(offline: dict[str, Any]) -> None:
    handle = RunHandle(run_name="trial-0", init_args=offline)
    first = handle.open()
    handle.renew(run_name="trial-1")
    second = handle.open()
    assert not first.is_initialized()
    assert second.run_id != first.run_id
    assert second.run_name == "trial-1"
    handle.close()


@pytest.mark.parametrize("given", [False, True])
def test_the_next_run_lies_beside_the_one_that_was_used(
    offline: dict[str, Any], given: bool
) -> None:
    outer = metrana.init(**offline, project_name="p", run_name="outer")
    handle = RunHandle(outer) if given else RunHandle()
    assert handle.names_one is given
    handle.renew(run_name="trial")
    run = handle.open()
    assert outer.is_initialized()
    handle.close()
    assert not run.is_initialized()
    outer.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert set(client.runs("p")["run_name"]) == {"outer", "trial"}


def test_a_run_that_cannot_be_closed_does_not_keep_the_next_one(
    offline: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = RunHandle(run_name="a", init_args=offline)
    first = handle.open()
    with monkeypatch.context() as patched:
        patched.setattr(handle, "close", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            handle.renew(run_name="b")
    assert handle.open().run_name == "b"
    handle.close()
    first.close()


def test_names_that_are_asked_for_are_those_of_a_new_run_only(offline: dict[str, Any]) -> None:
    named = RunHandle(run_name="given", init_args=offline)
    assert named.open("asked").run_name == "given"
    unnamed = RunHandle(init_args=offline)
    assert unnamed.open("asked").run_name == "asked"
    assert RunHandle().open("other").run_name == "asked"  # the current one
    unnamed.close()
    named.close()


def test_a_run_that_is_asked_for_is_resumed(offline: dict[str, Any]) -> None:
    with metrana.init(**offline, project_name="p", run_name="before") as before:
        before.log("loss", 1.0)
    handle = RunHandle(run_name="other", project_name="q", init_args={**offline, "tags": ["x"]})
    resumed = handle.open(run_id=before.run_id)
    assert (resumed.run_id, resumed.run_name, resumed.project_name) == (
        before.run_id,
        "before",
        "p",
    )
    assert handle.made
    handle.close()
    unknown = RunHandle(init_args=offline)
    with pytest.raises(metrana.MetranaLoggerInitError, match="no run with run_id"):
        unknown.open(run_id="ab" * 16)


def test_a_run_elsewhere_is_resumed_with_the_key_that_was_given(offline: dict[str, Any]) -> None:
    url = "https://metrana.example:7671"
    place = {**offline, "mode": "auto", "ingestion_url": url, "connect_timeout_secs": 0.1}
    handle = RunHandle(run_name="far", init_args={**place, "api_key": "a-secret"})
    run = handle.open()
    run.close(close_timeout=0)
    again = handle.open()
    assert again.run_id == run.run_id
    assert "api_key" not in handle.init_args
    again.close(close_timeout=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": "name"}, "run: must be a metrana.Run"),
        ({"init_args": ["mode"]}, "init_args: must be a mapping"),
        ({"init_args": {"modus": 1}}, "init_args: must be arguments of metrana.init"),
        ({"run_name": "a", "init_args": {"run_name": "b"}}, "run_name: must be given once"),
        ({"run_name": 3}, "run_name: must be a string of 1 to 256 bytes"),
        ({"project_name": "a\n"}, "project_name: must be a string of 1 to 256 bytes"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=message):
        RunHandle(**arguments)


def test_a_run_that_cannot_be_made_raises(offline: dict[str, Any]) -> None:
    handle = RunHandle(init_args={**offline, "mode": "sideways"})
    with pytest.raises(metrana.MetranaValidationError, match="mode"):
        handle.open()


_ELSEWHERE = """
import pickle, sys
handle = pickle.loads(sys.stdin.buffer.read())
run = handle.open()
run.log("loss", 2.0)
print(run.run_id)
run.close()
"""


def test_it_joins_its_run_in_another_process(offline: dict[str, Any]) -> None:
    arguments = {**offline, "api_key": "a-secret", "config": {"lr": 1}}
    handle = RunHandle(run_name="shared", init_args=arguments)
    handle.open().log("loss", 1.0)
    pickled = pickle.dumps(handle)
    assert b"a-secret" not in pickled
    assert "api_key" not in handle.init_args
    assert copy.deepcopy(handle) is handle
    again = pickle.loads(pickled)
    assert again.open() is handle.open()
    found = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE], input=pickled, capture_output=True, check=True
    )
    assert found.stdout.decode().split() == [handle.run_id]
    handle.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert sorted(client.points("shared", "loss", duplicates="all")["value"]) == [1.0, 2.0]


@pytest.mark.parametrize(("outcomes", "status"), [((True,), "failed"), ((True, False), "finished")])
def test_the_last_word_on_the_training_is_the_runs_status(
    offline: dict[str, Any], outcomes: tuple[bool, ...], status: str
) -> None:
    handle = RunHandle(run_name="ended", init_args=offline)
    handle.note_outcome(failed=True)  # without a run it is nothing
    handle.open()
    for failed in outcomes:
        handle.note_outcome(failed=failed)
    handle.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.run("ended").status == status


# ── Faults, and who logs ─────────────────────────────────────────────────────────────────────────


class _Adapter:
    def __init__(self) -> None:
        self.faults = Faults("an adapter")

    @keeps_training
    def event(self, error: BaseException | None) -> str:
        """Returns or raises."""
        if error is not None:
            raise error
        return "logged"


def test_faults_are_counted_and_warned_of_once() -> None:
    adapter = _Adapter()
    assert adapter.event(None) == "logged"
    with pytest.warns(metrana.MetranaWarning, match="goes on without it.*ValueError: bad"):
        assert adapter.event(ValueError("bad")) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert adapter.event(ValueError("bad")) is None
    assert adapter.faults.count == 3
    with pytest.raises(KeyboardInterrupt):
        adapter.event(KeyboardInterrupt())


def test_a_warning_that_is_an_error_does_not_reach_the_training() -> None:
    adapter = _Adapter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter.event(ValueError("bad"))
    assert adapter.faults.count == 1


def test_one_adapter_logs_a_source_until_it_is_gone(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline)
    first, second = _Adapter(), _Adapter()
    assert claim(run, "env", first)
    assert claim(run, "env", first)
    assert not claim(run, "env", second)
    assert claim(run, "other", second)
    release(run, "env", second)
    assert not claim(run, "env", second)
    release(run, "env", first)
    assert claim(run, "env", second)
    del second
    gc.collect()
    assert claim(run, "env", first)


def test_one_adapter_logs_a_source_whatever_the_run(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline)
    first, second = _Adapter(), _Adapter()
    assert claim(None, "trainer", first)
    assert not claim(None, "trainer", second)
    assert claim(run, "trainer", second)
    release(run, "trainer", first)
    release(None, "trainer", first)
    assert claim(None, "trainer", second)
    assert not claim(run, "trainer", first)


def test_a_checkpoint_says_which_fit_goes_on() -> None:
    fits = Fits()
    fits.begin(5, resumes=True, resumed_fit=3)
    assert fits.labels == {"fit": "3"}
    assert fits.number == 3
    fits.note(9)
    fits.begin(5, resumes=True, resumed_fit=1)
    assert fits.labels is None
    fits.begin(1)
    assert fits.labels == {"fit": "4"}


def test_a_fit_whose_steps_begin_again_is_labelled() -> None:
    fits = Fits()
    fits.begin(0)
    assert fits.labels is None
    fits.note(10)
    fits.begin(11)
    assert fits.labels is None
    fits.begin(5, resumes=True)
    assert fits.labels is None
    fits.begin(10)
    assert fits.labels == {"fit": "2"}
    fits.begin(0)  # nothing was logged since
    assert fits.labels == {"fit": "2"}
    fits.note(3)
    fits.begin(0)
    assert fits.labels == {"fit": "3"}


def test_a_fit_is_that_of_who_trained_as_long_as_it_lives() -> None:
    class Trainer:
        __hash__ = None  # type: ignore[assignment]  # as a dataclass has it

    fits, first, second = Fits(), Trainer(), Trainer()
    fits.begin(1)
    fits.note_owner(first)
    fits.note(3)
    fits.begin(1)
    fits.note_owner(second)
    fits.note_owner(object())  # of which there are no weak references
    assert (fits.number_of(first), fits.number_of(second)) == (1, 2)
    assert fits.number_of(object()) is None


def test_nothing_is_kept_of_who_logged_and_is_gone() -> None:
    before = len(_common._emitters)
    for index in range(3):
        assert claim(None, f"trainer/{index}", Faults("an adapter"))
    gc.collect()
    assert len(_common._emitters) <= before


# ── Values ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        (True, 1.0),
        (2**60, 2.0**60),
        (np.float16(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.array([[4.0]]), 4.0),
        (torch.tensor(5.0, requires_grad=True), 5.0),
        (torch.tensor([6], dtype=torch.int8), 6.0),
        (torch.tensor([0.5], dtype=torch.bfloat16), 0.5),
        (math.inf, math.inf),
        (None, None),
        ("0.5", None),
        (b"1", None),
        ([1.0], None),
        (np.zeros(2), None),
        (np.zeros(0), None),
        (torch.zeros(2), None),
        (1 + 2j, None),
        (10**400, None),
        (object(), None),
    ],
)
def test_number(value: Any, expected: float | None) -> None:
    assert number(value) == expected


def test_nan_is_a_number() -> None:
    found = number(torch.tensor(math.nan))
    assert found is not None
    assert math.isnan(found)


def test_numbers_leaves_out_what_is_none_and_says_so_once() -> None:
    faults = Faults("an adapter")
    metrics = {"loss": np.float32(0.5), "name": "x", "none": None, "nested": {"a": 1, 2: True}}
    with pytest.warns(metrana.MetranaWarning, match="leaves out 'train/name'"):
        numbers(metrics, faults, "train/")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = numbers(metrics, faults, "train/")
    assert found == {"train/loss": 0.5, "train/nested/a": 1.0, "train/nested/2": 1.0}
    assert metrics["name"] == "x"
    assert faults.count == 0


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("loss", "loss"),
        (3, "3"),
        ("", "_"),
        ("a\nb\x7f\x85", "a_b__"),
        ("\ud800", "?"),
        ("é" * 400, "é" * 256),
        ("x" + "é" * 400, "x" + "é" * 255),
    ],
)
def test_metric_name(key: object, name: str) -> None:
    assert metric_name(key) == name
