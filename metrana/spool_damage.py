"""What a spool lost, in sentences: for whoever delivers it, and for `metrana status`."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metrana import _native


def damage_sentences(follower: _native.SpoolFollower) -> list[str]:
    """Gives a sentence for all damage that a follower met so far, in the order of the spool."""
    ranges = defaultdict[str, list[tuple[int, int]]](list)
    for first, last, message in follower.damage():
        ranges[message].append((first, last))
    # Two may say the same of different batches.
    return [
        _sentence(ranges[message].pop(0) if ranges[message] else None, message)
        for message in follower.problems()
    ]


def _sentence(lost: tuple[int, int] | None, message: str) -> str:
    if lost is None:
        return f"its spool is damaged, but no batch is known to be lost: {message}"
    first, last = lost
    which = f"batch {first} is" if first == last else f"batches {first} to {last} are"
    return f"{which} lost, the spool is damaged: {message}"
