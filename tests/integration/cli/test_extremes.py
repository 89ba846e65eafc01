"""What is logged is anything at all: huge, tiny, long, or made to command a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import metrana
from tests.integration.cli.conftest import run_command
from tests.integration.query.test_extremes import LONG, RUN, record_extremes

RED = "\x1b[31mred\x9b0m"
DIGITS = "-1" + "0" * 19_999 + "7"
LONG_NAME = "ü" * 128


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the runs are."""
    data_dir = tmp_path_factory.mktemp("extremes")
    record_extremes(data_dir)
    with metrana.init(
        run_name="red",
        data_dir=data_dir,
        mode="offline",
        description=f"{RED}\nsecond line",
        config={"key": RED},
    ) as run:
        run.log("loss", 1.0, labels={"kind": "plain"})
    with metrana.init(run_name=LONG_NAME, data_dir=data_dir, mode="offline") as run:
        run.log("loss", 1.0)
    return {"METRANA_DIR": str(data_dir)}


def test_show_draws_what_is_huge_and_what_is_tiny(environment: dict[str, str]) -> None:
    text = run_command("show", RUN, code=0, environment=environment).stdout
    assert "1.65e+308" in text
    for title in ("huge", "greatest", "wide", "tiny"):
        assert text.count(title) == 2, f"a row and a plot of {title}"
    assert "inf" not in text
    assert "nan" not in text


def test_show_writes_integers_of_any_size(environment: dict[str, str]) -> None:
    shown = run_command("show", RUN, code=0, environment={**environment, "COLUMNS": "30000"}).stdout
    assert f"long = {DIGITS}" in shown
    document = json.loads(
        run_command("show", RUN, "--json", code=0, environment=environment).stdout
    )
    assert document["config"] == {"long": DIGITS, "plain": 7}
    assert LONG == -(10**20_000 + 7)


@pytest.mark.parametrize("arguments", [["show", "red"], ["show", "red", "--json"], ["runs"]])
def test_control_characters_do_not_reach_the_terminal(
    environment: dict[str, str], arguments: list[str]
) -> None:
    done = run_command(*arguments, code=0, environment=environment)
    assert not {"\x1b", "\x9b"} & {*done.stdout, *done.stderr}
    if "--json" in arguments:
        document = json.loads(done.stdout)
        assert document["description"] == f"{RED}\nsecond line"
        assert document["config"] == {"key": RED}
    elif arguments[0] == "show":
        assert r"\x1b[31mred\x9b0m" in done.stdout
        assert "second line" in done.stdout.splitlines()


def test_control_characters_of_an_argument_do_not_either(environment: dict[str, str]) -> None:
    done = run_command("export", RUN, "-o", f"missing-{RED}/x", code=1, environment=environment)
    assert not {"\x1b", "\x9b"} & {*done.stderr}


def test_export_names_the_file_of_the_longest_name(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_command("export", LONG_NAME, "--format", "jsonl", code=0, environment=environment)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith(LONG_NAME[:100])
    assert path.suffix == ".jsonl"
    assert len(path.name.encode()) <= 255
    assert json.loads(path.read_text())["value"] == 1.0
    given = "f" * 255
    run_command("export", LONG_NAME, "-o", given, code=0, environment=environment)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([given, path.name])
