"""Measures metrana and its peers and writes the table: `python -m benchmarks`, `make bench`."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.commit import commit
from benchmarks.disk import refuse_memory
from benchmarks.goals import ROWS
from benchmarks.loggers import METRANA
from benchmarks.page import PUBLISHED, README, ROOT, page, publish
from benchmarks.runner import Runner
from benchmarks.table import table


def main() -> int:
    """Prints the table or writes it; returns 1 if a work of metrana failed, whatever is missed."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="metrana-bench-", dir=arguments.folder) as folder:
        runner = Runner(Path(folder), arguments.peers_python, arguments.quick)
        described = [*machine.describe(Path(folder)), _versions(runner)]
        if arguments.quick:
            described.append("**made with `--quick`: the figures mean nothing**")
        rows = [row for row in ROWS if not arguments.only or row.name in arguments.only]
        lines = table(rows, runner.measure)
    failed = [f"{work}, {logger}: {why}" for (work, logger), why in runner.failures.items()]
    text = page(_command(arguments), described, lines, failed)
    # What a peer cannot do is said in the table; without metrana's own figures it is none.
    has_all = not any(logger in METRANA for _, logger in runner.failures)
    if arguments.output is None:
        print(text, end="")
    elif not _is_published(arguments.output):
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text)
    elif has_all:
        publish(text)
    else:
        print(text, end="")
        print(f"{PUBLISHED.name} stays as it was: works of metrana failed", file=sys.stderr)
    return 0 if has_all else 1


def _is_published(output: Path) -> bool:
    return output.resolve() == PUBLISHED.resolve()


def _arguments() -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="see that it works, measure nothing")
    parser.add_argument("--output", type=Path, help="a markdown file; default: standard output")
    parser.add_argument("--folder", type=Path, help="on the disk to measure on; default: temporary")
    parser.add_argument(
        "--peers-python",
        # Works run elsewhere; a link stays one, for it says which environment is meant.
        type=lambda text: Path(text).absolute(),
        help="interpreter of the environment with the peers",
    )
    arguments = parser.parse_args()
    if arguments.output and _is_published(arguments.output):
        if arguments.quick or arguments.only or not arguments.peers_python:
            parser.error(
                f"{PUBLISHED.name} is published, so it takes the whole table only: with "
                "--peers-python, without --quick and --only; give another --output"
            )
        try:
            # Known now, rather than by a row without figures in twenty minutes.
            refuse_memory(arguments.folder or Path(tempfile.gettempdir()))
        except RuntimeError as error:
            parser.error(str(error))
    return arguments


def _command(arguments: argparse.Namespace) -> str:
    only = ["--only", *arguments.only] if arguments.only else []
    return " ".join(["python -m benchmarks", *(["--quick"] if arguments.quick else []), *only])


def _versions(runner: Runner) -> str:
    own = [f"{name} {importlib.metadata.version(name)}" for name in ("metrana", "numpy")]
    peers = [f"{name} {version}" for name, version in runner.peer_versions.items()]
    versions = f"{own[0]} ({commit(ROOT, but=(PUBLISHED, README))}), {own[1]}"
    return "; ".join([versions, *([", ".join(peers)] if peers else [])])


if __name__ == "__main__":
    sys.exit(main())
