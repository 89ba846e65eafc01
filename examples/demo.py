"""One run, end to end, and the proof that nothing was lost or changed on the way.

Trains the agent of `reinforce_cartpole.py` twice: first with no server anywhere, so that the run
waits in the spool; then with a local server running, so that it streams there. What the server
gives back is compared, number by number, with what was logged. `make demo` runs this.

    python examples/demo.py [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from reinforce_cartpole import Config, train

import metrana
from metrana.query import Client

PROJECT = "cartpole"
COMMAND = Path(sys.executable).with_name("metrana")
Positions = dict[tuple[int, int, int], float]


class Recorder:
    """Passes every call on to a run and keeps what it was, to compare with later."""

    def __init__(self, run: metrana.Run) -> None:
        self.run = run
        self.points: dict[tuple[str, str | None], Positions] = defaultdict(dict)
        self._env_steps: dict[str, tuple[int, int]] = {}

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        """As `Run.log`."""
        self.run.log(metrics, step=step)
        for name, value in metrics.items():
            self.points[name, None][-1, -1, step] = float(value)

    def log_rl_episode(
        self, name: str, value: float, *, rl_step: int, episode: int, env_id: str
    ) -> None:
        """As `Run.log_rl_episode`."""
        self.run.log_rl_episode(name, value, rl_step=rl_step, episode=episode, env_id=env_id)
        self.points[name, env_id][rl_step, episode, -1] = float(value)

    def log_rl_environment_step(
        self, name: str, values: np.ndarray, *, rl_step: int, env_id: list[str], episode: np.ndarray
    ) -> None:
        """As `Run.log_rl_environment_step`."""
        self.run.log_rl_environment_step(
            name, values, rl_step=rl_step, env_id=env_id, episode=episode
        )
        for index, env in enumerate(env_id):
            for value, number in zip(values[index], episode[index], strict=True):
                last_episode, last_step = self._env_steps.get(env, (-1, -1))
                step = last_step + 1 if number == last_episode else 0
                self._env_steps[env] = (int(number), step)
                self.points[name, env][rl_step, int(number), step] = float(value)

    @property
    def point_count(self) -> int:
        """How many points were logged."""
        return sum(len(points) for points in self.points.values())


def train_and_record(config: Config) -> tuple[str, Recorder, float]:
    """Train once; returns the run's name, what was logged, and the mean return reached."""
    with metrana.init(
        project_name=PROJECT,
        config=asdict(config),
        tags=["reinforce", "numpy"],
        description="REINFORCE with a linear policy, in NumPy",
    ) as run:
        recorder = Recorder(run)
        mean_return = train(recorder, config)
    return run.run_name, recorder, mean_return


@contextmanager
def local_server(data_dir: Path) -> Iterator[str]:
    """`metrana server` on free ports for as long as the block runs; gives its URL."""
    command = [COMMAND, "server", "--port", "0", "--grpc-port", "0", "--data-dir", data_dir]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        urls = [server.stdout.readline().split()[-1] for _ in range(2)]
        yield next(url for url in urls if url.startswith("http"))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def read_back(client: Client, run_name: str) -> dict[tuple[str, str | None], Positions]:
    """Every point of a run, by series and position, as the server gives it."""
    points: dict[tuple[str, str | None], Positions] = defaultdict(dict)
    table = client.points(run_name, project_name=PROJECT, as_="arrow")
    for row in table.to_pylist():
        position = tuple(-1 if row[k] is None else row[k] for k in ("rl_step", "episode", "step"))
        points[row["metric_name"], row["env_id"]][position] = row["value"]
    return points


def check(client: Client, run_name: str, recorder: Recorder, config: Config) -> None:
    """Raise SystemExit unless the server gives back exactly what was logged."""
    info: Any = client.run(run_name, project_name=PROJECT)
    found = read_back(client, run_name)
    if found != recorder.points:
        raise SystemExit(f"{run_name}: what was read back is not what was logged")
    if info.config != asdict(config) or info.status != "finished":
        raise SystemExit(f"{run_name}: config or status differ: {info.config} {info.status}")
    print(
        f"{run_name}: {recorder.point_count:,} points of {len(found)} series read back, "
        "each the number that was logged at its step"
    )


def main() -> None:
    """Train twice, read back, compare, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path(".demo"))
    data_dir: Path = parser.parse_args().data_dir.resolve()
    shutil.rmtree(data_dir, ignore_errors=True)
    os.environ["METRANA_DIR"] = str(data_dir)

    print("── training with no server: the run waits in the spool")
    offline_config = Config(seed=0)
    offline = train_and_record(offline_config)
    print(f"mean return of the last 20 episodes: {offline[2]:.1f}")

    with local_server(data_dir) as url:
        print(f"\n── training with a server at {url}: the run streams to it")
        online_config = Config(seed=1)
        online = train_and_record(online_config)
        print(f"mean return of the last 20 episodes: {online[2]:.1f}\n")

        with Client(data_dir=data_dir) as client:
            check(client, offline[0], offline[1], offline_config)
            check(client, online[0], online[1], online_config)
        print(flush=True)
        subprocess.run([COMMAND, "show", online[0], "--project", PROJECT], check=True)

    shown = f"METRANA_DIR={os.path.relpath(data_dir)} {os.path.relpath(COMMAND)}"
    print(f"\nLook further:\n  {shown} runs\n  {shown} show {offline[0]} --project {PROJECT}")
    print(f"  {shown} ui")


if __name__ == "__main__":
    main()
