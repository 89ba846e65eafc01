"""The public interface: every name, signature, default, enum, exception and variable."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import metrana
from metrana.settings import ENVIRONMENT_VARIABLES

LOG = (
    "(metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None,"
    " evaluation=False)"
)
SIGNATURES = {
    "init": (
        "(*, api_key=None, workspace_name=None, project_name=None, run_name=None,"
        " experiment_name=None, ingestion_url=None, resume_strategy=None, orchestration_id=None,"
        " logger_id=None, backpressure_strategy=None, error_strategy=None, compression=None,"
        " log_level=None, create_project_if_missing=True, fork_from_run=None, fork_at_step=None,"
        " tags=None, description=None, config=None, queue_capacity=None, enqueue_timeout_secs=0.1,"
        " init_timeout_secs=120.0, connect_timeout_secs=5.0, max_pending_requests=30,"
        " max_send_retries=60, send_retry_initial_backoff_secs=0.05,"
        " send_retry_max_backoff_secs=15.0, batch_max_age_secs=1.0, max_msg_size=1048576,"
        " rendering_output_dir=None, rendering_fps=30, rendering_max_concurrent_encoders=1,"
        " rendering_queue_max_size=None, skip_drain_render_on_close=None,"
        " rendering_close_timeout=None, mode=None, run_id=None, data_dir=None,"
        " spool_max_bytes=None, fsync='never')"
    ),
    "log": LOG,
    "log_distributed": LOG,
    "log_rl_episode": (
        "(metric_name, value, rl_step, episode=None, env_id=None, labels=None, evaluation=False,"
        " timestamp=None)"
    ),
    "log_rl_environment_step": (
        "(metric_name, value, rl_step, env_id=None, episode=None, labels=None, evaluation=False,"
        " timestamp=None)"
    ),
    "log_rendering": "(frame, rl_step, episode, env_id=None, fps=None)",
    "log_config": "(config)",
    "log_attributes": "(prefix_path, value)",
    "log_env_attributes": "(env_id, value, episode=None)",
    "set_tags": "(tags)",
    "add_tags": "(tags)",
    "remove_tags": "(tags)",
    "set_description": "(description)",
    "get_last_step": "(metric_name, scale=None, labels=None)",
    "get_env_last_rl_step_and_episode": "(env_id)",
    "get_metrics": "()",
    "check_sender_errors": "()",
    "is_initialized": "()",
    "close": "(close_timeout=15.0)",
    "finish": "(close_timeout=15.0)",
    "flush": "(timeout_secs=None)",
    "status": "()",
}
ENUMS = {
    "StandardMetricScale": ["ML_STEP", "EPISODE", "ENVIRONMENT_STEP"],
    "BackpressureStrategy": ["drop_new", "block", "raise"],
    "ErrorStrategy": ["silent", "warn", "raise_on_log", "raise_on_close"],
    "ResumeStrategy": ["never", "allow"],
    "Compression": ["none", "zstd"],
    "LogLevel": ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"],
}
EXCEPTIONS: dict[str, type[BaseException]] = {
    "MetranaNotInitializedError": RuntimeError,
    "MetranaLoggerInitError": ConnectionError,
    "MetranaValidationError": ValueError,
    "MetranaSenderError": ConnectionError,
    "MetranaClosingError": TimeoutError,
    "MetranaLoggerClosedError": RuntimeError,
    "MetranaRunAlreadyExistsError": FileExistsError,
    "MetranaOrchestrationIdMismatchError": metrana.MetranaRunAlreadyExistsError,
    "MetranaEventQueueFullError": Exception,
    "MetranaProcessForkError": RuntimeError,
    "NoMetranaApiKeyError": PermissionError,
}
KINDS = ("float_points", "rl_float_points", "attribute_updates", "env_attribute_updates")
METRICS = {
    *(
        f"{kind}_{verb}"
        for kind in KINDS
        for verb in ("added", "enqueued", "spooled", "sent", "dropped")
    ),
    *(f"rendering_frames_{verb}" for verb in ("added", "encoded", "dropped")),
    *("connection_attempts", "requests_sent", "send_errors", "errors_reported", "errors_evicted"),
}


def _signature(function: Any, *, bound: bool = False) -> str:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(bare)).replace("(/", "(").replace("(, ", "(")


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_function_has_the_contracts_signature(name: str) -> None:
    assert _signature(getattr(metrana, name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", sorted(SIGNATURES.keys() - {"init"}))
def test_a_function_is_a_method_of_run_too(name: str) -> None:
    assert _signature(getattr(metrana.Run, name), bound=True) == SIGNATURES[name]


@pytest.mark.parametrize("name", ENUMS)
def test_an_enum_has_its_strings_in_any_case(name: str) -> None:
    kind = getattr(metrana, name)
    assert [member.value for member in kind] == ENUMS[name]
    for member in kind:
        assert isinstance(member, str)
        assert member == member.value == str(member)
        assert kind(member.value.upper()) is kind(member.value.lower()) is member
    with pytest.raises(ValueError, match="nonsense"):
        kind("nonsense")


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_is_the_builtin_it_resembles(name: str) -> None:
    kind = getattr(metrana, name)
    assert issubclass(kind, EXCEPTIONS[name])
    assert issubclass(kind, metrana.MetranaError)


def test_every_exception_is_drawn_in_the_tree() -> None:
    errors = importlib.import_module("metrana.errors")
    assert all(f"{name}" in (errors.__doc__ or "") for name in errors.__all__)
    assert set(errors.__all__) <= set(metrana.__all__)


def test_all_names_what_is_exported() -> None:
    documented = {*SIGNATURES, *ENUMS, *EXCEPTIONS, "MetranaError", "Run"}
    assert documented <= set(metrana.__all__)
    public = {
        name
        for name, value in vars(metrana).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(metrana.__all__) - {"__version__"}
    assert sorted(metrana.__all__) == metrana.__all__


def test_counters_have_the_contracts_names() -> None:
    assert set(vars(metrana.Metrics())) == METRICS


def test_status_has_the_contracts_names() -> None:
    assert list(inspect.signature(metrana.Status).parameters) == [
        *("mode", "server_url", "ring", "loss_window_ms", "pending_points", "spooled_bytes"),
        *("last_ack_age_s", "problems"),
    ]


def test_environment_variables_are_the_contracts() -> None:
    assert dict(ENVIRONMENT_VARIABLES) == {
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


def test_every_public_name_is_documented() -> None:
    for name in metrana.__all__:
        value = getattr(metrana, name)
        if not isinstance(value, str):
            assert inspect.getdoc(value), name
    for name, member in inspect.getmembers(metrana.Run):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name


def test_inits_documentation_tells_every_argument() -> None:
    text = inspect.getdoc(metrana.init) or ""
    for name in inspect.signature(metrana.init).parameters:
        assert f"\n    {name}: " in text, name
    for variable in ENVIRONMENT_VARIABLES.values():
        assert variable in text
