"""A queue that is full because the server takes nothing: what becomes of each point."""

from __future__ import annotations

import random
import re
import threading
from typing import Any

import pytest

import metrana
from metrana.query import Client
from tests.e2e.faults.conftest import OpenRun
from tests.e2e.faults.watching import Watch
from tests.local_server import wait_until
from tests.proxy import Proxy

CALL_COUNT, CALL = 30, 1000
# Noise does not compress, so the spool is full after some thousand points, and then the queue.
LIMITS: dict[str, Any] = {
    "queue_capacity": 2000,
    "spool_max_bytes": 64 * 1024,
    "max_msg_size": 16 * 1024,
    "error_strategy": "silent",
}
_CHANCE = random.Random(30)
NOISE = [_CHANCE.random() for _ in range(CALL_COUNT * CALL)]


def stored(reader: Client, project: str) -> dict[int, float]:
    """The values of the run by their steps; every row has a step of its own."""
    rows = reader.points("r", "value", project_name=project, duplicates="all", as_="arrow")
    steps = rows["step"].to_pylist()
    assert len(set(steps)) == len(steps)
    return dict(zip(steps, rows["value"].to_pylist(), strict=True))


def is_waiting(run: metrana.Run) -> bool:
    """Whether a log call waits for room."""
    metrics = run.get_metrics()
    done = metrics.float_points_enqueued + metrics.float_points_dropped
    return metrics.float_points_added > done


def finish(run: metrana.Run, proxy: Proxy) -> metrana.Metrics:
    """Repairs the network and delivers; the run stays open."""
    proxy.heal()
    run.flush(30)
    assert run.status().pending_points == 0
    return run.get_metrics()


def test_drop_new_drops_what_finds_no_room_and_everything_else_arrives_at_its_step(
    proxy: Proxy, open_run: OpenRun, reader: Client, project: str
) -> None:
    run = open_run(enqueue_timeout_secs=0.02, **LIMITS)
    proxy.stall()
    with Watch(run) as watch:
        for call in range(CALL_COUNT):
            run.log("value", NOISE[call * CALL : (call + 1) * CALL])
            run.log_rl_environment_step("reward", [0.5] * 10, rl_step=call)
        metrics = finish(run, proxy)
        wait_until(lambda: watch.sample_count >= 20, what="samples")
    run.close(30)
    assert watch.faults == []
    assert metrics.float_points_added == len(NOISE)
    assert metrics.float_points_dropped > 0
    assert metrics.rl_float_points_added == 10 * CALL_COUNT
    assert metrics.float_points_sent == len(NOISE) - metrics.float_points_dropped
    found = stored(reader, project)
    assert len(found) == metrics.float_points_sent
    assert all(NOISE[step] == value for step, value in found.items())
    series = reader.series("r", project_name=project, metric_name="reward", as_="arrow")
    kept = metrics.rl_float_points_added - metrics.rl_float_points_dropped
    assert sum(series["point_count"].to_pylist()) == kept


def test_raise_says_how_many_were_not_taken_and_keeps_the_others(
    proxy: Proxy, open_run: OpenRun, reader: Client, project: str
) -> None:
    run = open_run(backpressure_strategy="raise", enqueue_timeout_secs=0.02, **LIMITS)
    proxy.stall()
    refused = 0
    with Watch(run) as watch:
        for call in range(CALL_COUNT):
            try:
                run.log("value", NOISE[call * CALL : (call + 1) * CALL])
            except metrana.MetranaEventQueueFullError as error:
                (count,) = re.findall(r"(\d+) points were not taken", str(error))
                refused += int(count)
        metrics = finish(run, proxy)
    run.close(30)
    assert watch.faults == []
    assert refused == metrics.float_points_dropped > 0
    assert metrics.float_points_sent == len(NOISE) - refused
    found = stored(reader, project)
    assert len(found) == metrics.float_points_sent
    assert all(NOISE[step] == value for step, value in found.items())


@pytest.mark.parametrize("call_count", [1, CALL_COUNT])
def test_block_waits_until_the_server_takes_more_and_loses_nothing(
    proxy: Proxy, open_run: OpenRun, reader: Client, project: str, call_count: int
) -> None:
    run = open_run(backpressure_strategy="block", enqueue_timeout_secs=0, **LIMITS)
    proxy.stall()
    share = len(NOISE) // call_count

    def log() -> None:
        for call in range(call_count):
            run.log("value", NOISE[call * share : (call + 1) * share])

    training = threading.Thread(target=log)
    with Watch(run) as watch:
        training.start()
        wait_until(lambda: is_waiting(run), what="a call that waits")
        spooled = run.get_metrics().float_points_spooled
        assert training.is_alive()
        assert spooled < len(NOISE)
        proxy.heal()
        training.join()
        metrics = finish(run, proxy)
    run.close(30)
    assert watch.faults == []
    assert (metrics.float_points_sent, metrics.float_points_dropped) == (len(NOISE), 0)
    assert stored(reader, project) == dict(enumerate(NOISE))


def test_a_call_that_waits_for_room_ends_when_the_run_is_closed(
    proxy: Proxy, open_run: OpenRun
) -> None:
    run = open_run(backpressure_strategy="block", **LIMITS)
    proxy.stall()
    raised: list[BaseException] = []

    def log() -> None:
        try:
            while True:
                run.log("value", NOISE)
        except metrana.MetranaError as error:
            raised.append(error)

    training = threading.Thread(target=log)
    training.start()
    wait_until(lambda: "spool_max_bytes" in str(run.status().problems), what="a full spool")
    wait_until(lambda: is_waiting(run), what="a call that waits")
    run.close(0.1)
    training.join(timeout=30)
    assert [type(error) for error in raised] == [metrana.MetranaLoggerClosedError]


@pytest.mark.parametrize("backpressure_strategy", ["drop_new", "block", "raise"])
def test_a_single_call_larger_than_the_queue_goes_through_to_the_server(
    open_run: OpenRun, reader: Client, project: str, backpressure_strategy: str
) -> None:
    # Room is being made all the time, so no strategy has a reason to refuse anything.
    run = open_run(
        backpressure_strategy=backpressure_strategy, enqueue_timeout_secs=20, queue_capacity=1000
    )
    with Watch(run) as watch:
        run.log("value", NOISE)
        run.flush(30)
        metrics = run.get_metrics()
    run.close(30)
    assert watch.faults == []
    assert (metrics.float_points_sent, metrics.float_points_dropped) == (len(NOISE), 0)
    assert stored(reader, project) == dict(enumerate(NOISE))


def test_the_counters_add_up_while_connections_are_cut_and_threads_log(
    proxy: Proxy, open_run: OpenRun
) -> None:
    run = open_run(enqueue_timeout_secs=0, queue_capacity=500, error_strategy="silent")
    is_over = threading.Event()

    def log(number: int) -> None:
        for _ in range(200):
            if is_over.wait(0.005):
                return
            run.log(f"value-{number}", [0.5] * 50)
            run.log_rl_episode("return", 1.0, rl_step=1, env_id=number)
            run.log_env_attributes(number, {"seed": number})

    threads = [threading.Thread(target=log, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        with Watch(run) as watch:
            for cut in range(5):
                proxy.cut(resets=cut % 2 == 0)
                run.flush(30)
            wait_until(lambda: watch.sample_count >= 20, what="samples")
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    metrics = finish(run, proxy)
    run.close(30)
    assert watch.faults == []
    assert metrics.send_errors >= 1
    assert metrics.float_points_sent + metrics.float_points_dropped == metrics.float_points_added
