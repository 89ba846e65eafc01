"""What is measured: each work is a function of a Place that returns figures, in a fresh process."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from benchmarks.place import Figures, Place

# Named, not imported: an environment with a peer has neither metrana nor torch.
_MODULES = {
    "scalar": "comparison",
    "mapping": "comparison",
    "mapping-keys": "comparison",
    "startup": "startup",
    "training": "training",
    "training-calls": "training",
    "kill": "kill",
    "scalar-step": "calls",
    "scalar-dd": "calls",
    "block-8": "calls",
    "block-64": "calls",
    "envs-same": "calls",
    "envs-fresh": "calls",
    "torch": "calls",
    "threads": "threads",
    "ingest-blocks": "ingest",
    "ingest-series": "ingest",
    "space": "space",
    "files": "files",
    "memory": "memory",
    "steady": "steady",
    "import": "imports",
    "fit-lightning": "fits",
    "fit-transformers": "fits",
    "fit-gymnasium": "fits",
    "fit-sb3": "fits",
}

# Works with a figure near its goal, which is not the same in each process: in how many metrana does
# them.
PROCESSES = {"block-8": 3, "block-64": 3}


def work_of(name: str) -> Callable[[Place], Figures]:
    """Returns the work of that name."""
    module = importlib.import_module(f"benchmarks.works.{_MODULES[name]}")
    work: Callable[[Place], Figures] = getattr(module, f"measure_{name.replace('-', '_')}")
    return work
