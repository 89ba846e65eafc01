"""Spools that were followed and then delivered to another store: it gets all, whoever had what."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from metrana import _native
from metrana.query import Client
from tests.e2e.conftest import KEY
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine
from tests.reading import run_folders

COUNT = 1000

# Of the first half it is known that it is followed.
KILLED = f"""
import os, signal
from pathlib import Path
from metrana.query import Client

run = metrana.init(mode="offline", run_name="r", config={{"from": "first"}})
for step in range({COUNT}):
    run.log("loss", float(step))
    if step == {COUNT // 2 - 1}:
        run.flush()
        with Client() as client:
            (followed,) = client.runs(as_="arrow").to_pylist()
            assert followed["point_count"] == {COUNT // 2}
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def copied(tmp_path: Path) -> Machine:
    """Another machine's directory, with the copied spool of a run that was followed and killed."""
    first = Machine(tmp_path / "first")
    first.python(KILLED, code=-signal.SIGKILL)
    copy = Machine(tmp_path / "copy")
    # Nothing is left beside it, as on another machine: a ring stays with the folder it belongs to.
    shutil.move(first.data_dir / "spool", copy.data_dir / "spool")
    return copy


@contextmanager
def seen(machine: Machine) -> Iterator[None]:
    """Checks that a store has all of the run, once."""
    yield
    with machine.client() as client:
        wait_until(lambda: client.run("r").status == "lost", what="the end")
        assert client.run("r").config == {"from": "first"}
        values = client.points("r", "loss", duplicates="all", as_="arrow")["value"].to_pylist()
    assert (len(values), sum(values)) == (COUNT, sum(range(COUNT)))


@pytest.mark.parametrize("is_served", [False, True])
def test_a_followed_spool_that_was_copied_is_delivered_whole(
    copied: Machine, tmp_path: Path, is_served: bool
) -> None:
    fresh = Machine(tmp_path / "fresh")
    (folder,) = run_folders(copied.data_dir)
    with folder.recover(1):
        pass  # what is in the ring only one of them could have
    copies = [copied.data_dir, tmp_path / "again"]
    shutil.copytree(*copies)
    with LocalServer(fresh.data_dir) if is_served else nullcontext():
        for copy in copies:
            with seen(fresh):
                fresh.command("sync", str(copy))
            assert [path for path in copy.glob("spool/*/[0-9]*") if path.is_dir()] == []


def test_a_store_that_was_made_anew_gets_what_is_still_spooled(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.python(KILLED, code=-signal.SIGKILL)
    shutil.rmtree(machine.data_dir / "server")
    with seen(machine):
        machine.command("sync")


@dataclass
class Cut:
    """A copy without its beginning.

    Attributes:
        machine: Where it lies.
        writer: The writer's folder.
        told: What is said of what is missing.
    """

    machine: Machine
    writer: Path
    told: str


def cut_beginning(machine: Machine) -> Cut:
    """Deletes the first segment of a copy, which was acknowledged."""
    (folder,) = run_folders(machine.data_dir)
    with folder.recover(1):
        pass  # the rest of the ring goes into a segment of its own
    (writer,) = folder.writers()
    oldest = min(Path(writer.path).glob("*.spool"))
    oldest.unlink()
    begins = _native.SpoolFollower(writer.path).read(1 << 20)[1].seq
    told = f"batches 1 to {begins - 1} are missing" if begins > 2 else "batch 1 is missing"
    return Cut(machine, Path(writer.path), told)


@pytest.fixture
def cut(copied: Machine) -> Cut:
    """The copied spool without its beginning."""
    return cut_beginning(copied)


def serving(machine: Machine, is_served: bool) -> AbstractContextManager[object]:
    """A running server for a machine's data directory, or none."""
    return LocalServer(machine.data_dir) if is_served else nullcontext()


@pytest.mark.parametrize("is_served_again", [False, True])
@pytest.mark.parametrize("is_served", [False, True])
def test_a_copy_without_its_acknowledged_beginning_is_told_and_kept(
    cut: Cut, tmp_path: Path, is_served: bool, is_served_again: bool
) -> None:
    fresh = Machine(tmp_path / "fresh")
    counts = set()
    for served in (is_served, is_served_again):
        with serving(fresh, served):
            synced = fresh.command("sync", str(cut.machine.data_dir), code=1)
            assert synced.stderr.count(cut.told) == 1
            assert cut.writer.exists()
            with fresh.client() as client:
                wait_until(lambda client=client: client.run("r").status == "lost", what="the end")
                counts.add(client.run("r").point_count)
    (count,) = counts
    assert 0 < count <= COUNT // 2
    assert "0 batches of 0 writers delivered" in synced.stderr
    status = ("status", "--data-dir", str(cut.machine.data_dir))
    (row,) = json.loads(cut.machine.command(*status, "--json").stdout)
    assert [cut.told in problem for problem in row["problems"]] == [True]
    assert cut.told in cut.machine.command(*status).stdout


@pytest.mark.parametrize("is_served", [False, True])
def test_a_kept_copy_is_left_alone_by_whoever_comes_later(
    cut: Cut, tmp_path: Path, is_served: bool
) -> None:
    fresh, machine = Machine(tmp_path / "fresh"), cut.machine
    with serving(fresh, is_served):
        fresh.command("sync", str(machine.data_dir), code=1)
    before = sorted(cut.writer.iterdir())
    with (
        (tmp_path / "told").open("w") as told_file,
        LocalServer(machine.data_dir, stderr=told_file.fileno()),
        machine.client() as client,
    ):
        # What the server finds in its spools, and what an init() brings to it.
        wait_until(lambda: cut.told in (tmp_path / "told").read_text(), what="the word of it")
        logged = machine.python(
            """
            with metrana.init(run_name="later") as run:
                run.log("loss", 1.0)
                run.flush()
            """
        )
        assert "missing" not in logged.stderr
        wait_until(lambda: client.run("later").status == "finished", what="the later run")
        runs = client.runs(as_="arrow").to_pylist()
    assert [run["run_name"] for run in runs] == ["later"]
    assert (tmp_path / "told").read_text().count(cut.told) == 1
    assert sorted(cut.writer.iterdir()) == before
    # Without the mark it is as it was.
    (cut.writer / "kept").unlink()
    machine.command("sync", code=1)
    with machine.client() as client:
        assert 0 < client.run("r").point_count <= COUNT // 2


@pytest.mark.parametrize("is_served", [False, True])
def test_a_copy_goes_without_a_word_where_its_beginning_is(
    copied: Machine, tmp_path: Path, is_served: bool
) -> None:
    fresh, again = Machine(tmp_path / "fresh"), Machine(tmp_path / "again")
    (folder,) = run_folders(copied.data_dir)
    with folder.recover(1):
        pass  # what is in the ring only one of them could have
    shutil.copytree(copied.data_dir, again.data_dir)
    with seen(fresh):
        fresh.command("sync", str(copied.data_dir))
    cut = cut_beginning(again)
    with serving(fresh, is_served), seen(fresh):
        synced = fresh.command("sync", str(again.data_dir))
    assert "missing" not in synced.stderr
    assert not cut.writer.exists()


@pytest.mark.parametrize("is_served", [False, True])
def test_a_copy_with_the_beginning_fills_the_gap_that_one_without_it_left(
    copied: Machine, tmp_path: Path, is_served: bool
) -> None:
    fresh, whole = Machine(tmp_path / "fresh"), Machine(tmp_path / "whole")
    (folder,) = run_folders(copied.data_dir)
    with folder.recover(1):
        pass  # what is in the ring only one of them could have
    shutil.copytree(copied.data_dir, whole.data_dir)
    cut = cut_beginning(copied)
    with serving(fresh, is_served):
        fresh.command("sync", str(copied.data_dir), code=1)
        with seen(fresh):
            synced = fresh.command("sync", str(whole.data_dir))
    assert "missing" not in synced.stderr
    assert cut.writer.exists()
    assert [path for path in whole.data_dir.glob("spool/*/[0-9]*") if path.is_dir()] == []


@pytest.mark.parametrize("is_served", [False, True])
def test_attributes_that_a_copy_without_them_hid_come_with_one_that_has_them(
    tmp_path: Path, is_served: bool
) -> None:
    first, fresh = Machine(tmp_path / "first"), Machine(tmp_path / "fresh")
    early = KILLED.replace('"first"}', '"first", "early": 1}')
    late = "run.log_config({'from': 'last', 'late': 1})"
    first.python(early.replace("os.kill(", f"{late}; os.kill("), code=-signal.SIGKILL)
    copy, whole = Machine(tmp_path / "copy"), Machine(tmp_path / "whole")
    shutil.move(first.data_dir / "spool", copy.data_dir / "spool")
    (folder,) = run_folders(copy.data_dir)
    with folder.recover(1):
        pass  # what is in the ring only one of them could have
    shutil.copytree(copy.data_dir, whole.data_dir)
    (writer,) = run_folders(whole.data_dir)[0].writers()
    cut = cut_beginning(copy)
    with serving(fresh, is_served), fresh.client() as client:
        fresh.command("sync", str(copy.data_dir), code=1)
        # As if it had been broken off: what is missing is still known.
        (cut.writer / "kept").unlink()
        again = fresh.command("sync", str(copy.data_dir), code=1)
        assert again.stderr.count(cut.told) == 1
        assert client.run("r").config == {"from": "last", "late": 1}
        synced = fresh.command("sync", str(whole.data_dir))
        wait_until(lambda: not Path(writer.path).exists(), what="the delivery")
        # In the order in which they were logged, whatever the order in which they came.
        assert client.run("r").config == {"from": "last", "early": 1, "late": 1}
        assert client.run("r").point_count == COUNT
    assert "missing" not in synced.stderr


@pytest.mark.parametrize("is_served", [False, True])
def test_a_folder_whose_deleted_beginning_was_attributes_alone_is_whole(
    tmp_path: Path, is_served: bool
) -> None:
    machine = Machine(tmp_path)
    script = """
    import os, random, signal

    run = metrana.init(run_name="r", spool_max_bytes=400_000)
    for number in range(12):  # each a tenth of what the spool keeps
        run.log_config({f"k{number}": random.randbytes(20_000).hex()})
        run.flush()
    run.log("loss", 1.0)
    run.flush()
    run.log_config({"late": 1})
    run.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    """
    with LocalServer(machine.data_dir):
        machine.python(script, code=-signal.SIGKILL)
    (folder,) = run_folders(machine.data_dir)
    (writer,) = folder.writers()
    assert _native.SpoolFollower(writer.path, from_oldest=True).first_seq > 2
    with serving(machine, is_served):
        synced = machine.command("sync")
        # A running server may be at it already.
        wait_until(lambda: not Path(writer.path).exists(), what="the delivery")
    assert "missing" not in synced.stderr


def test_a_copy_that_a_server_elsewhere_gets_in_part_still_goes_to_its_own_store(
    copied: Machine, tmp_path: Path, elsewhere: LocalServer
) -> None:
    own = Machine(tmp_path / "own")
    (folder,) = run_folders(copied.data_dir)
    with folder.recover(1):
        pass  # what is in the ring only one of them could have
    again = Machine(tmp_path / "again")
    shutil.copytree(copied.data_dir, again.data_dir)
    own.command("sync", str(copied.data_dir))
    cut = cut_beginning(again)
    synced = again.command("sync", "--url", elsewhere.grpc_url, "--api-key", KEY, code=1)
    assert synced.stderr.count(cut.told) == 1
    with seen(own):
        own.command("sync", str(again.data_dir))
    assert not cut.writer.exists()


def test_a_living_writers_folder_is_nothing_to_delete_whatever_a_store_lacks(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path)
    script = """
    import os, random, subprocess, sys
    from pathlib import Path
    from metrana.query import Client

    run = metrana.init(mode="offline", run_name="r", spool_max_bytes=400_000)
    def log():
        for _ in range(5000):  # seals some 40 kB, of which two are a segment
            run.log("loss", random.random())
        run.flush()
    for _ in range(6):
        log()
    with Client() as client:
        client.runs()
    log()  # what was followed is deleted
    log()
    server = Path(os.environ["METRANA_DIR"]) / "server"
    server.rename(server.with_name("away"))
    sync = [sys.executable, "-m", "metrana.cli", "sync"]
    print(json.dumps(subprocess.run(sync, capture_output=True, text=True).stderr))
    """
    told = machine.answer(script)
    assert "are missing" in told
    assert "there may be more to come" in told
    assert "delete" not in told
    ended = machine.command("sync", code=1)
    assert "not delivered again: delete" in ended.stderr


def test_a_followed_run_that_went_elsewhere_does_not_seem_to_run_for_ever(
    elsewhere: LocalServer, reader: Client, tmp_path: Path, project: str
) -> None:
    machine = Machine(tmp_path, METRANA_PROJECT=project)
    machine.python(KILLED, code=-signal.SIGKILL)
    machine.command("sync", "--url", elsewhere.grpc_url, "--api-key", KEY)
    assert reader.run("r", project_name=project).point_count == COUNT
    machine_catalog = machine.data_dir / "server" / "catalog.sqlite"
    with closing(sqlite3.connect(machine_catalog)) as catalog, catalog:
        # As after the time that it may be silent.
        catalog.execute("UPDATE writers SET lease_until = 1")
    with machine.client() as client:
        (run,) = client.runs(project, as_="arrow").to_pylist()
    assert (run["status"], run["point_count"]) == ("lost", COUNT // 2)
