"""Writers one after the other against a model: each goes on from all that was logged before."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrana
from metrana import Run
from metrana.query import Client
from tests.local_server import LocalServer

ENV_IDS = ["a", "b"]
STEPS, EPISODES = "ENVIRONMENT_STEP", "EPISODE"


@dataclass
class Position:
    """Where a point is."""

    scale: str
    metric: str
    env_id: str
    rl_step: int
    episode: int
    step: int | None


@dataclass
class Model:
    """What the contract says of automatic numbers, from every point of all writers so far."""

    points: list[Position] = field(default_factory=list)
    # Of the writer that lives: the episode that steps without one belong to; of a metric and an
    # environment, the episode of the last step, and that step.
    current: dict[str, int] = field(default_factory=dict)
    last: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def resume(self) -> None:
        """Another writer begins: it knows the greatest of everything."""
        self.current, self.last = {}, {}
        for point in self.points:
            follows = point.episode + (point.scale == EPISODES)
            self.current[point.env_id] = max(self.current.get(point.env_id, 0), follows)
            if point.step is not None:
                series = (point.metric, point.env_id)
                reached = (point.episode, point.step)
                self.last[series] = max(self.last.get(series, reached), reached)

    def log(self, scale: str, metric: str, env_id: str, rl_step: int, episode: int | None) -> None:
        """Adds the point that a call makes."""
        current, step = self.current.get(env_id, 0), None
        if scale == EPISODES:
            if episode is None:
                episode = 1 + max((p.episode for p in self.of(scale, metric, env_id)), default=-1)
            self.current[env_id] = max(current, episode + 1)
        else:
            episode = current if episode is None else episode
            last = self.last.get((metric, env_id), (None, -1))
            step = last[1] + 1 if last[0] == episode else 0
            self.current[env_id] = episode
            self.last[metric, env_id] = (episode, step)
        self.points.append(Position(scale, metric, env_id, rl_step, episode, step))

    def of(self, scale: str, metric: str, env_id: str) -> Iterator[Position]:
        """The points of a series."""
        series = (scale, metric, env_id)
        return (p for p in self.points if (p.scale, p.metric, p.env_id) == series)

    def reached(self, env_id: str) -> tuple[int | None, int | None]:
        """The greatest rl_step and episode of an environment."""
        points = [point for point in self.points if point.env_id == env_id]
        return (
            max((point.rl_step for point in points), default=None),
            max((point.episode for point in points), default=None),
        )


CALLS = st.tuples(
    st.sampled_from([STEPS, STEPS, EPISODES]),
    st.sampled_from(["reward", "cost"]),
    st.sampled_from(ENV_IDS),
    st.integers(0, 1),
    st.none() | st.integers(0, 3),
)
# The first rl_step of each, which may be below what others reached, and what it logs.
WRITERS = st.lists(st.tuples(st.integers(0, 4), st.lists(CALLS, max_size=12)), max_size=4)

_run_names = (f"run-{number}" for number in count())


def _write(run: Run, rl_step: int, calls: list[Any], model: Model) -> None:
    for scale, metric, env_id, later, episode in calls:
        rl_step += later
        log = run.log_rl_episode if scale == EPISODES else run.log_rl_environment_step
        log(metric, len(model.points), rl_step, env_id=env_id, episode=episode)
        model.log(scale, metric, env_id, rl_step, episode)


def _check(writers: list[tuple[int, list[Any]]], client: Client, **place: Any) -> None:
    model = Model()
    place |= {"run_name": next(_run_names), "resume_strategy": "allow"}
    for rl_step, calls in writers:
        model.resume()
        with metrana.init(**place) as run:
            for env_id in ENV_IDS:
                assert run.get_env_last_rl_step_and_episode(env_id) == model.reached(env_id)
            _write(run, rl_step, calls, model)
            for env_id in ENV_IDS:
                assert run.get_env_last_rl_step_and_episode(env_id) == model.reached(env_id)
    if not writers:
        return
    rows = client.points(place["run_name"], duplicates="all", as_="arrow").to_pylist()
    rows.sort(key=lambda row: row["value"])
    names = ("scale", "metric_name", "env_id", "rl_step", "episode", "step")
    assert [Position(*(row[name] for name in names)) for row in rows] == model.points


@given(WRITERS)
@settings(max_examples=40, deadline=None)
def test_offline_each_writer_goes_on_from_all_before(writers: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        _check(writers, Client(data_dir=data_dir), data_dir=data_dir, mode="offline")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """Gets what the writers of all examples log."""
    with LocalServer(tmp_path_factory.mktemp("server"), "--no-token") as server:
        yield server


@given(writers=WRITERS)
@settings(max_examples=40, deadline=None)
def test_online_each_writer_goes_on_from_all_before(
    server: LocalServer, tmp_path_factory: pytest.TempPathFactory, writers: list[Any]
) -> None:
    # Nothing of an earlier writer is left here: the server says where it was.
    place = {"mode": "online", "ingestion_url": server.grpc_url}
    with Client(server.http_url) as client:
        _check(writers, client, data_dir=tmp_path_factory.mktemp("machine"), **place)
