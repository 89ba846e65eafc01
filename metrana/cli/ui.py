"""`metrana ui`: the server, and its page in the browser."""

from __future__ import annotations

import argparse
import webbrowser
from urllib.parse import quote

from metrana.cli.output import note
from metrana.cli.server import serve_with


def run(arguments: argparse.Namespace) -> int:
    """Serves; returns after SIGTERM or SIGINT."""

    def show(http_url: str, token: str | None) -> None:
        # The page keeps the token in a cookie, so that the link is not needed again.
        link = http_url if token is None else f"{http_url}/?token={quote(token)}"
        note(f"open {link}")
        if not arguments.no_browser:
            webbrowser.open(link)

    return serve_with(arguments, show)
