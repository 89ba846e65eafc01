"""The page with the table, and the section of the README that is made of the page alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.goals import ROWS
from benchmarks.loggers import PEERS, WITHOUT_SERVER

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
_BEGIN, _END = "<!-- written by make bench -->", "<!-- until here -->"
_IN_README = ("work", "goal", "metrana", *PEERS.values(), "met?")
_EXPLAINED = """\
Each work is done in a fresh process. Percentiles are exact, from the time of every single call;
they include the timer, which "net" leaves out. metrana has a local server, in a process of its own
on the same cores, except in the rows {without_server}.
Each peer is in its usual local mode and is told to stay offline. Goals are not lowered: a missed
one stays in the table with its reason, and so does a figure for which points were dropped. In
brackets are the ends of the 95 % interval of a figure made of rounds, or the lowest and the highest
of several processes: such a goal is met if both are good enough, missed if neither is, and else
"within noise". A p99 is of a thousand calls at least, a p99.9 of ten thousand.

metrana has its default `fsync="never"`: what `log` took outlives its process, but a power cut takes
what the system has not yet written. MLflow's SQLite syncs each commit; Trackio's only now and then,
and TensorBoardX at each flush, every two minutes; Aim and W&B were not looked into."""


def page(
    command: str, described: Iterable[str], lines: Iterable[str], failures: Iterable[str]
) -> str:
    """Returns the page.

    Args:
        command: What it was written by.
        described: What it was measured on, a line each; the first two name machine and system.
        lines: The table.
        failures: Why figures are missing, a line each.
    """
    failed = [f"- {failure}" for failure in failures]
    parts = [
        "# Benchmarks",
        "",
        f"Written by `{command}` on:",
        "",
        *(f"- {line}" for line in described),
        "",
        _EXPLAINED.format(without_server=_without_server()),
        "",
        *lines,
        *(["", "Without figures:", "", *failed] if failed else []),
    ]
    return "\n".join(parts) + "\n"


def _without_server() -> str:
    names = [f'"{row.name}"' for row in ROWS if row.logger == WITHOUT_SERVER]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def section(page_text: str) -> str:
    """Returns what the README shows of a page: goals, figures and peers, and the machine."""
    lines = page_text.splitlines()
    machine, system, *_ = (line.removeprefix("- ") for line in lines if line.startswith("- "))
    head, rule, *rows = (_cells(line) for line in lines if line.startswith("|"))
    chosen = [head.index(name) for name in _IN_README]
    parts = [
        "## Measured",
        "",
        "Goals, metrana and its peers in their local modes, by `make bench` on one machine:",
        f"{machine}; {system}.",
        "[docs/benchmarks.md](docs/benchmarks.md) says why what is missed is missed,",
        "[docs/performance.md](docs/performance.md) how it is measured.",
        "",
        *(f"| {' | '.join(row[index] for index in chosen)} |" for row in (head, rule, *rows)),
    ]
    return "\n".join(parts)


def section_of(readme: str) -> str:
    """Returns what stands between the two markers of a README."""
    return readme.partition(_BEGIN)[2].partition(_END)[0].strip()


def publish(text: str, page_path: Path = PUBLISHED, readme_path: Path = README) -> None:
    """Writes the page, and its section between the markers of the README."""
    readme = readme_path.read_text()
    before, begin, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{readme_path.name} lacks the markers {_BEGIN} and {_END}")
    page_path.write_text(text)
    readme_path.write_text(f"{before}{begin}\n\n{section(text)}\n\n{end}{after}")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]
