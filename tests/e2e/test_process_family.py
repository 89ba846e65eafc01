"""Processes that beget processes: each that logs is a writer of its own, and none hangs.

Every script runs offline and with a server, and every process in it has a deadline.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest

from metrana.query import Client
from tests.e2e.conftest import KEY
from tests.local_server import LocalServer
from tests.processes import Machine

# A dozen interpreters start in a test, and the first one starts the server too.
pytestmark = pytest.mark.timeout(120)

Stored = Callable[[], dict[str, list[float]]]

_START = """
import ctypes, os, signal, sys, threading, time

def ended(pid):
    # 0, or what the child died of; one that hangs is killed.
    deadline = time.monotonic() + 30
    while not (status := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(status[1])

def fork(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid

def native_fork(work):
    # As a library does it: no hook of Python's is run.
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid
"""


@pytest.fixture
def family(machine: Callable[[str], Machine]) -> Machine:
    """Where the processes live; none of their points may be dropped."""
    machine_of_all = machine("family")
    machine_of_all.environ["METRANA_BACKPRESSURE_STRATEGY"] = "block"
    return machine_of_all


@pytest.fixture
def stored(
    mode: str, family: Machine, elsewhere: LocalServer, client: Client, project: str
) -> Stored:
    """Delivers what dead processes left; then every stored value by metric, repeats too."""

    def stored() -> dict[str, list[float]]:
        if mode == "online":
            family.command("sync", "--url", elsewhere.grpc_url, "--api-key", KEY)
        points = client.points("r", project_name=project, duplicates="all")
        by_metric: dict[str, list[float]] = {}
        for metric, value in zip(points["metric_name"], points["value"], strict=True):
            by_metric.setdefault(metric, []).append(value)
        return {metric: sorted(values) for metric, values in by_metric.items()}

    return stored


def is_calm(stderr: str) -> bool:
    """Whether no process said that something went wrong."""
    return not any(word in stderr for word in ("Traceback", "panicked", "Warning", "Error"))


_FAMILY = """
import multiprocessing, os, sys
import metrana

def join():
    # A forked child has the run already.
    if not metrana.is_initialized():
        metrana.init(run_name="r")

def work(index):
    join()
    metrana.log("child", [1000 * index + i for i in range(100)])
    pid = os.fork()
    if pid == 0:
        metrana.log("grandchild", [1000 * index + i for i in range(10)])
        metrana.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    metrana.log("child", [1000 * index + i for i in range(100, 200)])

if __name__ == "__main__":
    metrana.init(run_name="r")
    metrana.log("parent", list(range(500)))
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=work, args=(index,)) for index in range(2)]
    for child in children:
        child.start()
    for value in range(500, 1000):
        metrana.log("parent", value)
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    metrana.log("parent", 1000)
    metrana.close()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_and_grandchildren_log_each_point_once(
    family: Machine, stored: Stored, method: str
) -> None:
    done = family.file(_FAMILY, method)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {
        "parent": list(range(1001)),
        "child": [1000 * index + i for index in range(2) for i in range(200)],
        "grandchild": [1000 * index + i for index in range(2) for i in range(10)],
    }


_LOADER = """
import sys
import torch
import metrana

class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        metrana.log("item", index)
        return index

def join(_):
    if not metrana.is_initialized():
        metrana.init(run_name="r")

if __name__ == "__main__":
    metrana.init(run_name="r")
    loader = torch.utils.data.DataLoader(
        Items(),
        batch_size=4,
        num_workers=2,
        persistent_workers=True,
        worker_init_fn=join,
        multiprocessing_context=sys.argv[1],
    )
    for epoch in range(2):
        for batch in loader:
            metrana.log("batch", float(batch.sum()))
    metrana.close()
"""


# Importing torch three times takes long on a busy machine.
@pytest.mark.timeout(200)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_log_each_item_once(
    family: Machine, stored: Stored, method: str
) -> None:
    family.timeout_s = 150
    done = family.file(_LOADER, method)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {
        "item": sorted(list(range(40)) * 2),
        "batch": sorted([sum(range(i, i + 4)) for i in range(0, 40, 4)] * 2),
    }


def test_threads_that_fork_while_others_log_and_flush(family: Machine, stored: Stored) -> None:
    done = family.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
    run = metrana.init(run_name="r")
    is_over = threading.Event()
    counts, codes, errors = [], [], []

    def log(start):
        count = 0
        while not is_over.is_set():
            metrana.log("parent", start + count)
            count += 1
            # Leaves the others a turn now and then.
            if count % 20 == 0:
                is_over.wait(0.01)
        counts.append((start, count))

    def flush():
        while not is_over.is_set():
            run.flush()

    def grandchild(index):
        metrana.log("grandchild", index)
        metrana.flush()

    def child(index):
        if index % 3 == 0:
            return
        metrana.log("child", index)
        if index % 3 == 1:
            assert ended(fork(lambda: grandchild(index))) == 0
        metrana.log("child", index)
        metrana.close()

    def breed(start):
        for index in range(start, start + 4):
            codes.append(ended(fork(lambda: child(index))))

    threads = [threading.Thread(target=log, args=(start,)) for start in (0, 10**9)]
    threads.append(threading.Thread(target=flush))
    breeders = [threading.Thread(target=breed, args=(start,)) for start in (0, 4)]
    for thread in threads + breeders:
        thread.start()
    for thread in breeders:
        thread.join()
    is_over.set()
    for thread in threads:
        thread.join()
    metrana.close()
    assert codes == [0] * 8, codes
    print(json.dumps(sorted(counts)))
    """)
    assert is_calm(done.stderr), done.stderr
    counts = json.loads(done.stdout)
    assert stored() == {
        "parent": [start + i for start, count in counts for i in range(count)],
        "child": sorted([i for i in range(8) if i % 3] * 2),
        "grandchild": [i for i in range(8) if i % 3 == 1],
    }


def test_forks_while_a_run_is_opened_and_closed(family: Machine, stored: Stored) -> None:
    done = family.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
    is_over = threading.Event()
    codes = []

    def live():
        try:
            for round in range(3):
                metrana.init(run_name="r")
                metrana.log("parent", round)
                # Some children are to see it open.
                seen = len(codes)
                while len(codes) < seen + 2:
                    metrana.flush()
                metrana.close()
        finally:
            is_over.set()

    def child():
        # At any instant there may be a run, none, or one that is about to end.
        try:
            metrana.log("child", 1)
        except (metrana.MetranaNotInitializedError, metrana.MetranaLoggerClosedError):
            return
        metrana.close()
        os._exit(7)

    life = threading.Thread(target=live)
    life.start()
    while not is_over.is_set():
        codes.append(ended(fork(child)))
    life.join()
    assert set(codes) <= {{0, 7}}, codes
    print(codes.count(7))
    """)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {
        "parent": [0, 1, 2],
        "child": [1] * int(done.stdout),
    }


def test_children_end_in_every_way_and_lose_nothing(family: Machine, stored: Stored) -> None:
    done = family.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
    run = metrana.init(run_name="r")
    metrana.log("parent", list(range(100)))

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def use_after_end():
        metrana.finish()
        try:
            run.log("child", -1)
        except metrana.MetranaLoggerClosedError:
            return
        raise AssertionError("a closed run took a point")

    ends = [metrana.close, use_after_end, lambda: os._exit(0), die]
    children = []
    for index, end in enumerate(ends):
        def work(index=index, end=end):
            metrana.log("child", [10 * index + i for i in range(10)])
            end()
        children.append(fork(work))
    children.append(fork(lambda: None))
    assert [ended(pid) for pid in children] == [0, 0, 0, -9, 0]
    metrana.log("parent", list(range(100, 200)))
    metrana.close()
    """)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {
        "parent": list(range(200)),
        "child": list(range(40)),
    }


def test_a_child_outlives_its_parent(family: Machine, stored: Stored) -> None:
    done = family.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
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
        {_START.replace(chr(10), chr(10) + " " * 8)}
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
    {_START.replace(chr(10), chr(10) + " " * 4)}
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
        {_START.replace(chr(10), chr(10) + " " * 8)}
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
    {_START.replace(chr(10), chr(10) + " " * 4)}
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


def test_threads_that_start_programs_while_others_log(family: Machine, stored: Stored) -> None:
    done = family.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
    import subprocess

    run = metrana.init(run_name="r")
    is_over = threading.Event()
    counts = []

    def log():
        count = 0
        while not is_over.is_set():
            metrana.log("parent", count)
            count += 1
            if count % 100 == 0:
                is_over.wait(0.001)
        counts.append(count)

    threads = [threading.Thread(target=log) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        subprocess.run(["/bin/true"], check=True, timeout=30)
        # Takes the hooks of a fork, others do not.
        subprocess.run(["/bin/true"], check=True, timeout=30, preexec_fn=os.getpid)
        assert ended(os.posix_spawn("/bin/true", ["true"], os.environ)) == 0
        assert os.system("true") == 0
    is_over.set()
    for thread in threads:
        thread.join()
    metrana.close()
    print(json.dumps(counts))
    """)
    assert is_calm(done.stderr), done.stderr
    counts = json.loads(done.stdout)
    assert stored() == {
        "parent": sorted(i for count in counts for i in range(count)),
    }


def test_sixteen_threads_log_to_one_run_each_in_its_order(
    family: Machine, client: Client, project: str
) -> None:
    family.python("""
    import threading

    metrana.init(run_name="r")

    def log(index):
        for i in range(1000):
            metrana.log("shared", 1000 * index + i)
            metrana.log("own", i, labels={"thread": str(index)})

    threads = [threading.Thread(target=log, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrana.close()
    """)
    shared = client.points("r", "shared", project_name=project, duplicates="all")
    assert list(shared["step"]) == list(range(16_000))
    assert sorted(shared["value"]) == list(range(16_000))
    own = client.points("r", "own", project_name=project, duplicates="all")
    for index in range(16):
        mine = [value for value in shared["value"] if value // 1000 == index]
        assert mine == sorted(mine)
        is_its_own = [labels == {"thread": str(index)} for labels in own["labels"]]
        assert list(own["value"][is_its_own]) == list(range(1000))
