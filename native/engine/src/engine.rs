//! One writer of one run: what the binding holds.
//!
//! A logging method validates its whole call, assigns steps and copies the points into the ring,
//! all under one lock that is held for a memcpy and never across a wait. What does not fit comes
//! back as a [`Remainder`], so that the caller can wait without the interpreter's lock.

use std::collections::VecDeque;
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sync::Mutex;

pub use crate::admission::{Admission, Remainder};
use crate::attributes::{AttributeOperation, AttributeUpdate};
use crate::calls::{EnvCall, Point, SeriesCall};
use crate::chunk::{AttributesChunk, Chunk};
use crate::clock::now_ms;
use crate::config::{EngineConfig, QueueConfig};
use crate::counters::{Counters, Tally};
use crate::drain::{Drain, MEMORY_RING_AGE};
use crate::error::{FlushError, InvalidArgument, LogError};
use crate::platform::fork_count;
use crate::sender::{ConnectionState, Sender};
use crate::shapes;
use crate::shared::Shared;
use crate::spool::CursorSet;
use crate::status::Status;
use crate::steps::Episodes;
use crate::types::{EnvNo, MAX_ATTRIBUTE_BYTES, MetricNo, RunId, Scale, Seq, UNUSED, WriterId};

/// Called now and then by every method that waits, outside all locks; `true` ends the wait.
pub type InterruptCheck<'a> = &'a mut dyn FnMut() -> bool;

/// Longest wait between two looks for an interrupt.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A writer. Every method may be called from any thread.
pub struct Engine {
    /// Never dropped in a forked child: the other threads' halves do not exist there.
    pub(crate) parts: ManuallyDrop<Parts>,
    /// [`fork_count`] where it was opened.
    fork_count: u32,
}

#[derive(Debug)]
pub(crate) struct Parts {
    pub shared: Arc<Shared>,
    pub config: EngineConfig,
    pub identity: Identity,
    pub sender: Option<Arc<Sender>>,
    pub drain: Mutex<Option<JoinHandle<Drain>>>,
}

/// Who the run and its writer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub run_id: RunId,
    pub writer_id: WriterId,
    /// Its place in the run. If somebody deletes the folder and another writer comes by the number,
    /// this writer goes on under the next, and this is that one from then on.
    pub writer_number: u32,
    pub workspace_name: String,
    pub project_name: String,
    pub run_name: String,
    pub orchestration_id: String,
    /// This writer created the run: what `init()` was given is logged with `initial`.
    pub created: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("identity", &self.parts.identity).finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: ManuallyDrop::new(parts), fork_count: fork_count() }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.parts.shared
    }

    pub(crate) fn queue(&self) -> &QueueConfig {
        &self.parts.config.queue
    }

    /// Where its spool and everything else of it lies.
    pub fn data_dir(&self) -> &Path {
        &self.parts.config.data_dir
    }

    /// Whether this is a forked child's copy of its parent's: nothing of it may be touched.
    #[inline]
    pub fn is_inherited(&self) -> bool {
        self.fork_count != fork_count()
    }

    #[inline]
    fn check_own(&self) -> Result<(), LogError> {
        if self.is_inherited() { Err(LogError::Closed) } else { Ok(()) }
    }

    /// Who the run is; the server may have named it differently since it was opened, and the writer
    /// may have another number.
    pub fn identity(&self) -> Identity {
        let mut identity = self.parts.identity.clone();
        if self.check_own().is_err() {
            return identity;
        }
        identity.writer_number = self.shared().writer_number.load(Ordering::Relaxed);
        if let Some(opened) = &*self.shared().opened.lock() {
            identity.run_id = opened.run_id.unwrap_or(identity.run_id);
            identity.workspace_name.clone_from(&opened.workspace_name);
            identity.project_name.clone_from(&opened.project_name);
            identity.run_name.clone_from(&opened.run_name);
            identity.created = opened.created;
        }
        identity
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
        self.check_own().map_err(|_| inherited())?;
        self.shared().intake.lock().metric(name, scale, labels)
    }

    /// The number of an environment.
    ///
    /// # Errors
    ///
    /// An id that is no URL segment of 1 to 128 bytes.
    pub fn env(&self, env_id: &str) -> Result<EnvNo, InvalidArgument> {
        self.check_own().map_err(|_| inherited())?;
        self.shared().intake.lock().env(env_id)
    }

    // ── Logging: never blocks ──────────────────────────────────────────────────────────────────

    /// One scalar.
    ///
    /// # Errors
    ///
    /// [`LogError::Invalid`], [`LogError::Closed`]; nothing was logged.
    #[inline]
    pub fn log_point(&self, point: Point) -> Result<Admission<'_>, LogError> {
        self.check_own()?;
        let now = now_ms();
        let shared = self.shared();
        let mut intake = shared.intake.lock();
        let left = intake.point(&point, now)?;
        let is_wake_due = intake.is_wake_due();
        drop(intake);
        if is_wake_due {
            shared.ask_to_seal();
        }
        match left {
            None => Ok(Admission::Accepted),
            Some(chunk) => Ok(self.admission(VecDeque::from([Chunk::Point(chunk)]))),
        }
    }

    /// Scalars of several metrics, all or none of them valid.
    ///
    /// # Errors
    ///
    /// See [`Self::log_point`].
    pub fn log_points(&self, points: &[Point]) -> Result<Admission<'_>, LogError> {
        self.check_own()?;
        let now = now_ms();
        let mut intake = self.shared().intake.lock();
        let left = intake.points(points, now)?;
        let is_wake_due = intake.is_wake_due();
        drop(intake);
        Ok(self.finish(left, is_wake_due))
    }

    /// Arrays of one or several metrics, all or none of them valid.
    ///
    /// # Errors
    ///
    /// See [`Self::log_point`].
    pub fn log_series<'a>(&'a self, calls: &[SeriesCall<'a>]) -> Result<Admission<'a>, LogError> {
        self.check_own()?;
        calls.iter().try_for_each(shapes::check_series)?;
        let now = now_ms();
        let mut intake = self.shared().intake.lock();
        let left = intake.series(calls, now)?;
        let is_wake_due = intake.is_wake_due();
        drop(intake);
        Ok(self.finish(left, is_wake_due))
    }

    /// Episodes of one or many environments; the metric's scale is EPISODE.
    ///
    /// # Errors
    ///
    /// See [`Self::log_point`]; also an `rl_step` below an environment's last one.
    pub fn log_episodes<'a>(&'a self, call: &EnvCall<'a>) -> Result<Admission<'a>, LogError> {
        self.log_env_block(call, Scale::Episode)
    }

    /// Steps of one or many environments; the metric's scale is `ENVIRONMENT_STEP`.
    ///
    /// # Errors
    ///
    /// See [`Self::log_episodes`].
    pub fn log_env_steps<'a>(&'a self, call: &EnvCall<'a>) -> Result<Admission<'a>, LogError> {
        self.log_env_block(call, Scale::EnvironmentStep)
    }

    fn log_env_block<'a>(
        &'a self,
        call: &EnvCall<'a>,
        scale: Scale,
    ) -> Result<Admission<'a>, LogError> {
        self.check_own()?;
        shapes::check_env_call(call)?;
        let episodes = Episodes::check(call, scale)?;
        let now = now_ms();
        let mut intake = self.shared().intake.lock();
        let left = intake.env_block(call, &episodes, scale, now)?;
        let is_wake_due = intake.is_wake_due();
        drop(intake);
        Ok(self.finish(left, is_wake_due))
    }

    /// Attribute operations, in order, all or none of them valid.
    ///
    /// # Errors
    ///
    /// See [`Self::log_point`]; also an operation of more than 64 KiB.
    pub fn log_attributes(&self, updates: &[AttributeUpdate]) -> Result<Admission<'_>, LogError> {
        self.check_own()?;
        let chunks = attribute_chunks(updates)?;
        let mut intake = self.shared().intake.lock();
        let left = intake.attributes(chunks)?;
        let is_wake_due = intake.is_wake_due();
        drop(intake);
        Ok(self.finish(left, is_wake_due))
    }

    #[inline]
    fn finish<'a>(&'a self, left: VecDeque<Chunk<'a>>, is_wake_due: bool) -> Admission<'a> {
        if is_wake_due {
            self.shared().ask_to_seal();
        }
        if left.is_empty() { Admission::Accepted } else { self.admission(left) }
    }

    #[cold]
    fn admission<'a>(&'a self, left: VecDeque<Chunk<'a>>) -> Admission<'a> {
        self.shared().ask_to_seal();
        Admission::Full(Remainder::new(self, left))
    }

    // ── Reading back ───────────────────────────────────────────────────────────────────────────

    /// Takes over positions that were not known when the run was opened.
    pub fn seed_cursors(&self, cursors: &CursorSet) {
        if self.check_own().is_ok() {
            self.shared().intake.lock().seed(cursors);
        }
    }

    /// The greatest step of the series, over its environments; `None`: there is none.
    pub fn last_step(&self, metric: MetricNo) -> Option<i64> {
        self.check_own().ok()?;
        self.shared().intake.lock().steps.last_step(metric)
    }

    /// The environment's greatest `rl_step` and episode.
    pub fn env_cursor(&self, env: EnvNo) -> (Option<i64>, Option<i64>) {
        let cursor = match self.check_own() {
            Ok(()) => self.shared().intake.lock().steps.env_cursor(env),
            Err(_) => None,
        };
        let known = |number: i64| (number > UNUSED).then_some(number);
        cursor.map_or((None, None), |cursor| (known(cursor.rl_step), known(cursor.episode)))
    }

    pub fn counters(&self) -> Counters {
        if self.check_own().is_err() {
            return Counters::default();
        }
        let mut counters = self.shared().counters();
        if let Some(sender) = &self.parts.sender {
            let sender = sender.counters();
            counters.connection_attempts = sender.connection_attempts;
            counters.requests_sent = sender.requests_sent;
            counters.send_errors = sender.send_errors;
        }
        counters
    }

    pub fn status(&self) -> Status {
        let server_url = self.parts.config.server.as_ref().map(|server| server.connector.url());
        if self.check_own().is_err() {
            return Status { server_url, ..Status::default() };
        }
        let shared = self.shared();
        let connection = self.parts.sender.as_ref().map(|sender| sender.connection());
        let is_tmpfs = shared.has_tmpfs_ring();
        let mut problems = shared.problems.lock().shown();
        problems.extend(connection.as_ref().and_then(|connection| connection.last_error.clone()));
        Status {
            server_url,
            connected: connection
                .as_ref()
                .is_some_and(|connection| connection.state == ConnectionState::Connected),
            ring: if is_tmpfs { "tmpfs" } else { "memory" },
            loss_window: if is_tmpfs { Duration::ZERO } else { 2 * MEMORY_RING_AGE },
            pending_points: shared.pending().points(),
            spooled_bytes: shared.spooled_bytes.load(Ordering::Relaxed),
            last_ack_age: connection
                .and_then(|connection| connection.last_ack)
                .map(|at| at.elapsed()),
            problems,
        }
    }

    /// Takes the errors of background work since the last call, the oldest first.
    pub fn take_errors(&self) -> Vec<String> {
        match self.check_own() {
            Ok(()) => self.shared().problems.lock().take(),
            Err(_) => Vec::new(),
        }
    }

    // ── Flushing ───────────────────────────────────────────────────────────────────────────────

    /// Blocks until all that was accepted, finished renderings too, is acknowledged by the server; offline or not yet
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
        if self.is_closed() {
            return Err(FlushError::Closed);
        }
        let begun = Instant::now();
        let deadline = timeout.and_then(|timeout| begun.checked_add(timeout));
        let target = self.shared().intake.lock().committed();
        let renderings = self.shared().renderings.lock().finished();
        self.shared().ask(|request| {
            request.flush_to = Some(request.flush_to.map_or(target, |other| other.max(target)));
        });
        let mut last_seq: Option<Seq> = None;
        let mut seen = u64::MAX;
        loop {
            let progress = self.shared().await_progress(seen, LOOK_INTERVAL);
            seen = progress.generation;
            let is_sealed = progress.sealed >= target && progress.renderings >= renderings;
            if is_sealed {
                let wanted = *last_seq.get_or_insert(progress.last_seq);
                if progress.acked >= wanted || !self.is_server_reached() {
                    return Ok(());
                }
            }
            if !is_sealed && (progress.has_ended || self.has_drain_stopped()) {
                return Err(FlushError::Closed);
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Err(self.shared().late(begun));
            }
            if check_interrupt() {
                return Err(FlushError::Interrupted);
            }
        }
    }

    /// The drain thread is gone, whatever it died of.
    pub(crate) fn has_drain_stopped(&self) -> bool {
        self.parts.drain.lock().as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Whether a server took this run and may acknowledge more. Between the opening of the run and
    /// the first stream it has not said a word yet, but it will.
    pub(crate) fn is_server_reached(&self) -> bool {
        let Some(sender) = &self.parts.sender else { return false };
        match sender.connection().state {
            ConnectionState::Connected | ConnectionState::Reconnecting => true,
            ConnectionState::Connecting => self.has_run_at_server(),
            ConnectionState::Over => false,
        }
    }

    /// A server opened the run for this writer.
    pub(crate) fn has_run_at_server(&self) -> bool {
        self.shared().has_reached_server.load(Ordering::Acquire)
    }

    pub fn is_closed(&self) -> bool {
        self.check_own().is_err() || self.shared().intake.lock().is_closed()
    }
}

fn inherited() -> InvalidArgument {
    InvalidArgument::new("run", "it belongs to the parent of this process")
}

/// Encodes operations into records. Each record is at most an operation longer than this.
fn attribute_chunks(updates: &[AttributeUpdate]) -> Result<VecDeque<AttributesChunk>, LogError> {
    const CHUNK_BYTES: usize = 8 * 1024;
    let mut chunks: VecDeque<AttributesChunk> = VecDeque::new();
    let mut encoded = Vec::new();
    for update in updates {
        encoded.clear();
        update.encode(&mut encoded);
        // The path and the envelope come on top of the value.
        if encoded.len() > MAX_ATTRIBUTE_BYTES + 2048 {
            let message =
                format!("an attribute of {} bytes; at most {MAX_ATTRIBUTE_BYTES}", encoded.len());
            return Err(InvalidArgument::new("value", message).into());
        }
        if chunks.back().is_none_or(|chunk| chunk.operations.len() + encoded.len() > CHUNK_BYTES) {
            chunks.push_back(AttributesChunk {
                count: 0,
                operations: Vec::new(),
                envs: Vec::new(),
                tally: Tally::default(),
            });
        }
        let Some(chunk) = chunks.back_mut() else { continue };
        chunk.count += 1;
        chunk.operations.extend_from_slice(&encoded);
        if let AttributeOperation::SetEnvironment { env, .. } = update.operation {
            chunk.envs.push(env);
        }
        let counts = update.operation.counts();
        chunk.tally += Tally([0, 0, counts.attributes, counts.env_attributes]);
    }
    Ok(chunks)
}
