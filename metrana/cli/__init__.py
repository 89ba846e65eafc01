"""The command `metrana`. One module a command; each imports what it needs when it runs."""

from metrana.cli.main import main

__all__ = ["main"]
