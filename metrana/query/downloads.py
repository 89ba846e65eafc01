"""Videos as files: whole under their name, or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from metrana import checks
from metrana.errors import MetranaQueryError
from metrana.rendering.names import canonical_name

if TYPE_CHECKING:
    from metrana.query.backend import Video


def checked_target(path: object) -> Path:
    """Takes a path that a file can be written to: a folder, or a name in one.

    A device or pipe is refused: to write is to put a file in its place, and who may would lose
    `/dev/null` by it. Of a link that leads to a file that is the target, for the same reason.

    Raises:
        MetranaValidationError: It is no path, it is there and is neither a file nor a folder, or
            its folder is not there.
    """
    target = checks.directory("path", path)
    if not target.is_dir() and not target.parent.is_dir():
        raise checks.path_refusal("path", str(target), "in a folder that exists")
    if is_special(target):
        raise checks.path_refusal("path", str(target), "a file or a folder")
    return target.resolve() if target.is_symlink() and not target.is_dir() else target


def is_special(path: Path) -> bool:
    """Says whether something is there that is neither a file nor a folder."""
    return path.exists() and not path.is_file() and not path.is_dir()


def save(video: Video, target: Path) -> Path:
    """Writes a video beside its name and, if its bytes are right, renames it. Blocks.

    Args:
        video: What is read.
        target: Its name; a folder gets the canonical one.

    Returns:
        Where it is.

    Raises:
        MetranaQueryError: What came is not what was logged.
        OSError: It could not be written.
    """
    row = video.row
    if target.is_dir():
        target /= canonical_name(row["env_id"], row["episode"], row["part"])
    # Its own name may be as long as names can be, and another thread may write the same video.
    temporary = target.with_name(f".metrana-{secrets.token_hex(8)}.tmp")
    try:
        digest = hashlib.sha256()
        with temporary.open("wb") as file:
            for chunk in video.chunks:
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != row["sha256"]:
            raise MetranaQueryError(
                f"rendering {row['rendering_id']} is not written to {target}: its SHA-256 is not "
                f"{row['sha256']}, so its file is damaged, or was on the way"
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def is_saved(path: Path, size_bytes: int, sha256: str) -> bool:
    """Says whether a file is this video already."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size_bytes:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        # It is not there, or nothing that can be read: then it is written, or that says why not.
        return False
