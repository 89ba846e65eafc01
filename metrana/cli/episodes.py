"""`metrana episodes RUN`: the episodes of its environments, newest or best first."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from metrana.cli.output import DONE, NOT_FOUND, complain, console, note, print_json, visible
from metrana.cli.reading import find_run, reading
from metrana.errors import MetranaValidationError
from metrana.query import RunInfo

# --json has all.
_MAX_FURTHER: Final = 6
# Narrower than these, texts and headings are hard to read.
_LEAST_TEXT: Final = 10
_LEAST_HEADING: Final = 6
_OWN: Final = ("env_id", "episode", "evaluation", "first_rl_step", "last_rl_step")
_HEADINGS: Final = {
    "env_id": "env",
    "first_rl_step": "from",
    "last_rl_step": "to",
    "episode_length": "length",
    "episode_return": "return",
}
_TEXTS: Final = ("env_id", "end", "evaluation")
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
        out = console()
        out.print(episode_table(shown, out.width, arguments.sort))
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


def episode_table(table: Any, width: int, sort: str | None = None) -> Table:
    """Gives the table that is printed: what an episode is, how it went, some further metrics.

    Further metrics are left out from the last on, what is sorted by at last, till no number has to
    go on in another line.

    Args:
        table: The episodes.
        width: What there is for a line, in characters.
        sort: What they are sorted by.
    """
    names = [*_OWN, "episode_length", "episode_return", "end"]
    if not pc.any(table["evaluation"]).as_py():
        names.remove("evaluation")
    further = [name for name in table.column_names if name not in (*names, "evaluation", *_SAID)]
    named = [name for name in (sort,) if name not in (None, *names)]
    further = list(dict.fromkeys([*named, *further]))[:_MAX_FURTHER]
    cells = {
        name: [visible(_cell(value)) for value in table[name].to_pylist()]
        for name in (*names, *further)
    }
    least = {name: _least_width(name, cells[name]) for name in cells}
    while further and _width(least[name] for name in (*names, *further)) > width:
        further.pop()
    names += further
    widths = _widths([(least[name], _full_width(name, cells[name])) for name in names], width)
    printed = Table(box=None, pad_edge=False)
    for name, column_width in zip(names, widths, strict=True):
        printed.add_column(
            Text(visible(_HEADINGS.get(name, name))),
            justify="left" if name in _TEXTS else "right",
            overflow="fold",
            width=column_width,
        )
    for row in zip(*(cells[name] for name in names), strict=True):
        printed.add_row(*map(Text, row))
    return printed


def _width(columns: Iterable[int]) -> int:
    """Gives the width of a line whose columns have these: there are two spaces between."""
    return sum(column + 2 for column in columns) - 2


def _widths(columns: Sequence[tuple[int, int]], width: int) -> list[int | None]:
    """Gives each column its least width, and what is left to the first that want more."""
    spare = width - _width(least for least, _ in columns)
    if spare < 0:
        return [None] * len(columns)  # rather broken numbers than lines that are cut off
    widths: list[int | None] = []
    for least, full in columns:
        more = min(spare, full - least)
        spare -= more
        widths.append(least + more)
    return widths


def _full_width(name: str, cells: Iterable[str]) -> int:
    """Gives what a column takes that nothing is folded in."""
    return max(cell_len(visible(_HEADINGS.get(name, name))), *map(cell_len, cells), 1)


def _least_width(name: str, cells: Iterable[str]) -> int:
    """Gives what a column has to have: room for each number; headings and texts may be folded."""
    longest = max(map(cell_len, cells), default=0)
    if name in _TEXTS:
        longest = min(longest, _LEAST_TEXT)
    return max(longest, min(cell_len(_HEADINGS.get(name, name)), _LEAST_HEADING))


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
