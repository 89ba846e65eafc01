"""The same against a real server: what arrives is what was played."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import metrana
from metrana.integrations import _env_runs
from metrana.integrations.gymnasium import MetranaEnvWrapper, MetranaVectorEnvWrapper
from metrana.query import Client
from tests.conformance.gymnasium.environments import Drawn, makers, replay
from tests.conformance.gymnasium.test_vector import play
from tests.local_server import LocalServer


def test_a_training_and_its_evaluation_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METRANA_MODE")
    with LocalServer(tmp_path / "server") as server:
        monkeypatch.setenv("METRANA_DIR", str(server.data_dir))
        init_args = {"run_name": "served", "mode": "online"}
        envs = MetranaVectorEnvWrapper(
            SyncVectorEnv(
                makers(4, render_mode="rgb_array"), autoreset_mode=AutoresetMode.SAME_STEP
            ),
            env_id="e",
            init_args=init_args,
            episode_trigger=lambda episode: episode == 2,
        )
        play(envs, 60)
        evaluation = MetranaEnvWrapper(gym.make("CartPole-v1"), evaluation=True)
        evaluation.reset(seed=0)
        while not np.any(evaluation.step(0)[2:4]):
            pass
        evaluation.close()
        envs.close()
        assert not metrana.is_initialized()
        with Client(server.http_url, data_dir=server.data_dir) as client:
            episodes = client.episodes("served")
            renderings = client.renderings("served")
    training = episodes[episodes["env_id"] != "CartPole-v1-eval-0"]
    for index in range(4):
        rows = training[(training["env_id"] == f"e-{index}") & (training["end"].notna())]
        rows = rows[rows["end"] != "aborted"].sort_values("episode")
        alone = replay(7 + index, len(rows))
        assert rows["episode_return"].tolist() == [e.record["episode_return"] for e in alone]
        assert rows["episode_length"].tolist() == [len(e.rewards) for e in alone]
    (evaluated,) = episodes[episodes["env_id"] == "CartPole-v1-eval-0"].to_dict("records")
    assert evaluated["last_rl_step"] == 240
    assert evaluated["end"] == "terminated"
    (video,) = renderings.to_dict("records")
    assert (video["env_id"], video["episode"]) == ("e-0", 2)
    assert video["frame_count"] == len(replay(7, 3)[2].rewards) + 1


def test_closing_environments_waits_once_for_a_server_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METRANA_MODE")
    monkeypatch.setattr(_env_runs, "_FLUSH_TIMEOUT_S", 0.5)
    with LocalServer(tmp_path / "server") as server:
        run = metrana.init(mode="online", data_dir=server.data_dir)
        envs = [MetranaEnvWrapper(Drawn()) for _ in range(3)]
        server.kill()
        for env in envs:
            env.reset(seed=0)
            env.step(0)
        assert run not in _env_runs._late
        for env in envs:
            env.close()
            assert run in _env_runs._late
        assert [env.faults.count for env in envs] == [0, 0, 0]
        with pytest.warns(metrana.MetranaWarning, match="has not acknowledged"):
            run.close(0.1)
