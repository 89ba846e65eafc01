"""`metrana sync`: to the server that runs here, to one elsewhere, and names that meet there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from metrana.query import Client
from tests.e2e.conftest import KEY
from tests.leash import LEASH
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine

OFFLINE = """
with metrana.init(run_name="r", mode="offline", config={"from": NAME}) as run:
    run.log("loss", [1, 2, 3])
    run.log_attributes("note", NAME)
"""


def log_offline(machine: Machine, name: str = "only", **environ: str) -> None:
    machine.python(f"NAME = {name!r}\n{OFFLINE}", **environ)


def spooled_writers(machine: Machine) -> list[Path]:
    return [path for path in machine.data_dir.glob("spool/*/[0-9]*") if path.is_dir()]


def test_sync_goes_through_the_server_that_runs(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with LocalServer(machine.data_dir):
        log_offline(machine)
        # The store is the server's, so opening it here would fail naming the server.
        synced = machine.command("sync")
        assert "in use" not in synced.stderr
        with machine.client() as client:
            wait_until(lambda: list(client.runs()["point_count"]) == [3], what="the points")
            wait_until(lambda: list(client.runs()["status"]) == ["finished"], what="the end")
    assert spooled_writers(machine) == []


def test_sync_to_a_server_elsewhere_needs_its_key(
    elsewhere: LocalServer, reader: Client, tmp_path: Path, project: str
) -> None:
    machine = Machine(tmp_path, METRANA_PROJECT=project)
    log_offline(machine)
    url = ("--url", elsewhere.grpc_url)

    without = machine.command("sync", *url, code=1)
    assert "METRANA_API_KEY" in without.stderr
    assert "Traceback" not in without.stderr
    machine.command("sync", *url, "--api-key", "wrong", code=1)
    assert len(spooled_writers(machine)) == 1
    assert list(reader.runs(project)["run_name"]) == []

    delivered = machine.command("sync", *url, "--api-key", KEY)
    assert f"delivered {project}/r, writer 1" in delivered.stderr
    info = reader.run("r", project_name=project)
    assert (info.point_count, info.config, info.status) == (3, {"from": "only"}, "finished")
    assert spooled_writers(machine) == []
    machine.environ["METRANA_API_KEY"] = KEY
    assert "0 batches" in machine.command("sync", *url).stderr


def test_sync_says_that_no_server_is_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    log_offline(machine)
    with subprocess.Popen(
        [*LEASH, sys.executable, "-m", "metrana.cli", "sync", "--url", "http://127.0.0.1:1"],
        cwd=machine.folder,
        env=machine.environ,
        stderr=subprocess.PIPE,
        text=True,
    ) as syncing:
        assert syncing.stderr is not None
        first = syncing.stderr.readline()
        # It is told before the last attempt is made, which is seconds later.
        assert syncing.poll() is None
        rest = syncing.stderr.read()
    assert syncing.returncode == 1
    assert "127.0.0.1:1" in first
    assert "trying again" in first
    assert "trying again" not in rest
    assert "could not be delivered" in rest
    assert "Traceback" not in rest
    assert len(spooled_writers(machine)) == 1


def test_two_runs_of_one_name_get_names_of_their_own(
    elsewhere: LocalServer, reader: Client, tmp_path: Path, project: str
) -> None:
    said = []
    for name in ("first", "second"):
        machine = Machine(tmp_path / name, METRANA_PROJECT=project)
        log_offline(machine, name)
        done = machine.command("sync", "--url", elsewhere.grpc_url, "--api-key", KEY)
        said.append(done.stderr)

    names = sorted(reader.runs(project)["run_name"])
    assert names[0] == "r"
    assert len(names) == 2
    assert names[1].startswith("r-")
    assert len(names[1]) == len("r-") + 6
    first, second = (reader.run(name, project_name=project) for name in names)
    assert (first.config, second.config) == ({"from": "first"}, {"from": "second"})
    assert (first.point_count, second.point_count) == (3, 3)
    assert "metrana/requested_name" not in first.attributes
    assert second.attributes["metrana/requested_name"] == "r"
    assert names[1] not in said[0]
    assert names[1] in said[1]


def test_two_halves_of_one_job_are_one_run(
    elsewhere: LocalServer, reader: Client, tmp_path: Path, project: str
) -> None:
    run_ids = []
    for rank in ("first", "second"):
        machine = Machine(tmp_path / rank, METRANA_PROJECT=project)
        run_ids.append(
            machine.answer(
                f"""
                with metrana.init(
                    run_name="r", mode="offline", logger_id="{rank}", config={{"from": "{rank}"}}
                ) as run:
                    run.log_distributed("loss", 1, step=0)
                    run.log("{rank}", 1)
                    run.log_config({{"{rank}": 1}})
                print(json.dumps(run.run_id))
                """,
                METRANA_ORCHESTRATION_ID="job",
            )
        )
        machine.command("sync", "--url", elsewhere.grpc_url, "--api-key", KEY)

    (row,) = reader.runs(project).to_dict("records")
    assert (row["run_name"], row["point_count"]) == ("r", 4)
    # Each id names it, for a script may have written down its own.
    infos = [reader.run(run_id=run_id) for run_id in run_ids]
    assert {info.run_id for info in infos} == {row["run_id"]}
    assert infos[0].config == {"from": "first", "first": 1, "second": 1}
    aside = {path: v for path, v in infos[0].attributes.items() if "metrana/writers/" in path}
    assert [(path.split("/", 3)[3], value) for path, value in aside.items()] == [
        ("config/from", "second")
    ]
    points = reader.points("r", "loss", project_name=project, as_="arrow")
    assert sorted(points["logger_id"].to_pylist()) == ["first", "second"]
