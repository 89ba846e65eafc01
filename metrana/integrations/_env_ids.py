"""Which env ids of a run other processes of this machine hold.

Each holds the bytes of its ids in a lock file of the data directory, `env_ids.lock`: a byte range
lock of POSIX (`fcntl`), which the kernel frees with the process, however that ends, and which a
forked child does not inherit. The file stays empty: a lock may lie behind a file's end.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from metrana.run import Run

try:
    import fcntl
except ImportError:  # no POSIX
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

_FILE: Final = "env_ids.lock"

# Never closed: closing any descriptor of a file frees all locks of the process on it.
_descriptors: dict[Path, int] = {}


def take(run: Run, base: str, index: int) -> bool:
    """Take the env id `<base>-<index>`; whether no other process on this data directory has it.

    It is not taken from others of this process. True where nobody can tell: on file systems without
    locks, and for a disabled run. Does not block.
    """
    if not _HAS_LOCKS or run.mode == "disabled":
        return True
    try:
        descriptor = _descriptor(run._settings.data_dir)  # noqa: SLF001 - the run's other half
    except OSError:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(run, base, index))
    except (BlockingIOError, PermissionError):  # POSIX leaves it to the system which
        return False
    except OSError:
        return True
    return True


def free(run: Run, base: str, index: int) -> None:
    """Let other processes have an env id."""
    if not _HAS_LOCKS or run.mode == "disabled":
        return
    descriptor = _descriptors.get(run._settings.data_dir)  # noqa: SLF001
    if descriptor is not None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, _place(run, base, index))
        except OSError:
            return  # somebody closed all descriptors: the locks went with them


def _descriptor(data_dir: Path) -> int:
    descriptor = _descriptors.get(data_dir)
    if descriptor is None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = _descriptors[data_dir] = os.open(data_dir / _FILE, flags, 0o600)
    return descriptor


def _place(run: Run, base: str, index: int) -> int:
    """The byte of an env id, below 2^62. Ids that follow each other lie so, and are one lock."""
    digest = hashlib.blake2b(f"{run.run_id}/{base}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 26 << 24) + index % (1 << 24)
