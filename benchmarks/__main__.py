"""Measures metrana and its peers and writes the table: `python -m benchmarks`, `make bench`."""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.goals import ROWS
from benchmarks.loggers import PEERS
from benchmarks.runner import Runner
from benchmarks.table import table
from metrana.git import commit_sha

_EXPLAINED = """\
Each work is done in a fresh process. Percentiles are exact, from the time of every single call;
they include the timer, which "net" leaves out. metrana has a local server, in a process of its own
on the same cores, except in the rows "threads", "wire", "disk", "startup" (offline) and "kill".
Each peer is in its usual local mode and cannot reach a network. Goals are not lowered: a missed
one stays in the table."""


def main() -> int:
    """Prints the table, or writes it to a file; returns 1 if a work failed, whatever is missed."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="metrana-bench-", dir=arguments.folder) as folder:
        runner = Runner(Path(folder), arguments.peers_python, arguments.quick)
        described = machine.describe()
        rows = [row for row in ROWS if not arguments.only or row.name in arguments.only]
        lines = table(rows, runner.measure)
    text = _page(
        _command(arguments), [*described, _versions(arguments.peers_python)], lines, runner
    )
    if arguments.output is None:
        print(text, end="")
    else:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text)
    return 1 if runner.failures else 0


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
    return parser.parse_args()


def _page(command: str, described: list[str], lines: list[str], runner: Runner) -> str:
    quick = ["", "**Made with `--quick`: the figures mean nothing.**"] if runner.is_quick else []
    failures = [
        f"- {work}, {logger}: {reason}" for (work, logger), reason in runner.failures.items()
    ]
    parts = [
        "# Benchmarks",
        "",
        f"Written by `{command}` on:",
        "",
        *(f"- {line}" for line in described),
        *quick,
        "",
        _EXPLAINED,
        "",
        *lines,
        *(["", "Without figures:", "", *failures] if failures else []),
    ]
    return "\n".join(parts) + "\n"


def _command(arguments: argparse.Namespace) -> str:
    only = ["--only", *arguments.only] if arguments.only else []
    return " ".join(["python -m benchmarks", *(["--quick"] if arguments.quick else []), *only])


def _versions(peers_python: Path | None) -> str:
    own = [f"{name} {importlib.metadata.version(name)}" for name in ("metrana", "numpy")]
    versions = f"{own[0]} ({commit_sha() or 'no commit'}), {own[1]}"
    if peers_python is None:
        return versions
    script = (
        "import importlib.metadata, sys\n"
        "print(', '.join(f'{n} {importlib.metadata.version(n)}' for n in sys.argv[1:]))"
    )
    peers = subprocess.check_output([str(peers_python), "-c", script, *PEERS], text=True)
    return f"{versions}; {peers.strip()}"


if __name__ == "__main__":
    sys.exit(main())
