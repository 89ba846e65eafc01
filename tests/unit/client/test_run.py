"""Runs: opening, joining, refusing, closing, and what they say about themselves."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import metrana
from metrana import _native, lifecycle
from tests.reading import read_all, read_one, run_folders


def test_without_any_argument_it_works(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = metrana.init()
    assert (run.project_name, run.workspace_name, run.mode) == ("default", "default", "auto")
    assert len(run.run_id) == 32
    assert run.orchestration_id == os.environ["METRANA_ORCHESTRATION_ID"]
    (hint,) = capsys.readouterr().err.splitlines()
    assert run.run_name in hint
    assert "metrana ui" in hint
    metrana.close()
    (folder,) = run_folders(data_dir)
    assert folder.run["run_id"] == run.run_id
    assert folder.run["run_name"] == run.run_name
    assert folder.run["destination"] == "local"


def test_names_are_kept(data_dir: Path) -> None:
    names = {
        "workspace_name": "w",
        "project_name": "p/ä",
        "run_name": "r 1",
        "experiment_name": "e",
    }
    with metrana.init(mode="offline", logger_id="rank-3", **names) as run:
        assert (run.workspace_name, run.project_name, run.run_name) == ("w", "p/ä", "r 1")
    (folder,) = run_folders(data_dir)
    assert {name: folder.run[name] for name in names} == names
    assert folder.writers()[0].info["logger_id"] == "rank-3"


def test_a_run_cannot_be_renamed() -> None:
    with metrana.init(mode="offline") as run, pytest.raises(AttributeError):
        run.run_name = "other"  # type: ignore[misc]


def test_init_of_the_same_run_returns_it_and_warns() -> None:
    run = metrana.init(mode="offline", run_name="a")
    other = metrana.init(mode="offline", run_name="b")
    with pytest.warns(metrana.MetranaWarning, match="'a' is open"):
        assert metrana.init(mode="offline", run_name="a") is run
    assert _native.current_run() is run
    with pytest.warns(metrana.MetranaWarning):
        assert metrana.init(mode="offline", run_id=other.run_id) is other


def test_another_run_opens_beside_and_becomes_current(data_dir: Path) -> None:
    first = metrana.init(mode="offline")
    second = metrana.init(mode="offline")
    assert first.run_name != second.run_name
    metrana.log("x", 2)
    first.log("x", 1)
    second.close()
    assert not metrana.is_initialized()
    assert first.is_initialized()
    first.close()
    assert [logged.values("x") for logged in read_all(data_dir)] in ([[1.0], [2.0]], [[2.0], [1.0]])


def test_a_sibling_of_the_same_job_joins(data_dir: Path) -> None:
    first = metrana.init(mode="offline", run_name="r", orchestration_id="job")
    first.close()
    second = metrana.init(mode="offline", run_name="r", orchestration_id="job")
    assert second.run_id == first.run_id
    second.close()
    assert [writer.number for writer in run_folders(data_dir)[0].writers()] == [1, 2]


def test_another_job_is_refused_with_both_identifiers() -> None:
    metrana.init(mode="offline", run_name="r", orchestration_id="job-1").close()
    with pytest.raises(metrana.MetranaOrchestrationIdMismatchError, match=r"job-1.*job-2"):
        metrana.init(mode="offline", run_name="r", orchestration_id="job-2")
    assert not metrana.is_initialized()


def test_another_job_may_be_allowed_to_resume() -> None:
    first = metrana.init(mode="offline", run_name="r", orchestration_id="job-1")
    metrana.log("x", [1, 2, 3])
    metrana.log_rl_episode("return", 1, rl_step=8, env_id="e")
    first.close()
    with metrana.init(
        mode="offline", run_name="r", orchestration_id="job-2", resume_strategy="ALLOW"
    ) as second:
        assert second.run_id == first.run_id
        assert second.get_last_step("x") == 2
        assert second.get_env_last_rl_step_and_episode("e") == (8, 0)


def test_a_run_id_resumes_that_run(data_dir: Path) -> None:
    first = metrana.init(mode="offline", run_name="r", project_name="p")
    first.close()
    with metrana.init(mode="offline", run_id=first.run_id) as second:
        assert (second.run_name, second.project_name) == ("r", "p")
    assert len(run_folders(data_dir)) == 1


def test_an_unknown_run_id_is_refused() -> None:
    with pytest.raises(metrana.MetranaLoggerInitError, match="0123"):
        metrana.init(mode="offline", run_id="0123" * 8)


def test_module_functions_need_a_run() -> None:
    calls = [
        lambda: metrana.log("x", 1),
        lambda: metrana.log_distributed("x", 1, step=1),
        lambda: metrana.log_rl_episode("x", 1, 1),
        lambda: metrana.log_rl_environment_step("x", 1, 1),
        lambda: metrana.log_config({}),
        lambda: metrana.log_attributes("a", 1),
        lambda: metrana.log_env_attributes("e", {}),
        lambda: metrana.log_rendering(None, 1, 1),
        lambda: metrana.set_tags([]),
        lambda: metrana.get_last_step("x"),
        lambda: metrana.get_metrics(),
        lambda: metrana.status(),
        lambda: metrana.check_sender_errors(),
        lambda: metrana.flush(),
    ]
    for call in calls:
        with pytest.raises(metrana.MetranaNotInitializedError, match=r"metrana\.init\(\)"):
            call()
    metrana.close()
    assert not metrana.is_initialized()


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_methods_of_a_closed_run_raise(mode: str) -> None:
    run = metrana.init(mode=mode)
    run.close()
    run.close()
    run.finish()
    assert not run.is_initialized()
    calls = [
        lambda: run.log("x", 1),
        lambda: run.log_rl_episode("x", 1, 1),
        lambda: run.log_config({}),
        lambda: run.log_env_attributes("e", {}),
        lambda: run.set_description(""),
        lambda: run.log_rendering(None, 1, 1),
        lambda: run.get_last_step("x"),
        lambda: run.get_env_last_rl_step_and_episode("e"),
        lambda: run.get_metrics(),
        lambda: run.status(),
        lambda: run.check_sender_errors(),
        lambda: run.flush(),
        lambda: run.__enter__(),
    ]
    for call in calls:
        with pytest.raises(metrana.MetranaLoggerClosedError):
            call()
    assert "closed" in repr(run)
    assert run.run_name


def test_leaving_a_block_closes_as_finished_or_failed(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        pass
    assert read_one(data_dir).end == "finished"
    with pytest.raises(ZeroDivisionError), metrana.init(mode="offline"):
        _ = 1 // 0
    assert sorted(str(logged.end) for logged in read_all(data_dir)) == ["failed", "finished"]


def test_counters_follow_a_point() -> None:
    with metrana.init(mode="offline", config={"a": 1, "b": 2}) as run:
        run.log("x", [1, 2, 3])
        run.log_rl_episode("r", 1, 1)
        run.log_env_attributes("default", {"seed": 1})
        run.flush(10)
        metrics = run.get_metrics()
    assert metrics.float_points_added == metrics.float_points_spooled == 3
    assert metrics.rl_float_points_enqueued == metrics.rl_float_points_spooled == 1
    assert metrics.attribute_updates_added in (2, 3)  # and the commit, where there is one
    assert metrics.env_attribute_updates_spooled == 1
    assert metrics.float_points_sent == metrics.float_points_dropped == 0
    with pytest.raises(AttributeError):
        metrics.float_points_added = 0  # type: ignore[misc]


def test_status_tells_where_points_are() -> None:
    with metrana.init(mode="offline") as run:
        run.log("x", 1)
        status = run.status()
        assert (status.mode, status.server_url, status.last_ack_age_s) == ("offline", None, None)
        assert status.ring in ("tmpfs", "memory")
        assert status.pending_points == 1
        run.flush()
        assert run.status().spooled_bytes > 0
        assert run.check_sender_errors() == []


def test_a_disabled_run_leaves_no_trace(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = dict(os.environ)
    with metrana.init(mode="disabled", config={"a": 1}, tags=["t"]) as run:
        metrana.log("x", [1, 2])
        run.log_config({"b": 2})
        run.flush()
        assert run.run_name
        assert run.get_last_step("x") == 1
        assert run.get_metrics() == metrana.Metrics()
        assert run.status().mode == "disabled"
    assert dict(os.environ) == environ
    assert not data_dir.exists()
    assert capsys.readouterr().err == ""


def test_online_without_a_server_raises_in_time() -> None:
    with pytest.raises(metrana.MetranaLoggerInitError, match="no local server"):
        metrana.init(mode="online", init_timeout_secs=0.2)
    with pytest.raises(metrana.MetranaLoggerInitError, match=r"127\.0\.0\.1:1"):
        metrana.init(mode="online", ingestion_url="http://127.0.0.1:1", init_timeout_secs=0.5)
    assert lifecycle.open_runs() == []


def test_auto_without_its_server_goes_on_into_the_spool(data_dir: Path) -> None:
    run = metrana.init(ingestion_url="http://127.0.0.1:1", connect_timeout_secs=0.1)
    run.log("x", 1)
    assert run.status().server_url == "http://127.0.0.1:1"
    with pytest.warns(
        metrana.MetranaWarning, match=r"1 point( and \d attributes?)? that http://127\.0\.0\.1:1"
    ):
        run.close(0.1)
    (logged,) = read_all(data_dir)
    assert logged.values("x") == [1.0]
    assert logged.info["sender"] == "grpc"


def test_what_later_versions_do_says_so() -> None:
    with pytest.raises(metrana.MetranaUnavailableError, match="fork_from_run"):
        metrana.init(mode="offline", fork_from_run="r")


@pytest.mark.parametrize("strategy", ["drop_new", "block", "raise"])
def test_a_full_queue_follows_the_strategy(strategy: str) -> None:
    count = 3_000_000
    values = [0.5] * count
    with metrana.init(
        mode="offline",
        backpressure_strategy=strategy,
        enqueue_timeout_secs=0,
        queue_capacity=1000,
        batch_max_age_secs=60,
    ) as run:
        if strategy == "raise":
            with pytest.raises(metrana.MetranaEventQueueFullError):
                run.log("x", values)
        else:
            run.log("x", values)
        metrics = run.get_metrics()
        assert metrics.float_points_added == count
        assert metrics.float_points_enqueued + metrics.float_points_dropped == count
        assert (metrics.float_points_dropped == 0) == (strategy == "block")
        assert run.get_last_step("x") == count - 1


def test_threads_share_a_series(data_dir: Path) -> None:
    run = metrana.init(mode="offline", backpressure_strategy="block")

    def work() -> None:
        for _ in range(2000):
            run.log("x", 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.close()
    assert read_one(data_dir).steps("x") == list(range(8000))
