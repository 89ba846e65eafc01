"""`Client`: runs, series, points and curves as frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from metrana import checks
from metrana.query.arguments import (
    optional,
    range_arguments,
    run_arguments,
    series_arguments,
    statistics_arguments,
    to_env_id,
)
from metrana.query.choosing import open_backend
from metrana.query.downloads import checked_target, save
from metrana.query.frames import FrameKind, attribute_frame, check_kind, convert
from metrana.query.run_info import RunInfo
from metrana.settings import checked_data_dir, default_data_dir

_STATUSES: Final = ("running", "finished", "failed", "lost")
_AXES: Final = ("step", "rl_step", "episode", "timestamp")
_MAX_BUCKETS: Final = 1_000_000
_LOGGERS: Final = ("mean", "min", "max", "each")


class Client:
    """Reads what was logged. Thread-safe; every call blocks until the answer is here.

    With a URL, that server is asked. Without, the local server of the data directory if one runs,
    else the embedded store is opened in this process for each call, after everything that is
    sealed in the spools was delivered to it, that of live runs too.

    A frame is a pandas DataFrame; `as_="arrow"` gives a pyarrow Table, `as_="polars"` a polars
    DataFrame. A run is named by `run_name` within `project_name` and `workspace_name`, or by its
    `run_id` alone.

    Args:
        url: HTTP address of a server, `http://127.0.0.1:7670` for instance. Default: local.
        api_key: What the server asks for. Default: `METRANA_API_KEY`; a local server's token is
            found by itself.
        data_dir: The data directory, without a URL. Default: `METRANA_DIR`, else `~/.metrana`.
        timeout_secs: Longest silence while waiting for a server, in seconds. Default 30.

    Raises:
        MetranaValidationError: For an argument that is not allowed, as all calls do.
        MetranaError: No URL, no local server, and the extra `server` is not installed.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        data_dir: str | Path | None = None,
        timeout_secs: float = 30.0,
    ) -> None:
        checks.number("timeout_secs", timeout_secs, minimum=0.001)
        directory = (
            default_data_dir() if data_dir is None else checks.directory("data_dir", data_dir)
        )
        self._backend = open_backend(url, api_key, checked_data_dir(directory), timeout_secs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hold(self) -> AbstractContextManager[None]:
        """Keeps the embedded store open for a block: many calls take the time of one opening.

        What is sealed in the spools is delivered when the block begins, so all calls of this thread
        in it see the same runs. Other threads and processes wait for the store until it ends. With
        a server it does nothing.

        Raises:
            MetranaQueryError: If the store cannot be opened.
        """
        return self._backend.hold()

    def close(self) -> None:
        """Closes connections; twice is once."""
        self._backend.close()

    def runs(
        self,
        project_name: str | None = None,
        *,
        tags: Sequence[str] | None = None,
        status: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives one row a run, newest first.

        Args:
            project_name: Only this project's.
            tags: Only runs that have all of these.
            status: Only `running`, `finished`, `failed` or `lost` ones.
            as_: Kind of frame.

        Returns:
            A frame of `run_id, workspace_name, project_name, run_name, experiment_name, status,
            created_at, updated_at, finished_at, tags, description, git_sha, point_count`.

        Raises:
            MetranaValidationError: For an argument that is not allowed, as all calls do.
            MetranaQueryError: If it could not be answered, as all calls do.
        """
        arguments = {
            "project_name": optional(checks.text, "project_name", project_name),
            "tags": None if tags is None else list(checks.tags("tags", tags)),
            "status": None if status is None else checks.word("status", status, _STATUSES),
        }
        return self._frame("runs", arguments, as_)

    def run(
        self,
        run_name: str | None = None,
        *,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
    ) -> RunInfo:
        """Gives one run with its config, attributes and a summary on demand.

        Raises:
            MetranaNotFoundError: Naming the nearest names.
        """
        name = run_arguments(run_name, project_name, workspace_name, run_id)
        fields = self._backend.value("run", name)
        for moment in ("created_at", "updated_at", "finished_at"):
            fields[moment] = _utc(fields[moment])
        by_id = {"run_id": fields["run_id"]}
        return RunInfo(**fields, _summary=lambda kind: self._frame("series", by_id, kind))

    def series(
        self,
        run_name: str | None = None,
        *,
        metric_name: str | None = None,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives one row a series: its identity and its statistics.

        Returns:
            A frame of `series_id, metric_name, scale, labels, env_id, point_count, first_step,
            last_step, last_value, min_value, max_value, mean_value, nonfinite_count`. Steps are on
            the scale's own axis; counts are of all stored points, the statistics of those shown.

        Raises:
            MetranaNotFoundError: No such run or metric.
        """
        name = run_arguments(run_name, project_name, workspace_name, run_id)
        return self._frame(
            "series", {**name, **series_arguments(metric_name, None, None, None)}, as_
        )

    def points(
        self,
        run_name: str | None = None,
        metric_name: str | None = None,
        *,
        scale: str | None = None,
        labels: Mapping[str, str] | None = None,
        env_id: str | None = None,
        episode: int | None = None,
        start: int | None = None,
        end: int | None = None,
        limit: int | None = None,
        duplicates: str = "last",
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives points, ordered by series, then position.

        Args:
            run_name: The run.
            metric_name: Only this metric.
            scale: Only `ML_STEP`, `EPISODE` or `ENVIRONMENT_STEP` metrics.
            labels: Only metrics with at least these; `{}`: those without any.
            env_id: Only this environment.
            episode: Only this episode.
            start: Least position on the scale's own axis.
            end: First position after the range.
            limit: At most so many points.
            duplicates: Of a position logged more than once, `last` shows the newest, `all` each.
            project_name: The run's project.
            workspace_name: The run's workspace.
            run_id: The run, by its id.
            as_: Kind of frame.

        Returns:
            A frame of `metric_name, scale, labels, env_id, rl_step, episode, step, timestamp,
            value, writer_id, logger_id`. A position that the scale does not use is null, as is
            `logger_id` but for `log_distributed`, which gives a row a logger.

        Raises:
            MetranaNotFoundError: No such run, metric or environment.
        """
        arguments = {
            **run_arguments(run_name, project_name, workspace_name, run_id),
            **series_arguments(metric_name, scale, labels, env_id),
            **range_arguments(episode, start, end),
            "limit": optional(checks.whole_number, "limit", limit),
            "duplicates": checks.word("duplicates", duplicates, ("last", "all")),
        }
        return self._frame("points", arguments, as_)

    def buckets(
        self,
        run_name: str | None = None,
        metric_name: str | None = None,
        *,
        x: str | None = None,
        bucket_count: int = 1000,
        loggers: str = "mean",
        scale: str | None = None,
        labels: Mapping[str, str] | None = None,
        env_id: str | None = None,
        episode: int | None = None,
        start: int | None = None,
        end: int | None = None,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives curves reduced to buckets that hide no spike.

        Args:
            run_name: The run.
            metric_name: The metric; None for all.
            x: What is divided: `step`, `rl_step`, `episode` or `timestamp` (Unix milliseconds).
                Default: the scale's own axis.
            bucket_count: The most buckets over the whole range, all equally wide. Default 1000.
            loggers: How `log_distributed` points of one position are merged: `mean`, `min`, `max`,
                or `each` for a curve a logger.
            scale: As for `points`, like the arguments not named here.
            labels: As for `points`.
            env_id: As for `points`.
            episode: As for `points`.
            start: Least x.
            end: First x after the range.
            project_name: As for `points`.
            workspace_name: As for `points`.
            run_id: As for `points`.
            as_: Kind of frame.

        Returns:
            A frame of `metric_name, scale, labels, env_id, logger_id, bucket, x_min, x_max, count,
            min, max, mean, first, last, nonfinite_count`, a row a bucket that has points.

        Raises:
            MetranaNotFoundError: No such run, metric or environment.
        """
        arguments = {
            **run_arguments(run_name, project_name, workspace_name, run_id),
            **series_arguments(metric_name, scale, labels, env_id),
            **range_arguments(episode, start, end),
            "x": None if x is None else checks.word("x", x, _AXES),
            "bucket_count": checks.whole_number(
                "bucket_count", bucket_count, minimum=1, maximum=_MAX_BUCKETS
            ),
            "loggers": checks.word("loggers", loggers, _LOGGERS),
        }
        return self._frame("buckets", arguments, as_)

    def aggregate(
        self,
        run_name: str | None = None,
        metric_name: str | None = None,
        *,
        by: str = "rl_step",
        over: str = "env",
        stats: Sequence[str] = ("mean", "std", "min", "max"),
        quantiles: Sequence[float] = (),
        scale: str | None = None,
        labels: Mapping[str, str] | None = None,
        start: int | None = None,
        end: int | None = None,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives statistics over the environments of a metric, one row a value of `by`.

        Each environment counts once there, by the mean of its finite points; what is not finite is
        left out. Of a position that was logged more than once the newest point counts; an episode
        that was logged anew at another `rl_step` is at other positions, and counts with both. A
        metric without environments counts as one. Of metrics with several labels the
        one without any is meant, unless `labels` choose another.

        Args:
            run_name: The run.
            metric_name: The metric; has to be given.
            by: `rl_step`, `episode` or `step`: an axis that the metric's points have.
            over: What statistics are over: `env`.
            stats: `mean`, `std` (of the population: divided by the number of environments), `min`,
                `max`, `median`, `sum`, and `count`, the number of finite points.
            quantiles: From 0 to 1, a column `q0.25` each. They are exact; between two environments
                they are interpolated linearly, as `numpy.quantile` does by default.
            scale: Needed if the name has metrics on several scales that have the axis.
            labels: As for `points`.
            start: Least value of `by`.
            end: First value after the range.
            project_name: As for `points`.
            workspace_name: As for `points`.
            run_id: As for `points`.
            as_: Kind of frame.

        Returns:
            A frame of `by`'s values under its name, the statistics, the quantiles, and `env_count`,
            the environments that have a finite point there. Where none has, statistics are null.

        Raises:
            MetranaValidationError: Several metrics match, or their points lack the axis.
            MetranaNotFoundError: No such run or metric.
        """
        checks.word("over", over, ("env",))
        arguments = {
            **run_arguments(run_name, project_name, workspace_name, run_id),
            **series_arguments(checks.text("metric_name", metric_name), scale, labels, None),
            **range_arguments(None, start, end),
            **statistics_arguments(by, stats, quantiles),
        }
        return self._frame("aggregate", arguments, as_)

    def episodes(
        self,
        run_name: str | None = None,
        *,
        env_id: str | None = None,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives one row an episode of an environment, by environment and episode.

        Episodes that metrics with `evaluation=True` are of are rows of their own, behind the
        environment's others. Of what was logged for an episode more than once, the newest writer's
        is shown. An episode that has not ended is known by its `reward` points, in an environment
        without them by those of all its ENVIRONMENT_STEP metrics.

        Args:
            run_name: The run.
            env_id: Only this environment.
            project_name: As for `points`.
            workspace_name: As for `points`.
            run_id: As for `points`.
            as_: Kind of frame.

        Returns:
            A frame of `env_id, episode, first_rl_step, last_rl_step, episode_length,
            episode_return, end, rendering_id, evaluation` and a column a further EPISODE metric.
            A length or return that was not logged is the number of `reward` points, or the sum of
            those that are finite. `end` is `terminated`, `truncated`, `both` or `aborted` (another
            episode of the environment followed, or the run ended, before any EPISODE metric of it
            was logged); null if it goes on, or if neither `terminated` nor `truncated` is logged.
            `rendering_id` is that of its video, of several parts the first; null without one.
            Metrics with labels (but `evaluation`) are `name{key=value,…}`, a metric whose name is
            another column's is `name{}`.

        Raises:
            MetranaNotFoundError: No such run or environment.
        """
        arguments = {
            **run_arguments(run_name, project_name, workspace_name, run_id),
            "env_id": to_env_id(env_id),
        }
        return self._frame("episodes", arguments, as_)

    def env_steps(
        self,
        run_name: str | None,
        metric_name: str,
        env_id: str,
        episode: int,
        *,
        labels: Mapping[str, str] | None = None,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives one episode's points of a metric: `step, rl_step, timestamp, value`, by step.

        Of metrics with several labels the one without any is meant, unless `labels` choose another.

        Raises:
            MetranaValidationError: Several metrics match.
            MetranaNotFoundError: No such run, metric or environment.
        """
        arguments = {
            **run_arguments(run_name, project_name, workspace_name, run_id),
            **series_arguments(checks.text("metric_name", metric_name), None, labels, None),
            "env_id": to_env_id(env_id) or checks.text("env_id", env_id),
            "episode": checks.whole_number("episode", episode),
        }
        return self._frame("env_steps", arguments, as_)

    def env_attributes(
        self,
        run_name: str | None = None,
        *,
        env_id: str | None = None,
        episode: int | None = None,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives attributes of environments and episodes: `env_id, episode, path, value`.

        `episode` is null for an attribute of the environment itself. Values keep their types in
        pandas; in Arrow and polars, whose columns have one type, they are text.

        Raises:
            MetranaNotFoundError: No such run.
        """
        check_kind(as_)
        arguments = {
            **run_arguments(run_name, project_name, workspace_name, run_id),
            "env_id": to_env_id(env_id),
            "episode": optional(checks.whole_number, "episode", episode),
        }
        return attribute_frame(self._backend.value("env_attributes", arguments), as_)

    def renderings(
        self,
        run_name: str | None = None,
        *,
        env_id: str | None = None,
        project_name: str = "default",
        workspace_name: str = "default",
        run_id: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Gives one row a video that has arrived whole, by environment, episode and part.

        Returns:
            A frame of `rendering_id, env_id, episode, rl_step, frame_count, width, height, fps,
            size_bytes, sha256, part`. `rl_step` is the first frame's; `frame_count` is null if
            nobody counted; an episode that was filmed in several parts has a row for each.

        Raises:
            MetranaNotFoundError: No such run or environment.
        """
        name = run_arguments(run_name, project_name, workspace_name, run_id)
        return self._frame("renderings", {**name, "env_id": to_env_id(env_id)}, as_)

    def download_rendering(self, rendering_id: str, path: str | Path) -> Path:
        """Writes a video to a file: the whole of it, its SHA-256 compared, or nothing.

        Args:
            rendering_id: The video, as `renderings` names it.
            path: The file, which is replaced if it is there; in a folder, `path` may be that, it is
                named `ENV-episode-000123.mp4`, behind the first part `….part002.mp4`.

        Returns:
            Where the file is.

        Raises:
            MetranaNotFoundError: No such rendering.
            MetranaValidationError: There is no folder for `path`, or it is a device or pipe.
            MetranaQueryError: It could not be read, or what came is damaged.
            OSError: It could not be written.
        """
        name, target = checks.text("rendering_id", rendering_id), checked_target(path)
        with self._backend.rendering(name.lower()) as video:
            return save(video, target)

    def _frame(self, route: str, arguments: Mapping[str, Any], kind: FrameKind) -> Any:
        check_kind(kind)
        return convert(self._backend.frame(route, arguments), kind)


def _utc(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
