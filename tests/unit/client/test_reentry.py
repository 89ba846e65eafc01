"""Python code that runs inside a log call: it may log itself.

A call that waits for itself never returns, so each test runs in a process that can be given up.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.reading import read_one

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
