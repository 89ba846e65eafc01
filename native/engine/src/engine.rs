//! One writer of one run: what the binding holds.
//!
//! A logging method validates its whole call, assigns steps and copies the points into the ring,
//! all under one lock that is held for a memcpy and never across a wait. What does not fit comes
//! back as a [`Remainder`], so that the caller can wait without the interpreter's lock.

use std::time::Duration;

use crate::attributes::{AttributeUpdate, CloseStatus};
use crate::calls::{EnvCall, Point, SeriesCall};
use crate::config::EngineConfig;
use crate::counters::Counters;
use crate::error::{FlushError, InvalidArgument, LogError, OpenError};
use crate::status::Status;
use crate::types::{EnvNo, MetricNo, RunId, Scale, WriterId};

/// Called now and then by every method that waits, outside all locks; `true` ends the wait.
pub type InterruptCheck<'a> = &'a mut dyn FnMut() -> bool;

/// A writer. Every method may be called from any thread.
#[derive(Debug)]
pub struct Engine {}

/// What became of a call.
#[must_use = "a remainder that is dropped counts as dropped points"]
#[derive(Debug)]
pub enum Admission<'a> {
    /// All of it is in the ring.
    Accepted,
    /// There was no room for this part. Its steps are assigned already.
    Full(Remainder<'a>),
}

impl Admission<'_> {
    /// Waits for room as the queue's strategy says and puts the rest in.
    ///
    /// # Errors
    ///
    /// [`LogError::QueueFull`] (strategy `Raise`), [`LogError::Interrupted`], [`LogError::Closed`];
    /// what was not taken is counted as dropped.
    pub fn settle(self, check_interrupt: InterruptCheck<'_>) -> Result<(), LogError> {
        match self {
            Self::Accepted => Ok(()),
            Self::Full(remainder) => remainder.settle(check_interrupt),
        }
    }
}

/// The part of a call that found no room. Dropping it counts its points as dropped.
#[derive(Debug)]
pub struct Remainder<'a> {
    engine: &'a Engine,
}

impl Remainder<'_> {
    /// Blocks. See [`Admission::settle`].
    ///
    /// # Errors
    ///
    /// See [`Admission::settle`].
    pub fn settle(self, check_interrupt: InterruptCheck<'_>) -> Result<(), LogError> {
        todo!()
    }

    /// Puts in what fits now; `true`: nothing is left. Never blocks.
    pub fn try_again(&mut self) -> bool {
        todo!()
    }

    /// Blocks until there may be room for the next chunk, at most `timeout`; `false`: there is not.
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        todo!()
    }
}

/// Who the run and its writer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub run_id: RunId,
    pub writer_id: WriterId,
    pub writer_number: u32,
    pub workspace_name: String,
    pub project_name: String,
    pub run_name: String,
    pub orchestration_id: String,
    /// This writer created the run: what `init()` was given is logged with `initial`.
    pub created: bool,
}

impl Engine {
    /// Claims the run's folder, a writer number, lock and ring; starts the threads; with a server,
    /// waits for it as `config.server.connect` says. Blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is left behind then.
    pub fn open(
        config: EngineConfig,
        check_interrupt: InterruptCheck<'_>,
    ) -> Result<Self, OpenError> {
        todo!()
    }

    pub fn identity(&self) -> Identity {
        todo!()
    }

    // ── Names ──────────────────────────────────────────────────────────────────────────────────

    /// The number of (name, scale, labels), the same for the same identity whatever the labels'
    /// order. Declares nothing: that is done by the first point.
    ///
    /// # Errors
    ///
    /// A name or label outside the limits.
    pub fn metric(
        &self,
        name: &str,
        scale: Scale,
        labels: &[(&str, &str)],
    ) -> Result<MetricNo, InvalidArgument> {
        todo!()
    }

    /// The number of an environment.
    ///
    /// # Errors
    ///
    /// An id that is no URL segment of 1 to 128 bytes.
    pub fn env(&self, env_id: &str) -> Result<EnvNo, InvalidArgument> {
        todo!()
    }

    // ── Logging: never blocks ──────────────────────────────────────────────────────────────────

    /// One scalar.
    ///
    /// # Errors
    ///
    /// [`LogError::Invalid`], [`LogError::Closed`]; nothing was logged.
    pub fn log_point(&self, point: Point) -> Result<Admission<'_>, LogError> {
        todo!()
    }

    /// Scalars of several metrics, all or none of them valid.
    ///
    /// # Errors
    ///
    /// See [`Self::log_point`].
    pub fn log_points(&self, points: &[Point]) -> Result<Admission<'_>, LogError> {
        todo!()
    }

    /// Arrays of one or several metrics, all or none of them valid.
    ///
    /// # Errors
    ///
    /// See [`Self::log_point`].
    pub fn log_series<'a>(&'a self, calls: &[SeriesCall<'a>]) -> Result<Admission<'a>, LogError> {
        todo!()
    }

    /// Episodes of one or many environments; the metric's scale is EPISODE.
    ///
    /// # Errors
    ///
    /// See [`Self::log_point`]; also an `rl_step` below an environment's last one.
    pub fn log_episodes<'a>(&'a self, call: &EnvCall<'a>) -> Result<Admission<'a>, LogError> {
        todo!()
    }

    /// Steps of one or many environments; the metric's scale is ENVIRONMENT_STEP.
    ///
    /// # Errors
    ///
    /// See [`Self::log_episodes`].
    pub fn log_env_steps<'a>(&'a self, call: &EnvCall<'a>) -> Result<Admission<'a>, LogError> {
        todo!()
    }

    /// Attribute operations, in order, all or none of them valid.
    ///
    /// # Errors
    ///
    /// See [`Self::log_point`].
    pub fn log_attributes(&self, updates: &[AttributeUpdate]) -> Result<Admission<'_>, LogError> {
        todo!()
    }

    // ── Reading back ───────────────────────────────────────────────────────────────────────────

    /// The greatest step of the series, over its environments; `None`: there is none.
    pub fn last_step(&self, metric: MetricNo) -> Option<i64> {
        todo!()
    }

    /// The environment's greatest `rl_step` and episode.
    pub fn env_cursor(&self, env: EnvNo) -> (Option<i64>, Option<i64>) {
        todo!()
    }

    pub fn counters(&self) -> Counters {
        todo!()
    }

    pub fn status(&self) -> Status {
        todo!()
    }

    /// Takes the errors of background work since the last call, the oldest first.
    pub fn take_errors(&self) -> Vec<String> {
        todo!()
    }

    // ── Ending ─────────────────────────────────────────────────────────────────────────────────

    /// Blocks until all that was accepted is acknowledged by the server; offline or not yet
    /// connected: sealed. `None`: as long as it takes.
    ///
    /// # Errors
    ///
    /// [`FlushError`]; nothing is lost by it.
    pub fn flush(
        &self,
        timeout: Option<Duration>,
        check_interrupt: InterruptCheck<'_>,
    ) -> Result<(), FlushError> {
        todo!()
    }

    /// Logs the close record, seals, waits for acknowledgements at most `timeout`, and gives the
    /// writer up. Zero drops what is unacked, unless the run never reached a server. The second
    /// call does nothing. Blocks.
    ///
    /// # Errors
    ///
    /// [`FlushError::Timeout`]: closed, the rest lies in the spool for whoever delivers it.
    pub fn close(
        &self,
        timeout: Duration,
        status: CloseStatus,
        check_interrupt: InterruptCheck<'_>,
    ) -> Result<(), FlushError> {
        todo!()
    }

    pub fn is_closed(&self) -> bool {
        todo!()
    }

    // ── Fork ───────────────────────────────────────────────────────────────────────────────────

    /// Takes every lock, so that the child's copy is whole. Follow it with
    /// [`Self::fork_in_parent`] and [`Self::fork_in_child`].
    pub fn fork_prepare(&self) {
        todo!()
    }

    /// Releases what [`Self::fork_prepare`] took.
    pub fn fork_in_parent(&self) {
        todo!()
    }

    /// Releases the locks, closes the descriptors that belong to the parent without touching its
    /// files, and leaves an engine whose every call says [`LogError::Closed`]. The child opens a
    /// writer of its own with [`Self::child_config`] at its first log, and must `mem::forget`
    /// this one: its threads do not exist here.
    pub fn fork_in_child(&self) {
        todo!()
    }

    /// What a forked child opens its own writer of the same run with.
    pub fn child_config(&self) -> EngineConfig {
        todo!()
    }
}
