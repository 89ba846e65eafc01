//! One open writer as the binding holds it: the engine, the names it knows, the faults to show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrana_engine::engine::{Admission, Engine};
use metrana_engine::error::{InvalidArgument, LogError};
use metrana_engine::types::{EnvNo, MetricNo, Scale};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::error::{log_error, waiting};
use crate::faults::Faults;
use crate::fork;
use crate::names::Names;

/// A writer, or in mode `disabled` what checks arguments in its place.
pub struct Writer {
    /// None in mode `disabled`.
    engine: Option<Engine>,
    pub names: Mutex<Names>,
    pub faults: Faults,
    closed: AtomicBool,
    inherited: AtomicBool,
}

impl Writer {
    pub fn new(engine: Option<Engine>, faults: Faults) -> Arc<Self> {
        let writer = Arc::new(Self {
            engine,
            names: Mutex::default(),
            faults,
            closed: AtomicBool::new(false),
            inherited: AtomicBool::new(false),
        });
        fork::watch(&writer);
        writer
    }

    /// None in mode `disabled`.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
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
        self.inherited.load(Ordering::Relaxed)
    }

    /// From now on, in a forked child, this is its parent's.
    pub fn mark_inherited(&self) {
        self.inherited.store(true, Ordering::Relaxed);
    }

    pub fn metric(
        &self,
        name: &str,
        scale: Scale,
        labels: &[(&str, &str)],
    ) -> Result<MetricNo, InvalidArgument> {
        match &self.engine {
            Some(engine) => engine.metric(name, scale, labels),
            None => Ok(MetricNo(0)),
        }
    }

    pub fn env(&self, env_id: &str) -> Result<EnvNo, InvalidArgument> {
        match &self.engine {
            Some(engine) => engine.env(env_id),
            None => Ok(EnvNo(0)),
        }
    }

    /// Hands a call to the engine, waits for room without the interpreter's lock if there is none,
    /// then shows what went wrong in the background meanwhile.
    ///
    /// # Errors
    ///
    /// What [`LogError`] maps to; `MetranaSenderError` if `error_strategy` is `raise_on_log`.
    pub fn log<'a>(
        &'a self,
        py: Python<'_>,
        call: impl FnOnce(&'a Engine) -> Result<Admission<'a>, LogError>,
    ) -> PyResult<()> {
        let Some(engine) = &self.engine else { return Ok(()) };
        match call(engine) {
            Ok(Admission::Accepted) => {}
            Ok(full) => waiting(py, |check| full.settle(check), log_error)?,
            Err(error) => return Err(log_error(py, error)),
        }
        self.faults.show(py, engine)
    }
}
