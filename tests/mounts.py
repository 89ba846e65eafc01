"""A machine with file systems of its own: full, read-only or small, and seen by nobody else.

Its processes live in a mount namespace. Root may make one, and so may everybody where the kernel
allows user namespaces; where neither is so, the tests fail and say why.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any, Self

from tests.leash import LEASH
from tests.processes import Machine

_ROOT = Path(__file__).parent.parent
_AS_USER = [] if os.geteuid() == 0 else ["--user"]

_READ = """
from pathlib import Path
from tests.reading import read_all

logged = read_all(Path(DATA_DIR))
print(json.dumps([[writer.values("x"), writer.end] for writer in logged]))
"""

# What a script needs to fill a file system to the last byte, and to empty it again.
BALLAST = """
import os

def fill(folder):
    ballast = os.open(f"{folder}/ballast", os.O_WRONLY | os.O_CREAT)
    size = 1 << 16
    while size:
        try:
            os.write(ballast, bytes(size))
        except OSError:
            size //= 2
    os.close(ballast)

def empty(folder):
    os.unlink(f"{folder}/ballast")
"""


class MountedMachine(Machine):
    """A machine whose mounts are its own. `disk` is a folder to mount something on."""

    def __init__(self, folder: Path, **environ: str) -> None:
        super().__init__(folder, PYTHONPATH=str(_ROOT), **environ)
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.data_dir = self.disk / "data"
        self.environ["METRANA_DIR"] = str(self.data_dir)

    def __enter__(self) -> Self:
        as_root = [*_AS_USER, "--map-root-user"] if _AS_USER else []
        # The namespace is there as long as a process is in it. A change of user undoes a leash.
        self._keeper = subprocess.Popen(
            ["unshare", *as_root, "--mount", *LEASH, "sh", "-c", "echo ready && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert self._keeper.stdout is not None
            ready = self._keeper.stdout.readline()
            assert ready == "ready\n", "no mount namespace: be root, or allow user namespaces"
        except BaseException:
            self._end_keeper()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end_keeper()

    def _end_keeper(self) -> None:
        self._keeper.kill()
        self._keeper.communicate()

    def mount(self, *arguments: str) -> None:
        """Runs the command `mount`."""
        self._run(["mount", *arguments], 0, {})

    def unmount(self, path: Path) -> None:
        """Runs the command `umount`."""
        self._run(["umount", str(path)], 0, {})

    def mount_disk(self, size: str) -> None:
        """Gives `disk` a file system of this size, such as `8m`."""
        self.mount("-t", "tmpfs", "-o", f"size={size}", "none", str(self.disk))

    def empty_disk(self) -> None:
        """Removes what `fill` of a script has left."""
        self._run(["rm", str(self.disk / "ballast")], 0, {})

    def filler(self, script: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a script that also finds `fill`, `empty` and `DISK`."""
        source = f"DISK = {str(self.disk)!r}\n{BALLAST}\n{textwrap.dedent(script)}"
        return self.python(source, code=code)

    def logged(self) -> list[list[Any]]:
        """The values of `x` and the end of every writer; dead ones are recovered first."""
        result: list[list[Any]] = self.answer(f"DATA_DIR = {str(self.data_dir)!r}\n{_READ}")
        return result

    def _run(
        self, command: list[str], code: int, environ: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return super()._run(self.inside(command), code, environ)

    def inside(self, command: list[str]) -> list[str]:
        """A command as it has to be started to see the machine's mounts."""
        as_user = [*_AS_USER, "--preserve-credentials"] if _AS_USER else []
        return ["nsenter", f"--target={self._keeper.pid}", *as_user, "--mount", *LEASH, *command]
