"""`GET /`: who gets in, and what the page says."""

from __future__ import annotations

import httpx
import pytest

from metrana import _native
from metrana.server.auth import COOKIE
from tests.integration.query.recorded import RUN
from tests.local_server import LocalServer


@pytest.fixture(scope="module")
def token(server: LocalServer) -> str:
    local = _native.find_local_server(server.data_dir)
    assert local is not None
    return str(local["token"])


def test_the_link_becomes_a_cookie_and_goes_away(server: LocalServer, token: str) -> None:
    answer = httpx.get(f"{server.http_url}/?token={token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(f"{COOKIE}={token}".lower())
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_the_page_lists_runs_for_whoever_has_the_cookie(server: LocalServer, token: str) -> None:
    with httpx.Client(base_url=server.http_url, follow_redirects=True) as browser:
        browser.get("/", params={"token": token})
        page = browser.get("/")
        runs = browser.get("/api/v1/runs")
    assert page.status_code == 200
    assert f"<td>{RUN}</td>" in page.text
    assert "<td>a, b</td>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert runs.status_code == 200


@pytest.mark.parametrize("query", ["", "?token=wrong"])
def test_strangers_are_told_where_the_link_is(server: LocalServer, query: str) -> None:
    answer = httpx.get(f"{server.http_url}/{query}")
    assert answer.status_code == 401
    assert "metrana ui" in answer.text
    assert RUN not in answer.text
    assert "set-cookie" not in answer.headers


def test_names_are_text_on_the_page_whatever_is_in_them(server: LocalServer, token: str) -> None:
    page = httpx.get(server.http_url, cookies={COOKIE: token})
    assert "<b>x</b>" not in page.text
    assert "&lt;b&gt;x&lt;/b&gt;" in page.text
