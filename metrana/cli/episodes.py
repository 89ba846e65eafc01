"""`metrana episodes RUN`: the episodes of its environments, newest or best first."""

from __future__ import annotations

import argparse
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table
from rich.text import Text

from metrana.cli.output import DONE, NOT_FOUND, complain, console, note, print_json, visible
from metrana.cli.reading import find_run, reading
from metrana.errors import MetranaValidationError
from metrana.query import RunInfo

# More columns than these would leave each too narrow; --json has all.
_MAX_FURTHER: Final = 6
_OWN: Final = ("env_id", "episode", "evaluation", "first_rl_step", "last_rl_step")
_HEADINGS: Final = {
    "env_id": "env",
    "first_rl_step": "from",
    "last_rl_step": "to",
    "episode_length": "length",
    "episode_return": "return",
}
# `end` says what they say, and the id of a video is for programs: --json has it.
_SAID: Final = ("terminated", "truncated", "rendering_id")


def run(arguments: argparse.Namespace) -> int:
    """Lists episodes."""
    with reading(arguments) as client:
        info = find_run(client, arguments)
        table = client.episodes(run_id=info.run_id, env_id=arguments.env, as_="arrow")
    shown = ordered(table, arguments.sort)
    if 0 < arguments.limit < shown.num_rows:  # a slice takes no number beyond an Int64
        shown = shown.slice(0, arguments.limit)
    if arguments.json:
        print_json(shown.to_pylist())
    elif table.num_rows:
        console().print(episode_table(shown, arguments.sort))
        left_out = table.num_rows - shown.num_rows
        if left_out:
            note(f"… and {left_out:,} more episodes; --limit 0 shows all")
    else:
        complain(_no_episodes(info, arguments.env))
    return DONE if table.num_rows else NOT_FOUND


def ordered(table: Any, sort: str | None) -> Any:
    """Puts the greatest of a column first, or texts by alphabet; without one the newest episodes.

    What has no value there comes last, after NaN. Episodes that are equal there stay in order.

    Raises:
        MetranaValidationError: There is no such column.
    """
    is_newest_first = sort is None
    sort = "last_rl_step" if sort is None else sort
    if sort not in table.column_names:
        raise MetranaValidationError(
            f"--sort: must be one of {', '.join(table.column_names)}, not {sort!r}"
        )
    column = table[sort]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_text = pa.types.is_string(column.type)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    # Nulls and NaN are put at the end by themselves. Equal ones are only kept in order where their
    # place is a key too.
    places = np.arange(table.num_rows)
    keyed = pa.table({"key": column, "episode": table["episode"], "place": places})
    keys = [("key", "ascending" if is_text else "descending"), ("place", "ascending")]
    if is_newest_first:  # several episodes may have ended in one step
        keys.insert(1, ("episode", "descending"))
    return table.take(pc.sort_indices(keyed, keys))


def episode_table(table: Any, sort: str | None = None) -> Table:
    """Gives the table that is printed: what an episode is, how it went, some further metrics."""
    names = [*_OWN, "episode_length", "episode_return", "end"]
    if not pc.any(table["evaluation"]).as_py():
        names.remove("evaluation")
    further = [name for name in table.column_names if name not in (*names, "evaluation", *_SAID)]
    named = [name for name in (sort,) if name not in (None, *names)]
    names += list(dict.fromkeys([*named, *further]))[:_MAX_FURTHER]
    printed = Table(box=None, pad_edge=False)
    for name in names:
        is_text = name in ("env_id", "end", "evaluation")
        printed.add_column(
            Text(visible(_HEADINGS.get(name, name))),
            justify="left" if is_text else "right",
            overflow="fold",
        )
    for row in table.select(names).to_pylist():
        printed.add_row(*(Text(visible(_cell(row[name]))) for name in names))
    return printed


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _no_episodes(info: RunInfo, env_id: str | None) -> str:
    where = f"environment {env_id!r} of run" if env_id else "run"
    return f"{where} {info.run_name!r} has no episodes"
