"""Episodes and statistics over environments, of runs that the real client logged."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import metrana
from metrana.errors import MetranaValidationError
from metrana.query import Client
from tests.integration.query import rl_model
from tests.integration.query.recorded import PROJECT, RUN
from tests.integration.query.rl_model import Logged, assert_rows
from tests.local_server import LocalServer, wait_until

SEEDS = (1, 2, 3)
ENV_IDS = [f"env-{number}" for number in (3, 1, 2, 0)]
SPECIAL = [math.nan, math.inf, -math.inf, 0.0]
ENDINGS = ("terminated", "truncated")


class Rollouts:
    """Logs random rollouts of every environment; can go on from an earlier point."""

    def __init__(self, run: metrana.Run, rng: np.random.Generator) -> None:
        self._run = run
        self._rng = rng
        self.episodes = dict.fromkeys(ENV_IDS, 0)

    def log(self, rl_step: int) -> None:
        for env_id in ENV_IDS:
            for evaluation in (False, True):
                if self._rng.random() < (0.3 if evaluation else 0.8):
                    self._log_steps(env_id, rl_step, evaluation)
            if self._rng.random() < 0.4:
                self._end(env_id, rl_step)

    def _log_steps(self, env_id: str, rl_step: int, evaluation: bool) -> None:
        # One environment has no reward: its other metrics tell of its episodes.
        names = ("speed",) if env_id == ENV_IDS[-1] else ("reward", "speed")
        for name in names:
            self._run.log_rl_environment_step(
                name,
                self._values(self._rng.integers(1, 4)),
                rl_step,
                env_id=env_id,
                episode=self.episodes[env_id],
                evaluation=evaluation,
            )

    def _end(self, env_id: str, rl_step: int) -> None:
        episode = self.episodes[env_id]
        self.episodes[env_id] += 1
        # Some are cut off, and of some little is known.
        chosen = [name for name in ("episode_return", "episode_length") if self._rng.random() < 0.6]
        chosen += [name for name in ENDINGS if self._rng.random() < 0.5]
        for name in chosen:
            is_ending = name in ENDINGS
            value = self._rng.integers(0, 2) if is_ending else self._values(1)[0]
            labels = {"policy": "greedy", "k": "1"} if self._rng.random() < 0.2 else None
            self._run.log_rl_episode(name, value, rl_step, episode, env_id, labels)

    def _values(self, count: int) -> Any:
        values = self._rng.normal(size=count)
        values[self._rng.random(count) < 0.1] = self._rng.choice(SPECIAL)
        return values


def record(data_dir: Path, seed: int) -> None:
    """Logs a run; a second writer resumes it at an earlier rl_step and episode."""
    rng = np.random.default_rng(seed)
    at_checkpoint: dict[str, int] = {}
    for writer, rl_steps in enumerate((range(20), range(10, 26))):
        with metrana.init(
            run_name=f"rl-{seed}", data_dir=data_dir, mode="offline", resume_strategy="allow"
        ) as run:
            run.log("writer", writer)
            for env_id in ENV_IDS:
                run.log_rl_environment_step("speed", 1.0, rl_steps[0], env_id, episode=0)
            rollouts = Rollouts(run, rng)
            rollouts.episodes |= at_checkpoint
            for rl_step in rl_steps:
                if writer == 0 and rl_step == 10:
                    at_checkpoint = dict(rollouts.episodes)
                rollouts.log(rl_step)


@pytest.fixture(scope="module")
def rl_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rl") / "data"
    for seed in SEEDS:
        record(directory, seed)
    return directory


@pytest.fixture(scope="module", params=["embedded", "remote"])
def rl_client(
    request: pytest.FixtureRequest, rl_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """Reads the runs without a server and with one, each from a copy of the spools."""
    own = tmp_path_factory.mktemp(request.param) / "data"
    shutil.copytree(rl_dir / "spool", own / "spool")
    if request.param == "embedded":
        yield Client(data_dir=own)
        return
    with LocalServer(own), Client(data_dir=own) as remote:
        wait_until(lambda: list(remote.runs()["status"]) == ["finished"] * 3, what="delivery")
        yield remote


def logged(client: Client, seed: int) -> list[Logged]:
    """Every point of a run, from the one read that hides nothing."""
    rows = client.points(f"rl-{seed}", duplicates="all", as_="arrow").to_pylist()
    writers = {row["writer_id"]: row["value"] for row in rows if row["metric_name"] == "writer"}
    return [
        Logged(
            row["metric_name"],
            row["scale"],
            tuple(sorted(dict(row["labels"]).items())),
            row["env_id"],
            row["rl_step"],
            row["episode"],
            row["step"],
            row["value"],
            (writers[row["writer_id"]], row["rl_step"] or 0, place),
        )
        for place, row in enumerate(rows)
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_episodes_of_a_resumed_run_equal_the_model(rl_client: Client, seed: int) -> None:
    expected = rl_model.episodes(logged(rl_client, seed), ENV_IDS, is_running=False)
    assert len({row["end"] for row in expected}) == 5
    assert_rows(rl_client.episodes(f"rl-{seed}", as_="arrow").to_pylist(), expected)
    of_one = [row for row in expected if row["env_id"] == ENV_IDS[1]]
    found = rl_client.episodes(f"rl-{seed}", env_id=ENV_IDS[1], as_="arrow").to_pylist()
    known = set(found[0])
    assert_rows(found, [{name: row[name] for name in known} for row in of_one])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("by", ["rl_step", "episode", "step"])
@pytest.mark.parametrize("labels", [{}, {"evaluation": "true"}], ids=["training", "evaluation"])
def test_statistics_of_a_resumed_run_equal_the_model(
    rl_client: Client, seed: int, by: str, labels: dict[str, str]
) -> None:
    points = [
        point
        for point in logged(rl_client, seed)
        if point.metric == "reward" and dict(point.labels) == labels
    ]
    quantiles = [0.0, 0.05, 0.3, 1.0]
    table = rl_client.aggregate(
        f"rl-{seed}",
        "reward",
        by=by,
        labels=labels,
        stats=["mean", "std", "min", "max", "median", "sum", "count"],
        quantiles=quantiles,
        start=1,
        end=20,
        as_="arrow",
    )
    expected = rl_model.aggregate(points, by, quantiles, 1, 20)
    assert len(expected) > 1
    assert_rows(table.to_pylist(), expected)


def test_episodes_have_the_contracts_columns_and_types(client: Client) -> None:
    frame = client.episodes(RUN, project_name=PROJECT)
    assert list(frame.columns) == rl_model.FIXED
    assert {name: str(dtype) for name, dtype in frame.dtypes.items() if name != "rendering_id"} == {
        "env_id": "category",
        "episode": "int64",
        "first_rl_step": "Int64",
        "last_rl_step": "Int64",
        "episode_length": "float64",
        "episode_return": "float64",
        "end": "category",
        "evaluation": "bool",
    }
    assert frame["rendering_id"].isna().all()
    told = frame[["env_id", "episode", "evaluation", "episode_length", "episode_return"]]
    assert told.to_numpy().tolist() == [
        ["e-0", 0, False, 4.0, 6.0],
        ["e-0", 1, False, 4.0, 46.0],
        ["e-0", 2, False, 4.0, 86.0],
        ["e-0", 0, True, 2.0, 2.0],
        ["e-1", 0, False, 4.0, 22.0],
        ["e-1", 1, False, 4.0, 62.0],
        ["e-1", 2, False, 4.0, 102.0],
    ]
    assert list(frame["first_rl_step"]) == [0, 100, 200, 300, 0, 100, 200]
    assert list(frame["last_rl_step"]) == [4, 104, 204, 300, 4, 104, 204]
    # Nobody logged how they ended; the evaluation never logged that its episode did.
    assert [None if pd.isna(end) else end for end in frame["end"]] == [
        *(None, None, None, "aborted"),
        *(None, None, None),
    ]


def test_a_run_without_environments_has_no_episodes(client: Client) -> None:
    frame = client.episodes("empty", project_name="other")
    assert list(frame.columns) == rl_model.FIXED
    assert len(frame) == 0


def test_aggregate_means_the_metric_without_labels_unless_told(client: Client) -> None:
    def rows(**named: Any) -> list[list[float]]:
        frame = client.aggregate(RUN, "reward", project_name=PROJECT, stats=["mean"], **named)
        assert list(frame.columns) == ["rl_step", "mean", "env_count"]
        assert [str(dtype) for dtype in frame.dtypes] == ["int64", "float64", "int64"]
        return frame.to_numpy().tolist()  # type: ignore[no-any-return]

    assert rows() == [[0.0, 3.5, 2.0], [100.0, 13.5, 2.0], [200.0, 23.5, 2.0]]
    assert rows(labels={"evaluation": "true"}) == [[300.0, 1.0, 1.0]]
    assert rows(start=100, end=101) == [[100.0, 13.5, 2.0]]


def test_columns_are_in_the_order_asked_for(client: Client) -> None:
    frame = client.aggregate(
        RUN,
        "episode_return",
        by="episode",
        stats=["max", "count", "max"],
        quantiles=[1, 0.125, 0.0],
        project_name=PROJECT,
    )
    assert list(frame.columns) == ["episode", "max", "count", "q1", "q0.125", "q0", "env_count"]
    only = client.aggregate(RUN, "reward", stats=[], quantiles=[0.5], project_name=PROJECT)
    assert list(only.columns) == ["rl_step", "q0.5", "env_count"]


def test_a_metric_without_environments_counts_as_one(client: Client) -> None:
    frame = client.aggregate(RUN, "odd", by="step", project_name=PROJECT)
    assert list(frame["env_count"]) == [0, 0, 0, 1, 1]
    assert frame["mean"].isna().tolist() == [True, True, True, False, False]
    loggers = client.aggregate(RUN, "throughput", by="step", project_name=PROJECT)
    assert list(loggers["mean"]) == [15.0, 16.0, 17.0, 18.0]


def test_aggregate_needs_one_metric(tmp_path: Path) -> None:
    with metrana.init(run_name="r", data_dir=tmp_path, mode="offline") as run:
        for env_id, labels in (("a", {"k": "1"}), ("b", {"k": "2"})):
            run.log_rl_environment_step("x", 1.0, 0, env_id, labels=labels)
            run.log_rl_episode("y", 1.0, 0, env_id=env_id)
            run.log_rl_environment_step("y", 3.0, 0, env_id)
    client = Client(data_dir=tmp_path)
    with pytest.raises(MetranaValidationError, match=r"^labels: must choose"):
        client.aggregate("r", "x")
    assert client.aggregate("r", "x", labels={"k": "2"})["env_count"].tolist() == [1]
    with pytest.raises(MetranaValidationError, match=r"^scale: must choose"):
        client.aggregate("r", "y")
    assert client.aggregate("r", "y", scale="EPISODE")["mean"].tolist() == [1.0]


def test_the_last_episode_of_a_running_run_goes_on(tmp_path: Path) -> None:
    def ends() -> list[str | None]:
        table = Client(data_dir=tmp_path).episodes("r", as_="arrow")
        found: list[str | None] = table["end"].to_pylist()
        return found

    with metrana.init(run_name="r", data_dir=tmp_path, mode="offline") as run:
        for episode in range(3):
            run.log_rl_environment_step("reward", [1.0, 2.0], episode, "a", episode=episode)
        run.log_rl_episode("terminated", 1.0, 0, episode=0, env_id="a")
        run.flush()
        assert ends() == ["terminated", "aborted", None]
    assert ends() == ["terminated", "aborted", "aborted"]
