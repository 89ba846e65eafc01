"""Who joins a run, who is refused, and whose config it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metrana.query import Client
from tests.processes import Machine

Machines = Callable[[str], Machine]

JOIN = """
with metrana.init(run_name="r") as run:
    run.log_distributed("x", 1, step=0)
print(json.dumps(run.run_id))
"""


def test_another_job_is_refused_naming_both_and_leaves_nothing(
    machine: Machines, client: Client, project: str
) -> None:
    machine("first").python(JOIN, METRANA_ORCHESTRATION_ID="job-one")
    refused = (
        machine("second")
        .python(
            """
        try:
            metrana.init(run_name="r")
        except metrana.MetranaOrchestrationIdMismatchError as error:
            assert isinstance(error, metrana.MetranaRunAlreadyExistsError)
            assert not metrana.is_initialized()
            print(error)
        """,
            METRANA_ORCHESTRATION_ID="job-two",
        )
        .stdout
    )
    assert "job-one" in refused
    assert "job-two" in refused
    assert list(client.runs(project)["point_count"]) == [1]


def test_siblings_of_a_job_join(machine: Machines, client: Client, project: str) -> None:
    ranks = [
        machine(f"node-{rank}").answer(JOIN, TORCHELASTIC_RUN_ID="launch", RANK=str(rank))
        for rank in range(3)
    ]
    assert len(set(ranks)) == 1
    points = client.points("r", "x", project_name=project, as_="arrow")
    assert sorted(points["logger_id"].to_pylist()) == ["0", "1", "2"]


def test_a_child_process_joins_by_the_environment(
    machine: Machines, client: Client, project: str
) -> None:
    parent = machine("any")
    script = f"""
    import os, subprocess, sys
    assert "METRANA_ORCHESTRATION_ID" not in os.environ
    run = metrana.init(run_name="r")
    run.log("parent", 1)
    assert os.environ["METRANA_ORCHESTRATION_ID"] == run.orchestration_id
    child = "import json, metrana" + {JOIN!r}
    found = subprocess.run([sys.executable, "-c", child], capture_output=True, check=True)
    run.close()
    print(json.dumps([run.run_id, json.loads(found.stdout)]))
    """
    mine, childs = parent.answer(script)
    assert mine == childs
    assert sorted(client.series("r", project_name=project)["metric_name"]) == ["parent", "x"]


def _with_commit(machine: Machine, digit: str) -> Machine:
    """The machine, with a repository checked out where its processes work."""
    (machine.folder / ".git").mkdir(exist_ok=True)
    (machine.folder / ".git" / "HEAD").write_text(digit * 40)
    return machine


def test_only_the_creator_describes_the_run(
    machine: Machines, client: Client, project: str
) -> None:
    job = {"METRANA_ORCHESTRATION_ID": "job"}
    _with_commit(machine("first"), "a").python(
        """
        metrana.init(
            run_name="r", config={"lr": 1, "net": {"depth": 2}}, tags=["a"], description="first",
            experiment_name="sweep",
        ).close()
        """,
        **job,
    )
    _with_commit(machine("second"), "b").python(
        """
        with metrana.init(
            run_name="r", config={"lr": 9, "more": 9}, tags=["b"], description="second",
        ) as run:
            run.log_config({"net": {"width": 3}})
            run.add_tags(["c"])
            run.log_attributes("note", "from a sibling")
        """,
        **job,
    )
    info = client.run("r", project_name=project)
    assert info.config == {"lr": 1, "net": {"depth": 2, "width": 3}}
    assert (info.tags, info.description) == (["a", "c"], "first")
    assert (info.git_sha, info.experiment_name) == ("a" * 40, "sweep")
    assert info.attributes["note"] == "from a sibling"
    assert info.status == "finished"


def test_the_run_that_a_process_forks_off_is_its_own(tmp_path: Path) -> None:
    # Two scripts of one user, started one after the other, have nothing in common.
    machine = Machine(tmp_path, METRANA_MODE="offline")
    machine.python("metrana.init(run_name='r').close()")
    again = machine.python("metrana.init(run_name='r')", code=1)
    assert "MetranaOrchestrationIdMismatchError" in again.stderr
    assert "resume_strategy" in again.stderr
