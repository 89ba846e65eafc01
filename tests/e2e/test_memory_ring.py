"""A writer without a file in tmpfs: what a kill may cost it, and what it may not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leash import LEASH
from tests.processes import Machine
from tests.reading import read_one

# No file of this process may hold a ring: the kernel refuses the room as a full tmpfs does.
WITHOUT_TMPFS = """
import json, resource, signal, time
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
import metrana

run = metrana.init(mode="offline", batch_max_age_secs=3600, backpressure_strategy="block")
"""


def test_a_ring_in_memory_states_its_window(tmp_path: Path) -> None:
    status = Machine(tmp_path).answer(f"""{WITHOUT_TMPFS}
status = run.status()
print(json.dumps([status.ring, status.loss_window_ms, status.problems]))
""")
    ring, window_ms, problems = status
    assert ring == "memory"
    assert 0 < window_ms <= 50
    assert any("/dev/shm" in problem for problem in problems), problems


def test_a_ring_in_tmpfs_has_no_window(tmp_path: Path) -> None:
    status = Machine(tmp_path).answer("""
    status = metrana.init(mode="offline").status()
    print(json.dumps([status.ring, status.loss_window_ms, status.problems]))
    """)
    assert status == ["tmpfs", 0, []]


@pytest.mark.parametrize("error_strategy", ["warn", "raise_on_close"])
def test_a_close_tells_what_a_ring_in_memory_lost_from_what_is_kept(
    tmp_path: Path, error_strategy: str
) -> None:
    machine = Machine(tmp_path)
    done = machine.python(f"""
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    run = metrana.init(
        ingestion_url="http://127.0.0.1:9",
        connect_timeout_secs=0.1,
        spool_max_bytes=1,
        error_strategy="{error_strategy}",
    )
    run.log("x", 0)
    run.flush()
    # The spool is full.
    run.log("x", [1, 2])
    try:
        run.close(0.2)
    except metrana.MetranaClosingError as error:
        print(error)
    """)
    said = done.stderr if error_strategy == "warn" else done.stdout
    kept = r"ended with 1 point( and \d attributes?)? that http://127\.0\.0\.1:9 has not "
    lost = r"acknowledged, beside 2 that were accepted and are lost; they are kept in "
    delivered = rf"{re.escape(str(machine.data_dir))} and delivered by "
    assert re.search(kept + lost + delivered, said), said


def test_a_kill_spares_what_a_ring_in_memory_has_sealed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    script = f"""{WITHOUT_TMPFS}
for number in range(1000):
    run.log("x", number)
# However old batches may get, these are sealed within the window.
while run.get_metrics().float_points_spooled < 1000:
    time.sleep(0.001)
print("sealed", flush=True)
number = 1000
while True:
    run.log("x", number)
    number += 1
    if number % 100 == 0:
        time.sleep(0.001)
"""
    with subprocess.Popen(
        [*LEASH, sys.executable, "-c", script],
        env=machine.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "sealed\n"
        writer.kill()
    logged = read_one(machine.data_dir)
    values = logged.values("x")
    # Some of the last ones may be lost, and none before one that is there.
    assert len(values) >= 1000
    assert values == logged.steps("x") == list(range(len(values)))
