"""Opening and ending runs where something is in the way; what is printed is run in processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import metrana
from metrana.settings import is_loopback
from tests.reading import read_all, read_one


def _python(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


@pytest.mark.parametrize(
    "spoil",
    ["sys.stderr = None", "sys.stderr.close()", "sys.stderr = open('/dev/full', 'w', buffering=1)"],
)
def test_init_needs_no_standard_error(data_dir: Path, spoil: str) -> None:
    done = _python(
        f"""
        import sys
        {spoil}
        import metrana
        with metrana.init() as run:
            run.log('x', 1)
        """
    )
    # Python itself ends with 120 where the last flush of standard error fails.
    assert done.returncode in (0, 120), done.stderr
    assert read_one(data_dir).values("x") == [1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"tags": ["x" * 200 + str(i) for i in range(400)]},
        {"config": {"many": [""] * 70_000}},
        {"config": {"k" * 1100: 1}},
        {"config": {"at": datetime.min}},
        {"max_send_retries": 2**32},
        {"send_retry_initial_backoff_secs": 0.0},
        {"data_dir": "~nobody_of_this_name/x"},
    ],
)
def test_init_refuses_before_anything_is_there(data_dir: Path, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(metrana.MetranaValidationError, match=name):
        metrana.init(mode="offline", run_name="r", **arguments)
    assert not metrana.is_initialized()
    assert not list(data_dir.rglob("*"))
    # The name is free: whoever is next creates the run.
    metrana.init(mode="offline", run_name="r", config={"lr": 1}).close()
    assert read_one(data_dir).attributes["config/lr"] == ("int", "1")


def test_init_without_a_name_never_gives_a_run_that_was_resumed_by_id() -> None:
    with metrana.init(mode="offline", run_name="first") as run:
        run_id = run.run_id
    resumed = metrana.init(mode="offline", run_id=run_id)
    other = metrana.init(mode="offline")
    assert other.run_id != run_id
    with pytest.warns(metrana.MetranaWarning, match="open in this process already"):
        assert metrana.init(mode="offline", run_name="first") is resumed
    other.close()
    resumed.close()


def test_init_never_gives_a_run_that_is_being_closed(data_dir: Path) -> None:
    ending = metrana.init(mode="offline", run_name="r")
    # As far as another thread's close gets before it waits, or a forked child's copy for ever.
    ending._close(0.0, False)
    with metrana.init(mode="offline", run_name="r") as run:
        assert run is not ending
        run.log("x", 1)
    ending.close()
    assert [1] in [writer.values("x") for writer in read_all(data_dir)]


@pytest.mark.filterwarnings("ignore:.*open in this process already")
def test_threads_that_open_one_run_share_it(data_dir: Path) -> None:
    runs: list[metrana.Run] = []
    start = threading.Barrier(4)

    def open_one() -> None:
        start.wait()
        runs.append(metrana.init(mode="offline", run_name="same"))

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(run) for run in runs}) == 1
    runs[0].close()
    assert len(read_all(data_dir)) == 1


def test_a_close_that_could_not_seal_says_so(data_dir: Path) -> None:
    run = metrana.init(mode="offline", run_name="r", spool_max_bytes=1)
    run.log("x", 0)
    run.flush()
    run.log("x", 1)
    with pytest.warns(metrana.MetranaWarning) as warned:
        run.close(0.2)
    said = " ".join(str(one.message) for one in warned)
    assert "spool_max_bytes" in said
    assert f"of them are in {data_dir / 'spool'}, 1 in this machine's memory" in said
    assert "metrana sync delivers them" in said


def test_what_was_not_delivered_in_time_is_said_to_be_where_it_is(data_dir: Path) -> None:
    run = metrana.init(mode="offline", run_name="r", spool_max_bytes=1)
    run.log("x", 0)
    run.flush()
    run.log("x", [1, 2])
    with pytest.raises(metrana.MetranaClosingError) as raised:
        run.flush(0.1)
    sealed_and_not = f"of them are in {data_dir / 'spool'}, 2 in this machine's memory"
    assert sealed_and_not in str(raised.value)
    with pytest.warns(metrana.MetranaWarning):
        run.close(0.1)
    alone = metrana.init(
        run_name="s",
        ingestion_url="http://127.0.0.1:9",
        connect_timeout_secs=0.1,
        spool_max_bytes=1,
    )
    alone.log("x", 0)
    alone.flush()
    alone.log("x", [1, 2])
    with pytest.warns(metrana.MetranaWarning) as warned:
        alone.close(0.1)
    said = " ".join(str(one.message) for one in warned)
    assert f"kept in {data_dir}, 2 of them only in this machine's memory" in said
    assert "metrana sync --url" in said


def test_warnings_made_errors_leave_no_run_open(data_dir: Path) -> None:
    done = _python(
        """
        import metrana
        a = metrana.init(run_name='a', ingestion_url='http://127.0.0.1:9', connect_timeout_secs=0.1)
        b = metrana.init(run_name='b', mode='offline')
        a.log('x', 1)
        b.log('x', 1)
        """,
        "-W",
        "error",
    )
    assert "metrana sync" in done.stderr
    assert {logged.end for logged in read_all(data_dir)} == {"finished"}


def test_attributes_that_are_left_are_named_at_the_end() -> None:
    run = metrana.init(run_name="a", ingestion_url="http://127.0.0.1:9", connect_timeout_secs=0.1)
    run.log_attributes("note", "x")
    with pytest.warns(metrana.MetranaWarning, match="attributes? that http://127.0.0.1:9"):
        run.close()


@pytest.mark.parametrize("variable", ["RANK", "SLURM_JOB_ID", "METRANA_ORCHESTRATION_ID"])
@pytest.mark.parametrize("value", [os.fsdecode(b"\xff"), "a\nb", "x" * 300])
def test_a_launchers_variable_that_is_no_name_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    for other in ("METRANA_ORCHESTRATION_ID", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(metrana.MetranaValidationError, match=variable):
        metrana.init(mode="offline")


def test_only_this_machine_is_loopback() -> None:
    assert is_loopback("http://127.0.0.1:1")
    assert is_loopback("http://127.1.2.3")
    assert is_loopback("http://[::1]:1")
    assert not is_loopback("http://127.evil.com")
    with pytest.raises(metrana.NoMetranaApiKeyError):
        metrana.init(ingestion_url="http://127.evil.com")
