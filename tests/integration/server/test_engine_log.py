"""The engine's own log: what it tells, how much of it, and what never."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import metrana
from metrana import _native
from tests.local_server import LocalServer, wait_until

_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (TRACE|DEBUG|INFO|WARN|ERROR) +\S.*")
_KEY = "a-key-that-nobody-may-read"


def _logs(data_dir: Path) -> list[Path]:
    return list((data_dir / "spool").glob("*/*/engine.log"))


def _levels(log: Path) -> set[str]:
    matches = [_LINE.fullmatch(line) for line in log.read_text().splitlines()]
    assert all(matches), log.read_text()
    return {match[1] for match in matches if match}


def test_the_log_follows_a_run_to_its_server(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "elsewhere") as server:
        found = _native.find_local_server(server.data_dir)
        assert found is not None
        run = metrana.init(
            mode="online",
            data_dir=tmp_path,
            run_name="run",
            ingestion_url=server.grpc_url,
            api_key=found["token"],
            log_level="TRACE",
        )
        with run:
            run.log("loss", 1.0)
            run.flush()
            (log,) = _logs(tmp_path)
            assert log.stat().st_mode & 0o777 == 0o600
            wait_until(lambda: "is acknowledged" in log.read_text(), what="the line of an ack")
            text = log.read_text()
            assert _levels(log) == {"TRACE", "DEBUG", "INFO"}
    for words in (f"connecting to {server.grpc_url}", "created run", "sealed batch 1", "sending"):
        assert words in text
    assert found["token"] not in text


def test_a_server_that_is_not_there_is_told_of_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRANA_LOG_LEVEL", "warn")
    run = metrana.init(
        data_dir=tmp_path,
        run_name="run",
        ingestion_url="http://127.0.0.1:1",
        api_key=_KEY,
        connect_timeout_secs=0.1,
    )
    run.log_config({"password": "a-config-value"})
    (log,) = _logs(tmp_path)
    wait_until(lambda: "sending failed" in log.read_text(), what="a failure")
    with pytest.warns(metrana.MetranaWarning, match="attributes that http://127.0.0.1:1"):
        run.close()
    assert _levels(log) == {"WARN"}
    text = log.read_text()
    assert "http://127.0.0.1:1" in text
    assert _KEY not in text
    assert "a-config-value" not in text


def test_off_writes_no_log_and_the_default_tells_of_openings_alone(tmp_path: Path) -> None:
    with metrana.init(mode="offline", data_dir=tmp_path, run_name="quiet", log_level="OFF") as run:
        run.log("loss", 1.0)
    assert _logs(tmp_path) == []
    with metrana.init(mode="offline", data_dir=tmp_path, run_name="usual") as run:
        run.log("loss", 1.0)
    (log,) = _logs(tmp_path)
    assert _levels(log) == {"INFO"}
    assert "closed: the spool keeps everything" in log.read_text()
