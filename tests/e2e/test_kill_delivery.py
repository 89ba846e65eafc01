"""What killed writers left reaches a store once: by a process, a server, a command, a client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metrana.query import Client
from tests.e2e.conftest import KEY
from tests.e2e.killed import numbered
from tests.e2e.killed.instants import INSTANTS, chance_of, kill_one, told
from tests.e2e.killed.nursery import Child, Nursery, Phase
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine
from tests.reading import Point

# Each starts servers and commands.
pytestmark = pytest.mark.timeout(120)

RUN_COUNT = 5
INIT_COUNT = 20
INSTANTS_WITH_POINTS = [instant for instant in INSTANTS if instant != "init"]


def kill_several(
    nursery: Nursery, folder: Path, project: str, **arguments: Any
) -> dict[str, Child]:
    """Kills a writer of each of several runs; gives them by the name of the run."""
    return {
        f"r{index}": kill_one(
            nursery,
            chance,
            folder,
            chance.choice(INSTANTS_WITH_POINTS),
            run_name=f"r{index}",
            project_name=project,
            **arguments,
        )
        for index, chance in enumerate(chance_of(project, i) for i in range(RUN_COUNT))
    }


def read_stored(client: Client, project: str, run_name: str) -> list[Point]:
    """Every row that a store has of a run, in the order of positions."""
    table = client.points(run_name, project_name=project, duplicates="all", as_="arrow")
    names = ("metric_name", "value", "step", "scale", "env_id", "rl_step", "episode")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return [
        Point(metric, value, step, scale, {}, env_id, rl_step, episode)
        for metric, value, step, scale, env_id, rl_step, episode in rows
    ]


def check_stored(client: Client, project: str, children: dict[str, Child]) -> None:
    """Checks every point of the runs in a store, and what the store itself counts."""
    for run_name, child in children.items():
        points = read_stored(client, project, run_name)
        calls = numbered.call_count(points, child.report.calls)
        wanted = [place for places in numbered.expected(0, calls).values() for place in places]
        series = client.series(run_name, project_name=project)
        assert series["point_count"].sum() == len(wanted)
        sums = series["mean_value"] * series["point_count"]
        assert sums.sum() == pytest.approx(sum(place.value for place in wanted))
        ended = child.report.phase >= Phase.CLOSING
        status = client.run(run_name, project_name=project).status
        assert status in ({"lost", "finished"} if ended else {"lost"})


def spooled_writers(data_dir: Path) -> list[Path]:
    return list(data_dir.glob("spool/*/[0-9]*/writer.json"))


def test_the_next_process_delivers_what_killed_ones_left(
    nursery: Nursery, elsewhere: LocalServer, reader: Client, project: str, tmp_path: Path
) -> None:
    server = {"ingestion_url": elsewhere.grpc_url, "api_key": KEY}
    with told(tmp_path):
        # These die while they send.
        children = kill_several(nursery, tmp_path, project, mode="online", **server)
        Machine(tmp_path).python(f"""
        import pathlib, time
        with metrana.init(**{server}, mode="online", run_name="next") as run:
            spool = pathlib.Path({str(tmp_path / "data")!r}, "spool")
            while len(list(spool.glob("*/[0-9]*"))) > 1:
                time.sleep(0.02)
        """)
        check_stored(reader, project, children)


def test_a_restarted_server_delivers_what_killed_writers_left(
    nursery: Nursery, project: str, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    server = LocalServer(data_dir)
    try:
        with told(tmp_path):
            children = kill_several(nursery, tmp_path, project, mode="auto")
            # It may have stored what it has not acknowledged.
            server.kill()
            server = LocalServer(data_dir)
            wait_until(lambda: not spooled_writers(data_dir), timeout_s=60, what="the delivery")
            with Client(data_dir=data_dir) as client:
                check_stored(client, project, children)
    finally:
        server.kill()


def test_two_commands_deliver_what_a_killed_one_did_not(
    nursery: Nursery, elsewhere: LocalServer, reader: Client, project: str, tmp_path: Path
) -> None:
    sync = [sys.executable, "-m", "metrana.cli", "sync"]
    sync += ["--url", elsewhere.grpc_url, "--api-key", KEY]
    environ = Machine(tmp_path).environ
    with told(tmp_path):
        children = kill_several(nursery, tmp_path, project)
        with subprocess.Popen(sync, env=environ, stderr=subprocess.PIPE, text=True) as first:
            assert first.stderr is not None
            # It is at the second run by the time that this is read.
            assert "delivered" in first.stderr.readline()
            first.kill()
        both = [
            subprocess.Popen(sync, env=environ, stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        said = [process.communicate(timeout=50)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert not spooled_writers(tmp_path / "data")
        check_stored(reader, project, children)


def test_what_killed_inits_left_hinders_nobody(
    nursery: Nursery, project: str, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, METRANA_PROJECT=project)
    with told(tmp_path):
        for index in range(INIT_COUNT):
            chance = chance_of(project, index)
            kill_one(nursery, chance, tmp_path, "init", run_name=f"r{index}", project_name=project)
        machine.python("with metrana.init(run_name='whole') as run: run.log('x', [1, 2])")
        machine.command("status")
        machine.command("sync")
        with machine.client() as client, client.hold():
            status = dict(client.runs(project)[["run_name", "status"]].to_numpy())
            assert status.pop("whole") == "finished"
            assert set(status.values()) <= {"lost"}
            assert client.points("whole", project_name=project)["value"].sum() == 3
    assert not spooled_writers(machine.data_dir)


def test_a_client_sees_what_killed_writers_left(
    nursery: Nursery, project: str, tmp_path: Path
) -> None:
    with told(tmp_path):
        children = kill_several(nursery, tmp_path, project)
        # The second has nothing left to deliver, and delivers nothing again.
        for client in (Machine(tmp_path).client() for _ in range(2)):
            with client, client.hold():
                check_stored(client, project, children)
