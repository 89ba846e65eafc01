"""`metrana server`: takes runs and serves them until it is stopped."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from metrana import checks
from metrana.cli.output import DONE, show
from metrana.server.main import ServerOptions, serve
from metrana.settings import checked_data_dir, default_data_dir


def run(arguments: argparse.Namespace) -> int:
    """Serves; returns after SIGTERM or SIGINT."""
    return serve_with(arguments, _wait)


def _wait(_http_url: str, _token: str | None) -> None:
    """There is nothing to do once it serves."""


def serve_with(arguments: argparse.Namespace, on_ready: Callable[[str, str | None], None]) -> int:
    """Serves, and calls `on_ready` with the HTTP URL and the token once it does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # A new catalog's every table is no news to whoever starts a server.
    logging.getLogger("alembic").setLevel(logging.WARNING)

    def ready(http_url: str, grpc_url: str, token: str | None) -> None:
        show(f"http  {http_url}")
        show(f"grpc  {grpc_url}")
        on_ready(http_url, token)

    options = ServerOptions(
        data_dir=checked_data_dir(arguments.data_dir or default_data_dir()),
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        # Never METRANA_API_KEY: that is for servers elsewhere, and a token is written to a file.
        token=None if arguments.token is None else checks.api_key("--token", arguments.token),
        ask_token=not arguments.no_token,
    )
    serve(options, ready)
    return DONE
