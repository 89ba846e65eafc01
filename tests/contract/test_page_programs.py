"""Programs as the system's description shows them run unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICK_START = """
import metrana
metrana.init(
    api_key="your-api-key",
    workspace_name="my-workspace",
    project_name="my-project",
    run_name="run-001",
)
for step in range(num_steps):
    metrana.log("loss", loss)                       # one metric
    metrana.log({"accuracy": acc, "lr": lr})        # several at once
metrana.close()                                     # flush and shut down
"""

RL = """
import metrana
metrana.init(api_key="...", workspace_name="ws", project_name="proj", run_name="rl-001")
for rl_step in range(num_updates):
    metrana.log_rl_episode("episode_return", ep_return, rl_step=rl_step, episode=episode)
    metrana.log_rl_environment_step(
        "reward", rewards, rl_step=rl_step, env_id=env_ids, episode=episodes
    )
metrana.close()
"""

STEPS = """
metrana.init()
metrana.log("loss", 0.5)                       # auto: next step
metrana.log("loss", [a, b, c], step=100)       # steps 100, 101, 102
metrana.log("loss", [a, b, c], step=[10, 20, 30])
metrana.log("reward", train_reward)
metrana.log("reward", eval_reward, evaluation=True)
metrana.log("reward", r, labels={"policy": "greedy"})
last = metrana.get_last_step("loss")
next_step = 0 if last is None else last + 1
metrana.log("loss", loss, step=next_step)
assert next_step == 103
metrana.log_rl_environment_step("reward", rewards_8, rl_step=rl_step,
                                env_id=env_ids, episode=episodes)
metrana.log_rl_environment_step("reward", rewards_8x128, rl_step=rl_step,
                                env_id=env_ids, episode=episodes_8x128)
metrana.log_config({"optimizer": {"name": "adam", "lr": 3e-4}, "batch_size": 256})
metrana.set_tags(["baseline", "v2"])
metrana.add_tags(["ablation"])
metrana.remove_tags(["baseline"])
metrana.set_description("LR sweep, seed 0")
metrana.log_distributed("loss", loss, step=global_step)
m = metrana.get_metrics()
print(m.float_points_added, m.float_points_sent, m.float_points_dropped)
metrana.close()
"""

DELIVERY = """
metrana.init(
    backpressure_strategy="block",
    max_send_retries=None,
    queue_capacity=100_000,
)
metrana.log("loss", loss)
prev = metrana.get_metrics()
now = metrana.get_metrics()
sent_per_sec = (now.float_points_sent - prev.float_points_sent) / 10
backlog = now.float_points_added - now.float_points_sent
if now.float_points_dropped > prev.float_points_dropped:
    print("data loss in the last window")
metrana.check_sender_errors()
metrana.close(close_timeout=0)
"""

# What the page leaves to the reader.
NAMES = """
import numpy as np
import metrana
num_steps = num_updates = 3
loss, acc, lr, a, b, c = 0.5, 0.9, 1e-3, 1, 2, 3
train_reward = eval_reward = r = ep_return = 1.0
rl_step, episode, global_step = 4, 2, 10
env_ids = [f"env{i}" for i in range(8)]
rewards = rewards_8 = np.ones(8)
rewards_8x128 = np.ones((8, 128), dtype=np.float32)
episodes, episodes_8x128 = np.zeros(8, dtype=int), np.ones((8, 128), dtype=int)
"""


@pytest.mark.parametrize(
    "program", [QUICK_START, RL, STEPS, DELIVERY], ids=["quick start", "rl", "steps", "delivery"]
)
def test_a_program_of_the_page_runs(program: str, tmp_path: Path) -> None:
    environ = {**os.environ, "METRANA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NAMES + program],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
