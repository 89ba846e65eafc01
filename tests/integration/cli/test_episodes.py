"""`metrana episodes` and `metrana show --env`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import metrana as client
from tests.integration.cli.conftest import Command, run_command
from tests.integration.query.recorded import PROJECT, RUN

NAMED = (RUN, "--project", PROJECT)


def rows(text: str) -> list[list[str]]:
    """The cells of a table, by line, without its headings."""
    return [line.split() for line in text.splitlines()[1:]]


def test_episodes_are_listed_newest_first(metrana: Command) -> None:
    done = metrana("episodes", *NAMED)
    heading, *_ = done.stdout.splitlines()
    for name in ("env", "episode", "evaluation", "from", "to", "length", "return", "end"):
        assert name in heading
    assert rows(done.stdout) == [
        ["e-0", "0", "yes", "300", "300", "2", "2", "aborted"],
        ["e-0", "2", "200", "204", "4", "86"],
        ["e-1", "2", "200", "204", "4", "102"],
        ["e-0", "1", "100", "104", "4", "46"],
        ["e-1", "1", "100", "104", "4", "62"],
        ["e-0", "0", "0", "4", "4", "6"],
        ["e-1", "0", "0", "4", "4", "22"],
    ]
    assert done.stderr == ""


def test_of_episodes_that_ended_in_one_step_the_last_is_the_newest(tmp_path: Path) -> None:
    with client.init(mode="offline", data_dir=tmp_path, run_name="short") as run:
        run.log_rl_episode("episode_return", [5.0, 6.0, 7.0], rl_step=1, env_id="e")
    done = run_command("episodes", "short", code=0, environment={"METRANA_DIR": str(tmp_path)})
    assert [row[1] for row in rows(done.stdout)] == ["2", "1", "0"]


def test_the_best_returns_come_first(metrana: Command) -> None:
    done = metrana("episodes", *NAMED, "--sort", "episode_return", "--limit", "2")
    assert [row[:2] for row in rows(done.stdout)] == [["e-1", "2"], ["e-0", "2"]]
    assert "5 more episodes" in done.stderr


def test_texts_are_sorted_by_alphabet_and_what_has_none_is_last(metrana: Command) -> None:
    listed = json.loads(metrana("episodes", *NAMED, "--sort", "end", "--json").stdout)
    assert [row["end"] for row in listed] == ["aborted", *[None] * 6]
    assert [row["env_id"] for row in listed][1:] == ["e-0"] * 3 + ["e-1"] * 3


def test_episodes_as_json_have_every_column(metrana: Command) -> None:
    listed = json.loads(metrana("episodes", *NAMED, "--env", "e-1", "--json").stdout)
    assert [row["episode"] for row in listed] == [2, 1, 0]
    assert listed[0] == {
        "env_id": "e-1",
        "episode": 2,
        "first_rl_step": 200,
        "last_rl_step": 204,
        "episode_length": 4.0,
        "episode_return": 102.0,
        "end": None,
        "rendering_id": None,
        "evaluation": False,
    }


@pytest.mark.parametrize("limit", ["0", "7", "8", str(2**63), "9" * 40])
def test_a_limit_may_be_more_than_there_are(metrana: Command, limit: str) -> None:
    done = metrana("episodes", *NAMED, "--limit", limit)
    assert len(rows(done.stdout)) == 7
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["episodes", "show"])
def test_an_unknown_environment_exits_3_naming_the_nearest(metrana: Command, command: str) -> None:
    done = metrana(command, *NAMED, "--env", "e0", code=3)
    assert "no environment 'e0'; did you mean 'e-0'" in done.stderr
    # The run is where it was looked for.
    assert "there is one" not in done.stderr
    assert done.stdout == ""


def test_a_run_without_episodes_exits_3(metrana: Command) -> None:
    done = metrana("episodes", "empty", "--project", "other", code=3)
    assert "run 'empty' has no episodes" in done.stderr
    listed = metrana("episodes", "empty", "--project", "other", "--json", code=3)
    assert json.loads(listed.stdout) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--sort", "reward"], "episode_return"),
        (["--sort", ""], "episode_return"),
        (["--limit", "-1"], "number of rows"),
    ],
)
def test_wrong_usage_exits_2(metrana: Command, arguments: list[str], word: str) -> None:
    done = metrana("episodes", *NAMED, *arguments, code=2)
    assert word in done.stderr
    assert done.stdout == ""


def test_show_of_an_environment_has_its_metrics_and_episodes(metrana: Command) -> None:
    text = metrana("show", *NAMED, "--env", "e-1").stdout
    assert "e-1" in text
    assert "e-0" not in text
    assert "loss" not in text
    assert "reward\n" in text  # the plot of this environment alone
    assert ["e-1", "2", "200", "204", "4", "102"] in rows(text)
    shown = json.loads(metrana("show", *NAMED, "--env", "e-1", "--json").stdout)
    assert {row["env_id"] for row in shown["series"]} == {"e-1"}
    assert [row["episode"] for row in shown["episodes"]] == [0, 1, 2]
    assert shown["env_id"] == "e-1"


def test_further_metrics_are_columns_and_the_sorted_one_always(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(12)]
    with client.init(run_name="r", data_dir=tmp_path, mode="offline") as run:
        for episode, value in enumerate((1.0, math.nan, 3.0)):
            for name in names:
                run.log_rl_episode(name, value, episode, env_id="a")
        run.log_rl_episode("terminated", 1.0, 3, env_id="a", episode=3)
    environment = {"METRANA_DIR": str(tmp_path)}
    done = run_command("episodes", "r", "--sort", "m9", code=0, environment=environment)
    heading = done.stdout.splitlines()[0].split()
    assert "m9" in heading
    assert "terminated" not in heading
    assert len([name for name in names if name in heading]) == 6
    # NaN after all numbers, then what has no value.
    assert [row[1] for row in rows(done.stdout)] == ["2", "0", "1", "3"]
    assert rows(done.stdout)[-1][-1] == "terminated"


def test_what_is_no_number_somewhere_is_none_in_the_row_of_all_environments(
    tmp_path: Path,
) -> None:
    with client.init(run_name="r", data_dir=tmp_path, mode="offline") as run:
        values = [1.0, 2.0, math.nan, 4.0, 5.0]
        run.log_rl_environment_step("reward", values, 0, env_id=[*"abcde"])
        run.log_rl_environment_step("steady", [3.0] * 5, 0, env_id=[*"abcde"])
    done = run_command("show", "r", code=0, environment={"METRANA_DIR": str(tmp_path)})
    found = {row[0]: row[1:] for row in rows(done.stdout) if row}
    #                          env            points to   last   min  mean max
    assert found["reward"] == ["5", "envs", "5", "0", "nan", "1", "3", "5"]
    assert found["steady"] == ["5", "envs", "5", "0", "3", "3", "3", "3"]


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_no_number_is_broken_where_lines_are_short(tmp_path: Path, columns: int) -> None:
    further = ["episode_duration", "forward_reward", "ctrl_cost", "x_velocity", "success"]
    with client.init(run_name="r", data_dir=tmp_path, mode="offline") as run:
        for episode in range(1_000, 1_003):
            for name in ("episode_return", *further):
                run.log_rl_episode(name, -1.23456e-5, 1_000_000 + episode, episode, "CartPole-v1-0")
    environment = {"METRANA_DIR": str(tmp_path), "COLUMNS": str(columns)}
    shown = ["show", "r", "--env", "CartPole-v1-0"]
    for arguments in (["episodes", "r"], ["episodes", "r", "--sort", "success"], shown):
        done = run_command(*arguments, code=0, environment=environment)
        assert max(map(len, done.stdout.splitlines())) <= columns
        cells = [line.split() for line in done.stdout.splitlines()]
        for episode in ("1,000", "1,001", "1,002"):
            (row,) = (row for row in cells if row[1:2] == [episode])
            assert row[2:4] == [f"1,001{episode[1:]}"] * 2
            assert set(row[4:]) == {"-1.2346e-05"}
        if "--sort" in arguments:
            assert "succe" in done.stdout
