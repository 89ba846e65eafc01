"""What the file of a video is called, wherever a person meets it."""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import quote

# A file's name has at most 255 bytes; the rest of it needs less than 55.
_MAX_ENV_CHARACTERS: Final = 200
_DIGEST_CHARACTERS: Final = 12


def canonical_name(env_id: str, episode: int, part: int = 1) -> str:
    """The name of a video's file: `walker-0-episode-000123.mp4`.

    Args:
        env_id: The environment. What is none of `A-Za-z0-9._~-` is written as in a URL: some file
            systems take no `:` (`%3A`), and an id that a server tells, who knows from whom it has
            it, must not lead to another folder.
        episode: The episode.
        part: From 1; the parts behind the first say so, in a way that sorts: `….part002.mp4`.
    """
    env = quote(env_id, safe="")
    if len(env) > _MAX_ENV_CHARACTERS:
        digest = hashlib.sha256(env_id.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        env = f"{env[: _MAX_ENV_CHARACTERS - _DIGEST_CHARACTERS - 1]}~{digest}"
    suffix = "" if part == 1 else f".part{part:03d}"
    return f"{env}-episode-{episode:06d}{suffix}.mp4"


def numbered(name: str, number: int) -> str:
    """The name for the file that is the `number`-th to want this one: the first has it as it is."""
    stem = name.removesuffix(".mp4")
    return name if number == 1 else f"{stem}-{number}.mp4"
