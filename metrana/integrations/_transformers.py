"""What Transformers' Trainer gives to its callbacks: metrics, a config, what checkpoints keep.

Nothing here imports Transformers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from metrana.integrations._common import config_of

EXPORTED: Final = "metrana_run"
"""Of what a callback exports to a checkpoint, the attribute that says which run it belongs to."""

_RUNTIME: Final = "_runtime"
# Of a Trainer's arguments, and of what is passed on to the hub in them.
_SECRET: Final = re.compile(
    r"((hub|push_to_hub|auth|use_auth|access|refresh|bearer|api|hf|github)_)?token"
    r"|(.*_)?(api_?key|access_key|secret_key|private_key|password|passwd|secret|credentials?)",
    re.IGNORECASE,
)


# ── Metrics ──────────────────────────────────────────────────────────────────────────────────────


def logged(
    logs: Mapping[Any, Any], history: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[dict[str, Any], bool]]:
    """What `on_log` was given, under the names it is logged by.

    Args:
        logs: Values by key; not changed.
        history: What was logged so far, as the trainer's state keeps it, `logs` included.

    Yields:
        Values by name, and whether they are of an evaluation.
    """
    values = {str(key): value for key, value in logs.items()}
    summary = _summary(values, history)
    prefix = None if summary is not None else _evaluation_prefix(values)
    if summary is not None:
        yield {f"summary/{key}": value for key, value in summary.items()}, False
    elif prefix is not None:
        yield _evaluated(values, prefix), True
    else:
        yield from _by_key(values)


def predicted(metrics: Mapping[Any, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """What `on_predict` was given, likewise."""
    values = {str(key): value for key, value in metrics.items()}
    yield _evaluated(values, next(iter(_timed_prefixes(values)), "test")), True


def _summary(
    logs: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """What a training came to, if that is what is logged."""
    if "train_loss" not in logs:
        return None
    if "total_flos" in logs:
        return logs
    # The callback that prints has taken it out, if it was called before.
    last = history[-1] if history else {}
    if "total_flos" in last and last.get("train_loss") is logs["train_loss"]:
        return {**logs, "total_flos": last["total_flos"]}
    return None


def _evaluation_prefix(logs: Mapping[str, Any]) -> str | None:
    """The `metric_key_prefix` of an evaluation; None for what was logged while training."""
    if "learning_rate" in logs:
        return None
    # A training may log times too, with the tokens that it counts say. Only an evaluation counts
    # samples. If it took no time that a clock shows, it has at least a loss of its prefix.
    return next(
        (
            prefix
            for prefix in _timed_prefixes(logs)
            if f"{prefix}_samples_per_second" in logs
            or (prefix != "train" and f"{prefix}_loss" in logs)
        ),
        None,
    )


def _timed_prefixes(logs: Mapping[str, Any]) -> list[str]:
    """What has a time under a name that begins with it, the likeliest of an evaluation first."""
    found = [key.removesuffix(_RUNTIME) for key in logs if key.endswith(_RUNTIME)]
    # A metric may be called like that itself, and then has the prefix in front of it.
    return sorted(
        filter(None, found), key=lambda p: (f"{p}_samples_per_second" not in logs, len(p))
    )


def _evaluated(logs: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in logs.items():
        if key.startswith(f"{prefix}_"):
            found[f"{prefix}/{key.removeprefix(f'{prefix}_')}"] = value
        else:  # the epoch, and what trainers add with a prefix of their own
            found.setdefault(f"{prefix}/{key.removeprefix('eval_')}", value)
    return found


def _by_key(logs: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    for key, value in logs.items():
        group, _, name = key.partition("_")
        if group in ("eval", "test") and name:
            evaluation[f"{group}/{name}"] = value
        else:
            training[f"train/{key}"] = value
    if training:
        yield training, False
    if evaluation:
        yield evaluation, True


# ── Checkpoints and trials ───────────────────────────────────────────────────────────────────────


def exports(state: Any) -> dict[str, Any]:
    """What the callbacks of a Trainer have exported, by the name of their class."""
    found = getattr(state, "stateful_callbacks", None)
    return found if isinstance(found, dict) else {}


def exported_in(state: Any) -> Iterator[Mapping[str, Any]]:
    """What of it says which run it belongs to, the newest last."""
    for found in exports(state).values():
        for one in found if isinstance(found, list) else [found]:
            kept = one.get("attributes", {}).get(EXPORTED)
            if isinstance(kept, Mapping):
                yield kept


def ray_trial_id() -> str | None:
    """The id of Ray's trial that this process is, for such processes do not know of each other."""
    tune = sys.modules.get("ray.tune")
    found = None if tune is None else tune.get_context().get_trial_id()
    return None if found is None else str(found)


# ── Config ───────────────────────────────────────────────────────────────────────────────────────


def arguments_config(args: Any) -> dict[str, Any]:
    """A Trainer's arguments by name, without what is secret in them."""
    found = args.to_dict() if hasattr(args, "to_dict") else vars(args)
    # Where it knows of a secret it has put the name of it instead, whether there is one or not.
    known = {key: value for key, value in found.items() if value != f"<{str(key).upper()}>"}
    kept: dict[str, Any] = _without_secrets(known)
    return kept


def model_config(model: Any) -> dict[str, Any]:
    """The configuration of a model and of the adapters in it, and how many parameters it has."""
    found: dict[str, Any] = {}
    config = getattr(model, "config", None)
    if config is not None:
        found["model"] = _without_secrets(_as_dict(config))
    adapters = getattr(model, "peft_config", None)
    if adapters:
        named = adapters if isinstance(adapters, Mapping) else {"default": adapters}
        found["peft"] = {name: _without_secrets(_as_dict(c)) for name, c in named.items()}
    return found


def parameter_counts(model: Any) -> dict[str, Any]:
    """How many parameters a model has, and how many of them are trained."""
    found: dict[str, Any] = {}
    parameters = list(model.parameters()) if hasattr(model, "parameters") else []
    # DeepSpeed leaves a process nothing but its share of each, and says what it was.
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in parameters]
    if parameters:
        found["num_parameters"] = sum(size for size, _ in sizes)
        found["num_trainable_parameters"] = sum(size for size, is_trained in sizes if is_trained)
    count = getattr(model, "num_parameters", None)
    if callable(count) and not any(hasattr(p, "ds_numel") for p in parameters):
        found["num_parameters"] = count()  # it knows of several packed into one
    return found


def _as_dict(config: Any) -> Any:
    return config.to_dict() if hasattr(config, "to_dict") else config


def _without_secrets(value: Any) -> Any:
    # As it will be logged: what is nested in it may be of any kind until then.
    return _without_secret_items(config_of({"": value})["_"])


def _without_secret_items(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_secret_items(item)
            for key, item in value.items()
            if not _SECRET.fullmatch(key)
        }
    if isinstance(value, list):
        return [_without_secret_items(item) for item in value]
    return value
