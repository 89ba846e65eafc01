"""A later job goes on with a run: steps, episodes and steps in an episode continue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metrana.query import Client
from tests.local_server import LocalServer
from tests.processes import Machine

FIRST = """
with metrana.init(run_name="r") as run:
    run.log("loss", [1, 2, 3])
    run.log("loss", 4, step=10)
    run.log("loss", 5, step=2)
    run.log("loss", 6, labels={"split": "test"})
    run.log_rl_episode("return", [1, 2], rl_step=5, env_id="ended")
    run.log_rl_environment_step("reward", [1, 2, 3], rl_step=6, env_id="running", episode=4)
"""
SECOND = """
with metrana.init(run_name="r", resume_strategy="allow") as run:
    known = [
        run.get_last_step("loss"),
        run.get_last_step("loss", labels={"split": "test"}),
        run.get_last_step("loss", labels={"split": "none"}),
        run.get_env_last_rl_step_and_episode("ended"),
        run.get_env_last_rl_step_and_episode("running"),
        run.get_env_last_rl_step_and_episode("new"),
    ]
    run.log("loss", 7)
    run.log("loss", 8, labels={"split": "test"})
    # An EPISODE point of episode 1 ended it.
    run.log_rl_environment_step("reward", 4, rl_step=5, env_id="ended")
    run.log_rl_episode("return", 3, rl_step=5, env_id="ended")
    run.log_rl_environment_step("reward", [5, 6], rl_step=7, env_id="running")
    run.log_rl_environment_step("reward", 7, rl_step=7, env_id="running", episode=5)
    run.log_rl_environment_step("reward", 8, rl_step=0, env_id="new")
print(json.dumps(known))
"""


def positions(
    client: Client, project: str, metric_name: str, *columns: str, **wanted: Any
) -> list[tuple[Any, ...]]:
    """Where the values of a metric are, in the order they are shown."""
    table = client.points("r", metric_name, project_name=project, as_="arrow", **wanted)
    return list(zip(*(table[name].to_pylist() for name in (*columns, "value")), strict=True))


def test_a_later_job_goes_on_where_the_run_is(
    machine: Callable[[str], Machine], client: Client, project: str
) -> None:
    machine("first").python(FIRST)
    assert machine("second").answer(SECOND) == [10, 0, None, [5, 1], [6, 4], [None, None]]

    plain = positions(client, project, "loss", "step", labels={})
    assert plain == [(0, 1), (1, 2), (2, 5), (10, 4), (11, 7)]
    test = positions(client, project, "loss", "step", labels={"split": "test"})
    assert test == [(0, 6), (1, 8)]
    episodes = positions(client, project, "return", "rl_step", "episode")
    assert episodes == [(5, 0, 1), (5, 1, 2), (5, 2, 3)]
    rewards = positions(client, project, "reward", "env_id", "rl_step", "episode", "step")
    assert sorted(rewards) == [
        ("ended", 5, 2, 0, 4),
        ("new", 0, 0, 0, 8),
        ("running", 6, 4, 0, 1),
        ("running", 6, 4, 1, 2),
        ("running", 6, 4, 2, 3),
        ("running", 7, 4, 3, 5),
        ("running", 7, 4, 4, 6),
        ("running", 7, 5, 0, 7),
    ]
    assert list(client.runs(project)["run_name"]) == ["r"]


def test_an_episode_that_a_kill_cut_short_goes_on_where_it_was(
    mode: str,
    elsewhere: LocalServer,
    machine: Callable[[str], Machine],
    client: Client,
    project: str,
) -> None:
    user = machine("only")
    for job in range(3):
        # Nothing was flushed: what the ring holds is where the next job goes on.
        user.python(
            f"""
            import os, signal
            run = metrana.init(run_name="r", resume_strategy="allow")
            last = run.get_env_last_rl_step_and_episode("e")
            assert last == ((None, None), (0, 7), (1, 7))[{job}], last
            for value in range(10):
                episode = 7 if {job} == value == 0 else None
                run.log_rl_environment_step("reward", {job} * 10 + value, {job}, "e", episode)
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            code=-9,
        )
    with_the_rest = user.answer("""
    with metrana.init(run_name="r", resume_strategy="allow") as run:
        print(json.dumps(run.get_env_last_rl_step_and_episode("e")))
        run.log_rl_episode("return", 435, rl_step=2, episode=7, env_id="e")
        run.log_rl_environment_step("reward", 30, rl_step=3, env_id="e")
    """)
    assert with_the_rest == [2, 7]
    if mode == "online":  # the jobs may have ended before they had delivered what others left
        user.command("sync", "--url", elsewhere.grpc_url)
    rewards = positions(client, project, "reward", "rl_step", "episode", "step")
    assert rewards == [(step // 10, 7, step, step) for step in range(30)] + [(3, 8, 0, 30)]
    episodes = client.episodes("r", project_name=project, as_="arrow").to_pylist()
    assert [(row["episode"], row["episode_length"], row["episode_return"]) for row in episodes] == [
        (7, 30, 435),
        (8, 1, 30),
    ]


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_an_episode_that_went_back_moves_no_cursor_back(
    mode: str,
    end: str,
    elsewhere: LocalServer,
    machine: Callable[[str], Machine],
    client: Client,
    project: str,
) -> None:
    user = machine("only")
    first = """
    import os, signal
    run = metrana.init(run_name="r")
    run.log_rl_environment_step("reward", [1, 2, 3], rl_step=0, env_id="e", episode=5)
    run.log_rl_environment_step("reward", [4], rl_step=1, env_id="e", episode=3)
    run.log_rl_episode("return", 6, rl_step=0, env_id="f", episode=5)
    run.log_rl_episode("return", 4, rl_step=1, env_id="f", episode=3)
    """
    if end == "closed":
        user.python(f"{first}\n    run.close()")
    else:
        user.python(f"{first}\n    os.kill(os.getpid(), signal.SIGKILL)", code=-9)
    if mode == "online":
        user.command("sync", "--url", elsewhere.grpc_url)
    machine("only").python("""
    with metrana.init(run_name="r", resume_strategy="allow") as run:
        assert run.get_env_last_rl_step_and_episode("e") == (1, 5)
        run.log_rl_environment_step("reward", 5, rl_step=2, env_id="e")
        run.log_rl_episode("return", 7, rl_step=2, env_id="f")
    """)
    # Automatic numbers go on behind the greatest ones, and hide nothing.
    rewards = positions(client, project, "reward", "rl_step", "episode", "step")
    assert rewards == [(0, 5, 0, 1), (0, 5, 1, 2), (0, 5, 2, 3), (1, 3, 0, 4), (2, 5, 3, 5)]
    steps = client.env_steps("r", "reward", "e", 5, project_name=project)
    assert list(steps["value"]) == [1, 2, 3, 5]
    returns = positions(client, project, "return", "rl_step", "episode")
    assert returns == [(0, 5, 6), (1, 3, 4), (2, 6, 7)]


def test_a_run_id_alone_goes_on_with_its_run(
    machine: Callable[[str], Machine], client: Client, project: str
) -> None:
    user = machine("any")
    run_id = user.answer("""
    with metrana.init(run_name="r") as run:
        run.log("loss", [1, 2])
    print(json.dumps(run.run_id))
    """)
    # The id is enough: project and name are what the run has.
    names = user.answer(f"""
    with metrana.init(run_id="{run_id}") as run:
        run.log("loss", 3)
    print(json.dumps([run.project_name, run.run_name]))
    """)
    assert names == [project, "r"]
    assert positions(client, project, "loss", "step") == [(0, 1), (1, 2), (2, 3)]


def test_a_rewind_replaces_equal_positions_only(
    machine: Callable[[str], Machine], client: Client, project: str
) -> None:
    machine("first").python("""
    with metrana.init(run_name="r") as run:
        for rl_step in range(4):
            run.log_rl_episode("return", rl_step, rl_step=rl_step, episode=rl_step)
            run.log("loss", rl_step)
    """)
    machine("second").python("""
    with metrana.init(run_name="r", resume_strategy="allow") as run:
        run.log_rl_episode("return", 20, rl_step=2, episode=2)
        run.log("loss", 20, step=2)
        try:
            run.log_rl_episode("return", 10, rl_step=1, episode=1)
        except metrana.MetranaValidationError as error:
            assert "rl_step" in str(error) and "2" in str(error), error
        else:
            raise SystemExit("went back within one writer")
    """)
    assert positions(client, project, "loss", "step") == [(0, 0), (1, 1), (2, 20), (3, 3)]
    assert positions(client, project, "return", "rl_step", "episode") == [
        (0, 0, 0),
        (1, 1, 1),
        (2, 2, 20),
        (3, 3, 3),
    ]
    every = positions(client, project, "loss", "step", duplicates="all")
    assert sorted(every) == [(0, 0), (1, 1), (2, 2), (2, 20), (3, 3)]
