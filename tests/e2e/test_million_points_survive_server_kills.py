"""One process logs a million points while its server is killed and restarted, twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metrana.query import Client
from tests.local_server import LocalServer, wait_until

POINT_COUNT = 1_000_000
# The writer stops twice to let its server be killed under it, with batches on their way.
WRITER = """
import sys
import metrana

run = metrana.init(
    project_name="kills", run_name="million", backpressure_strategy="block", batch_max_age_secs=0.05
)
for step in range(1_000_000):
    metrana.log("value", float(step))
    if step in (300_000, 600_000):
        print("waiting", flush=True)
        sys.stdin.readline()
run.flush(timeout_secs=120)
metrics = run.get_metrics()
print(metrics.float_points_sent, metrics.float_points_dropped, flush=True)
metrana.close(close_timeout=60)
"""


@pytest.mark.timeout(240)
def test_every_point_is_there_once_after_the_server_was_killed_twice(tmp_path: Path) -> None:
    server = LocalServer(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "METRANA_DIR": str(tmp_path)},
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for _ in range(2):
            assert writer.stdout.readline(), "the writer died"
            server.kill()
            writer.stdin.write("go on\n")
            writer.stdin.flush()
            server = LocalServer(tmp_path)
        sent, dropped = map(int, writer.stdout.readline().split())
        assert (sent, dropped) == (POINT_COUNT, 0)
        assert writer.wait(timeout=30) == 0

    with server, Client(data_dir=tmp_path) as client:
        shown = client.points("million", "value", project_name="kills", as_="arrow")
        stored = client.points(
            "million", "value", project_name="kills", duplicates="all", as_="arrow"
        )
        wait_until(lambda: client.run("million", project_name="kills").status == "finished")
    assert shown.num_rows == stored.num_rows == POINT_COUNT
    assert shown["step"].to_pylist() == list(range(POINT_COUNT))
    assert sum(stored["value"].to_pylist()) == sum(range(POINT_COUNT))
