"""Children forked by a thread: they end with that thread, though nobody closes their run."""

from __future__ import annotations

import pytest

from tests.e2e.families import START, Stored, is_calm
from tests.processes import Machine

# Several interpreters start in a test, and the first one starts the server too.
pytestmark = pytest.mark.timeout(120)


def test_a_child_ends_with_the_thread_that_forked_it(family: Machine, stored: Stored) -> None:
    done = family.python(f"""
    {START.replace(chr(10), chr(10) + " " * 4)}
    codes = []

    def breed(index):
        pid = os.fork()
        if pid == 0:
            metrana.log("child", [10 * index + i for i in range(10)])
            return
        codes.append(ended(pid))

    metrana.init(run_name="r")
    threads = [threading.Thread(target=breed, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrana.log("parent", 1)
    metrana.close()
    assert codes == [0, 0], codes
    """)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {"parent": [1], "child": list(range(20))}


def test_a_child_lives_as_long_as_another_of_its_threads_works(
    family: Machine, stored: Stored
) -> None:
    done = family.python(f"""
    {START.replace(chr(10), chr(10) + " " * 4)}
    output = os.dup(1)
    codes = []

    def work():
        count = 0
        # For longer than two looks for others take.
        over = time.monotonic() + 2.5
        while time.monotonic() < over:
            metrana.log("child", count)
            count += 1
            time.sleep(0.01)
        # Somebody seals still.
        metrana.flush()
        os.write(output, str(count).encode())

    def breed():
        pid = os.fork()
        if pid == 0:
            metrana.log("first", 1)
            threading.Thread(target=work).start()
            return
        codes.append(ended(pid))

    metrana.init(run_name="r")
    thread = threading.Thread(target=breed)
    thread.start()
    thread.join()
    metrana.close()
    assert codes == [0], codes
    """)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {"first": [1], "child": list(range(int(done.stdout)))}


def test_a_child_that_opens_its_run_itself_ends_with_its_thread(
    family: Machine, stored: Stored
) -> None:
    done = family.python(f"""
    {START.replace(chr(10), chr(10) + " " * 4)}
    codes = []

    def breed():
        pid = os.fork()
        if pid == 0:
            metrana.init(run_name="r")
            metrana.log("child", 1)
            return
        codes.append(ended(pid))

    thread = threading.Thread(target=breed)
    thread.start()
    thread.join()
    assert codes == [0], codes
    """)
    assert is_calm(done.stderr), done.stderr
    assert stored() == {"child": [1]}
