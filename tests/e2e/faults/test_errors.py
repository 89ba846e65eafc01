"""Faults behind `log()`: how each strategy brings them to light, and how many are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import metrana
from tests.e2e.faults.conftest import OpenRun
from tests.local_server import wait_until
from tests.processes import Machine
from tests.proxy import Proxy


def open_refused(proxy: Proxy, open_run: OpenRun, error_strategy: str) -> metrana.Run:
    """A run whose server has refused its data for good, which nobody has been told of yet."""
    proxy.refuse()
    run = open_run(api_key="a-wrong-key", connect_timeout_secs=0.05, error_strategy=error_strategy)
    proxy.accept()
    wait_until(lambda: run.get_metrics().errors_reported == 1, what="the refusal")
    return run


def test_silent_says_nothing_unless_it_is_asked(proxy: Proxy, open_run: OpenRun) -> None:
    run = open_refused(proxy, open_run, "silent")
    for _ in range(100):
        run.log("value", 1.0)
    run.flush()
    (told,) = run.check_sender_errors()
    assert "refused the data" in told
    assert run.check_sender_errors() == []
    run.close()


def test_warn_says_it_once_however_much_is_logged(proxy: Proxy, open_run: OpenRun) -> None:
    run = open_refused(proxy, open_run, "warn")

    def train() -> None:
        for _ in range(100):
            run.log("value", 1.0)
        run.flush()
        run.close()

    with pytest.warns(metrana.MetranaWarning) as warned:
        train()
    said = [str(one.message) for one in warned]
    assert len([one for one in said if "refused the data" in one]) == 1
    assert len([one for one in said if "100 points" in one]) == 1
    assert len(said) == 2
    # It is about the user's line.
    assert {one.filename for one in warned} == {__file__}


def test_warn_leaves_the_faults_to_be_asked_for(proxy: Proxy, open_run: OpenRun) -> None:
    run = open_refused(proxy, open_run, "warn")
    with pytest.warns(metrana.MetranaWarning, match="refused the data"):
        run.flush()
    assert len(run.check_sender_errors()) == 1
    assert run.check_sender_errors() == []


def test_raise_on_log_raises_at_the_next_call_which_is_logged_all_the_same(
    proxy: Proxy, open_run: OpenRun
) -> None:
    run = open_refused(proxy, open_run, "raise_on_log")
    with pytest.raises(metrana.MetranaSenderError, match="refused the data"):
        run.log("value", 1.0)
    run.log("value", 2.0)
    run.flush()
    assert run.get_metrics().float_points_spooled == 2
    with pytest.raises(metrana.MetranaClosingError, match="2 points"):
        run.close()
    assert not metrana.is_initialized()


@pytest.mark.parametrize("call", ["log_config", "log_rl_episode", "flush"])
def test_raise_on_log_raises_whatever_is_called_next(
    proxy: Proxy, open_run: OpenRun, call: str
) -> None:
    run = open_refused(proxy, open_run, "raise_on_log")
    calls = {
        "log_config": lambda: run.log_config({"lr": 1}),
        "log_rl_episode": lambda: run.log_rl_episode("return", 1.0, rl_step=1),
        "flush": run.flush,
    }
    with pytest.raises(metrana.MetranaSenderError, match="refused the data"):
        calls[call]()
    calls[call]()


def test_faults_that_were_asked_for_are_not_raised(proxy: Proxy, open_run: OpenRun) -> None:
    run = open_refused(proxy, open_run, "raise_on_log")
    assert len(run.check_sender_errors()) == 1
    run.log("value", 1.0)
    with pytest.raises(metrana.MetranaClosingError) as raised:
        run.close()
    assert raised.value.__cause__ is None


def test_raise_on_close_raises_at_the_end_only_and_says_why_data_is_left(
    proxy: Proxy, open_run: OpenRun
) -> None:
    run = open_refused(proxy, open_run, "raise_on_close")
    for _ in range(100):
        run.log("value", 1.0)
    run.flush()
    with pytest.raises(metrana.MetranaClosingError, match="100 points") as raised:
        run.close()
    cause = raised.value.__cause__
    assert isinstance(cause, metrana.MetranaSenderError)
    assert "refused the data" in str(cause)
    assert not metrana.is_initialized()


def break_folders(data_dir: Path, count: int) -> None:
    """Leaves so many runs in the spool whose description a disk has destroyed some time ago."""
    for number in range(count):
        folder = data_dir / "spool" / f"{number:032x}"
        (folder / "000001").mkdir(parents=True)
        (folder / "run.json").write_text("{")
        os.utime(folder / "run.json", (0, 0))


def test_raise_on_close_raises_faults_that_left_no_data_behind(
    open_run: OpenRun, here: Machine
) -> None:
    break_folders(here.data_dir, 2)
    run = open_run(error_strategy="raise_on_close")
    run.log("value", 1.0)
    wait_until(lambda: run.get_metrics().errors_reported == 2, what="the faults")
    run.log("value", [1.0] * 100)
    with pytest.raises(metrana.MetranaSenderError) as raised:
        run.close()
    assert f"{0:032x}" in str(raised.value)
    assert f"{1:032x}" in str(raised.value)


def test_faults_that_nobody_asks_for_are_bounded_and_counted(
    open_run: OpenRun, here: Machine
) -> None:
    fault_count = 300
    break_folders(here.data_dir, fault_count)
    run = open_run(error_strategy="silent")
    wait_until(lambda: run.get_metrics().errors_reported == fault_count, what="the faults")
    told = run.check_sender_errors()
    assert 0 < len(told) < fault_count
    assert run.get_metrics().errors_evicted == fault_count - len(told)
    # The latest are the ones that are kept.
    assert f"{fault_count - 1:032x}" in told[-1]
    assert run.check_sender_errors() == []
    run.close(30)


def break_writers(data_dir: Path, folder_count: int, writer_count: int) -> None:
    """Leaves copies of the only run's folder, with writers of which nothing says who they were."""
    (run_json,) = data_dir.glob("spool/*/run.json")
    for number in range(folder_count):
        folder = data_dir / "spool" / f"{number:032x}"
        for writer in range(1, writer_count + 1):
            (folder / f"{writer:06}").mkdir(parents=True)
            (folder / f"{writer:06}" / "writer.json").write_text("{}")
        (folder / "run.json").write_bytes(run_json.read_bytes())


def test_faults_that_were_taken_over_and_nobody_asks_for_are_counted_too(
    proxy: Proxy, open_run: OpenRun, here: Machine
) -> None:
    proxy.refuse()
    open_run(run_name="earlier", connect_timeout_secs=0.05, error_strategy="silent").close()
    # They come a folder at a time, each no more than the engine keeps until somebody looks.
    break_writers(here.data_dir, 18, 90)
    proxy.accept()
    run = open_run(error_strategy="raise_on_close")
    fault_count = 18 * 90

    def are_taken_over() -> bool:
        for _ in range(16):
            run.log("value", 1.0)
        return run.get_metrics().errors_reported >= fault_count

    # Looks often enough to be there at each folder.
    wait_until(are_taken_over, what="the faults", pause_s=0.0005)
    run.log("value", [1.0] * 100)
    told = run.check_sender_errors()
    metrics = run.get_metrics()
    assert metrics.errors_evicted > 0
    assert len(told) + metrics.errors_evicted == metrics.errors_reported == fault_count
    run.close(30)
