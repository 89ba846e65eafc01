//! `RunCore`: the native half of `metrana.Run`.

use std::sync::{Arc, OnceLock};

use metrana_engine::attributes::{AttributeOperation, AttributeUpdate, CloseStatus};
use metrana_engine::engine::Engine;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::arguments::{Evaluation, scale};
use crate::decode::{parse_update, parse_value};
use crate::error::{flush_error, open_error, run_is_closed, waiting};
use crate::faults::{ErrorStrategy, Faults};
use crate::fork;
use crate::log::{LogCall, log};
use crate::names::{self, Qualifiers, refused};
use crate::options::{Options, seconds};
use crate::rendering;
use crate::rl::{RlCall, log_env_step, log_episode};
use crate::snapshots;
use crate::writer::Writer;

/// The native half of `Run`: holds the engine and takes the points.
#[pyclass(subclass, frozen, module = "metrana._native")]
pub struct RunCore {
    /// Empty until it is opened.
    first: OnceLock<Box<Generation>>,
    /// Held by a thread of a forked child that opens a writer of its own.
    reopening: std::sync::Mutex<()>,
}

/// The writer of a process, and of the forked child that it became. A chain that only grows, so that
/// a call finds the last one without a lock and without counting references.
struct Generation {
    writer: Arc<Writer>,
    next: OnceLock<Box<Generation>>,
}

impl Generation {
    fn new(writer: Arc<Writer>) -> Self {
        Self { writer, next: OnceLock::new() }
    }
}

impl RunCore {
    /// The open writer of this process; a forked child gets one of its own here.
    ///
    /// # Errors
    ///
    /// `MetranaLoggerClosedError`, `MetranaProcessForkError` in a fork's hook, and what opening raises.
    pub fn writer<'a>(slf: &'a Bound<'_, Self>) -> PyResult<&'a Writer> {
        let py = slf.py();
        fork::enter(py)?;
        match slf.get().current() {
            Some(writer) if writer.is_closed() => Err(run_is_closed(py)),
            Some(writer) if !writer.is_inherited() => Ok(writer),
            Some(_) => Self::reopen(slf),
            None => Err(run_is_closed(py)),
        }
    }

    fn current(&self) -> Option<&Writer> {
        self.last().map(|generation| &*generation.writer)
    }

    #[inline]
    fn last(&self) -> Option<&Generation> {
        let mut last = self.first.get()?;
        while let Some(next) = last.next.get() {
            last = next;
        }
        Some(last)
    }

    /// Sets the writer of this process, which nobody else does meanwhile.
    fn begin(&self, writer: Arc<Writer>) {
        let end = self.last().map_or(&self.first, |last| &last.next);
        let _is_set = end.set(Box::new(Generation::new(writer)));
    }

    fn reopen<'a>(slf: &'a Bound<'_, Self>) -> PyResult<&'a Writer> {
        use pyo3::sync::MutexExt as _;
        let (py, core) = (slf.py(), slf.get());
        // The guarded value is (), which a panic cannot leave half-written.
        let _guard =
            core.reopening.lock_py_attached(py).unwrap_or_else(std::sync::PoisonError::into_inner);
        let parents = core.current().ok_or_else(|| run_is_closed(py))?;
        if !parents.is_inherited() {
            return Ok(parents);
        }
        let engine = match parents.engine() {
            Some(engine) => {
                let config = engine.child_config();
                Some(waiting(py, |check| Engine::open(config, check), open_error)?)
            }
            None => None,
        };
        let writer = Writer::new(py, engine, Faults::new(parents.faults.strategy()))?;
        core.begin(writer);
        slf.call_method0("_opened_in_child")?;
        core.current().ok_or_else(|| run_is_closed(py))
    }
}

#[pymethods]
impl RunCore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { first: OnceLock::new(), reopening: std::sync::Mutex::new(()) }
    }

    /// Log a metric, or several at once.
    ///
    /// Never waits longer than `enqueue_timeout_secs`, unless `backpressure_strategy` is `block`.
    /// Thread-safe. Either all of the call is logged or, for bad input, nothing.
    ///
    /// Args:
    ///     metric_name: Name of the metric (1 to 512 bytes, no control characters), or a mapping of
    ///         names to values; `value` is then left out.
    ///     value: A number, or a one-dimensional list or array of numbers: one point each. Arrays of
    ///         any library and on any device. NaN and infinities are kept; an empty array logs
    ///         nothing.
    ///     step: Step of the first point, the others go on from it; or one step per point. Default:
    ///         the series' next step, from 0.
    ///     timestamp: Unix milliseconds, one for all points or one for each. Default: now.
    ///     scale: A `StandardMetricScale`. Default: `ML_STEP`.
    ///     labels: Strings that identify the series together with name and scale; their order does
    ///         not matter.
    ///     evaluation: Add the label `evaluation="true"`, unless `labels` has that key.
    ///
    /// Raises:
    ///     MetranaValidationError: For bad input, naming the argument.
    ///     MetranaLoggerClosedError: If the run is closed.
    ///     MetranaEventQueueFullError: If `backpressure_strategy` is `raise` and there is no room.
    ///     MetranaSenderError: If `error_strategy` is `raise_on_log` and something went wrong before.
    #[pyo3(
        signature = (metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None, evaluation=Evaluation(false)),
        text_signature = "($self, metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None, evaluation=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the contract's")]
    pub fn log<'py>(
        slf: &Bound<'py, Self>,
        metric_name: &Bound<'py, PyAny>,
        value: Option<&Bound<'py, PyAny>>,
        step: Option<&Bound<'py, PyAny>>,
        timestamp: Option<&Bound<'py, PyAny>>,
        scale: Option<&Bound<'py, PyAny>>,
        labels: Option<&Bound<'py, PyAny>>,
        evaluation: Evaluation,
    ) -> PyResult<()> {
        let evaluation = evaluation.0;
        let distributed = false;
        let call =
            LogCall { metric_name, value, step, timestamp, scale, labels, evaluation, distributed };
        log(slf.py(), Self::writer(slf)?, &call)
    }

    /// Log a metric that several processes write to, such as a loss that every rank computes.
    ///
    /// Points of different processes are kept side by side and merged when they are read, so
    /// concurrent writers never overwrite each other. Waits and raises as `log` does.
    ///
    /// Args:
    ///     metric_name: As for `log`.
    ///     value: As for `log`.
    ///     step: As for `log`, but required: the global training step, by which points align.
    ///     timestamp: As for `log`.
    ///     scale: As for `log`.
    ///     labels: As for `log`.
    ///     evaluation: As for `log`.
    #[pyo3(
        signature = (metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None, evaluation=Evaluation(false)),
        text_signature = "($self, metric_name, value=None, *, step=None, timestamp=None, scale=None, labels=None, evaluation=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the contract's")]
    pub fn log_distributed<'py>(
        slf: &Bound<'py, Self>,
        metric_name: &Bound<'py, PyAny>,
        value: Option<&Bound<'py, PyAny>>,
        step: Option<&Bound<'py, PyAny>>,
        timestamp: Option<&Bound<'py, PyAny>>,
        scale: Option<&Bound<'py, PyAny>>,
        labels: Option<&Bound<'py, PyAny>>,
        evaluation: Evaluation,
    ) -> PyResult<()> {
        let evaluation = evaluation.0;
        let distributed = true;
        let call =
            LogCall { metric_name, value, step, timestamp, scale, labels, evaluation, distributed };
        log(slf.py(), Self::writer(slf)?, &call)
    }

    /// Log a metric of finished episodes, such as their return.
    ///
    /// Waits and raises as `log` does. Exactly one process may log an environment.
    ///
    /// Args:
    ///     metric_name: Name of the metric.
    ///     value: A number; or shape `(T,)`, T consecutive episodes of one environment; or shape
    ///         `(num_envs,)` with a list of env ids, one episode of each.
    ///     rl_step: The training step at which it was logged; it may not go back.
    ///     episode: Number of the (first) episode; for arrays also one per point. Default: the next
    ///         of the metric in that environment, from 0.
    ///     env_id: One environment or a list of them: URL-safe strings of 1 to 128 characters, or
    ///         ints. Default: the environment `default`.
    ///     labels: As for `log`.
    ///     evaluation: As for `log`.
    ///     timestamp: Unix milliseconds, one for all points or one for each. Default: now.
    #[pyo3(
        signature = (metric_name, value, rl_step, episode=None, env_id=None, labels=None, evaluation=Evaluation(false), timestamp=None),
        text_signature = "($self, metric_name, value, rl_step, episode=None, env_id=None, labels=None, evaluation=False, timestamp=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the contract's")]
    pub fn log_rl_episode<'py>(
        slf: &Bound<'py, Self>,
        metric_name: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        rl_step: &Bound<'py, PyAny>,
        episode: Option<&Bound<'py, PyAny>>,
        env_id: Option<&Bound<'py, PyAny>>,
        labels: Option<&Bound<'py, PyAny>>,
        evaluation: Evaluation,
        timestamp: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let evaluation = evaluation.0;
        let call =
            RlCall { metric_name, value, rl_step, episode, env_id, labels, evaluation, timestamp };
        log_episode(slf.py(), Self::writer(slf)?, &call)
    }

    /// Log a metric of steps inside episodes, such as the reward, for one or many environments.
    ///
    /// Steps count by themselves, for each metric and environment from 0 in each episode. Waits and
    /// raises as `log` does. Exactly one process may log an environment.
    ///
    /// Args:
    ///     metric_name: Name of the metric.
    ///     value: For one environment a number or shape `(T,)`; with a list of env ids shape
    ///         `(num_envs,)`, one step of each, or `(num_envs, T)`.
    ///     rl_step: The training step at which it was logged; it may not go back.
    ///     env_id: One environment or a list of them: URL-safe strings of 1 to 128 characters, or
    ///         ints. Default: the environment `default`.
    ///     episode: The episode that the points belong to: one for all, one per environment, or one
    ///         per point. Default: the environment's current episode.
    ///     labels: As for `log`.
    ///     evaluation: As for `log`.
    ///     timestamp: Unix milliseconds: one for all, one per environment, or one per point.
    ///         Default: now.
    #[pyo3(
        signature = (metric_name, value, rl_step, env_id=None, episode=None, labels=None, evaluation=Evaluation(false), timestamp=None),
        text_signature = "($self, metric_name, value, rl_step, env_id=None, episode=None, labels=None, evaluation=False, timestamp=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the contract's")]
    pub fn log_rl_environment_step<'py>(
        slf: &Bound<'py, Self>,
        metric_name: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        rl_step: &Bound<'py, PyAny>,
        env_id: Option<&Bound<'py, PyAny>>,
        episode: Option<&Bound<'py, PyAny>>,
        labels: Option<&Bound<'py, PyAny>>,
        evaluation: Evaluation,
        timestamp: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let evaluation = evaluation.0;
        let call =
            RlCall { metric_name, value, rl_step, episode, env_id, labels, evaluation, timestamp };
        log_env_step(slf.py(), Self::writer(slf)?, &call)
    }

    /// Open the engine with an `EngineOptions`. Blocks.
    fn _open(&self, py: Python<'_>, options: Options) -> PyResult<()> {
        fork::enter(py)?;
        let faults = Faults::new(options.error_strategy()?);
        let config = options.into_config()?;
        let engine = waiting(py, |check| Engine::open(config, check), open_error)?;
        self.begin(Writer::new(py, Some(engine), faults)?);
        Ok(())
    }

    /// Open for mode `disabled`: arguments are checked, nothing else happens.
    fn _open_disabled(&self, py: Python<'_>) -> PyResult<()> {
        fork::enter(py)?;
        let faults = Faults::new(ErrorStrategy::Silent);
        self.begin(Writer::new(py, None, faults)?);
        Ok(())
    }

    /// Whether calls are taken.
    fn _is_open(&self) -> bool {
        self.current().is_some_and(|writer| !writer.is_closed())
    }

    /// Whether this is a forked child that has logged nothing, so has no writer of its own.
    fn _is_inherited(&self) -> bool {
        self.current().is_some_and(Writer::is_inherited)
    }

    /// Raise `MetranaLoggerClosedError` unless the run is open.
    fn _check_open(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().current() {
            Some(writer) if !writer.is_closed() => Ok(()),
            _ => Err(run_is_closed(slf.py())),
        }
    }

    /// Who the run and its writer are, by name; None in mode `disabled`.
    fn _identity<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        fork::enter(py)?;
        let Some(writer) = self.current() else { return Ok(None) };
        writer.identity(py).map(|identity| snapshots::identity(py, identity)).transpose()
    }

    /// Log operations, given as the tuples of `decode_attributes`; values of ints as digits.
    fn _log_attributes(slf: &Bound<'_, Self>, operations: Vec<Bound<'_, PyTuple>>) -> PyResult<()> {
        let writer = Self::writer(slf)?;
        let updates = operations.iter().map(parse_update).collect::<PyResult<Vec<_>>>()?;
        writer.log_attributes(slf.py(), &updates)
    }

    /// Log attributes of an environment, given as `(path, type, value)` tuples.
    fn _log_env_attributes(
        slf: &Bound<'_, Self>,
        env_id: &Bound<'_, PyAny>,
        episode: Option<i64>,
        entries: Vec<Bound<'_, PyTuple>>,
    ) -> PyResult<()> {
        let writer = Self::writer(slf)?;
        let env = names::env(writer, env_id)?;
        let updates = entries
            .iter()
            .map(|entry| {
                let path = entry.get_item(0)?.extract()?;
                let value = parse_value(&entry.get_item(1)?, &entry.get_item(2)?)?;
                let operation = AttributeOperation::SetEnvironment { env, episode, path, value };
                Ok(AttributeUpdate { initial: false, operation })
            })
            .collect::<PyResult<Vec<_>>>()?;
        writer.log_attributes(slf.py(), &updates)
    }

    /// The folder that renderings are encoded in, for its owner alone; None in mode `disabled`. It may
    /// be another the next time, if somebody deleted the writer's. A forked child has its own. Blocks on
    /// the disk. Thread-safe.
    ///
    /// Raises:
    ///     MetranaLoggerClosedError: If the run is closed.
    ///     OSError: If the folder cannot be made.
    fn _rendering_folder(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        rendering::folder(slf.py(), Self::writer(slf)?)
    }

    /// `<rendering_id>.mp4` and its `.json` are in that folder: the writer delivers and deletes them.
    /// Does not block. Thread-safe.
    ///
    /// Raises:
    ///     ValueError: If `rendering_id` is not 32 hexadecimal digits.
    ///     MetranaLoggerClosedError: If the run is closed; the next process delivers it.
    fn _rendering_finished(slf: &Bound<'_, Self>, rendering_id: &str) -> PyResult<()> {
        rendering::finished(slf.py(), Self::writer(slf)?, rendering_id)
    }

    /// The greatest step of a series, or None.
    fn _last_step<'py>(
        slf: &Bound<'py, Self>,
        metric_name: &Bound<'py, PyAny>,
        scale_name: Option<&Bound<'py, PyAny>>,
        labels: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<i64>> {
        let writer = Self::writer(slf)?;
        let name = metric_name
            .cast::<PyString>()
            .map_err(|_| refused(metric_name, "metric_name", "a string"))?;
        let qualifiers = Qualifiers { scale: scale(scale_name)?, labels, evaluation: false };
        let metric = names::metric(writer, name, qualifiers)?;
        Ok(writer.last_step(slf.py(), metric))
    }

    /// The greatest `rl_step` and episode of an environment.
    fn _env_cursor(
        slf: &Bound<'_, Self>,
        env_id: &Bound<'_, PyAny>,
    ) -> PyResult<(Option<i64>, Option<i64>)> {
        let writer = Self::writer(slf)?;
        let env = names::env(writer, env_id)?;
        Ok(writer.env_cursor(slf.py(), env))
    }

    /// The counters, by the attribute names of `get_metrics()`.
    fn _counters<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let py = slf.py();
        fork::enter(py)?;
        let writer = slf.get().current();
        let counters = writer.as_ref().and_then(|writer| writer.counters(py));
        let counters = counters.unwrap_or_default();
        let evicted_here = writer.map_or(0, |writer| writer.faults.evicted());
        snapshots::counters(py, &counters, evicted_here)
    }

    /// Of one instant, `points` and `attributes` that are neither sent nor dropped, how many of both
    /// are `unsealed`, and how many more are `lost` though they were accepted.
    fn _left<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let py = slf.py();
        fork::enter(py)?;
        let counters = slf.get().current().and_then(|writer| writer.counters(py));
        snapshots::left(py, &counters.unwrap_or_default())
    }

    /// How the writer is doing, by the attribute names of `status()`; None in mode `disabled`.
    fn _status<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let py = slf.py();
        fork::enter(py)?;
        let status = slf.get().current().and_then(|writer| writer.status(py));
        status.map(|status| snapshots::status(py, status)).transpose()
    }

    /// Take the messages of background faults, the oldest first.
    fn _take_errors(slf: &Bound<'_, Self>) -> PyResult<Vec<String>> {
        let writer = Self::writer(slf)?;
        let py = slf.py();
        Ok(writer.engine().map(|engine| writer.faults.take(py, engine)).unwrap_or_default())
    }

    /// Wait until all is acknowledged or, without a server, sealed. Blocks.
    fn _flush(slf: &Bound<'_, Self>, timeout_secs: Option<f64>) -> PyResult<()> {
        let py = slf.py();
        let writer = Self::writer(slf)?;
        let Some(engine) = writer.engine() else { return Ok(()) };
        let timeout = timeout_secs.map(seconds);
        waiting(
            py,
            |check| engine.flush(timeout, check),
            |py, error| flush_error(py, error, writer),
        )?;
        writer.faults.show(py, engine)
    }

    /// Write the close record and end the writer. Blocks. False: it was closed already.
    fn _close(&self, py: Python<'_>, timeout_secs: f64, failed: bool) -> PyResult<bool> {
        fork::enter(py)?;
        let Some(writer) = self.current() else { return Ok(false) };
        if !writer.mark_closed() {
            return Ok(false);
        }
        let Some(engine) = writer.engine().filter(|_| !writer.is_inherited()) else {
            return Ok(true);
        };
        let status = if failed { CloseStatus::Failed } else { CloseStatus::Finished };
        let timeout = seconds(timeout_secs);
        let closed = waiting(
            py,
            |check| engine.close(timeout, status, check),
            |py, error| flush_error(py, error, writer),
        );
        let shown = writer.faults.show_at_close(py, engine);
        if let (Err(error), Err(fault)) = (&closed, &shown) {
            // Why it could not end in time is among them.
            error.set_cause(py, Some(fault.clone_ref(py)));
        }
        closed.and(shown).map(|()| true)
    }
}
