"""Processes that beget processes: each that logs is a writer of its own, and none hangs.

Every script runs offline and with a server, and every process in it has a deadline.
"""

from __future__ import annotations

import json

import pytest

from metrana.query import Client
from tests.e2e.families import START, Stored, is_calm
from tests.processes import Machine

# A dozen interpreters start in a test, and the first one starts the server too.
pytestmark = pytest.mark.timeout(120)


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
    {START.replace(chr(10), chr(10) + " " * 4)}
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
    {START.replace(chr(10), chr(10) + " " * 4)}
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
    {START.replace(chr(10), chr(10) + " " * 4)}
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


def test_threads_that_start_programs_while_others_log(family: Machine, stored: Stored) -> None:
    done = family.python(f"""
    {START.replace(chr(10), chr(10) + " " * 4)}
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
