"""Damage as a failing disk does it, in the layout of docs/decisions/001."""

from __future__ import annotations

from pathlib import Path

_MAGIC = b"MTRF"
_KIND_AT, _SEQ_AT, _PAYLOAD_AT = 6, 24, 64
_DECLARATIONS = 1


def damage_batch(data_dir: Path, seq: int) -> None:
    """Flips a bit in the payload of a batch of the only writer that a data directory has."""
    for path in (data_dir / "spool").rglob("*.spool"):
        data = bytearray(path.read_bytes())
        at = data.find(_MAGIC)
        while at >= 0:
            found = int.from_bytes(data[at + _SEQ_AT : at + _SEQ_AT + 8], "little")
            if data[at + _KIND_AT] != _DECLARATIONS and found == seq:
                data[at + _PAYLOAD_AT] ^= 1
                path.write_bytes(data)
                return
            at = data.find(_MAGIC, at + 1)
    raise AssertionError(f"no batch {seq} in {data_dir}")
