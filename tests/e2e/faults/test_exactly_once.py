"""Whatever the network and the server do, each point is stored once, by count and by sum."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import metrana
from metrana.query import Client
from tests.e2e.conftest import KEY
from tests.e2e.faults.conftest import OpenRun
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine
from tests.proxy import Cut, Proxy

Stored = Callable[..., list[float]]
POINT_COUNT = 1000
VALUES = [float(value) for value in range(POINT_COUNT)]


def sent(run: metrana.Run) -> int:
    return run.get_metrics().float_points_sent


@pytest.mark.parametrize("resets", [True, False])
def test_a_connection_cut_between_insert_and_ack_stores_nothing_twice(
    proxy: Proxy, open_run: OpenRun, stored: Stored, resets: bool
) -> None:
    run = open_run()
    run.log("value", VALUES[:1])
    run.flush()
    proxy.down.loses = True
    run.log("value", VALUES[1:])
    wait_until(lambda: stored() == VALUES, what="the insert")
    assert sent(run) == 1
    proxy.cut(resets=resets)
    proxy.heal()
    run.flush(30)
    assert sent(run) == POINT_COUNT
    assert stored() == VALUES
    run.close()


def test_what_an_old_connection_brings_after_a_new_one_is_not_stored_again(
    proxy: Proxy, open_run: OpenRun, stored: Stored
) -> None:
    run = open_run()
    run.log("value", VALUES[:1])
    run.flush()
    proxy.stall(proxy.up)
    before = proxy.up.byte_count
    run.log("value", VALUES[1:])
    wait_until(lambda: proxy.up.byte_count > before, what="the batch on its way")
    # The client is told that the connection is gone; the server is not.
    proxy.orphan()
    proxy.heal()
    run.flush(30)
    proxy.deliver_orphans()
    run.log("value", float(POINT_COUNT))
    run.flush(30)
    run.close()
    assert stored() == [*VALUES, POINT_COUNT]


CHUNK_COUNT, CHUNK = 300, 1000
CUT_COUNT = 30


@pytest.mark.timeout(120)
def test_random_cuts_under_load_lose_and_double_nothing(
    proxy: Proxy, open_run: OpenRun, stored: Stored
) -> None:
    chance = random.Random(20)
    run = open_run(backpressure_strategy="block", max_msg_size=16 * 1024, error_strategy="silent")
    proxy.plan = [
        Cut(chance.randrange(500, 40_000), chance.random() < 0.5, chance.choice([0.0, 0.0, 0.3]))
        for _ in range(CUT_COUNT)
    ]
    proxy.cut()
    # Noise, which does not compress, in whole numbers, whose sum is exact.
    values = [[float(chance.getrandbits(32)) for _ in range(CHUNK)] for _ in range(CHUNK_COUNT)]
    for chunk in values:
        run.log("value", chunk)
    run.flush(90)
    metrics = run.get_metrics()
    assert (proxy.plan, proxy.cut_count) == ([], CUT_COUNT)
    assert metrics.float_points_sent == metrics.float_points_added == CHUNK_COUNT * CHUNK
    assert metrics.send_errors >= CUT_COUNT
    run.close()
    expected = sorted(value for chunk in values for value in chunk)
    found = stored()
    assert (len(found), sum(found)) == (len(expected), sum(expected))
    assert found == expected


def test_two_clients_that_resume_one_another_lose_and_double_nothing(
    proxy: Proxy, open_run: OpenRun, stored: Stored, tmp_path: Path
) -> None:
    chance = random.Random(21)
    runs: list[metrana.Run] = []

    def resume(number: int) -> metrana.Run:
        # Each as on a machine and in a job of its own; nobody closed the run that is resumed.
        run = open_run(
            data_dir=tmp_path / str(number),
            orchestration_id=f"job-{number}",
            resume_strategy="allow",
            error_strategy="silent",
            backpressure_strategy="block",
        )
        runs.append(run)
        return run

    numbers = iter(range(1_000_000))
    for number in range(4):
        run = resume(number)
        for _ in range(10):
            for other in runs:
                other.log("value", [float(next(numbers)) for _ in range(100)])
            proxy.cut(resets=chance.random() < 0.5)
        run.flush(30)
    # All of them come back at once, and the one that came last is heard first.
    proxy.hold()
    proxy.cut()
    for run in runs:
        run.log("value", float(next(numbers)))
    wait_until(lambda: proxy.held_count == len(runs), what="a connection of each")
    proxy.release(*reversed(range(len(runs))))
    for run in runs:
        run.close(30)
    assert len({run.run_id for run in runs}) == 1
    assert stored() == list(range(next(numbers)))


class Mortal:
    """A server that is killed and comes back at another port, behind the same address."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.server = LocalServer(data_dir, "--token", KEY)
        self.proxy = Proxy(self.server.grpc_url)

    def kill(self) -> None:
        self.server.kill()

    def restart(self) -> None:
        self.server = LocalServer(self._data_dir, "--token", KEY)
        self.proxy.retarget(self.server.grpc_url)

    def values(self, project: str) -> list[float]:
        with Client(self.server.http_url, api_key=KEY) as client:
            if "r" not in list(client.runs(project)["run_name"]):
                return []
            rows = client.points("r", "value", project_name=project, duplicates="all", as_="arrow")
            return sorted(rows["value"].to_pylist())


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    mortal = Mortal(tmp_path / "server")
    with mortal.proxy:
        yield mortal
    if mortal.server.process.poll() is None:
        mortal.server.stop()


@pytest.mark.timeout(240)
def test_a_server_killed_between_insert_and_ack_has_everything_once(
    mortal: Mortal, open_run: OpenRun, here: Machine, project: str
) -> None:
    proxy = mortal.proxy
    run = open_run(ingestion_url=proxy.url, error_strategy="silent")
    run.log("value", VALUES[:1])
    run.flush()
    proxy.down.loses = True
    run.log("value", VALUES[1:])
    wait_until(lambda: mortal.values(project) == VALUES, what="the insert")
    mortal.kill()
    assert sent(run) == 1
    copy = shutil.copytree(here.data_dir, here.folder / "copy")
    mortal.restart()
    # The client and a copy of its spool, as a backup leaves it, come back to the server at once.
    proxy.heal()
    deliver = [sys.executable, "-m", "metrana.cli", "sync", str(copy), "--url", proxy.url]
    later = iter(range(POINT_COUNT, 100 * POINT_COUNT))
    with subprocess.Popen(
        [*deliver, "--api-key", KEY],
        stderr=subprocess.PIPE,
        text=True,
        env={**here.environ, "METRANA_DIR": str(copy)},
    ) as syncing:
        met = proxy.connection_count + 4
        while proxy.connection_count < met and syncing.poll() is None:
            run.log("value", float(next(later)))
            run.flush(30)
        run.close(30)
        said = syncing.communicate(timeout=90)[1]
    assert "Traceback" not in said
    with Client(mortal.server.http_url, api_key=KEY) as client:
        assert client.run("r", project_name=project).status == "finished"
    # The copy's ring was the client's own; it lost nothing to whoever read the copy.
    assert mortal.values(project) == list(range(next(later)))


def test_a_spool_that_several_deliver_at_once_is_stored_once(
    proxy: Proxy, open_run: OpenRun, here: Machine, stored: Stored
) -> None:
    proxy.refuse()
    run = open_run(connect_timeout_secs=0.05, max_msg_size=16 * 1024, error_strategy="silent")
    chance = random.Random(22)
    values = sorted({float(chance.getrandbits(32)) for _ in range(20_000)})
    run.log("value", values)
    run.close(0.1)
    copies = [shutil.copytree(here.data_dir, here.folder / f"copy-{n}") for n in range(2)]
    proxy.accept()
    proxy.plan = [Cut(chance.randrange(2_000, 40_000)) for _ in range(6)]
    failures: list[str] = []

    def deliver(data_dir: Path) -> None:
        try:
            here.command("sync", str(data_dir), "--url", proxy.url, "--api-key", KEY)
        except AssertionError as failure:
            failures.append(str(failure))

    # Two at the very same folder, of which one finds it taken, and two at copies.
    places = [here.data_dir, here.data_dir, *copies]
    threads = [threading.Thread(target=deliver, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    # And the next process of the job delivers it beside its own run.
    beside = open_run(run_name="next", error_strategy="silent")
    for thread in threads:
        thread.join()
    beside.close(30)
    assert failures == []
    assert stored() == values
