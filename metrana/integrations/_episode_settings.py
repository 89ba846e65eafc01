"""What adapters of environments are asked for: which steps and infos, and who environments are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from metrana import checks
from metrana.integrations._common import metric_name
from metrana.values import as_env_ids

# Names of our own, which no info metric may have.
_TAKEN: Final = frozenset(
    {"reward", "episode_return", "episode_length", "episode_duration", "terminated", "truncated"}
)
_ENV_ID: Final = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
_NO_ENV_ID_CHARACTER: Final = re.compile(r"[^A-Za-z0-9._~:-]")
# Room for what distinguishes environments of one name.
_MAX_NAME: Final = 96
_MAX_EVERY: Final = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSettings:
    """What of its environments an adapter logs, checked.

    Attributes:
        evaluation: Whether they are evaluated, not trained on.
        info_metrics: Keys of info whose numbers are logged.
        names: What they are called as metrics.
        every: The steps of which episodes are logged: 1 of all, N of 0, N, 2N, …, 0 of none.
        rl_step_fn: Gives the rl_step.
    """

    evaluation: bool
    info_metrics: tuple[str, ...]
    names: tuple[str, ...]
    every: int
    rl_step_fn: Callable[[], int] | None

    @classmethod
    def of(
        cls,
        *,
        evaluation: bool = False,
        info_metrics: Iterable[str] = (),
        log_env_steps: bool | int = True,
        rl_step_fn: Callable[[], int] | None = None,
    ) -> EpisodeSettings:
        """Check an adapter's arguments, named as here.

        Raises:
            MetranaValidationError: For what is not allowed.
        """
        allowed = "a list of keys of info"
        keys = tuple(checks.listed("info_metrics", info_metrics, allowed))
        for key in keys:
            if not isinstance(key, str):
                raise checks.refusal("info_metrics", key, "strings, which are keys of info")
        names = tuple(metric_name(key) for key in keys)
        taken = [name for name in names if name in _TAKEN or names.count(name) > 1]
        if taken:
            raise checks.refusal(
                "info_metrics", taken[0], f"names given once, none of {', '.join(sorted(_TAKEN))}"
            )
        if rl_step_fn is not None and not callable(rl_step_fn):
            raise checks.refusal("rl_step_fn", rl_step_fn, "a function that returns an int")
        every = int(log_env_steps) if isinstance(log_env_steps, bool) else log_env_steps
        return cls(
            evaluation=bool(evaluation),
            info_metrics=tuple(str(key) for key in keys),
            names=names,
            every=checks.whole_number("log_env_steps", every, maximum=_MAX_EVERY),
            rl_step_fn=rl_step_fn,
        )


def checked_env_id(env_id: Any, count: int | None = None) -> str | list[str] | None:
    """Check the argument `env_id` of an adapter.

    Args:
        env_id: None, or an id; for several environments their prefix, or a list of theirs.
        count: How many environments there are; None: one, which has an id and no list.

    Raises:
        MetranaValidationError: For what is not allowed.
    """
    if env_id is None:
        return None
    found = as_env_ids(env_id)
    if isinstance(found, str):
        last = found if count is None else f"{found}-{count - 1}"
        _check_env_id(found)
        _check_env_id(last)
        return found
    if count is None or len(found) != count or len(set(found)) != count:
        raise checks.refusal(
            "env_id", env_id, "one id" if count is None else f"a prefix or {count} different ids"
        )
    for each in found:
        _check_env_id(each)
    return found


def _check_env_id(env_id: str) -> None:
    if _ENV_ID.fullmatch(env_id) is None or env_id in (".", ".."):
        raise checks.refusal("env_id", env_id, "1 to 128 of A-Z a-z 0-9 . _ ~ : - (not . or ..)")


def env_id_base(name: str | None, *, evaluation: bool) -> str:
    """What default env ids begin with: the environment's name, `eval`, and the rank if there are.

    Args:
        name: As its framework calls it. Default: `env`.
        evaluation: Whether it is evaluated.
    """
    base = _NO_ENV_ID_CHARACTER.sub("-", name or "env")[:_MAX_NAME]
    rank = os.environ.get("RANK", "")
    is_one_of_many = os.environ.get("WORLD_SIZE", "").strip() not in ("", "0", "1")
    of_rank = f"-r{_NO_ENV_ID_CHARACTER.sub('-', rank)[:8]}" if rank and is_one_of_many else ""
    return f"{base}{'-eval' if evaluation else ''}{of_rank}"
