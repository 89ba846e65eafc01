"""W&B offline: its own process writes the run's file, which `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from benchmarks.loggers import LoggerBase

_BLOCK_BYTES = 32768
_HEADER_BYTES = 7


class WandbOffline(LoggerBase):
    """A run in mode offline."""

    imports = "import wandb"
    opening = 'run = wandb.init(project="benchmark", dir=folder, mode="offline")'
    closing = "run.finish()"
    scalar = 'run.log({"loss": x})'
    mapping = "run.log(values)"

    def values(self, folder: Path) -> list[float]:
        """Returns the values of "loss" in the files that `wandb sync` would read."""
        from wandb.proto.wandb_internal_pb2 import Record

        records = (
            Record.FromString(record)
            for path in folder.glob("wandb/offline-run-*/*.wandb")
            for record in _records(path.read_bytes())
        )
        return [
            float(json.loads(item.value_json))
            for record in records
            for item in record.history.item
            if item.key == "loss" or "loss" in item.nested_key
        ]


def _records(data: bytes) -> Iterator[bytes]:
    # LevelDB's log: blocks of 32 KiB, in them chunks with CRC, length and kind (1: whole record,
    # 2: first part, 3: middle, 4: last). The file has a header as large as that of a chunk.
    at, parts = _HEADER_BYTES, b""
    while at + _HEADER_BYTES <= len(data):
        left = _BLOCK_BYTES - at % _BLOCK_BYTES
        if left < _HEADER_BYTES:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        payload = data[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
        if kind not in (1, 2, 3, 4) or len(payload) < length:
            return
        parts = payload if kind in (1, 2) else parts + payload
        if kind in (1, 4):
            yield parts
        at += _HEADER_BYTES + length


def create() -> WandbOffline:
    """Returns the logger."""
    return WandbOffline()
