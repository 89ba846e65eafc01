"""The native module: what it exports, with types. `native/python/src` has the sources."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Final, Literal, final

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

__all__ = [
    "BatchInfo",
    "NumberMap",
    "Recovery",
    "RenderingInfo",
    "RunCore",
    "RunFolder",
    "SpoolFollower",
    "SpoolMessage",
    "WriterInfo",
    "__version__",
    "batch_info",
    "crc32c",
    "current_run",
    "decode_attributes",
    "decode_declarations",
    "decode_points",
    "decode_rendering",
    "deliver_spools",
    "find_local_server",
    "fork_in_child",
    "fork_in_parent",
    "fork_prepare",
    "is_network_file_system",
    "log",
    "log_distributed",
    "log_rl_environment_step",
    "log_rl_episode",
    "orphaned_rings",
    "set_current_run",
]

__version__: Final[str]

# ── What a training process calls ────────────────────────────────────────────────────────────────

def log(
    metric_name: str | Mapping[str, Any],
    value: Any = None,
    *,
    step: Any = None,
    timestamp: Any = None,
    scale: str | None = None,
    labels: Mapping[str, str] | None = None,
    evaluation: bool = False,
) -> None: ...
def log_distributed(
    metric_name: str | Mapping[str, Any],
    value: Any = None,
    *,
    step: Any = None,
    timestamp: Any = None,
    scale: str | None = None,
    labels: Mapping[str, str] | None = None,
    evaluation: bool = False,
) -> None: ...
def log_rl_episode(
    metric_name: str,
    value: Any,
    rl_step: int,
    episode: Any = None,
    env_id: Any = None,
    labels: Mapping[str, str] | None = None,
    evaluation: bool = False,
    timestamp: Any = None,
) -> None: ...
def log_rl_environment_step(
    metric_name: str,
    value: Any,
    rl_step: int,
    env_id: Any = None,
    episode: Any = None,
    labels: Mapping[str, str] | None = None,
    evaluation: bool = False,
    timestamp: Any = None,
) -> None: ...
def current_run() -> RunCore | None: ...
def set_current_run(run: RunCore | None) -> None: ...
def fork_prepare() -> None: ...
def fork_in_parent() -> None: ...
def fork_in_child() -> None: ...
def find_local_server(
    data_dir: str | PathLike[str], timeout_secs: float = 0.2
) -> dict[str, Any] | None: ...

@disjoint_base
class RunCore:
    def __new__(cls, *_args: Any, **_kwargs: Any) -> RunCore: ...
    def log(
        self,
        metric_name: str | Mapping[str, Any],
        value: Any = None,
        *,
        step: Any = None,
        timestamp: Any = None,
        scale: str | None = None,
        labels: Mapping[str, str] | None = None,
        evaluation: bool = False,
    ) -> None: ...
    def log_distributed(
        self,
        metric_name: str | Mapping[str, Any],
        value: Any = None,
        *,
        step: Any = None,
        timestamp: Any = None,
        scale: str | None = None,
        labels: Mapping[str, str] | None = None,
        evaluation: bool = False,
    ) -> None: ...
    def log_rl_episode(
        self,
        metric_name: str,
        value: Any,
        rl_step: int,
        episode: Any = None,
        env_id: Any = None,
        labels: Mapping[str, str] | None = None,
        evaluation: bool = False,
        timestamp: Any = None,
    ) -> None: ...
    def log_rl_environment_step(
        self,
        metric_name: str,
        value: Any,
        rl_step: int,
        env_id: Any = None,
        episode: Any = None,
        labels: Mapping[str, str] | None = None,
        evaluation: bool = False,
        timestamp: Any = None,
    ) -> None: ...
    def _open(self, options: object) -> None: ...
    def _open_disabled(self) -> None: ...
    def _is_open(self) -> bool: ...
    def _is_inherited(self) -> bool: ...
    def _check_open(self) -> None: ...
    def _identity(self) -> dict[str, Any] | None: ...
    def _log_attributes(self, operations: Sequence[tuple[Any, ...]]) -> None: ...
    def _log_env_attributes(
        self, env_id: Any, episode: int | None, entries: Sequence[tuple[str, str, Any]]
    ) -> None: ...
    def _rendering_folder(self) -> str | None: ...
    def _rendering_finished(self, rendering_id: str) -> None: ...
    def _last_step(self, metric_name: Any, scale_name: Any, labels: Any) -> int | None: ...
    def _env_cursor(self, env_id: Any) -> tuple[int | None, int | None]: ...
    def _counters(self) -> dict[str, int]: ...
    def _left(self) -> dict[str, int]: ...
    def _status(self) -> dict[str, Any] | None: ...
    def _take_errors(self) -> list[str]: ...
    def _flush(self, timeout_secs: float | None) -> None: ...
    def _close(self, timeout_secs: float, failed: bool) -> bool: ...

# ── What a server calls ──────────────────────────────────────────────────────────────────────────

@final
class NumberMap:
    def __new__(
        cls,
        run_no: int,
        writer_no: int,
        seq: int,
        logger_no: int,
        metric_nos: npt.NDArray[np.uint32],
        env_nos: npt.NDArray[np.uint32],
    ) -> NumberMap: ...

@final
class BatchInfo:
    @property
    def kind(self) -> Literal["points", "attributes", "renderings"]: ...
    @property
    def float_point_count(self) -> int: ...
    @property
    def rl_point_count(self) -> int: ...
    @property
    def attribute_count(self) -> int: ...
    @property
    def env_attribute_count(self) -> int: ...

def decode_points(
    batches: Sequence[tuple[bytes, NumberMap]],
) -> dict[str, npt.NDArray[Any]]: ...
def batch_info(payload: bytes) -> BatchInfo: ...
def decode_declarations(payload: bytes) -> list[tuple[Any, ...]]: ...
def decode_attributes(payload: bytes) -> list[tuple[Any, ...]]: ...

@final
class RenderingInfo:
    @property
    def env_id(self) -> str: ...
    @property
    def episode(self) -> int: ...
    @property
    def rl_step(self) -> int: ...
    @property
    def part(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def frame_count(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> bytes: ...

def decode_rendering(
    payload: bytes,
) -> tuple[bytes, int, memoryview, RenderingInfo | None]: ...
def crc32c(data: bytes) -> int: ...

@final
class SpoolMessage:
    @property
    def kind(self) -> Literal["declarations", "points", "attributes", "renderings"]: ...
    @property
    def seq(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def crc(self) -> int: ...
    @property
    def urgent(self) -> bool: ...

@final
class SpoolFollower:
    def __new__(
        cls, writer_folder: str | PathLike[str], from_oldest: bool = False
    ) -> SpoolFollower: ...
    @property
    def first_seq(self) -> int: ...
    @property
    def acknowledged(self) -> int: ...
    def read(self, max_bytes: int) -> list[SpoolMessage]: ...
    def acknowledge(self, seq: int) -> None: ...
    def damage(self) -> list[tuple[int, int, str]]: ...
    def problems(self) -> list[str]: ...
    def writer_has_ended(self) -> None: ...

@final
class WriterInfo:
    @property
    def number(self) -> int: ...
    @property
    def path(self) -> str: ...
    @property
    def writer_id(self) -> str | None: ...
    @property
    def state(self) -> Literal["live", "dead", "foreign"]: ...
    @property
    def sender(self) -> Literal["none", "grpc"] | None: ...
    @property
    def info(self) -> dict[str, Any]: ...
    @property
    def undelivered(self) -> bool: ...
    @property
    def ring_bytes(self) -> int | None: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def kept(self) -> str | None: ...

@final
class RunFolder:
    def __new__(cls, path: str | PathLike[str]) -> RunFolder: ...
    @property
    def path(self) -> str: ...
    @property
    def run(self) -> dict[str, Any]: ...
    def writers(self) -> list[WriterInfo]: ...
    def recover(self, number: int, force: bool = False) -> Recovery: ...
    def keep(self, number: int, first: int, last: int) -> None: ...
    def missing(self, number: int, first: int, last: int) -> str: ...
    @staticmethod
    def missing_so_far(first: int, last: int) -> str: ...
    def remove_delivered(self, number: int) -> None: ...

@final
class Recovery:
    def __enter__(self) -> Recovery: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        value: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> None: ...
    @property
    def report(self) -> dict[str, Any] | None: ...

def deliver_spools(
    data_dir: str | PathLike[str],
    url: str | None = None,
    token: str | None = None,
    force: bool = False,
    on_delivered: Callable[[dict[str, Any]], object] | None = None,
    server_dir: str | PathLike[str] | None = None,
    on_retry: Callable[[str], object] | None = None,
) -> dict[str, Any]: ...
def is_network_file_system(path: str | PathLike[str]) -> bool: ...
def orphaned_rings() -> list[dict[str, Any]]: ...
