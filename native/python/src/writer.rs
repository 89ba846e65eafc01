//! One open writer as the binding holds it: the engine, the names it knows, the faults to show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrana_engine::attributes::AttributeUpdate;
use metrana_engine::calls::{EnvCall, Point, SeriesCall};
use metrana_engine::counters::Counters;
use metrana_engine::engine::{Admission, Engine, Identity};
use metrana_engine::error::{InvalidArgument, LogError};
use metrana_engine::platform::{fork_count, watch_forks};
use metrana_engine::status::Status;
use metrana_engine::sync::Mutex;
use metrana_engine::types::{EnvNo, MetricNo, Scale};
use pyo3::prelude::*;

use crate::checker::Checker;
use crate::error::{invalid, log_error, waiting};
use crate::faults::Faults;
use crate::fork::{self, wait_until_forked};
use crate::names::Names;

/// What takes the calls.
enum Sink {
    Engine(Box<Engine>),
    /// Mode `disabled`.
    Checker(Box<Checker>),
}

/// A writer.
pub struct Writer {
    sink: Sink,
    pub names: Mutex<Names>,
    pub faults: Faults,
    closed: AtomicBool,
    /// [`fork_count`] where it was opened.
    fork_count: u32,
}

impl Writer {
    /// A writer on an engine; `None`: one that only checks.
    ///
    /// # Errors
    ///
    /// `OSError` where forks cannot be watched.
    pub fn new(py: Python<'_>, engine: Option<Engine>, faults: Faults) -> PyResult<Arc<Self>> {
        watch_forks()?;
        let sink = match engine {
            Some(engine) => Sink::Engine(Box::new(engine)),
            None => Sink::Checker(Box::default()),
        };
        let writer = Arc::new(Self {
            sink,
            names: Mutex::default(),
            faults,
            closed: AtomicBool::new(false),
            fork_count: fork_count(),
        });
        // A fork that did not take its locks must not see it.
        wait_until_forked(py);
        fork::watch(&writer);
        Ok(writer)
    }

    /// `None` in mode `disabled`.
    pub fn engine(&self) -> Option<&Engine> {
        match &self.sink {
            Sink::Engine(engine) => Some(engine),
            Sink::Checker(_) => None,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Marks the writer as closed; false: it was.
    pub fn mark_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::Relaxed)
    }

    /// Whether this is a forked child's copy of its parent's writer.
    pub fn is_inherited(&self) -> bool {
        self.fork_count != fork_count()
    }

    // The methods below take the engine's locks: each waits right before that for the end of a fork
    // that is under way, see the module `fork`.

    // ── Names and positions ────────────────────────────────────────────────────────────────────

    pub fn metric(
        &self,
        py: Python<'_>,
        name: &str,
        scale: Scale,
        labels: &[(&str, &str)],
    ) -> Result<MetricNo, InvalidArgument> {
        wait_until_forked(py);
        match &self.sink {
            Sink::Engine(engine) => engine.metric(name, scale, labels),
            Sink::Checker(checker) => checker.metric(name, scale, labels),
        }
    }

    pub fn env(&self, py: Python<'_>, env_id: &str) -> Result<EnvNo, InvalidArgument> {
        wait_until_forked(py);
        match &self.sink {
            Sink::Engine(engine) => engine.env(env_id),
            Sink::Checker(checker) => checker.env(env_id),
        }
    }

    pub fn last_step(&self, py: Python<'_>, metric: MetricNo) -> Option<i64> {
        wait_until_forked(py);
        match &self.sink {
            Sink::Engine(engine) => engine.last_step(metric),
            Sink::Checker(checker) => checker.last_step(metric),
        }
    }

    pub fn env_cursor(&self, py: Python<'_>, env: EnvNo) -> (Option<i64>, Option<i64>) {
        wait_until_forked(py);
        match &self.sink {
            Sink::Engine(engine) => engine.env_cursor(env),
            Sink::Checker(checker) => checker.env_cursor(env),
        }
    }

    // ── The writer itself: nothing in mode `disabled` ──────────────────────────────────────────

    pub fn identity(&self, py: Python<'_>) -> Option<Identity> {
        wait_until_forked(py);
        self.engine().map(Engine::identity)
    }

    pub fn counters(&self, py: Python<'_>) -> Option<Counters> {
        wait_until_forked(py);
        self.engine().map(Engine::counters)
    }

    pub fn status(&self, py: Python<'_>) -> Option<Status> {
        wait_until_forked(py);
        self.engine().map(Engine::status)
    }

    // ── Calls ──────────────────────────────────────────────────────────────────────────────────
    //
    // Each validates its whole call, may wait for room without the interpreter's lock, and then
    // shows what went wrong in the background. They raise what `LogError` maps to, and
    // `MetranaSenderError` if `error_strategy` is `raise_on_log`.

    #[inline]
    pub fn log_point(&self, py: Python<'_>, point: Point) -> PyResult<()> {
        wait_until_forked(py);
        match &self.sink {
            Sink::Engine(engine) => self.settle(py, engine, engine.log_point(point)),
            Sink::Checker(checker) => checked(py, checker.points(&[point])),
        }
    }

    pub fn log_points(&self, py: Python<'_>, points: &[Point]) -> PyResult<()> {
        wait_until_forked(py);
        match &self.sink {
            Sink::Engine(engine) => self.settle(py, engine, engine.log_points(points)),
            Sink::Checker(checker) => checked(py, checker.points(points)),
        }
    }

    pub fn log_series(&self, py: Python<'_>, calls: &[SeriesCall<'_>]) -> PyResult<()> {
        wait_until_forked(py);
        match &self.sink {
            Sink::Engine(engine) => self.settle(py, engine, engine.log_series(calls)),
            Sink::Checker(checker) => checked(py, checker.series(calls)),
        }
    }

    pub fn log_envs(&self, py: Python<'_>, call: &EnvCall<'_>, scale: Scale) -> PyResult<()> {
        wait_until_forked(py);
        match (&self.sink, scale) {
            (Sink::Engine(engine), Scale::Episode) => {
                self.settle(py, engine, engine.log_episodes(call))
            }
            (Sink::Engine(engine), _) => self.settle(py, engine, engine.log_env_steps(call)),
            (Sink::Checker(checker), _) => checked(py, checker.env_call(call, scale)),
        }
    }

    pub fn log_attributes(&self, py: Python<'_>, updates: &[AttributeUpdate]) -> PyResult<()> {
        wait_until_forked(py);
        match &self.sink {
            Sink::Engine(engine) => self.settle(py, engine, engine.log_attributes(updates)),
            Sink::Checker(_) => Ok(()),
        }
    }

    #[inline]
    fn settle(
        &self,
        py: Python<'_>,
        engine: &Engine,
        admission: Result<Admission<'_>, LogError>,
    ) -> PyResult<()> {
        match admission {
            Ok(Admission::Accepted) => {}
            Ok(full) => waiting(py, |check| full.settle(check), log_error)?,
            Err(error) => return Err(log_error(py, error)),
        }
        self.faults.show_now_and_then(py, engine)
    }
}

fn checked(py: Python<'_>, result: Result<(), InvalidArgument>) -> PyResult<()> {
    result.map_err(|error| invalid(py, &error))
}
