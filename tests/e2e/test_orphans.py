"""Children that outlive their parent, and whether they keep what it left from being delivered."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.families import START, Stored, is_calm
from tests.processes import Machine

# A dozen interpreters start in a test, and the first one starts the server too.
pytestmark = pytest.mark.timeout(120)


def test_a_child_outlives_its_parent(family: Machine, stored: Stored) -> None:
    done = family.python(f"""
    {START.replace(chr(10), chr(10) + " " * 4)}
    metrana.init(run_name="r")
    parent = os.getpid()

    def work():
        metrana.log("child", 1)
        deadline = time.monotonic() + 30
        while os.getppid() == parent:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        metrana.log("child", 2)
        metrana.close()
        metrana.init(run_name="r", resume_strategy="allow").log("child", 3)
        metrana.close()

    fork(work)
    metrana.log("parent", 1)
    """)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {
        "parent": [1],
        "child": [1, 2, 3],
    }


@pytest.mark.parametrize(
    "child",
    ["fork(wait)", "native_fork(wait)", "os.posix_spawn('/bin/sleep', ARGS, os.environ)"],
)
def test_a_child_that_logs_nothing_does_not_keep_its_killed_parent_alive(
    family: Machine, stored: Stored, child: str
) -> None:
    # What the child inherits must not look like the lock of a living writer.
    done = family.python(
        f"""
        {START.replace(chr(10), chr(10) + " " * 8)}
        ARGS = ["sleep", "60"]

        def wait():
            os.close(output)
            time.sleep(60)

        metrana.init(run_name="r")
        metrana.log("parent", [1, 2, 3])
        output = os.dup(1)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(quiet, stream)
        os.set_inheritable(output, False)
        pid = {child}
        os.write(output, str(pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        code=-signal.SIGKILL,
    )
    try:
        assert stored() == {"parent": [1, 2, 3]}
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


def test_a_child_of_a_fork_that_python_knows_nothing_of_leaves_the_run_to_its_parent(
    family: Machine, stored: Stored
) -> None:
    done = family.python(f"""
    {START.replace(chr(10), chr(10) + " " * 4)}
    metrana.init(run_name="r")
    metrana.log("parent", 1)

    def work():
        metrana.log("child", 1)
        metrana.close()

    assert ended(native_fork(work)) == 0
    metrana.log("parent", 2)
    metrana.close()
    """)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {"parent": [1, 2], "child": [1]}


def test_children_forked_while_a_run_is_opened_do_not_keep_their_killed_parent_alive(
    family: Machine, stored: Stored
) -> None:
    done = family.python(
        f"""
        {START.replace(chr(10), chr(10) + " " * 8)}
        pids = []
        is_open = threading.Event()

        def wait():
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            time.sleep(60)

        def breed():
            while not is_open.is_set():
                pids.append(fork(wait))
                is_open.wait(0.001)

        quiet = os.open(os.devnull, os.O_RDWR)
        breeder = threading.Thread(target=breed)
        breeder.start()
        metrana.init(run_name="r")
        is_open.set()
        breeder.join()
        metrana.log("parent", [1, 2, 3])
        os.write(1, " ".join(map(str, pids)).encode())
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        code=-signal.SIGKILL,
    )
    try:
        assert stored() == {"parent": [1, 2, 3]}
    finally:
        for pid in done.stdout.split():
            os.kill(int(pid), signal.SIGKILL)


def test_a_child_forked_while_a_run_is_opened_opens_forks_and_logs(
    family: Machine, stored: Stored
) -> None:
    done = family.python(f"""
    {START.replace(chr(10), chr(10) + " " * 4)}
    is_open = threading.Event()
    codes = []

    def grandchild():
        metrana.log("grandchild", 1)
        metrana.close()

    def child():
        if not metrana.is_initialized():
            metrana.init(run_name="r", resume_strategy="allow")
        metrana.log("child", 1)
        assert ended(fork(grandchild)) == 0
        metrana.close()

    def breed():
        while not is_open.is_set():
            codes.append(ended(fork(child)))

    breeder = threading.Thread(target=breed)
    breeder.start()
    # The children's runs come and go meanwhile.
    for _ in range(3):
        metrana.init(run_name="r", resume_strategy="allow")
        metrana.log("parent", 1)
        metrana.close()
    is_open.set()
    breeder.join()
    assert set(codes) == {{0}}, codes
    print(len(codes))
    """)
    assert is_calm(done.stderr), done.stderr
    count = int(done.stdout)
    assert stored() == {"parent": [1] * 3, "child": [1] * count, "grandchild": [1] * count}
