"""Arguments over environment over defaults, and what of them is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import metrana
from metrana.settings import Settings, normalise_url, resolve

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(metrana.init).parameters.items()
}


def _resolve(environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
    return resolve({**DEFAULTS, **arguments}, environ or {})


def test_defaults() -> None:
    settings = _resolve()
    assert settings.workspace_name == settings.project_name == "default"
    assert settings.run_name is None
    assert settings.destination == "local"
    assert settings.mode == "auto"
    assert settings.backpressure_strategy is metrana.BackpressureStrategy.DROP_NEW
    assert settings.error_strategy is metrana.ErrorStrategy.WARN
    assert settings.resume_strategy is metrana.ResumeStrategy.NEVER
    assert settings.compression is metrana.Compression.ZSTD
    assert settings.max_send_retries == 60
    assert settings.data_dir == Path("~/.metrana").expanduser()
    assert settings.skip_drain_render_on_close is False


@pytest.mark.parametrize(
    ("variable", "text", "name", "expected"),
    [
        ("METRANA_API_KEY", "k", "api_key", "k"),
        ("METRANA_BACKPRESSURE_STRATEGY", "Block", "backpressure_strategy", "block"),
        ("METRANA_ERROR_MODES", "RAISE_ON_LOG", "error_strategy", "raise_on_log"),
        ("METRANA_RESUME_STRATEGY", "allow", "resume_strategy", "allow"),
        ("METRANA_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("METRANA_EVENT_QUEUE_MAX_SIZE", "100", "queue_capacity", 100),
        ("METRANA_SKIP_DRAIN_RENDER_ON_CLOSE", "TRUE", "skip_drain_render_on_close", True),
        ("METRANA_RENDERING_CLOSE_TIMEOUT", "2.5", "rendering_close_timeout", 2.5),
        ("METRANA_INGESTION_URL", "http://localhost:1", "ingestion_url", "http://localhost:1"),
        ("METRANA_DIR", "/data", "data_dir", Path("/data")),
        ("METRANA_MODE", "Offline", "mode", "offline"),
        ("METRANA_WORKSPACE", "w", "workspace_name", "w"),
        ("METRANA_PROJECT", "p", "project_name", "p"),
        ("METRANA_DISABLED", "1", "mode", "disabled"),
    ],
)
def test_the_environment_stands_in(variable: str, text: str, name: str, expected: Any) -> None:
    assert getattr(_resolve({variable: text}), name) == expected
    assert getattr(_resolve({variable: ""}), name) == getattr(_resolve(), name)


def test_an_argument_wins_over_its_variable() -> None:
    environ = {
        "METRANA_MODE": "online",
        "METRANA_EVENT_QUEUE_MAX_SIZE": "7",
        "METRANA_PROJECT": "x",
    }
    settings = _resolve(environ, mode="offline", queue_capacity=9, project_name="y")
    assert (settings.mode, settings.queue_capacity, settings.project_name) == ("offline", 9, "y")


def test_disabled_wins_over_everything() -> None:
    assert _resolve({"METRANA_DISABLED": "true"}, mode="online").mode == "disabled"
    assert _resolve({"METRANA_DISABLED": "0"}, mode="online").mode == "online"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"workspace_name": ""}, "workspace_name"),
        ({"project_name": "a\nb"}, "project_name"),
        ({"run_name": "x" * 257}, "run_name"),
        ({"run_name": 3}, "run_name"),
        ({"experiment_name": " "}, "experiment_name"),
        ({"ingestion_url": "ftp://host"}, "ingestion_url"),
        ({"ingestion_url": "http://"}, "ingestion_url"),
        ({"ingestion_url": "http://host:port"}, "ingestion_url"),
        ({"ingestion_url": "http://user:secret@host"}, "ingestion_url"),
        ({"ingestion_url": 3}, "ingestion_url"),
        ({"resume_strategy": "always"}, "resume_strategy"),
        ({"backpressure_strategy": 1}, "backpressure_strategy"),
        ({"compression": "gzip"}, "compression"),
        ({"log_level": "LOUD"}, "log_level"),
        ({"orchestration_id": ""}, "orchestration_id"),
        ({"create_project_if_missing": "yes"}, "create_project_if_missing"),
        ({"tags": "baseline"}, "tags"),
        ({"tags": [1]}, r"tags\[0\]"),
        ({"description": 1}, "description"),
        ({"config": [1]}, "config"),
        ({"queue_capacity": 0}, "queue_capacity"),
        ({"queue_capacity": 1.5}, "queue_capacity"),
        ({"queue_capacity": True}, "queue_capacity"),
        ({"enqueue_timeout_secs": -1}, "enqueue_timeout_secs"),
        ({"enqueue_timeout_secs": None}, "enqueue_timeout_secs"),
        ({"init_timeout_secs": float("nan")}, "init_timeout_secs"),
        ({"connect_timeout_secs": "5"}, "connect_timeout_secs"),
        ({"max_pending_requests": 0}, "max_pending_requests"),
        ({"max_send_retries": -1}, "max_send_retries"),
        ({"batch_max_age_secs": 0}, "batch_max_age_secs"),
        ({"max_msg_size": 1024}, "max_msg_size"),
        ({"max_msg_size": 2**30}, "max_msg_size"),
        ({"rendering_fps": 0}, "rendering_fps"),
        ({"rendering_output_dir": 3}, "rendering_output_dir"),
        ({"rendering_max_concurrent_encoders": 0}, "rendering_max_concurrent_encoders"),
        ({"mode": "sometimes"}, "mode"),
        ({"run_id": "xyz"}, "run_id"),
        ({"run_id": 5}, "run_id"),
        ({"data_dir": ""}, "data_dir"),
        ({"spool_max_bytes": 0}, "spool_max_bytes"),
        ({"fsync": "sometimes"}, "fsync"),
        ({"fork_at_step": -1}, "fork_at_step"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=f"^{name}: must be "):
        _resolve(**arguments)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("METRANA_MODE", "sometimes"),
        ("METRANA_EVENT_QUEUE_MAX_SIZE", "many"),
        ("METRANA_ERROR_MODES", "loud"),
        ("METRANA_SKIP_DRAIN_RENDER_ON_CLOSE", "maybe"),
        ("METRANA_RENDERING_CLOSE_TIMEOUT", "soon"),
        ("METRANA_DISABLED", "perhaps"),
    ],
)
def test_bad_variables_are_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=f"^{variable}: must be "):
        _resolve({variable: text})


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTPS://Metrana.Example.ORG:443/", "https://metrana.example.org"),
        ("http://host:80", "http://host"),
        ("http://host:7671/", "http://host:7671"),
        ("localhost:7671", "http://localhost:7671"),
        ("metrana.example.org", "https://metrana.example.org"),
        ("metrana.example.org/Path", "https://metrana.example.org/Path"),
        ("localhost", "http://localhost"),
        ("http://host", "http://host"),
        ("host:7671", "https://host:7671"),
        ("http://[::1]:7671", "http://[::1]:7671"),
        ("https://host/Path/", "https://host/Path"),
    ],
)
def test_urls_have_one_spelling(url: str, normal: str) -> None:
    assert normalise_url(url) == normal
    assert normalise_url(normal) == normal


@pytest.mark.parametrize("url", ["foo", "foo/bar.baz", "", "https://", 7671, "\udcff.org"])
def test_what_is_no_url_is_refused_by_the_name_it_was_given_under(url: object) -> None:
    with pytest.raises(
        metrana.MetranaValidationError, match=r"^ingestion_url: must be "
    ) as refused:
        _resolve(ingestion_url=url)
    assert repr(url) in str(refused.value)
    with pytest.raises(metrana.MetranaValidationError, match=r"^url: must be "):
        normalise_url(url, "url")


def test_a_url_in_the_environment_is_refused_by_its_variable() -> None:
    with pytest.raises(metrana.MetranaValidationError) as refused:
        _resolve({"METRANA_INGESTION_URL": "foo"})
    assert str(refused.value) == (
        "METRANA_INGESTION_URL: must be an address like https://metrana.example.org or "
        "http://host:7671, not 'foo'"
    )


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_server_elsewhere_needs_a_key(mode: str) -> None:
    with pytest.raises(metrana.NoMetranaApiKeyError, match="METRANA_API_KEY"):
        _resolve(ingestion_url="https://metrana.example.org", mode=mode)
    assert _resolve(ingestion_url="https://x.org", mode=mode, api_key="k").api_key == "k"


@pytest.mark.parametrize(
    "arguments",
    [
        {"ingestion_url": "http://127.0.0.1:7671"},
        {"ingestion_url": "http://localhost:7671"},
        {"ingestion_url": "http://[::1]:7671"},
        {"ingestion_url": "https://x.org", "mode": "offline"},
        {"ingestion_url": "https://x.org", "mode": "disabled"},
    ],
    ids=str,
)
def test_this_machine_and_offline_need_no_key(arguments: dict[str, Any]) -> None:
    assert _resolve(**arguments).api_key is None


def test_the_key_is_never_shown() -> None:
    assert "secret" not in repr(_resolve(api_key="secret"))
    assert "'***'" in repr(_resolve(api_key="secret"))
