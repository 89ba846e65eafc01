"""What the commands that read have in common: where they read, and which run is meant."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from metrana.errors import MetranaNotFoundError
from metrana.query import Client, RunInfo
from metrana.settings import default_data_dir, normalise_url


@contextmanager
def reading(arguments: argparse.Namespace) -> Iterator[Client]:
    """Opens the client that the arguments mean, its store held open for the block.

    Raises:
        MetranaNotFoundError: What is asked for is not there; of an empty store it says just that.
    """
    url = None if arguments.url is None else normalise_url(arguments.url, "--url")
    with Client(url, data_dir=arguments.data_dir) as client, client.hold():
        try:
            yield client
        except MetranaNotFoundError as error:
            # Of the first run that somebody looks for, "no project" is not the news.
            rows = client.runs(as_="arrow").to_pylist()
            if not rows:
                raise MetranaNotFoundError(nothing_yet(arguments)) from error
            raise MetranaNotFoundError(f"{error}{_elsewhere(rows, arguments)}") from error


def nothing_yet(arguments: argparse.Namespace) -> str:
    """Says that there is no run at all."""
    where = arguments.url or arguments.data_dir or default_data_dir()
    return f"nothing logged yet in {where}"


def find_run(client: Client, arguments: argparse.Namespace) -> RunInfo:
    """Gives the run that is meant: by its id if it looks like one and is one, else by its name.

    Raises:
        MetranaNotFoundError: There is no such run.
    """
    if re.fullmatch("[0-9a-fA-F]{32}", arguments.run_name):
        with suppress(MetranaNotFoundError):
            return client.run(run_id=arguments.run_name)
    return client.run(
        arguments.run_name,
        project_name=arguments.project or "default",
        workspace_name=arguments.workspace or "default",
    )


def _elsewhere(rows: Iterable[dict[str, str]], arguments: argparse.Namespace) -> str:
    """Says how to name a run of that name that is in another place, the newest.

    A run that is where it is looked for is not what is missing.
    """
    named = [row for row in rows if row["run_name"] == arguments.run_name]
    asked = (arguments.project or "default", arguments.workspace or "default")
    if any((row["project_name"], row["workspace_name"]) == asked for row in named):
        return ""
    for row in named:
        workspace = f" --workspace {shlex.quote(row['workspace_name'])}"
        project = f" --project {shlex.quote(row['project_name'])}"
        return f"; there is one with{project}" + (
            workspace if row["workspace_name"] != asked[1] else ""
        )
    return ""
