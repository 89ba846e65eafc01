"""The end of processes, forks and spawns: each test runs real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.reading import Logged, read_all, read_one

_START = "import metrana, os, sys\nrun = metrana.init(mode='offline', run_name='r')\n"


def _python(script: str, *, check: bool = True, mode: str = "") -> subprocess.CompletedProcess[str]:
    source = _START + textwrap.dedent(script)
    command = [sys.executable, "-W", "always", "-c", source, mode]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=50)


def _by_pid(data_dir: Path) -> list[Logged]:
    return sorted(read_all(data_dir), key=lambda logged: logged.info["number"])


def test_exit_without_close_loses_nothing(data_dir: Path) -> None:
    done = _python("metrana.log('x', [1, 2, 3])")
    logged = read_one(data_dir)
    assert logged.values("x") == [1, 2, 3]
    assert logged.end == "finished"
    # Offline the spool is the destination, so there is nothing to warn of.
    assert "Warning" not in done.stderr


def test_exit_with_an_undelivered_rest_says_how_it_will_be(data_dir: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import metrana\n"
            "metrana.init(ingestion_url='http://127.0.0.1:1', connect_timeout_secs=0.1)\n"
            "metrana.log('x', 1)\n",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert "metrana sync" in done.stderr
    assert str(data_dir) in done.stderr
    assert read_one(data_dir).values("x") == [1]


def test_an_uncaught_exception_makes_a_failed_run(data_dir: Path) -> None:
    done = _python("metrana.log('x', 1)\n1 / 0", check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert read_one(data_dir).end == "failed"


def test_an_excepthook_of_the_users_is_called(data_dir: Path) -> None:
    script = """
    import metrana.lifecycle
    run.close()
    sys.excepthook = lambda *_: print("theirs")
    metrana.lifecycle._chain_excepthook()
    metrana.init(mode='offline', run_name='second')
    1 / 0
    """
    assert "theirs" in _python(script, check=False).stdout
    assert [logged.end for logged in read_all(data_dir)].count("failed") == 1


def test_a_killed_process_leaves_all_it_logged(data_dir: Path) -> None:
    script = """
    metrana.log_config({'lr': 1})
    metrana.log('x', list(range(1000)))
    os.kill(os.getpid(), 9)
    """
    assert _python(script, check=False).returncode == -signal.SIGKILL
    logged = read_one(data_dir)
    assert logged.values("x") == list(range(1000))
    assert logged.attributes["config/lr"] == ("int", "1")
    assert logged.end is None


def test_ctrl_c_ends_a_call_that_waits_for_room() -> None:
    script = """
    import signal, threading, time
    run.close()
    run = metrana.init(mode='offline', backpressure_strategy='block', spool_max_bytes=1)
    def interrupt():
        while run.get_metrics().float_points_enqueued < 1000:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        while True:
            run.log('x', [0.5] * 100_000)
    except KeyboardInterrupt:
        print('interrupted')
        run.close(0)
        os._exit(0)
    """
    assert "interrupted" in _python(script).stdout


@pytest.mark.parametrize("logs_first", [True, False])
def test_a_forked_child_gets_a_writer_of_its_own(data_dir: Path, logs_first: bool) -> None:
    script = """
    if sys.argv[1] == 'True':
        metrana.log('x', [1, 2])
    pid = os.fork()
    if pid == 0:
        metrana.log('y', 7)
        metrana.flush()
        metrana.log('y', 8)
        metrana.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    metrana.log('x', 3)
    metrana.close()
    """
    _python(script, mode=str(logs_first))
    parent, child = _by_pid(data_dir)
    assert parent.values("x") == ([1, 2, 3] if logs_first else [3])
    assert parent.values("y") == []
    assert child.values("x") == []
    assert child.values("y") == [7, 8]
    assert (parent.end, child.end) == ("finished", "finished")
    assert parent.info["run_id"] == child.info["run_id"]


def test_a_forked_child_that_logs_nothing_leaves_nothing(data_dir: Path) -> None:
    script = """
    metrana.log('x', 1)
    pid = os.fork()
    if pid == 0:
        run.flush()
        try:
            run.close()
        except metrana.MetranaProcessForkError as error:
            assert 'opened by process' in str(error)
            sys.exit(0)
        sys.exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    metrana.log('x', 2)
    """
    _python(script)
    assert read_one(data_dir).values("x") == [1, 2]


def test_forks_while_threads_log_do_not_hang(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two threads that log all the time outrun a busy machine's disk; none of it may be dropped.
    monkeypatch.setenv("METRANA_BACKPRESSURE_STRATEGY", "block")
    script = """
    import threading
    stop = threading.Event()
    def work():
        while not stop.wait(0.001):
            for _ in range(100):
                metrana.log('x', 1)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads: thread.start()
    for index in range(20):
        pid = os.fork()
        if pid == 0:
            if index % 5 == 0:
                metrana.log('child', index)
                metrana.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads: thread.join()
    metrana.close()
    """
    _python(script)
    parent, *children = _by_pid(data_dir)
    # A call that waited for room comes behind what another thread logged since, with its own step.
    assert sorted(parent.steps("x")) == list(range(len(parent.values("x"))))
    assert [child.values("child") for child in children] == [[0], [5], [10], [15]]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_join_the_run(
    data_dir: Path, method: str, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, sys
        import metrana

        def work(index):
            if not metrana.is_initialized():
                metrana.init(mode="offline", run_name="r")
            metrana.log(f"child_{index}", index)

        if __name__ == "__main__":
            metrana.init(mode="offline", run_name="r")
            metrana.log("parent", 1)
            context = multiprocessing.get_context(sys.argv[1])
            children = [context.Process(target=work, args=(i,)) for i in range(2)]
            for child in children: child.start()
            for child in children: child.join()
            assert all(child.exitcode == 0 for child in children)
        """)
    )
    subprocess.run(
        [sys.executable, str(script), method], check=True, timeout=50, env=dict(os.environ)
    )
    parent, *children = _by_pid(data_dir)
    assert parent.values("parent") == [1]
    assert sorted(point.metric for child in children for point in child.points) == [
        "child_0",
        "child_1",
    ]
    assert {child.end for child in children} == {"finished"}
    assert len({logged.info["run_id"] for logged in (parent, *children)}) == 1
