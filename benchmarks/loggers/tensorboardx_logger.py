"""TensorBoardX into an event file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from benchmarks.loggers import LoggerBase


class TensorBoardX(LoggerBase):
    """A SummaryWriter as its README makes it."""

    imports = "from tensorboardX import SummaryWriter"
    opening = "writer = SummaryWriter(folder)"
    closing = "writer.close()"
    scalar = 'writer.add_scalar("loss", x, i)'
    # add_scalars would open a file a metric: a loop is what its users write.
    mapping = "for name, value in values.items(): writer.add_scalar(name, value, i)"

    def values(self, folder: Path) -> list[float]:
        """Returns the values of "loss" in the whole records of the event files."""
        from tensorboardX.proto.event_pb2 import Event

        events = (
            Event.FromString(record)
            for path in folder.glob("events.out.tfevents.*")
            for record in _records(path.read_bytes())
        )
        return [
            value.simple_value
            for event in events
            for value in event.summary.value
            if value.tag == "loss"
        ]


def _records(data: bytes) -> Iterator[bytes]:
    # TFRecord: length as u64, its CRC, the payload, its CRC.
    at = 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        if at + 16 + length > len(data):
            return
        yield data[at + 12 : at + 12 + length]
        at += 16 + length


def create() -> TensorBoardX:
    """Returns the logger."""
    return TensorBoardX()
