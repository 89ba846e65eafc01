"""What every suite shares."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rings import rings_left_behind

# Set in CI: nothing may be left out there.
_TEST_ALL = os.environ.get("METRANA_TEST_ALL") == "1"
_LEFT_OUT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session", autouse=True)
def home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's own data directory out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in [name for name in os.environ if name.startswith("METRANA_")]:
            if not name.startswith("METRANA_TEST_"):
                environment.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def rings_of_killed_writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave no memory behind: nobody delivers what a killed process of a test has left."""
    yield
    for file in tmp_path_factory.getbasetemp().rglob("writer.json"):
        ring = json.loads(file.read_text()).get("ring")
        if ring is not None and not _is_in_use(Path(ring)):
            Path(ring).unlink(missing_ok=True)


@pytest.fixture(scope="session", autouse=True)
def no_rings_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail if a test leaves memory that the fixture above cannot find: the folder of it is gone.

    Only that of this session, or of this worker: others have folders of their own.
    """
    yield
    left = rings_left_behind(tmp_path_factory.getbasetemp())
    for ring in left:
        ring.unlink(missing_ok=True)
    assert not left, "a test has deleted a writer's folder and not its ring"


def _is_in_use(ring: Path) -> bool:
    try:
        with ring.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need an external program, unless all are asked for."""
    external = [item for item in items if item.get_closest_marker("needs_program")]
    if _TEST_ALL or not external:
        return
    config.hook.pytest_deselected(items=external)
    items[:] = [item for item in items if item not in external]
    suites = {(item.path.relative_to(config.rootpath), _package(item)) for item in external}
    left_out = [f"{path} (needs {package})" for path, package in sorted(suites)]
    config.stash[_LEFT_OUT] = left_out
    if (output := _workeroutput(config)) is not None:
        output["left_out"] = left_out


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test whose program is missing: it was asked for, so a skip would hide it."""
    for marker in item.iter_markers("needs_program"):
        program = marker.args[0]
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing; apt-get install {_package(item)}", pytrace=False)


@pytest.hookimpl(optionalhook=True)  # xdist's
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001 - the hook's arguments
    """Hear from a worker what it left out, for it has nobody to tell."""
    if left_out := getattr(node, "workeroutput", {}).get("left_out"):
        node.config.stash[_LEFT_OUT] = left_out


def pytest_unconfigure(config: pytest.Config) -> None:
    """Name what was left out in the very last line, where it is seen."""
    if _workeroutput(config) is None and (left_out := config.stash.get(_LEFT_OUT, [])):
        print(f"left out, METRANA_TEST_ALL=1 runs them: {', '.join(left_out)}")  # noqa: T201


def _workeroutput(config: pytest.Config) -> dict[str, Any] | None:
    """What a worker tells at its end; None for whoever is no worker."""
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    return output


def _package(item: pytest.Item) -> str:
    return ", ".join(dict.fromkeys(m.kwargs["package"] for m in item.iter_markers("needs_program")))
