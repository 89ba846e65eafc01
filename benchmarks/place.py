"""Where and how thoroughly a work is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Figures = dict[str, float]
_QUICK_S = 0.3


@dataclass(frozen=True)
class Place:
    """What a work is given.

    Attributes:
        folder: An empty folder of its own.
        logger: The name of the logger that is measured.
        is_quick: Whether it only has to be seen to work; its figures mean nothing then.
    """

    folder: Path
    logger: str
    is_quick: bool = False

    def seconds(self, thorough: float) -> float:
        """How long to measure."""
        return min(thorough, _QUICK_S) if self.is_quick else thorough

    def count(self, thorough: int) -> int:
        """How often to repeat."""
        return max(1, thorough // 20) if self.is_quick else thorough
