"""What logging adds to trainings of the frameworks: `python -m benchmarks.trainings [--rounds 5]`.

The same training with no logger, with metrana's adapter and, given `--peers-python`, with those of
TensorBoard and W&B offline; every step is logged. Each figure is the median of fresh processes,
with the lowest and the highest. A process does the training with its logger and without, so a cost
is a difference within one process; the loggers take turns. Ratios matter, absolutes drift.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.commit import commit
from benchmarks.fits import FRAMEWORKS, LOGGERS, PEERS, loggers_of
from benchmarks.place import Figures
from benchmarks.runner import ROOT, installed, reason_of, run_work

_ROUNDS = 5
_QUICK_ROUNDS = 1
_OWN = ("metrana", "numpy", "torch", *(shown.package for shown in FRAMEWORKS.values()))
_OF_PEERS = ("tensorboard", "tensorboardX", "wandb")
Results = dict[tuple[str, str], list[Figures]]


def main() -> int:
    """Prints the table; returns 1 if a training with metrana failed."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="metrana-bench-", dir=arguments.folder) as folder:
        described = machine.describe(Path(folder))
        results, failures = measure(
            arguments.only,
            arguments.rounds,
            Path(folder),
            arguments.peers_python,
            is_quick=arguments.quick,
        )
    print("\n".join([*described, f"{commit(ROOT)}: {_versions(arguments.peers_python)}"]))
    if arguments.quick:
        print("made with `--quick`: the figures mean nothing")
    print("\n".join(["", *table(arguments.only, results, failures)]))
    for (framework, logger), reason in failures.items():
        print(f"{framework}, {logger}: {reason}")
    return 1 if any(logger not in PEERS for _, logger in failures) else 0


def measure(
    frameworks: list[str], rounds: int, folder: Path, peers: Path | None, *, is_quick: bool
) -> tuple[Results, dict[tuple[str, str], str]]:
    """Does every training in so many processes, the loggers in turns.

    Args:
        frameworks: Names of FRAMEWORKS.
        rounds: Processes of each logger.
        folder: On the disk to measure on; what is made in it is removed again.
        peers: The interpreter of the environment with the peers; None: no peers.
        is_quick: Whether they only have to be seen to work.

    Returns:
        The figures of the processes by framework and logger, and why others have none.
    """
    results: Results = {}
    failures: dict[tuple[str, str], str] = {}
    for framework in frameworks:
        loggers = [name for name in loggers_of(framework) if peers or name not in PEERS]
        for number in range(rounds):
            # Another one comes first in each round.
            for at in range(len(loggers)):
                logger = loggers[(number + at) % len(loggers)]
                key = (framework, logger)
                if key in failures:
                    continue
                print(f"{framework}: {logger}, {number + 1} of {rounds} …", file=sys.stderr)
                try:
                    figures = _figures(framework, logger, folder, peers, is_quick=is_quick)
                except (OSError, subprocess.SubprocessError, ValueError) as error:
                    reason = reason_of(error).replace(str(folder), "…").replace(str(ROOT), "…")
                    failures[key] = reason
                else:
                    results.setdefault(key, []).append(figures)
    return results, failures


def _figures(
    framework: str, logger: str, folder: Path, peers: Path | None, *, is_quick: bool
) -> Figures:
    options = ["--quick"] if is_quick else []
    # The environment of the peers has no frameworks: there those of this one are found last.
    packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    behind = [f"--packages={path}" for path in packages] if logger in PEERS else []
    python = peers if logger in PEERS else None
    figures = run_work(f"fit-{framework}", logger, folder, *options, *behind, python=python)
    if figures["dropped"]:
        raise ValueError(f"{figures['dropped']:,.0f} points were dropped")
    return figures


def table(
    frameworks: list[str], results: Results, failures: dict[tuple[str, str], str]
) -> list[str]:
    """Returns the lines of the table as markdown, a row each framework."""
    head = ["framework", "a step without logger", *LOGGERS.values()]
    lines = [head, ["---"] * len(head)]
    for framework in frameworks:
        steps_us = [
            figures["step_us"]
            for logger in LOGGERS
            for figures in results.get((framework, logger), [])
        ]
        cells = [_cell(framework, logger, results, failures) for logger in LOGGERS]
        step = _duration(statistics.median(steps_us)) if steps_us else "-"
        lines.append([FRAMEWORKS[framework].title, step, *cells])
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(
    framework: str, logger: str, results: Results, failures: dict[tuple[str, str], str]
) -> str:
    key = (framework, logger)
    if key in failures:
        return "failed"
    if key not in results:
        return "-"
    added = [figures["added_us"] for figures in results[key]]
    percent, close_ms = (
        statistics.median(figures[name] for figures in results[key])
        for name in ("added_percent", "close_ms")
    )
    return (
        f"{_shown(statistics.median(added))} ({_shown(min(added))} to {_shown(max(added))}) µs, "
        f"{percent:.1f} %; closing {_shown(close_ms)} ms"
    )


def _versions(peers: Path | None) -> str:
    found = installed(Path(sys.executable), _OWN)
    if peers:
        try:
            found |= installed(peers, _OF_PEERS)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{_listed(found)}; no peers: {reason_of(error)}"
    return _listed(found)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _duration(duration_us: float) -> str:
    return f"{duration_us:.3g} µs" if duration_us < 100 else f"{duration_us / 1000:.3g} ms"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trainings", description=__doc__.partition("\n")[0]
    )
    names = list(FRAMEWORKS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--rounds", type=int, help="processes of each logger; default: 5")
    parser.add_argument("--quick", action="store_true", help="see that it works, measure nothing")
    parser.add_argument("--folder", type=Path, help="on the disk to measure on; default: temporary")
    parser.add_argument(
        "--peers-python",
        # Trainings run elsewhere; a link stays one, for it says which environment is meant.
        type=lambda text: Path(text).absolute(),
        help="interpreter of the environment with the peers",
    )
    arguments = parser.parse_args()
    if arguments.rounds is None:
        arguments.rounds = _QUICK_ROUNDS if arguments.quick else _ROUNDS
    if arguments.rounds < 1:
        parser.error(f"argument --rounds: {arguments.rounds}, not a number from 1 on")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
