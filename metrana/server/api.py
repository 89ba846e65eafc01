"""The HTTP routes under `/api/v1`: small answers are JSON, frames are Arrow streams, videos files.

Every route names its run by `run_name`, `project_name` and `workspace_name`, or by `run_id` alone;
one rendering is named by its `rendering_id`. What that names never changes, so browsers may keep a
video; they may also ask for a Range of it.
Errors are `{"error": {"code", "message"}}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

from metrana.query import wire
from metrana.rendering.names import canonical_name
from metrana.server.catalog import CatalogError, NotFoundError, RunFilter
from metrana.server.points import PointsError
from metrana.server.reads import (
    BucketsRequest,
    InvalidRequestError,
    PointsRequest,
    Reads,
    RunName,
    SeriesFilter,
)
from metrana.server.reads.routes import aggregate_request
from metrana.server.reads.schemas import POINTS_SCHEMA
from metrana.server.store_faults import catalog_failure

ARROW: Final = "application/vnd.apache.arrow.stream"
_FOR_EVER: Final = "private, max-age=31536000, immutable"

Status = Literal["running", "finished", "failed", "lost"]
Position = Annotated[int, Query(ge=0, le=2**63 - 1)]
Scale = Literal["ML_STEP", "EPISODE", "ENVIRONMENT_STEP"]


def run_name(
    run_name: str | None = None,
    project_name: str = "default",
    workspace_name: str = "default",
    run_id: str | None = None,
) -> RunName:
    """Reads which run is asked about."""
    return RunName(
        run_name=run_name,
        project_name=project_name,
        workspace_name=workspace_name,
        run_id=run_id,
    )


def series_filter(
    metric_name: str | None = None,
    scale: Scale | None = None,
    labels: str | None = None,
    env_id: str | None = None,
) -> SeriesFilter:
    """Reads which series are asked about; `labels` is a JSON object."""
    parsed = None if labels is None else _labels(labels)
    return SeriesFilter(metric_name=metric_name, scale=scale, labels=parsed, env_id=env_id)


Run = Annotated[RunName, Depends(run_name)]
Series = Annotated[SeriesFilter, Depends(series_filter)]


def create_router(reads: Reads) -> APIRouter:
    """Builds the routes over one set of reads."""
    router = APIRouter(prefix="/api/v1")

    @router.get("/runs")
    def runs(
        project_name: str | None = None,
        tags: Annotated[list[str] | None, Query()] = None,
        status: Status | None = None,
    ) -> Response:
        return _frame(reads.runs(RunFilter(project_name=project_name, tags=tags, status=status)))

    @router.get("/run")
    def run(name: Run) -> Response:
        return Response(wire.dumps(reads.run(name)), media_type="application/json")

    @router.get("/renderings")
    def renderings(name: Run, env_id: str | None = None) -> Response:
        return _frame(reads.renderings(name, env_id))

    @router.get("/rendering")
    def rendering(rendering_id: str) -> Response:
        return Response(wire.dumps(reads.rendering(rendering_id)), media_type="application/json")

    @router.get("/renderings/{rendering_id}.mp4")
    def rendering_file(rendering_id: str) -> FileResponse:
        row = reads.rendering(rendering_id)
        return FileResponse(
            reads.rendering_file(rendering_id),
            media_type="video/mp4",
            filename=canonical_name(row["env_id"], row["episode"], row["part"]),
            content_disposition_type="inline",
            headers={"etag": f'"{row["sha256"]}"', "cache-control": _FOR_EVER},
        )

    @router.get("/series")
    def series(name: Run, wanted: Series) -> Response:
        return _frame(reads.series(name, wanted))

    @router.get("/points")
    def points(
        name: Run,
        wanted: Series,
        episode: Position | None = None,
        start: Position | None = None,
        end: Position | None = None,
        limit: Position | None = None,
        duplicates: Literal["last", "all"] = "last",
    ) -> Response:
        request = PointsRequest(
            series=wanted,
            episode=episode,
            start=start,
            end=end,
            limit=limit,
            duplicates=duplicates,
        )
        batches = _stream(POINTS_SCHEMA, reads.points(name, request))
        return StreamingResponse(batches, media_type=ARROW)

    @router.get("/buckets")
    def buckets(
        name: Run,
        wanted: Series,
        x: Literal["step", "rl_step", "episode", "timestamp"] | None = None,
        bucket_count: Annotated[int, Query(ge=1, le=1_000_000)] = 1000,
        loggers: Literal["mean", "min", "max", "each"] = "mean",
        episode: Position | None = None,
        start: Position | None = None,
        end: Position | None = None,
    ) -> Response:
        request = BucketsRequest(
            series=wanted,
            x=x,
            bucket_count=bucket_count,
            loggers=loggers,
            episode=episode,
            start=start,
            end=end,
        )
        return _frame(reads.buckets(name, request))

    @router.get("/aggregate")
    def aggregate(
        name: Run,
        metric_name: str,
        scale: Scale | None = None,
        labels: str | None = None,
        by: Literal["rl_step", "episode", "step"] = "rl_step",
        over: Literal["env"] = "env",  # noqa: ARG001 - the only choice so far
        stats: str | None = None,
        quantiles: str | None = None,
        start: Position | None = None,
        end: Position | None = None,
    ) -> Response:
        wanted = series_filter(metric_name, scale, labels)
        arguments = {"by": by, "stats": stats, "quantiles": quantiles, "start": start, "end": end}
        return _frame(reads.aggregate(name, aggregate_request(wanted, arguments)))

    @router.get("/episodes")
    def episodes(name: Run, env_id: str | None = None) -> Response:
        return _frame(reads.episodes(name, env_id))

    @router.get("/env_steps")
    def env_steps(
        name: Run,
        wanted: Series,
        episode: Position,
        metric_name: str,  # noqa: ARG001 - required here, read by the filter
        env_id: str,  # noqa: ARG001 - likewise
    ) -> Response:
        return _frame(reads.env_steps(name, wanted, episode))

    @router.get("/env_attributes")
    def env_attributes(
        name: Run, env_id: str | None = None, episode: Position | None = None
    ) -> Response:
        rows = reads.env_attributes(name, env_id, episode)
        return Response(wire.dumps(rows), media_type="application/json")

    return router


def add_routes(app: FastAPI, reads: Reads, dependencies: Sequence[Any]) -> None:
    """Adds the routes to an application, and how their errors are answered."""
    app.include_router(create_router(reads), dependencies=list(dependencies))

    @app.exception_handler(NotFoundError)
    def not_found(_: Request, error: NotFoundError) -> JSONResponse:
        return error_response(404, "not_found", str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return error_response(422, "invalid", f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(InvalidRequestError)
    def unanswerable(_: Request, error: InvalidRequestError) -> JSONResponse:
        return error_response(422, "invalid", str(error))

    @app.exception_handler(SQLAlchemyError)
    def catalog_failing(_: Request, error: SQLAlchemyError) -> JSONResponse:
        return error_response(503, "unavailable", str(catalog_failure(error)))

    @app.exception_handler(PointsError)
    def failing(_: Request, error: PointsError) -> JSONResponse:
        return error_response(503, "unavailable", f"the points store failed: {error}")

    @app.exception_handler(CatalogError)
    def failing_catalog(_: Request, error: CatalogError) -> JSONResponse:
        return error_response(503, "unavailable", f"the catalog failed: {error}")


def error_response(status: int, code: str, message: str) -> JSONResponse:
    """Answers with an error as every route does."""
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


def _labels(text: str) -> dict[str, str]:
    try:
        labels = json.loads(text)
    except ValueError:
        labels = None
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise InvalidRequestError(f"labels: must be a JSON object of strings, not {text[:100]!r}")
    return labels


def _frame(table: Any) -> Response:
    """Answers with a table that fits memory."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Response(sink.getvalue().to_pybytes(), media_type=ARROW)


class _Pipe:
    """Where an Arrow stream is written to, and taken from batch by batch."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _stream(schema: Any, batches: Iterable[Any]) -> Iterator[bytes]:
    """Writes record batches as they come, so that the server holds one at a time."""
    pipe = _Pipe()
    # Each batch has dictionaries of its own: the stream replaces them as it goes.
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=False)
    with pa.ipc.new_stream(pa.PythonFile(pipe, mode="w"), schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield pipe.take()
    yield pipe.take()
