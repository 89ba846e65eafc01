"""Arguments, exit codes, and which command runs."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from metrana import __version__, checks
from metrana.cli.output import DONE, FAILED, NOT_FOUND, USAGE, complain
from metrana.errors import MetranaError, MetranaNotFoundError, MetranaValidationError
from metrana.settings import default_project, default_workspace

_INSTALL: Final = "pip install 'metrana[server]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 failed, 2 usage, 3 nothing found."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A terminal without Unicode shows names and curves as escapes, better than nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if chosen.command is None:
        parser.print_help()
        return DONE
    try:
        command = importlib.import_module(f"metrana.cli.{chosen.command}")
        return int(command.run(chosen))
    except ModuleNotFoundError as error:
        if (error.name or "metrana").split(".")[0] == "metrana":
            raise  # a part of this very package: that is a defect, not an extra left out
        complain(f"metrana {chosen.command} needs {error.name}, which is not installed: {_INSTALL}")
        return FAILED
    except MetranaNotFoundError as error:
        complain(str(error))
        return NOT_FOUND
    except MetranaValidationError as error:
        complain(str(error))
        return USAGE
    except BrokenPipeError:
        # Whoever read has read enough; the interpreter's own last flush must not complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (MetranaError, OSError, RuntimeError) as error:
        # What the stores and the server raise on purpose is a RuntimeError with a sentence.
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metrana", description="Look at runs, serve them, deliver what was logged offline."
    )
    parser.add_argument("--version", action="version", version=f"metrana {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_server(commands, "server", "take runs over gRPC and serve them over HTTP, until stopped")
    ui = _add_server(commands, "ui", "the same, and open it in the browser")
    ui.add_argument("--no-browser", action="store_true", help="only print the address")

    runs = _add(commands, "runs", "list runs, newest first")
    _add_place(runs, "all")
    _add_reading(runs)

    show = _add(commands, "show", "one run: config, tags, every metric with a plot")
    show.add_argument("run_name", metavar="RUN", help="name of the run, or its run_id")
    show.add_argument("--env", metavar="ENV", help="only this environment, with its last episodes")
    _add_place(show, "default")
    _add_reading(show)

    episodes = _add(commands, "episodes", "a run's episodes, newest first")
    episodes.add_argument("run_name", metavar="RUN", help="name of the run, or its run_id")
    episodes.add_argument("--env", metavar="ENV", help="only this environment's")
    episodes.add_argument(
        "--sort", metavar="COLUMN", help="greatest first, episode_return say; texts by alphabet"
    )
    episodes.add_argument(
        "--limit", type=_count, default=20, metavar="N", help="how many (20); 0: all"
    )
    _add_place(episodes, "default")
    _add_reading(episodes)

    export = _add(commands, "export", "write a run's points to a file, or its videos to a folder")
    export.add_argument("run_name", metavar="RUN", help="name of the run, or its run_id")
    _add_place(export, "default")
    what = export.add_mutually_exclusive_group()
    what.add_argument("--format", choices=("parquet", "csv", "jsonl"), default="parquet")
    what.add_argument(
        "--renderings",
        action="store_true",
        help="the videos instead of the points, into the folder PATH; those in it are kept",
    )
    export.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="default: RUN.FORMAT; of videos a folder RUN",
    )
    _add_reading(export, json=False)

    sync = _add(commands, "sync", "deliver what was logged offline, or left by a killed process")
    sync.add_argument(
        "path", nargs="?", type=_directory, metavar="PATH", help="whose spools (default: DIR)"
    )
    sync.add_argument("--url", help="a server elsewhere (default: the store or server of DIR)")
    sync.add_argument("--api-key", help="of that server (default: METRANA_API_KEY)")
    sync.add_argument(
        "--force",
        action="store_true",
        help="also what processes of other machines left; none of them may still run",
    )
    _add_data_dir(sync)

    status = _add(commands, "status", "what is not delivered yet, by run and writer")
    status.add_argument("--json", action="store_true", help="as JSON")
    _add_data_dir(status)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")


def _add_server(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    parser = _add(commands, name, what)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=7670, help="for HTTP (7670); 0: any free one")
    parser.add_argument(
        "--grpc-port", type=_port, default=7671, help="for writers (7671); 0: any free one"
    )
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--token", help="what everyone has to show (default: a random one)")
    tokens.add_argument("--no-token", action="store_true", help="let in everyone on this machine")
    _add_data_dir(parser)
    return parser


def _add_reading(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    if json:
        parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--url", help="a server (default: the local one, or the local store)")
    _add_data_dir(parser)


def _add_place(parser: argparse.ArgumentParser, otherwise: str) -> None:
    parser.add_argument(
        "--project",
        metavar="P",
        default=default_project(),
        help=f"the run's project (default: METRANA_PROJECT, else {otherwise})",
    )
    parser.add_argument(
        "--workspace",
        metavar="W",
        default=default_workspace(),
        help=f"the run's workspace (default: METRANA_WORKSPACE, else {otherwise})",
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", type=_directory, metavar="DIR", help="default: METRANA_DIR, else ~/.metrana"
    )


def _directory(text: str) -> Path:
    try:
        return checks.directory("DIR", text)
    except MetranaValidationError:
        raise argparse.ArgumentTypeError(f"{text!r} is no path") from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: 0 or more")
    return int(text)


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return port
