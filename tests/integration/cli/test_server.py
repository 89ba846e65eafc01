"""How `metrana server` and `metrana ui` are started: tokens, addresses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.cli.conftest import run_command
from tests.leash import LEASH
from tests.local_server import LocalServer

KEY = "the-key-of-the-user"


def _state(server: LocalServer) -> dict[str, object]:
    state: dict[str, object] = json.loads((server.data_dir / "server" / "state.json").read_text())
    return state


def _everything_written(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def _status(server: LocalServer, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.get(f"{server.http_url}/api/v1/runs", headers=headers).status_code


def test_the_users_key_is_never_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRANA_API_KEY", KEY)
    tokens = set()
    for _ in range(2):
        with LocalServer(tmp_path) as server:
            tokens.add(_state(server)["token"])
            assert _status(server, KEY) == 401
        assert KEY.encode() not in _everything_written(tmp_path)
    assert len(tokens) == 2


def test_a_token_may_be_chosen(tmp_path: Path) -> None:
    with LocalServer(tmp_path, "--token", "s3cret") as server:
        assert _state(server)["token"] == "s3cret"
        assert (_status(server, "s3cret"), _status(server, KEY)) == (200, 401)
        environment = {"METRANA_DIR": str(tmp_path)}
        second = run_command("server", "--port", "0", code=1, environment=environment)
        assert str(server.process.pid) in second.stderr
        assert "s3cret" not in second.stderr


def test_ui_links_with_a_token_of_its_own(tmp_path: Path) -> None:
    command = [*LEASH, sys.executable, "-m", "metrana.cli", "ui", "--no-browser", "--port=0"]
    process = subprocess.Popen(
        [*command, "--grpc-port=0", "--data-dir", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "METRANA_API_KEY": KEY},
    )
    try:
        assert process.stderr is not None
        link = next(line for line in process.stderr if line.startswith("open "))
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert "?token=" in link
    assert KEY not in link


@pytest.mark.parametrize("tokens", [["--token", ""], ["--token", "two\nlines"]])
def test_what_no_header_can_carry_is_no_token(tmp_path: Path, tokens: list[str]) -> None:
    environment = {"METRANA_DIR": str(tmp_path)}
    refused = run_command("server", "--port", "0", *tokens, code=2, environment=environment)
    assert "--token" in refused.stderr


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_said_to_be_that(tmp_path: Path, host: str) -> None:
    environment = {"METRANA_DIR": str(tmp_path)}
    refused = run_command("server", "--host", host, "--port=0", code=1, environment=environment)
    assert host in refused.stderr
    assert "--host" in refused.stderr
    assert "--port" not in refused.stderr
