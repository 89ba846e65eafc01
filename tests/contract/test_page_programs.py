"""Programs of the kind the system's description shows, run unchanged and read back.

Each runs twice: without a server, as whoever tries metrana first does, and against one that asks
for a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metrana.query import Client
from tests.local_server import LocalServer
from tests.processes import Machine

KEY = "a-key-of-mine"

# What the description leaves to its reader.
NAMES = """
import numpy as np
a, b, c = 1.0, 2.0, 3.0
env_ids = [f"env-{i}" for i in range(8)]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("served"), "--token", KEY) as running:
        yield running


class Programs:
    """Runs programs, then reads what they logged."""

    def __init__(self, machine: Machine, client: Client) -> None:
        self.machine = machine
        self.client = client

    def run(self, program: str, **environ: str) -> str:
        """Runs one as it is; a warning fails it."""
        done = self.machine.python(f"{NAMES}\n{program}", **environ)
        assert "Warning" not in done.stderr
        return done.stdout

    def points(self, run: str, metric_name: str, *columns: str, **wanted: Any) -> list[Any]:
        """The columns and the value of a metric's points."""
        table = self.client.points(run, metric_name, as_="arrow", **wanted)
        return list(zip(*(table[name].to_pylist() for name in (*columns, "value")), strict=True))


@pytest.fixture(params=["no server", "server"])
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Programs]:
    if request.param == "no server":
        machine = Machine(tmp_path)
        with machine.client() as client:
            yield Programs(machine, client)
        return
    server: LocalServer = request.getfixturevalue("server")
    url = {"METRANA_INGESTION_URL": server.grpc_url, "METRANA_API_KEY": KEY}
    with Client(server.http_url, api_key=KEY) as client:
        yield Programs(Machine(tmp_path, **url), client)


def test_a_training_run(programs: Programs) -> None:
    programs.run(f"""
import metrana

metrana.init(
    api_key="{KEY}",
    workspace_name="team",
    project_name="vision",
    run_name="baseline",
)
for epoch in range(4):
    metrana.log("train/loss", 1 / (epoch + 1))
    metrana.log({{"val/accuracy": epoch / 4, "lr": 1e-3}})
metrana.close()
""")
    where = {"project_name": "vision", "workspace_name": "team"}
    assert programs.points("baseline", "train/loss", "step", **where) == [
        (step, 1 / (step + 1)) for step in range(4)
    ]
    assert len(programs.points("baseline", "lr", **where)) == 4
    assert programs.client.run("baseline", **where).status == "finished"


def test_a_reinforcement_learning_run(programs: Programs) -> None:
    programs.run(f"""
import metrana

metrana.init(api_key="{KEY}", workspace_name="team", project_name="atari", run_name="ppo")
for update in range(3):
    metrana.log_rl_episode("episode_return", 10.0 * update, rl_step=update, episode=update)
    metrana.log_rl_environment_step(
        "reward", np.full(8, update), rl_step=update, env_id=env_ids, episode=[update] * 8
    )
    metrana.log_rl_environment_step(
        "action",
        np.zeros((8, 16), dtype=np.float32),
        rl_step=update,
        env_id=env_ids,
        episode=np.full((8, 16), update),
    )
assert metrana.get_env_last_rl_step_and_episode("env-7") == (2, 2)
metrana.close()
""")
    where = {"project_name": "atari", "workspace_name": "team"}
    returns = programs.points("ppo", "episode_return", "rl_step", "episode", **where)
    assert returns == [(0, 0, 0.0), (1, 1, 10.0), (2, 2, 20.0)]
    rewards = programs.points("ppo", "reward", "episode", "step", env_id="env-3", **where)
    assert rewards == [(0, 0, 0.0), (1, 0, 1.0), (2, 0, 2.0)]
    actions = programs.points("ppo", "action", "step", env_id="env-0", episode=1, **where)
    assert [step for step, _ in actions] == list(range(16))


def test_steps_series_and_the_last_step(programs: Programs) -> None:
    programs.run("""
import metrana

metrana.init(run_name="steps")
metrana.log("loss", 0.5)
metrana.log("loss", [a, b, c], step=100)
metrana.log("loss", np.array([a, b, c], dtype=np.float16), step=[10, 20, 30])
metrana.log("score", 1)
metrana.log("score", 2, evaluation=True)
metrana.log("score", 3, labels={"policy": "greedy"})
last = metrana.get_last_step("loss")
metrana.log("loss", 9.0, step=0 if last is None else last + 1)
metrana.close()
""")
    assert programs.points("steps", "loss", "step") == [
        *((0, 0.5), (10, 1.0), (20, 2.0), (30, 3.0), (100, 1.0), (101, 2.0), (102, 3.0), (103, 9.0))
    ]
    labelled = {(): 1.0, (("evaluation", "true"),): 2.0, (("policy", "greedy"),): 3.0}
    found = programs.points("steps", "score", "labels")
    assert {tuple(labels): value for labels, value in found} == labelled


def test_config_tags_and_description(programs: Programs) -> None:
    programs.run("""
import metrana

metrana.init(run_name="described", config={"seed": 1})
metrana.log_config({"model": {"layers": [64, 64], "name": "mlp"}, "batch": 256})
metrana.set_tags(["one", "two"])
metrana.add_tags(["three"])
metrana.remove_tags(["one"])
metrana.set_description("a first try")
metrana.log_attributes("data/version", "v3")
metrana.log_env_attributes("env-0", {"level": 2}, episode=1)
metrana.close()
""")
    info = programs.client.run("described")
    assert info.config == {"seed": 1, "model": {"layers": [64, 64], "name": "mlp"}, "batch": 256}
    assert (info.tags, info.description) == (["three", "two"], "a first try")
    assert info.attributes["data/version"] == "v3"
    (row,) = programs.client.env_attributes("described").to_dict("records")
    assert (row["env_id"], row["episode"], row["path"], row["value"]) == ("env-0", 1, "level", 2)


def test_ranks_that_their_launcher_names(programs: Programs) -> None:
    for rank in range(2):
        programs.run(
            f"""
import metrana

metrana.init(api_key="{KEY}", run_name="ranks")
metrana.log_distributed("loss", {rank}.0, step=7)
metrana.close()
""",
            TORCHELASTIC_RUN_ID="launch",
            RANK=str(rank),
            WORLD_SIZE="2",
        )
    found = programs.points("ranks", "loss", "logger_id", "step")
    assert sorted(found) == [("0", 7, 0.0), ("1", 7, 1.0)]


def test_delivery_before_speed_and_counters(programs: Programs) -> None:
    printed = programs.run("""
import metrana

metrana.init(
    run_name="careful",
    orchestration_id="job-7",
    backpressure_strategy="block",
    max_send_retries=None,
    queue_capacity=100_000,
)
before = metrana.get_metrics()
for step in range(1000):
    metrana.log("loss", step)
metrana.flush()
now = metrana.get_metrics()
print(now.float_points_added - before.float_points_added, now.float_points_dropped)
assert now.float_points_enqueued == now.float_points_added
assert metrana.check_sender_errors() == []
metrana.close(close_timeout=60)
""")
    assert printed.split() == ["1000", "0"]
    assert len(programs.points("careful", "loss")) == 1000
