"""What a server does before it serves, and what it leaves for after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.local_server import LocalServer

# What only inserts need, and what only a client of a server does.
IMPORTS = (
    "import sys, metrana.cli.server; "
    "sys.exit(sorted({'pandas', 'httpx'} & sys.modules.keys()) or 0)"
)


def test_serving_does_not_wait_for_what_it_does_not_need() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


def test_sigterm_as_soon_as_it_serves_ends_it_in_order(tmp_path: Path) -> None:
    with LocalServer(tmp_path) as server:
        assert server.stop() == 0
