"""Integers of any length as text: Python refuses to write and to read long ones by itself."""

from __future__ import annotations

from typing import Final

# Fewer digits than the least limit there can be (sys.set_int_max_str_digits: 640).
_PLAIN_BITS: Final = 2_000


def is_long(value: object) -> bool:
    """Whether a value is an integer of more digits than Python writes and reads under any limit."""
    return isinstance(value, int) and value.bit_length() > _PLAIN_BITS


def digits(value: int) -> str:
    """An integer in decimal."""
    from decimal import Decimal  # rarely needed, and felt at import

    return str(Decimal(value))


def from_digits(text: str) -> int:
    """The integer that `digits` wrote."""
    from decimal import Decimal

    return int(Decimal(text))
