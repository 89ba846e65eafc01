"""Reads back what lies in spools, with the follower and decoders that servers use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metrana import _native

_MANY = 1 << 40


@dataclass(frozen=True)
class Point:
    """A point with its names; a position that its scale does not use is None."""

    metric: str
    value: float
    step: int | None
    scale: str = "ML_STEP"
    labels: dict[str, str] = field(default_factory=dict)
    env_id: str | None = None
    rl_step: int | None = None
    episode: int | None = None
    timestamp_ms: int = field(default=0, compare=False)
    logger_no: int = 0


@dataclass(frozen=True)
class Rendering:
    """A video with what its last piece says of it."""

    info: _native.RenderingInfo
    data: bytes


@dataclass
class Logged:
    """What one writer logged: batch by batch, the points of each by series and position."""

    info: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    operations: list[tuple[Any, ...]] = field(default_factory=list)
    renderings: dict[str, Rendering] = field(default_factory=dict)

    def of(self, metric: str) -> list[Point]:
        """The points of one metric name."""
        return [point for point in self.points if point.metric == metric]

    def values(self, metric: str) -> list[float]:
        """The values of one metric name."""
        return [point.value for point in self.of(metric)]

    def steps(self, metric: str) -> list[int | None]:
        """The steps of one metric name."""
        return [point.step for point in self.of(metric)]

    @property
    def attributes(self) -> dict[str, tuple[str, Any]]:
        """Type and value by path, of the run."""
        return {op[1]: (op[2], op[3]) for op in self.operations if op[0] == "set"}

    @property
    def end(self) -> str | None:
        """How the close record says that the writer ended."""
        return next((op[1] for op in self.operations if op[0] == "close"), None)


def run_folders(data_dir: Path) -> list[_native.RunFolder]:
    """The runs in a data directory; a folder whose maker died before it named its run is none."""
    folders = sorted(path.parent for path in (data_dir / "spool").glob("*/run.json"))
    return [_native.RunFolder(path) for path in folders]


def read_all(data_dir: Path, *, damage_count: int = 0) -> list[Logged]:
    """What every writer of every run logged, dead ones recovered first.

    `damage_count`: in so many places each spool is damaged.
    """
    logged = []
    for folder in run_folders(data_dir):
        for writer in folder.writers():
            if writer.state == "dead":
                with folder.recover(writer.number):
                    pass
            logged.append(_read(writer, damage_count))
    return logged


def read_one(data_dir: Path, *, damage_count: int = 0) -> Logged:
    """What the only writer of the only run logged."""
    (logged,) = read_all(data_dir, damage_count=damage_count)
    return logged


def _read(writer: _native.WriterInfo, damage_count: int) -> Logged:
    logged = Logged(writer.info)
    metrics: dict[int, tuple[str, str, dict[str, str]]] = {}
    envs: dict[int, str] = {}
    begun: dict[str, bytearray] = {}
    follower = _native.SpoolFollower(writer.path)
    while messages := follower.read(_MANY):
        for message in messages:
            assert _native.crc32c(message.payload) == message.crc
            if message.kind == "declarations":
                for kind, number, *rest in _native.decode_declarations(message.payload):
                    if kind == "metric":
                        metrics[number] = (rest[1], rest[0], rest[2])
                    else:
                        envs[number] = rest[0]
            elif message.kind == "points":
                logged.points += _points(message, metrics, envs)
            elif message.kind == "renderings":
                _take_piece(message.payload, begun, logged.renderings)
            else:
                logged.operations += _native.decode_attributes(message.payload)
    assert len(follower.problems()) == damage_count, follower.problems()
    return logged


def _take_piece(payload: bytes, begun: dict[str, bytearray], whole: dict[str, Rendering]) -> None:
    """Puts a piece where it belongs, as a server does; a rendering may begin anew."""
    raw_id, offset, data, last = _native.decode_rendering(payload)
    rendering_id = raw_id.hex()
    if rendering_id in whole:
        return
    video = begun.setdefault(rendering_id, bytearray())
    assert offset <= len(video), "a piece is missing"
    video[offset : offset + len(data)] = data
    if last is not None:
        assert (last.size, last.sha256) == (len(video), sha256(video).digest())
        whole[rendering_id] = Rendering(last, bytes(video))


def read_columns(data_dir: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Columns of the points of the only writer, which logged to one metric but too much to name."""
    (folder,) = run_folders(data_dir)
    (writer,) = folder.writers()
    with folder.recover(writer.number):
        pass
    follower = _native.SpoolFollower(writer.path)
    kept: list[list[npt.NDArray[Any]]] = [[] for _ in names]
    while messages := follower.read(_MANY):
        for message in messages:
            if message.kind == "points":
                columns = _columns(message, 1)
                for column, name in zip(kept, names, strict=True):
                    column.append(columns[name])
    assert follower.problems() == []
    return [np.concatenate(column) for column in kept]


def _columns(message: _native.SpoolMessage, greatest: int) -> dict[str, npt.NDArray[Any]]:
    # The local numbers themselves: this reader has no catalog.
    identity = np.arange(greatest + 1, dtype=np.uint32)
    numbers = _native.NumberMap(1, 1, message.seq, 1, identity, identity)
    return _native.decode_points([(message.payload, numbers)])


def _points(
    message: _native.SpoolMessage,
    metrics: dict[int, tuple[str, str, dict[str, str]]],
    envs: dict[int, str],
) -> Iterator[Point]:
    columns = _columns(message, max([0, *metrics, *envs]))
    names = ("metric_no", "env_no", "value", "rl_step", "episode", "step")
    rows = zip(
        *(columns[name].tolist() for name in (*names, "timestamp_ms", "logger_no")), strict=True
    )
    for metric_no, env_no, value, rl_step, episode, step, timestamp_ms, logger_no in rows:
        metric, scale, labels = metrics[metric_no]
        yield Point(
            metric,
            value,
            _used(step),
            scale,
            labels,
            envs.get(env_no),
            _used(rl_step),
            _used(episode),
            timestamp_ms,
            logger_no,
        )


def _used(coordinate: int) -> int | None:
    return None if coordinate < 0 else coordinate
