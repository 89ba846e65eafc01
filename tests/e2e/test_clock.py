"""The wall clock jumps, of a process that logs and of a server: neither order nor count change."""

from __future__ import annotations

from pathlib import Path

import pytest

from metrana.query import Client
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine

pytestmark = pytest.mark.needs_program("faketime", package="faketime")

_DAY_S = 86_400
_LIBRARY = "/usr/$LIB/faketime/libfaketimeMT.so.1"  # $LIB is the loader's


class _Clock:
    """The wall clock of processes that have `environ`; no other clock jumps."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self.jump(0)
        self.environ = {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Makes it so far from the machine's."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._offset)


_LOG = """
import time

def jump(seconds):
    with open(OFFSET, "w") as file:
        file.write(f"{seconds:+d}\\n")

run = metrana.init(run_name="r", batch_max_age_secs=0.05)
times = []
for step, offset in enumerate([0, -86_400, -86_399, 86_400, 0]):
    jump(offset)
    times.append(time.time())
    metrana.log("x", step)
    run.flush(30)
metrana.close()
print(json.dumps(times))
"""


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_jumps_of_the_clock_show_in_times_alone(tmp_path: Path, mode: str) -> None:
    clock = _Clock(tmp_path)
    machine = Machine(tmp_path / "machine", METRANA_MODE=mode)
    script = f"OFFSET = {str(tmp_path / 'offset')!r}\n{_LOG}"
    if mode == "online":
        with LocalServer(machine.data_dir):
            times = machine.answer(script, **clock.environ)
    else:
        times = machine.answer(script, **clock.environ)
    assert times[1] < times[0] - _DAY_S / 2 < times[3] - _DAY_S
    with machine.client() as client:
        points = client.points("r", "x", duplicates="all")
        assert client.run("r").status == "finished"
    assert list(points["value"]) == list(range(5))
    assert list(points["step"]) == list(range(5))
    logged = [time.timestamp() for time in points["timestamp"]]
    assert logged == pytest.approx(times, abs=5)


def test_a_server_whose_clock_jumps_keeps_runs_and_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock(tmp_path)
    machine = Machine(tmp_path / "machine", METRANA_MODE="online")
    with monkeypatch.context() as environment:
        for name, value in clock.environ.items():
            environment.setenv(name, value)
        server = LocalServer(machine.data_dir)
    script = f"OFFSET = {str(tmp_path / 'offset')!r}\n{_LOG}"
    with server, Client(server.http_url, data_dir=machine.data_dir) as client:
        machine.answer(script)
        wait_until(lambda: client.run("r").status == "finished", what="the end")
        points = client.points("r", "x", duplicates="all")
    assert list(points["value"]) == list(range(5))
