"""Does one work in this process: `python -m benchmarks.measure WORK LOGGER FOLDER [--quick]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.place import Place
from benchmarks.works import work_of


def main() -> None:
    """Prints the figures as JSON on the last line; what a logger says comes before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work")
    parser.add_argument("logger")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--packages", action="append", default=[], help="a folder of packages to look in last"
    )
    arguments = parser.parse_args()
    sys.path += arguments.packages
    place = Place(arguments.folder, arguments.logger, arguments.quick)
    figures = work_of(arguments.work)(place)
    print("\n" + json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
