"""Real Python processes that share nothing but a data directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from metrana.query import Client
from tests.leash import LEASH

_LAUNCHERS = ("METRANA_", "SLURM_", "OMPI_", "TORCHELASTIC_", "RAY_", "GROUP_", "MASTER_")
_LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_TIMEOUT_S = 50


class Machine:
    """A data directory and processes that use it; each of them is a job of its own.

    Args:
        folder: Made if missing; processes work in it, and it is their home.
        environ: Variables that its processes have beside the usual ones.

    Attributes:
        timeout_s: A process that takes longer fails its test.
    """

    def __init__(self, folder: Path, **environ: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data_dir = folder / "data"
        self.timeout_s = _TIMEOUT_S
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_LAUNCHERS) and name not in _LAUNCHER_VARIABLES
        }
        self.environ = {
            **inherited,
            "HOME": str(folder),
            "METRANA_DIR": str(self.data_dir),
            **environ,
        }

    def python(
        self, script: str, *, code: int = 0, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script that finds `metrana` and `json` imported."""
        source = f"import json\nimport metrana\n{textwrap.dedent(script)}"
        return self._run([sys.executable, "-W", "always", "-c", source], code, environ)

    def file(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a script from a file, which processes that it spawns import again."""
        path = self.folder / "train.py"
        path.write_text(textwrap.dedent(script))
        return self._run([sys.executable, "-W", "always", str(path), *arguments], 0, {})

    def answer(self, script: str, **environ: str) -> Any:
        """What a script printed as JSON."""
        return json.loads(self.python(script, **environ).stdout)

    def command(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs the command `metrana`."""
        return self._run([sys.executable, "-m", "metrana.cli", *arguments], code, {})

    def client(self) -> Client:
        """Reads what is in the data directory, in this process."""
        return Client(data_dir=self.data_dir)

    def _run(
        self, command: list[str], code: int, environ: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*LEASH, *command],
            cwd=self.folder,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=self.timeout_s,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done
