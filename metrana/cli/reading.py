"""What the commands that read have in common: where they read, and which run is meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager

from metrana.errors import MetranaNotFoundError
from metrana.query import Client
from metrana.settings import default_data_dir


@contextmanager
def reading(arguments: argparse.Namespace) -> Iterator[Client]:
    """Opens the client that the arguments mean, its store held open for the block.

    Raises:
        MetranaNotFoundError: What is asked for is not there; of an empty store it says just that.
    """
    with Client(arguments.url, data_dir=arguments.data_dir) as client, client.hold():
        try:
            yield client
        except MetranaNotFoundError as error:
            # Of the first run that somebody looks for, "no project" is not the news.
            if client.runs(as_="arrow").num_rows:
                raise
            raise MetranaNotFoundError(nothing_yet(arguments)) from error


def nothing_yet(arguments: argparse.Namespace) -> str:
    """Says that there is no run at all."""
    where = arguments.url or arguments.data_dir or default_data_dir()
    return f"nothing logged yet in {where}"


def naming(arguments: argparse.Namespace) -> dict[str, str]:
    """Takes 32 hex digits for a run_id and everything else for a name."""
    if re.fullmatch("[0-9a-f]{32}", arguments.run_name):
        return {"run_id": arguments.run_name}
    return {
        "run_name": arguments.run_name,
        "project_name": arguments.project or "default",
        "workspace_name": arguments.workspace or "default",
    }
