"""`close()` and `flush()`: how long they take, what they promise, and what they say."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

import metrana
from metrana.query import Client
from tests.e2e.faults.conftest import OpenRun
from tests.local_server import wait_until
from tests.processes import Machine
from tests.proxy import Cut, Proxy

Stored = Callable[..., list[float]]
VALUES = [float(value) for value in range(1000)]


def check_in_time(limit_s: float, attempt: Callable[[str], float]) -> None:
    """Attempts it with runs of several names until a call of it ended in time.

    Args:
        limit_s: What a call may take.
        attempt: Gives how long the call took, of the run of a name.
    """
    took: list[float] = []
    # On a busy machine one may be late, but not each of them.
    while not took or took[-1] >= limit_s:
        assert len(took) < 3, f"it took {took} s"
        took.append(attempt(f"r-{len(took)}"))


def log_on_both_sides(run: metrana.Run, proxy: Proxy, fault: Callable[[Proxy], object]) -> None:
    """Logs a value that is acknowledged, and 999 from when the fault begins."""
    run.log("value", VALUES[:1])
    run.flush()
    fault(proxy)
    run.log("value", VALUES[1:])


def close_timed(run: metrana.Run, close_timeout: float) -> float:
    """Closes a run; gives how long that took."""
    begun = time.monotonic()
    run.close(close_timeout)
    return time.monotonic() - begun


def _cut_again_and_again(proxy: Proxy) -> None:
    proxy.plan = [Cut(300, resets=number % 2 == 0) for number in range(10_000)]
    proxy.cut()


def _be_slow(proxy: Proxy) -> None:
    proxy.up.delay_s = proxy.down.delay_s = 3.0


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "stalls": lambda proxy: proxy.stall(),
    "swallows what is sent": lambda proxy: setattr(proxy.up, "loses", True),
    "swallows the answers": lambda proxy: setattr(proxy.down, "loses", True),
    "refuses": lambda proxy: proxy.refuse(),
    "takes connections and says nothing": lambda proxy: (proxy.hold(), proxy.cut())[0],
    "cuts again and again": _cut_again_and_again,
    "is slow": _be_slow,
}


def repair(proxy: Proxy) -> None:
    """Forgets what is on its way, and carries everything from now on."""
    proxy.plan = []
    proxy.cut()
    proxy.abandon_held()
    proxy.heal()
    proxy.accept()


@pytest.mark.parametrize("fault", FAULTS)
def test_close_ends_in_time_and_says_what_is_left_when_the_network(
    proxy: Proxy,
    open_run: OpenRun,
    here: Machine,
    sync: Callable[[], str],
    stored: Stored,
    reader: Client,
    project: str,
    fault: str,
) -> None:
    def close(run_name: str) -> float:
        run = open_run(run_name=run_name)
        log_on_both_sides(run, proxy, FAULTS[fault])
        with pytest.warns(metrana.MetranaWarning) as warned:
            took_s = close_timed(run, 0.5)
        (said,) = [str(one.message) for one in warned if "ended with" in str(one.message)]
        assert "999 points" in said
        assert f"{proxy.url} has not acknowledged" in said
        assert str(here.data_dir) in said
        assert f"metrana sync --url {proxy.url}" in said
        assert not metrana.is_initialized()
        repair(proxy)
        sync()
        assert stored(run_name) == VALUES
        assert reader.run(run_name, project_name=project).status == "finished"
        return took_s

    check_in_time(0.5 + 1, close)


def test_close_does_not_wait_for_a_server_that_never_answered(
    proxy: Proxy, open_run: OpenRun, sync: Callable[[], str], stored: Stored
) -> None:
    def close(run_name: str) -> float:
        proxy.hold()
        run = open_run(run_name=run_name, connect_timeout_secs=0.1)
        run.log("value", VALUES)
        with pytest.warns(metrana.MetranaWarning, match="1,000 points"):
            took_s = close_timed(run, 60)
        repair(proxy)
        sync()
        assert stored(run_name) == VALUES
        return took_s

    check_in_time(1, close)


def fill(run: metrana.Run) -> bool:
    """Logs what does not compress; says whether the spool takes no more."""
    for _ in range(20):
        run.log("value", [random.random() for _ in range(100)])
    return "spool_max_bytes" in str(run.status().problems)


@pytest.mark.parametrize("close_timeout", [0, 0.1])
def test_close_ends_in_time_when_a_stuck_server_has_filled_spool_and_queue(
    proxy: Proxy, open_run: OpenRun, close_timeout: float
) -> None:
    def close(run_name: str) -> float:
        run = open_run(run_name=run_name, spool_max_bytes=4096, error_strategy="silent")
        proxy.stall()
        wait_until(lambda: fill(run), what="a spool at its limit")
        took_s = close_timed(run, close_timeout)
        repair(proxy)
        return took_s

    check_in_time(close_timeout + 1, close)


@pytest.mark.parametrize("fault", ["stalls", "refuses", "swallows the answers"])
def test_close_without_patience_abandons_what_is_not_acknowledged(
    proxy: Proxy,
    open_run: OpenRun,
    here: Machine,
    sync: Callable[[], str],
    stored: Stored,
    fault: str,
) -> None:
    def close(run_name: str) -> float:
        run = open_run(run_name=run_name)
        log_on_both_sides(run, proxy, FAULTS[fault])
        took_s = close_timed(run, 0)
        assert list(here.data_dir.glob("spool/*/0*")) == []
        repair(proxy)
        assert "0 batches of 0 writers" in sync()
        # It is not known of what was on its way whether it arrived, but nothing is there twice.
        assert stored(run_name) in (VALUES[:1], VALUES)
        return took_s

    check_in_time(1, close)


@pytest.mark.parametrize("error_strategy", ["raise_on_close", "raise_on_log"])
def test_a_close_that_raises_says_what_is_left_and_where(
    proxy: Proxy, open_run: OpenRun, here: Machine, error_strategy: str
) -> None:
    run = open_run(error_strategy=error_strategy)
    log_on_both_sides(run, proxy, Proxy.stall)
    with pytest.raises(metrana.MetranaClosingError) as raised:
        run.close(0.2)
    said = str(raised.value)
    assert "999 points" in said
    assert str(here.data_dir) in said
    assert f"metrana sync --url {proxy.url}" in said


def test_flush_is_a_barrier_while_others_log(
    proxy: Proxy, open_run: OpenRun, stored: Stored
) -> None:
    run = open_run(backpressure_strategy="block", error_strategy="silent")
    is_over = threading.Event()

    def log_something_else() -> None:
        while not is_over.wait(0.001):
            run.log("other", [0.5] * 100)

    other = threading.Thread(target=log_something_else)
    other.start()
    proxy.down.delay_s = 0.02
    for end in range(200, 1001, 200):
        run.log("value", VALUES[end - 200 : end])
        if end == 600:
            proxy.cut()
        run.flush(30)
        # Not a moment later.
        assert stored() == VALUES[:end]
    is_over.set()
    other.join()
    run.close(30)


def test_a_flush_that_takes_too_long_says_what_is_left_and_loses_nothing(
    proxy: Proxy, open_run: OpenRun, stored: Stored
) -> None:
    run = open_run()
    log_on_both_sides(run, proxy, Proxy.stall)
    with pytest.raises(metrana.MetranaClosingError, match="999 points"):
        run.flush(0.2)
    with pytest.raises(metrana.MetranaClosingError):
        run.flush(0)
    proxy.heal()
    run.flush(30)
    assert run.get_metrics().float_points_sent == 1000
    assert stored() == VALUES
    run.close()
