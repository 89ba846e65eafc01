"""Environments of one run have ids of their own, whichever threads and processes they are in."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper
from tests.conformance.gymnasium.environments import Drawn
from tests.conformance.gymnasium.logs import Key, records
from tests.processes import Machine
from tests.reading import read_all

ROOT = Path(__file__).parents[3]

ACTORS = """
    import multiprocessing, sys

    import metrana
    from metrana.integrations.gymnasium import MetranaEnvWrapper
    from tests.conformance.gymnasium.environments import Drawn

    NAMES = {"run_name": "actors", "project_name": "p"}


    def act(number, barrier, init_args):
        env = MetranaEnvWrapper(Drawn(fixed_length=number), init_args=init_args)
        env.reset(seed=0)
        env.step(0)
        barrier.wait()  # all of them are open at once
        for _ in range(number - 1):
            env.step(0)
        env.close()


    if __name__ == "__main__":
        how = sys.argv[1]
        run = metrana.init(**NAMES)
        context = multiprocessing.get_context(how)
        barrier = context.Barrier(3)
        init_args = NAMES if how == "spawn" else None
        actors = [
            context.Process(target=act, args=(number, barrier, init_args)) for number in (2, 3)
        ]
        for actor in actors:
            actor.start()
        act(4, barrier, None)
        for actor in actors:
            actor.join()
        metrana.close()
"""


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_environments_in_processes_of_their_own_have_ids_of_their_own(
    tmp_path: Path, how: str
) -> None:
    machine = Machine(tmp_path, PYTHONPATH=str(ROOT), METRANA_MODE="offline")
    machine.file(ACTORS, how)
    found = read_all(machine.data_dir)
    assert len({each.info["run_id"] for each in found}) == 1
    rows: dict[Key, dict[str, float]] = {}
    for each in found:
        assert rows.keys().isdisjoint(records(each))
        rows |= records(each)
    assert rows.keys() == {("env-0", 0), ("env-1", 0), ("env-2", 0)}
    assert {row["episode_length"] for row in rows.values()} == {2, 3, 4}


def test_an_id_is_free_again_where_its_process_is_killed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, PYTHONPATH=str(ROOT), METRANA_MODE="offline")
    program = """
        import os, sys
        from metrana.integrations.gymnasium import MetranaEnvWrapper
        from tests.conformance.gymnasium.environments import Drawn

        env = MetranaEnvWrapper(
            Drawn(fixed_length=2), init_args={"run_name": "r", "resume_strategy": "allow"}
        )
        env.reset(seed=0)
        for _ in range(2):
            env.step(0)
        print(env._log.env_id, env._log.episode)
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    """
    first = machine.python(program, code=-9)
    second = machine.python(program, code=-9)
    assert first.stdout.split() == ["env-0", "1"]
    assert second.stdout.split() == ["env-0", "2"]


def test_threads_that_begin_at_once_have_ids_of_their_own(run: metrana.Run) -> None:
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            envs = [MetranaEnvWrapper(Drawn(), run=run) for _ in range(8)]
            barrier = threading.Barrier(len(envs))

            def begin(env: MetranaEnvWrapper, barrier: threading.Barrier = barrier) -> None:
                env.reset(seed=0)
                barrier.wait()
                env.step(0)

            threads = [threading.Thread(target=begin, args=(env,)) for env in envs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ids = {env._log.env_id for env in envs if env._log is not None}
            assert ids == {f"env-{index}" for index in range(8)}
            for env in envs:
                env.close()
    finally:
        sys.setswitchinterval(switch_interval)
