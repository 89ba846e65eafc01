//! The current run, and the module's log functions that act on it.
//!
//! They are native because a Python function that forwards by keyword takes longer than the whole
//! call does.

use metrana_engine::sync::Mutex;
use pyo3::prelude::*;

use crate::arguments::Evaluation;
use crate::error::not_initialized;
use crate::run::RunCore;

/// Locked only by threads attached to Python, for as long as a reference is copied.
static CURRENT: Mutex<Option<Py<RunCore>>> = Mutex::new(None);

fn current(py: Python<'_>) -> PyResult<Bound<'_, RunCore>> {
    let run = CURRENT.lock().as_ref().map(|run| run.bind(py).clone());
    run.ok_or_else(|| {
        not_initialized(py, "no run is open: call metrana.init() before anything is logged")
    })
}

/// The current run, or None.
#[pyfunction]
pub fn current_run(py: Python<'_>) -> Option<Bound<'_, RunCore>> {
    CURRENT.lock().as_ref().map(|run| run.bind(py).clone())
}

/// Make a run the current one, or with None have none.
#[pyfunction]
#[pyo3(signature = (run))]
pub fn set_current_run(run: Option<Py<RunCore>>) {
    // Dropped after the lock: the last reference to a run runs Python code.
    let before = std::mem::replace(&mut *CURRENT.lock(), run);
    drop(before);
}

/// Log a metric of the current run, or several at once; see `Run.log`.
///
/// Raises:
///     MetranaNotInitializedError: If no run is open.
#[pyfunction]
#[pyo3(
    signature = (metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None, evaluation=Evaluation(false)),
    text_signature = "(metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None, evaluation=False)"
)]
#[expect(clippy::too_many_arguments, reason = "the contract's")]
pub fn log<'py>(
    py: Python<'py>,
    metric_name: &Bound<'py, PyAny>,
    value: Option<&Bound<'py, PyAny>>,
    step: Option<&Bound<'py, PyAny>>,
    timestamp: Option<&Bound<'py, PyAny>>,
    scale: Option<&Bound<'py, PyAny>>,
    labels: Option<&Bound<'py, PyAny>>,
    evaluation: Evaluation,
) -> PyResult<()> {
    let run = current(py)?;
    RunCore::log(&run, metric_name, value, step, timestamp, scale, labels, evaluation)
}

/// Log a metric that several processes write to; see `Run.log_distributed`.
///
/// Raises:
///     MetranaNotInitializedError: If no run is open.
#[pyfunction]
#[pyo3(
    signature = (metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None, evaluation=Evaluation(false)),
    text_signature = "(metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None, evaluation=False)"
)]
#[expect(clippy::too_many_arguments, reason = "the contract's")]
pub fn log_distributed<'py>(
    py: Python<'py>,
    metric_name: &Bound<'py, PyAny>,
    value: Option<&Bound<'py, PyAny>>,
    step: Option<&Bound<'py, PyAny>>,
    timestamp: Option<&Bound<'py, PyAny>>,
    scale: Option<&Bound<'py, PyAny>>,
    labels: Option<&Bound<'py, PyAny>>,
    evaluation: Evaluation,
) -> PyResult<()> {
    let run = current(py)?;
    RunCore::log_distributed(&run, metric_name, value, step, timestamp, scale, labels, evaluation)
}

/// Log a metric of finished episodes of the current run; see `Run.log_rl_episode`.
///
/// Raises:
///     MetranaNotInitializedError: If no run is open.
#[pyfunction]
#[pyo3(
    signature = (metric_name, value, rl_step, episode=None, env_id=None, labels=None, evaluation=Evaluation(false), timestamp=None),
    text_signature = "(metric_name, value, rl_step, episode=None, env_id=None, labels=None, evaluation=False, timestamp=None)"
)]
#[expect(clippy::too_many_arguments, reason = "the contract's")]
pub fn log_rl_episode<'py>(
    py: Python<'py>,
    metric_name: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
    rl_step: &Bound<'py, PyAny>,
    episode: Option<&Bound<'py, PyAny>>,
    env_id: Option<&Bound<'py, PyAny>>,
    labels: Option<&Bound<'py, PyAny>>,
    evaluation: Evaluation,
    timestamp: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let run = current(py)?;
    RunCore::log_rl_episode(
        &run,
        metric_name,
        value,
        rl_step,
        episode,
        env_id,
        labels,
        evaluation,
        timestamp,
    )
}

/// Log a metric of steps inside episodes of the current run; see `Run.log_rl_environment_step`.
///
/// Raises:
///     MetranaNotInitializedError: If no run is open.
#[pyfunction]
#[pyo3(
    signature = (metric_name, value, rl_step, env_id=None, episode=None, labels=None, evaluation=Evaluation(false), timestamp=None),
    text_signature = "(metric_name, value, rl_step, env_id=None, episode=None, labels=None, evaluation=False, timestamp=None)"
)]
#[expect(clippy::too_many_arguments, reason = "the contract's")]
pub fn log_rl_environment_step<'py>(
    py: Python<'py>,
    metric_name: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
    rl_step: &Bound<'py, PyAny>,
    env_id: Option<&Bound<'py, PyAny>>,
    episode: Option<&Bound<'py, PyAny>>,
    labels: Option<&Bound<'py, PyAny>>,
    evaluation: Evaluation,
    timestamp: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let run = current(py)?;
    RunCore::log_rl_environment_step(
        &run,
        metric_name,
        value,
        rl_step,
        env_id,
        episode,
        labels,
        evaluation,
        timestamp,
    )
}
