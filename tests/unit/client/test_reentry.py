"""Python code that runs inside a log call: it may log itself, let others log, or see a fork.

A call that waits for itself never returns, so each test runs in a process that can be given up.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.reading import read_all, read_one

_TIMEOUT_S = 30


def _python(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# What a call is given, made so that it logs a point while the call reads it.
_CALLS = {
    "labels that are no dict": "run.log('outer', 1, labels=Labels(split='train'))",
    "a label that is refused": "refused(run.log, 'outer', 1, labels={'split': Shown()})",
    "a number in a mapping": "run.log({'known': 0}); run.log({'known': Number(1), 'other': 1})",
    "a value": "run.log('outer', Number(1))",
    "a refused environment": "refused(run.log_rl_episode, 'e', 1, 0, env_id=Shown())",
    "environments that are forgotten": (
        "[run.log_rl_episode('e', [1.0], i, env_id=[Name(str(i))]) for i in range(20)]"
    ),
}


@pytest.mark.parametrize("call", _CALLS.values(), ids=list(_CALLS))
def test_what_a_call_reads_may_log_itself(data_dir: Path, call: str) -> None:
    script = """
    import collections, sys
    import metrana

    run = metrana.init(mode="offline")
    inside = lambda: run.log("inside", 1, labels={})

    class Labels(collections.UserDict):
        def __iter__(self):
            inside()
            return super().__iter__()

    class Shown:
        def __repr__(self):
            inside()
            return "shown"

    class Number(int):
        def __float__(self):
            inside()
            return 0.5

    class Name(str):
        def __del__(self):
            inside()

    def refused(function, *arguments, **keywords):
        try:
            function(*arguments, **keywords)
        except metrana.MetranaValidationError as error:
            assert "shown" in str(error), error
        else:
            raise AssertionError("it was taken")

    exec(sys.argv[1])
    run.close()
    """
    _python(script, call)
    assert read_one(data_dir).values("inside")


def test_a_signal_handler_may_log(data_dir: Path) -> None:
    script = """
    import collections, signal
    import metrana

    run = metrana.init(mode="offline")
    seen = 0

    def handler(*_):
        global seen
        seen += 1
        run.log("handled", seen)

    class Labels(collections.UserDict):
        def __iter__(self):
            signal.raise_signal(signal.SIGTERM)  # handled before the next line
            return super().__iter__()

    signal.signal(signal.SIGTERM, handler)
    run.log("outer", 1, labels=Labels(a="b"))
    run.close()
    """
    _python(script)
    assert read_one(data_dir).values("handled") == [1]
    assert read_one(data_dir).values("outer") == [1]


def test_a_finalizer_may_log_while_a_mapping_is_refused(data_dir: Path) -> None:
    script = """
    import gc
    import metrana

    run = metrana.init(mode="offline")

    class Garbage:
        def __init__(self):
            self.itself = self  # only a collection finds it

        def __del__(self):
            run.log({"inside": 1.0})

    run.log({"outer": 1.0})
    for allocations in range(1, 20):  # wherever in the call the collection begins
        for _ in range(50):
            Garbage()
            gc.set_threshold(allocations)
            try:
                run.log({"outer": 1.0, "\\ud800": 1.0})
            except metrana.MetranaValidationError:
                pass
            else:
                raise AssertionError("it was taken")
    gc.set_threshold(1000)
    gc.collect()
    assert gc.isenabled()
    run.close()
    """
    _python(script)
    assert read_one(data_dir).values("inside") == [1.0] * 950
    assert read_one(data_dir).values("outer") == [1.0]


# What a thread does while another one forks; `pause()` returns when the locks are taken.
_MEANWHILE = {
    "log": "run.log('x', Tensor())",
    "log, of plain numbers": "pause(); run.log('x', [0.5, 1.5])",
    "log of a mapping": "run.log({'x': Tensor(), 'y': 1})",
    "log with labels": "run.log('x', [0.5, 1.5], labels=Labels(a='b'))",
    "log_rl_environment_step": "run.log_rl_environment_step('x', Tensor(), 0, env_id=['a', 'b'])",
    "log_rl_episode": "run.log_rl_episode('x', [0.5, 1.5], 0, env_id=Names(['a', 'b']))",
    "log_attributes": "pause(); run.log_attributes('x', {'y': 1})",
    "get_last_step": "run.get_last_step('x', labels=Labels(a='b'))",
    "get_env_last_rl_step_and_episode": "pause(); run.get_env_last_rl_step_and_episode('a')",
    "get_metrics": "pause(); run.get_metrics()",
    "status": "pause(); run.status()",
    "check_sender_errors": "pause(); run.check_sender_errors()",
    "init": "pause(); metrana.init(mode='offline', run_name='second').close()",
    "close": "pause(); run.close()",
    "another fork": "pause(); fork()",
}


@pytest.mark.parametrize("meanwhile", _MEANWHILE.values(), ids=list(_MEANWHILE))
def test_a_fork_while_a_call_is_under_way(data_dir: Path, meanwhile: str) -> None:
    script = """
    import collections, os, sys, threading

    begun, forking, resumed = threading.Event(), threading.Event(), threading.Event()
    main = threading.current_thread()
    sys.setswitchinterval(10)  # whoever was resumed goes on until it waits for something

    def pause():
        if threading.current_thread() is main or resumed.is_set():
            return
        begun.set()
        forking.wait()
        resumed.set()

    def before_fork():
        if threading.current_thread() is main:
            forking.set()
            resumed.wait()

    # Hooks run from the last to the first, so this one runs when the locks are taken.
    os.register_at_fork(before=before_fork)
    import numpy
    import metrana

    class Tensor:
        def __array__(self, dtype=None, copy=None):
            pause()
            return numpy.array([0.5, 1.5])

    class Labels(collections.UserDict):
        def __iter__(self):
            pause()
            return super().__iter__()

    class Names(collections.UserList):
        def __iter__(self):
            pause()
            return super().__iter__()

    def fork():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    def work():
        exec(sys.argv[1])
        done.append(True)

    done = []
    run = metrana.init(mode="offline", run_name="first")
    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    fork()
    thread.join()
    assert done
    run.close()
    """
    _python(script, meanwhile)
    assert {logged.end for logged in read_all(data_dir)} == {"finished"}


def test_calls_in_the_forking_threads_own_hooks_are_refused(data_dir: Path) -> None:
    script = """
    import os, signal

    calls = {
        "log": lambda: run.log("x", 9),
        "log of a mapping": lambda: metrana.log({"x": 9}),
        "log_attributes": lambda: run.log_attributes("x", {"y": 1}),
        "get_last_step": lambda: run.get_last_step("x"),
        "get_metrics": lambda: run.get_metrics(),
        "status": lambda: run.status(),
        "check_sender_errors": lambda: run.check_sender_errors(),
        "flush": lambda: run.flush(),
        "close": lambda: run.close(),
        "init": lambda: metrana.init(mode="offline", run_name="second"),
    }
    taken, hooked = [], []

    def hook():
        hooked.append(os.getpid())
        for name, call in calls.items():
            try:
                call()
            except metrana.MetranaProcessForkError as error:
                assert "os.fork()" in str(error), error
            else:
                taken.append(name)

    # Hooks before a fork run from the last to the first, those after it from the first on: these
    # run while the locks are taken.
    os.register_at_fork(before=hook, after_in_parent=hook, after_in_child=hook)
    import metrana

    run = metrana.init(mode="offline", run_name="first")
    run.log("x", 1)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        run.log("x", 2)
        run.close()
        os._exit(bool(taken) or len(hooked) != 2)
    assert os.waitpid(pid, 0)[1] == 0
    assert (taken, len(hooked)) == ([], 2)
    run.log("x", 3)
    run.close()
    """
    _python(script)
    parent, child = read_all(data_dir)
    assert (parent.values("x"), child.values("x")) == ([1, 3], [2])


def test_a_hook_that_forks_in_its_turn_ends_both_forks(data_dir: Path) -> None:
    script = """
    import os, threading

    forks = []

    def hook():
        if not forks:
            forks.append(True)
            fork()

    def fork():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    os.register_at_fork(before=hook)
    import metrana

    run = metrana.init(mode="offline")
    run.log("x", 1)
    fork()
    thread = threading.Thread(target=lambda: run.log("x", 2))
    thread.start()
    thread.join()
    run.close()
    """
    _python(script)
    assert read_one(data_dir).values("x") == [1, 2]
