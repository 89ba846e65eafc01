"""`GET /`: the runs as a plain page, until the dashboard is built.

A link with `?token=` hands the token over once: it becomes a cookie that scripts cannot read and
other sites cannot use, and the address that remains in the browser's history is without it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from metrana.server.auth import COOKIE, TokenAuth
from metrana.server.catalog import RunFilter

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, RunRecord

_COLUMNS: Final = ("project", "run", "status", "created", "tags")
_MAX_RUNS: Final = 1_000
_HEADERS: Final = {
    # Nothing is loaded, nothing runs, nobody frames it, and no other site learns the address.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_STYLE: Final = (
    "body{font:15px system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:.3rem 1.2rem .3rem 0;border-bottom:1px solid #8884}"
    ":root{color-scheme:light dark}"
)


def add_page(app: FastAPI, catalog: Catalog, auth: TokenAuth) -> None:
    """Adds `GET /` to an application.

    Args:
        app: The application.
        catalog: Whose runs are listed.
        auth: Who may see them.
    """

    @app.get("/", include_in_schema=False)
    def page(request: Request, token: str | None = None) -> Response:
        if token is not None and auth.admits(token):
            return _with_cookie(token)
        if not auth.admits(request.cookies.get(COOKIE)):
            return _denied()
        return _page("metrana", _table(catalog.runs(RunFilter(limit=_MAX_RUNS))))


def _with_cookie(token: str) -> Response:
    answer = RedirectResponse("/", status_code=303, headers=_HEADERS)
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/")
    return answer


def _denied() -> Response:
    text = (
        "<p>This page needs the server's token: open the link that <code>metrana ui</code> "
        "prints.</p>"
    )
    return _page("metrana", text, status=401)


def _page(title: str, body: str, status: int = 200) -> Response:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>",
        status_code=status,
        headers=_HEADERS,
    )


def _table(runs: list[RunRecord]) -> str:
    if not runs:
        return "<p>No runs yet.</p>"
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    return f"<table><tr>{head}</tr>{''.join(map(_row, runs))}</table>"


def _row(run: RunRecord) -> str:
    created = datetime.fromtimestamp(run.created_at_ms / 1000, UTC)
    cells = (
        run.project_name,
        run.run_name,
        run.status,
        f"{created:%Y-%m-%d %H:%M} UTC",
        ", ".join(run.tags),
    )
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
