"""What is tried again and for how long, and what is said once and left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import metrana
from tests.e2e.conftest import KEY
from tests.e2e.faults.conftest import OpenRun
from tests.e2e.faults.newer_server import MESSAGE, NewerServer
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine
from tests.proxy import Proxy

Stored = Callable[..., list[float]]
VALUES = [float(value) for value in range(100)]


def reported(run: metrana.Run) -> list[str]:
    """The faults of a run, once there is one."""
    found: list[str] = []

    def is_there() -> bool:
        found.extend(run.check_sender_errors())
        return bool(found)

    wait_until(is_there, what="a report")
    return found


def test_spent_retries_are_told_once_and_everything_is_kept_and_delivered_by_sync(
    proxy: Proxy, open_run: OpenRun, sync: Callable[[], str], stored: Stored
) -> None:
    run = open_run(max_send_retries=3, error_strategy="silent")
    run.log("value", VALUES[:1])
    run.flush()
    proxy.refuse()
    run.log("value", VALUES[1:])
    (told,) = reported(run)
    assert told.startswith(f"4 attempts in a row to send to {proxy.url} failed")
    assert "kept in the spool" in told
    assert told in run.status().problems
    # It goes on trying, which is not told again.
    attempt_count = run.get_metrics().connection_attempts
    wait_until(lambda: run.get_metrics().connection_attempts > attempt_count + 4, what="more")
    assert run.check_sender_errors() == []
    metrics = run.get_metrics()
    assert (metrics.float_points_sent, metrics.float_points_dropped) == (1, 0)
    run.close(0.1)
    proxy.accept()
    assert "1 writer delivered" in sync()
    assert stored() == VALUES


def test_a_server_that_comes_back_after_the_retries_were_spent_gets_everything(
    proxy: Proxy, open_run: OpenRun, stored: Stored
) -> None:
    run = open_run(max_send_retries=0, error_strategy="silent")
    run.log("value", VALUES[:1])
    run.flush()
    proxy.refuse()
    run.log("value", VALUES[1:])
    assert len(reported(run)) == 1
    proxy.accept()
    run.flush(30)
    assert stored() == VALUES
    # A later outage is another one.
    proxy.refuse()
    run.log("value", float(len(VALUES)))
    assert len(reported(run)) == 1
    proxy.accept()
    run.close(30)
    assert stored() == [*VALUES, len(VALUES)]


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_wrong_key_is_refused_at_init_after_one_question(
    proxy: Proxy, open_run: OpenRun, here: Machine, mode: str
) -> None:
    with pytest.raises(metrana.NoMetranaApiKeyError, match="api_key") as refusal:
        open_run(api_key="a-wrong-key", mode=mode)
    assert "a-wrong-key" not in str(refusal.value)
    assert proxy.connection_count == 1
    assert not metrana.is_initialized()
    assert list((here.data_dir / "spool").iterdir()) == []


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_newer_server_is_told_of_at_init_after_one_question(
    proxy: Proxy, open_run: OpenRun, here: Machine, mode: str
) -> None:
    with NewerServer() as newer:
        proxy.retarget(newer.url)
        with pytest.raises(metrana.MetranaLoggerInitError, match="upgrade the client"):
            open_run(mode=mode)
        assert newer.call_count == proxy.connection_count == 1
    assert list((here.data_dir / "spool").iterdir()) == []


def test_a_key_that_turns_out_wrong_is_told_of_once_and_everything_kept(
    proxy: Proxy, open_run: OpenRun, sync: Callable[[], str], stored: Stored
) -> None:
    proxy.refuse()
    run = open_run(api_key="a-wrong-key", connect_timeout_secs=0.05, error_strategy="silent")
    run.log("value", VALUES)
    proxy.accept()
    (told,) = reported(run)
    assert f"{proxy.url} refused the data" in told
    assert "api_key" in told
    assert "kept in the spool" in told
    assert "a-wrong-key" not in told
    # Nothing more is asked, whatever is logged; flushing is what it is offline.
    run.log("value", float(len(VALUES)))
    run.flush()
    assert run.check_sender_errors() == []
    assert run.get_metrics().float_points_spooled == len(VALUES) + 1
    run.close()
    assert proxy.connection_count == 1
    assert "1 writer delivered" in sync()
    assert stored() == [*VALUES, len(VALUES)]


def test_a_server_that_became_newer_is_told_of_once_and_everything_kept(
    proxy: Proxy,
    open_run: OpenRun,
    sync: Callable[[], str],
    stored: Stored,
    elsewhere: LocalServer,
) -> None:
    run = open_run(error_strategy="silent")
    run.log("value", VALUES[:1])
    run.flush()
    with NewerServer() as newer:
        proxy.retarget(newer.url)
        proxy.cut()
        run.log("value", VALUES[1:])
        (told,) = reported(run)
        assert MESSAGE in told
        assert "kept in the spool" in told
        run.log("value", float(len(VALUES)))
        run.flush()
        assert run.check_sender_errors() == []
        run.close()
        assert newer.call_count == 1
    proxy.retarget(elsewhere.grpc_url)
    sync()
    assert stored() == [*VALUES, len(VALUES)]


def test_sync_to_a_newer_server_says_so_after_one_question_and_keeps_everything(
    proxy: Proxy, open_run: OpenRun, here: Machine, stored: Stored, elsewhere: LocalServer
) -> None:
    proxy.refuse()
    run = open_run(connect_timeout_secs=0.05, error_strategy="silent")
    run.log("value", VALUES)
    run.close()
    command = ("sync", "--url", proxy.url, "--api-key", KEY)
    with NewerServer() as newer:
        proxy.retarget(newer.url)
        proxy.accept()
        said = here.command(*command, code=1).stderr
        assert said.count(MESSAGE) == 1
        assert "Traceback" not in said
        assert newer.call_count == 1
    proxy.retarget(elsewhere.grpc_url)
    here.command(*command)
    assert stored() == VALUES
