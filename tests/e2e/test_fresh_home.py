"""The first minutes of a new user: no folder, no server, one process that logs and looks."""

from __future__ import annotations

from pathlib import Path

from tests.processes import Machine


def test_a_process_sees_what_it_logged_itself(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home")
    del machine.environ["METRANA_DIR"]
    done = machine.python("""
    import time
    from metrana.query import Client

    run = metrana.init(config={"lr": 0.1}, batch_max_age_secs=0.05)
    run.log("loss", [3.0, 2.0])
    client = Client()
    deadline = time.monotonic() + 30
    while not (rows := client.runs(as_="arrow").to_pylist()) or rows[0]["point_count"] < 2:
        assert time.monotonic() < deadline, "what is sealed was never seen"
        time.sleep(0.05)
    assert (rows[0]["run_name"], rows[0]["status"]) == (run.run_name, "running"), rows

    run.log("loss", 1.0)
    run.log_config({"more": [1, 2]})
    run.flush()
    points = client.points(run.run_name, "loss")
    assert list(points["value"]) == [3.0, 2.0, 1.0], points
    assert list(points["step"]) == [0, 1, 2], points
    assert client.run(run.run_name).config == {"lr": 0.1, "more": [1, 2]}
    assert client.run(run_id=run.run_id).run_name == run.run_name

    run.log("loss", 0.5)
    metrana.close()
    info = client.run(run.run_name)
    assert (info.status, info.point_count) == ("finished", 4), info
    """)
    assert done.stderr.count("\n") == 1, done.stderr
    assert "metrana ui" in done.stderr
    assert (machine.folder / ".metrana" / "spool").is_dir()
    assert sorted(path.name for path in machine.folder.iterdir()) == [".metrana"]
