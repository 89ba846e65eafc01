"""What a run is opened with: arguments of `init()`, then the environment, then defaults.

Environment variables are read here and nowhere else (`orchestration` and `local_server` get theirs
from here). A variable that is set but empty counts as absent.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from metrana import attributes, checks
from metrana.enums import (
    BackpressureStrategy,
    Compression,
    ErrorStrategy,
    LogLevel,
    ResumeStrategy,
)
from metrana.errors import MetranaValidationError, NoMetranaApiKeyError

LOCAL_DESTINATION: Final = "local"
MIN_FPS: Final = 0.001
MAX_FPS: Final = 1000.0

ENVIRONMENT_VARIABLES: Final[Mapping[str, str]] = {
    "api_key": "METRANA_API_KEY",
    "orchestration_id": "METRANA_ORCHESTRATION_ID",
    "backpressure_strategy": "METRANA_BACKPRESSURE_STRATEGY",
    "error_strategy": "METRANA_ERROR_MODES",
    "resume_strategy": "METRANA_RESUME_STRATEGY",
    "log_level": "METRANA_LOG_LEVEL",
    "queue_capacity": "METRANA_EVENT_QUEUE_MAX_SIZE",
    "skip_drain_render_on_close": "METRANA_SKIP_DRAIN_RENDER_ON_CLOSE",
    "rendering_close_timeout": "METRANA_RENDERING_CLOSE_TIMEOUT",
    "ingestion_url": "METRANA_INGESTION_URL",
    "data_dir": "METRANA_DIR",
    "mode": "METRANA_MODE",
    "workspace_name": "METRANA_WORKSPACE",
    "project_name": "METRANA_PROJECT",
}
"""The variable that stands in for each argument of `init()` that has one."""

_DISABLED_VARIABLE: Final = "METRANA_DISABLED"
_MODES: Final = ("auto", "online", "offline", "disabled")
_FSYNC_POLICIES: Final = ("never", "interval", "always")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# A name, or an IPv6 address.
_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(?:%[a-z0-9._-]+)?")
_TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})
_FALSE_WORDS: Final = frozenset({"0", "false", "no", "off"})
# Below it a batch could not hold one point of every kind with its declarations.
_MIN_MESSAGE_BYTES: Final = 16 * 1024
# Batches of a few points would cost more than the points.
_MIN_BATCH_AGE_S: Final = 0.001
# Without a wait a server that is down would be called without end.
_MIN_BACKOFF_S: Final = 0.001
# A receiver that keeps gRPC's default takes no message above 4 MiB.
_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The resolved arguments of `init()`; see there for their meaning and units."""

    api_key: str | None = field(repr=False)
    workspace_name: str
    project_name: str
    run_name: str | None
    experiment_name: str | None
    ingestion_url: str | None
    resume_strategy: ResumeStrategy
    orchestration_id: str | None
    logger_id: str | None
    backpressure_strategy: BackpressureStrategy
    error_strategy: ErrorStrategy
    compression: Compression
    log_level: LogLevel
    create_project_if_missing: bool
    fork_from_run: str | None
    fork_at_step: int | None
    tags: tuple[str, ...] | None
    description: str | None
    config: tuple[attributes.Entry, ...] = field(repr=False)
    """Flattened: what the caller does to it later changes nothing."""
    queue_capacity: int | None
    enqueue_timeout_secs: float
    init_timeout_secs: float
    connect_timeout_secs: float
    max_pending_requests: int
    max_send_retries: int | None
    send_retry_initial_backoff_secs: float
    send_retry_max_backoff_secs: float
    batch_max_age_secs: float
    max_msg_size: int
    rendering_output_dir: Path | None
    rendering_fps: float
    rendering_max_concurrent_encoders: int
    rendering_queue_max_size: int | None
    skip_drain_render_on_close: bool
    rendering_close_timeout: float | None
    mode: str
    run_id: str | None
    data_dir: Path
    spool_max_bytes: int | None
    fsync: str

    def __repr__(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
        shown["api_key"] = None if self.api_key is None else "***"
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def destination(self) -> str:
        """Where the run belongs: `local`, or the normalised URL of a server."""
        return self.ingestion_url or LOCAL_DESTINATION


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Resolve the arguments of `init()`.

    Args:
        arguments: Every argument of `init()` by name; None means "not given".
        environ: The environment. Default: this process's.

    Raises:
        MetranaValidationError: For a value that is not allowed, naming its argument or variable.
        NoMetranaApiKeyError: For a server that is not on this machine, without a key.
    """
    source = _Source(arguments, os.environ if environ is None else environ)
    settings = Settings(
        **_identity(source), **_strategies(source), **_delivery(source), **_rendering(source)
    )
    _require_api_key(settings)
    return settings


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The data directory when none is given: `$METRANA_DIR`, else `~/.metrana`."""
    value = (os.environ if environ is None else environ).get("METRANA_DIR")
    return checks.directory("METRANA_DIR", value or "~/.metrana")


def checked_data_dir(path: Path) -> Path:
    """A data directory as it is, which may be missing but not be something else.

    Raises:
        MetranaValidationError: If it is a file.
    """
    if path.exists() and not path.is_dir():
        raise checks.path_refusal("data_dir", str(path), "a directory")
    return path


def default_workspace(environ: Mapping[str, str] | None = None) -> str | None:
    """The workspace when none is given: `$METRANA_WORKSPACE`, else None."""
    return (os.environ if environ is None else environ).get("METRANA_WORKSPACE") or None


def default_project(environ: Mapping[str, str] | None = None) -> str | None:
    """The project when none is given: `$METRANA_PROJECT`, else None."""
    return (os.environ if environ is None else environ).get("METRANA_PROJECT") or None


def default_api_key(environ: Mapping[str, str] | None = None) -> str | None:
    """The key when none is given: `$METRANA_API_KEY`, else None."""
    return (os.environ if environ is None else environ).get("METRANA_API_KEY") or None


def normalise_url(url: object, name: str = "ingestion_url") -> str:
    """The one spelling of a server's URL, by which spools are told apart.

    The scheme and host in lower case, no default port, no trailing slash. Without a scheme it is
    `http` for this machine and `https` for any other, but for a word alone, which is no address.

    Raises:
        MetranaValidationError: If it is no http(s) URL of a server.
    """
    server = _server_of(checks.text(name, url).strip())
    if server is None:
        raise checks.refusal(
            name, url, "an address like https://metrana.example.org or http://host:7671"
        )
    return server


def _server_of(text: str) -> str | None:
    if "://" in text:
        return _spelled(text)
    if is_loopback("//" + text):
        return _spelled("http://" + text)
    # Somebody's name for a server, or for something else altogether, but not where one is.
    is_word = not any(mark in text.partition("/")[0] for mark in ".:")
    return None if is_word else _spelled("https://" + text)


def _spelled(text: str) -> str | None:
    # urlsplit itself passes over line ends and tabs.
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
        return None
    if "@" in parts.netloc or parts.query or parts.fragment:
        return None
    if ":" in host:
        host = f"[{host}]"
    suffix = "" if port is None or port == _DEFAULT_PORTS[scheme] else f":{port}"
    return f"{scheme}://{host}{suffix}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine by a loopback address."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class _Source:
    """Arguments over environment variables."""

    arguments: Mapping[str, Any]
    environ: Mapping[str, str]

    def get(self, name: str) -> tuple[Any, str]:
        """The value (None: neither given nor set) and the name its errors speak of."""
        value = self.arguments.get(name)
        variable = ENVIRONMENT_VARIABLES.get(name)
        if value is None and variable is not None:
            return self.environ.get(variable) or None, variable
        return value, name

    def choice(self, name: str, kind: Any, default: Any) -> Any:
        value, label = self.get(name)
        return default if value is None else checks.choice(label, value, kind)

    def word(self, name: str, words: Sequence[str], default: str) -> str:
        value, label = self.get(name)
        return default if value is None else checks.word(label, value, words)

    def name(self, name: str) -> str | None:
        value, label = self.get(name)
        return None if value is None else checks.entity_name(label, value)

    def seconds(self, name: str, minimum: float = 0.0) -> float:
        value, label = self.get(name)
        return checks.number(label, _parsed(label, name, value, float), minimum=minimum)

    def optional_count(
        self, name: str, *, minimum: int = 1, maximum: int = 2**63 - 1
    ) -> int | None:
        value, label = self.get(name)
        if value is None:
            return None
        number = _parsed(label, name, value, int)
        return checks.whole_number(label, number, minimum=minimum, maximum=maximum)

    def count(self, name: str, *, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
        value, label = self.get(name)
        return checks.whole_number(label, value, minimum=minimum, maximum=maximum)

    def flag(self, name: str, *, default: bool) -> bool:
        value, label = self.get(name)
        if value is None:
            return default
        return _flag(label, value) if label != name else checks.flag(label, value)


def _identity(source: _Source) -> dict[str, Any]:
    url, url_label = source.get("ingestion_url")
    tags, config = source.arguments.get("tags"), source.arguments.get("config")
    orchestration = source.arguments.get("orchestration_id")
    description, (key, key_label) = source.arguments.get("description"), source.get("api_key")
    fork_step = source.optional_count("fork_at_step", minimum=0)
    return {
        "api_key": None if key is None else checks.api_key(key_label, key),
        "workspace_name": source.name("workspace_name") or "default",
        "project_name": source.name("project_name") or "default",
        "run_name": source.name("run_name"),
        "experiment_name": source.name("experiment_name"),
        "ingestion_url": None if url is None else normalise_url(url, url_label),
        # Its variable also carries what this process published: `orchestration` tells them apart.
        "orchestration_id": None
        if orchestration is None
        else checks.entity_name("orchestration_id", orchestration),
        "logger_id": source.name("logger_id"),
        "run_id": _run_id(source.arguments.get("run_id")),
        "fork_from_run": source.name("fork_from_run"),
        "fork_at_step": fork_step,
        "tags": None if tags is None else checks.tags("tags", tags),
        "description": None if description is None else attributes.check_description(description),
        "config": () if config is None else tuple(attributes.flatten_config(config)),
        "create_project_if_missing": source.flag("create_project_if_missing", default=True),
    }


def _strategies(source: _Source) -> dict[str, Any]:
    choice = source.choice
    return {
        "resume_strategy": choice("resume_strategy", ResumeStrategy, ResumeStrategy.NEVER),
        "backpressure_strategy": choice(
            "backpressure_strategy", BackpressureStrategy, BackpressureStrategy.DROP_NEW
        ),
        "error_strategy": choice("error_strategy", ErrorStrategy, ErrorStrategy.WARN),
        "compression": choice("compression", Compression, Compression.ZSTD),
        "log_level": choice("log_level", LogLevel, LogLevel.INFO),
        "mode": _mode(source),
        "fsync": source.word("fsync", _FSYNC_POLICIES, "never"),
    }


def _delivery(source: _Source) -> dict[str, Any]:
    data_dir, label = source.get("data_dir")
    return {
        "data_dir": checks.directory(label, "~/.metrana" if data_dir is None else data_dir),
        "queue_capacity": source.optional_count("queue_capacity"),
        "spool_max_bytes": source.optional_count("spool_max_bytes"),
        "max_send_retries": source.optional_count("max_send_retries", minimum=0, maximum=2**31 - 1),
        "max_pending_requests": source.count("max_pending_requests"),
        "max_msg_size": source.count(
            "max_msg_size", minimum=_MIN_MESSAGE_BYTES, maximum=_MAX_MESSAGE_BYTES
        ),
        "enqueue_timeout_secs": source.seconds("enqueue_timeout_secs"),
        "init_timeout_secs": source.seconds("init_timeout_secs"),
        "connect_timeout_secs": source.seconds("connect_timeout_secs"),
        "send_retry_initial_backoff_secs": source.seconds(
            "send_retry_initial_backoff_secs", minimum=_MIN_BACKOFF_S
        ),
        "send_retry_max_backoff_secs": source.seconds(
            "send_retry_max_backoff_secs", minimum=_MIN_BACKOFF_S
        ),
        "batch_max_age_secs": source.seconds("batch_max_age_secs", minimum=_MIN_BATCH_AGE_S),
    }


def _rendering(source: _Source) -> dict[str, Any]:
    folder = source.arguments.get("rendering_output_dir")
    timeout, _ = source.get("rendering_close_timeout")
    return {
        "rendering_output_dir": (
            None if folder is None else checks.directory("rendering_output_dir", folder)
        ),
        "rendering_fps": checks.number(
            "rendering_fps",
            source.arguments.get("rendering_fps"),
            minimum=MIN_FPS,
            maximum=MAX_FPS,
        ),
        "rendering_max_concurrent_encoders": source.count("rendering_max_concurrent_encoders"),
        "rendering_queue_max_size": source.optional_count("rendering_queue_max_size"),
        "skip_drain_render_on_close": source.flag("skip_drain_render_on_close", default=False),
        "rendering_close_timeout": (
            None if timeout is None else source.seconds("rendering_close_timeout")
        ),
    }


def _mode(source: _Source) -> str:
    disabled = source.environ.get(_DISABLED_VARIABLE)
    if disabled and _flag(_DISABLED_VARIABLE, disabled):
        return "disabled"
    return source.word("mode", _MODES, "auto")


def _require_api_key(settings: Settings) -> None:
    url = settings.ingestion_url
    sends = settings.mode in ("auto", "online")
    if url is None or settings.api_key is not None or not sends or is_loopback(url):
        return
    raise NoMetranaApiKeyError(
        f"{url} is not on this machine and no API key was given: pass api_key= to metrana.init() "
        "or set METRANA_API_KEY (any text will do for a server that asks for none)"
    )


def _run_id(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value) == 32:
        folded = value.lower()
        if all(digit in "0123456789abcdef" for digit in folded):
            return folded
    raise checks.refusal("run_id", value, "the 32 hexadecimal digits of a run's run_id")


def _flag(label: str, value: str) -> bool:
    word = value.strip().lower()
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise checks.refusal(label, value, "1 or 0, true or false, yes or no, on or off")


def _parsed(label: str, name: str, value: object, kind: type[int] | type[float]) -> object:
    """A number from an environment variable; an argument passes as it is."""
    if label == name or not isinstance(value, str):
        return value
    try:
        return kind(value)
    except ValueError:
        raise MetranaValidationError(
            f"{label}: must be {'a whole number' if kind is int else 'a number'}, not {value!r}"
        ) from None
