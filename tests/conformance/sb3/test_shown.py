"""What README and examples show of the adapter runs as it stands there."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import metrana
from metrana.query import Client

ROOT = Path(__file__).parents[3]


@pytest.fixture
def data_dir(offline: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs go that say nothing of it."""
    monkeypatch.setenv("METRANA_MODE", "offline")
    monkeypatch.setenv("METRANA_DIR", str(offline["data_dir"]))
    return Path(offline["data_dir"])


def test_the_readme_logs_a_training(data_dir: Path) -> None:
    _, _, text = (ROOT / "README.md").read_text().partition("\n### Stable-Baselines3\n")
    block = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert block is not None
    exec(block[1], {})
    assert not metrana.is_initialized()
    with Client(data_dir=data_dir) as client:
        names = set(client.series("ppo", project_name="quickstart")["metric_name"])
    assert {"rollout/ep_rew_mean", "train/loss", "reward", "episode_return"} <= names


def test_the_example_has_evaluations_and_videos(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--timesteps=1024", "--eval-freq=512"]
    monkeypatch.setattr(sys, "argv", ["sb3_ppo.py", *arguments])
    runpy.run_path(str(ROOT / "examples" / "sb3_ppo.py"), run_name="__main__")
    with Client(data_dir=data_dir) as client:
        run = {"run_name": "sb3-ppo", "project_name": "cartpole"}
        evaluations = client.points(metric_name="eval/mean_reward", **run)
        videos = client.renderings(**run)
    assert evaluations["step"].tolist() == [512, 1024]
    found = zip(videos["env_id"], videos["episode"], videos["rl_step"], strict=True)
    assert sorted(found) == [("CartPole-v1-eval-0", 0, 512), ("CartPole-v1-eval-0", 5, 1024)]
