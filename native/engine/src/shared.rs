//! What the callers, the drain thread and the sender's thread of one writer share.
//!
//! Where locks nest, it is in the order of the fields; `fork` takes all but one of them in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, MutexGuard};

use crate::counters::{Counters, Ledger, Tally};
use crate::engine_log::{EngineLog, LogLevel};
use crate::error::FlushError;
use crate::intake::Intake;
use crate::problems::Problems;
use crate::renderings::RenderingQueue;
use crate::ring::Ring;
use crate::run_folder::WriterFolder;
use crate::sender::{SenderHost, SenderProblem};
use crate::spool::{CursorSet, EnvironmentCursor, SeriesCursor};
use crate::transport::{Heartbeat, OpenedRun};
use crate::types::{Lsn, Seq};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub intake: Mutex<Intake>,
    pub progress: Mutex<Progress>,
    pub request: Mutex<DrainRequest>,
    pub ledger: Mutex<Ledger>,
    pub problems: Mutex<Problems>,
    pub ring: Mutex<Ring>,
    /// What encoders finished and the drain thread has not sealed yet.
    pub renderings: Mutex<RenderingQueue>,
    /// Holds the writer's lock; `None` once the writer has ended. No fork waits for this one: whoever
    /// has it may wait for a disk. A child never asks for it.
    pub folder: Mutex<Option<WriterFolder>>,
    /// The run as the server opened it.
    pub opened: Mutex<Option<OpenedRun>>,
    progressed: Condvar,
    requested: Condvar,
    /// Points sealed or lost, which is what the queue's capacity has back.
    pub sealed_points: Arc<AtomicU64>,
    pub spooled_bytes: AtomicU64,
    pub acked: AtomicU64,
    /// Another than at the start if somebody took its folder's place.
    pub writer_number: AtomicU32,
    pub log: Arc<EngineLog>,
    /// A server has this run: what is unacked is not kept by a close that does not wait.
    pub has_reached_server: AtomicBool,
}

/// Every lock of a writer that its callers ask for, held.
#[derive(Debug)]
pub(crate) struct AllLocks<'a> {
    _intake: MutexGuard<'a, Intake>,
    _progress: MutexGuard<'a, Progress>,
    _request: MutexGuard<'a, DrainRequest>,
    _ledger: MutexGuard<'a, Ledger>,
    _problems: MutexGuard<'a, Problems>,
    _ring: MutexGuard<'a, Ring>,
    _renderings: MutexGuard<'a, RenderingQueue>,
    _opened: MutexGuard<'a, Option<OpenedRun>>,
}

/// How far the drain thread has got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// All before it is in the spool.
    pub sealed: Lsn,
    /// The last batch in the spool.
    pub last_seq: Seq,
    /// Everything up to it is acknowledged.
    pub acked: Seq,
    /// So many finished renderings are done with: in the spool, or left for want of a way to read them.
    pub renderings: u64,
    /// Rises with every change, so that a waiter misses none.
    pub generation: u64,
    /// The drain thread has ended.
    pub has_ended: bool,
}

/// What is wanted of the drain thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainRequest {
    /// Seal what there is: it is enough for a batch, or somebody waits for room.
    pub seal: bool,
    /// Seal up to here, for somebody who waits.
    pub flush_to: Option<Lsn>,
    /// Seal everything and end; after this time end anyway.
    pub end_by: Option<Instant>,
    /// It has not been taken yet.
    is_new: bool,
}

impl Shared {
    pub fn new(
        intake: Intake,
        sealed_points: Arc<AtomicU64>,
        ring: Ring,
        folder: WriterFolder,
        log: EngineLog,
    ) -> Self {
        let progress = Progress { sealed: ring.tail(), ..Progress::default() };
        let writer_number = AtomicU32::new(folder.number());
        Self {
            intake: Mutex::new(intake),
            progress: Mutex::new(progress),
            ring: Mutex::new(ring),
            renderings: Mutex::default(),
            folder: Mutex::new(Some(folder)),
            request: Mutex::default(),
            ledger: Mutex::default(),
            problems: Mutex::default(),
            opened: Mutex::default(),
            progressed: Condvar::new(),
            requested: Condvar::new(),
            sealed_points,
            spooled_bytes: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            writer_number,
            log: Arc::new(log),
            has_reached_server: AtomicBool::new(false),
        }
    }

    pub fn has_tmpfs_ring(&self) -> bool {
        self.ring.lock().kind().path().is_some()
    }

    // ── Fork ───────────────────────────────────────────────────────────────────────────────────

    /// Takes every lock, in the order of the fields.
    pub fn lock_all(&self) -> AllLocks<'_> {
        AllLocks {
            _intake: self.intake.lock(),
            _progress: self.progress.lock(),
            _request: self.request.lock(),
            _ledger: self.ledger.lock(),
            _problems: self.problems.lock(),
            _ring: self.ring.lock(),
            _renderings: self.renderings.lock(),
            _opened: self.opened.lock(),
        }
    }

    // ── Asking the drain thread ────────────────────────────────────────────────────────────────

    pub fn ask(&self, change: impl FnOnce(&mut DrainRequest)) {
        let mut request = self.request.lock();
        change(&mut request);
        request.is_new = true;
        drop(request);
        self.requested.notify_one();
    }

    pub fn ask_to_seal(&self) {
        self.ask(|request| request.seal = true);
    }

    /// Waits for a request at most `timeout`, and not beyond `end_by`, and takes it; `end_by` stays.
    pub fn next_request(&self, timeout: Duration) -> DrainRequest {
        let mut request = self.request.lock();
        if !request.is_new {
            let left = request.end_by.map(|by| by.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(timeout, |left| left.min(timeout));
            request = self.requested.wait_for(request, timeout);
        }
        let taken = *request;
        *request = DrainRequest { end_by: taken.end_by, ..DrainRequest::default() };
        taken
    }

    // ── Progress ───────────────────────────────────────────────────────────────────────────────

    pub fn advance(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.lock();
        change(&mut progress);
        progress.generation += 1;
        drop(progress);
        self.progressed.notify_all();
    }

    /// Waits until progress is not as it was at `seen`, at most `timeout`. Returns what it is.
    pub fn await_progress(&self, seen: u64, timeout: Duration) -> Progress {
        let mut progress = self.progress.lock();
        if progress.generation == seen {
            progress = self.progressed.wait_for(progress, timeout);
        }
        *progress
    }

    // ── Counting ───────────────────────────────────────────────────────────────────────────────

    /// Consistent: `added = sent + dropped + pending` for each kind. The sender's own counts are
    /// left at 0.
    pub fn counters(&self) -> Counters {
        // Under the intake's lock nothing is enqueued, so what the ledger then says was sealed is
        // among it.
        let intake = self.intake.lock();
        let (added, enqueued, refused) = (intake.added(), intake.enqueued(), intake.dropped());
        let ledger = self.ledger.lock();
        let (spooled, lost, sent) = (ledger.spooled(), ledger.lost(), ledger.sent());
        let dropped = refused + ledger.discarded();
        drop((ledger, intake));
        let problems = self.problems.lock();
        Counters {
            added,
            enqueued,
            spooled,
            lost,
            unsealed: enqueued - spooled - lost,
            sent,
            dropped,
            pending: added - sent - dropped,
            errors_reported: problems.reported(),
            errors_evicted: problems.evicted(),
            ..Counters::default()
        }
    }

    /// Nothing of what is not acknowledged will ever be sent.
    pub fn discard_pending(&self) {
        self.lose_unsealed();
        self.ledger.lock().discard_unacked();
        self.renderings.lock().discard();
    }

    /// Nothing of what is in the ring will ever be sealed.
    pub fn lose_unsealed(&self) -> Tally {
        let intake = self.intake.lock();
        let mut ledger = self.ledger.lock();
        let unsealed = intake.enqueued() - ledger.spooled() - ledger.lost();
        ledger.lose(unsealed);
        unsealed
    }

    /// A fault of background work: for `take_errors`, `status()` and the log.
    pub fn report(&self, problem: String) {
        self.report_at(LogLevel::Warn, problem);
    }

    fn report_at(&self, level: LogLevel, problem: String) {
        self.log.write(level, format_args!("{problem}"));
        self.problems.lock().report(problem);
    }

    /// For `status()` and the log alone: a limitation, not a fault.
    pub fn note(&self, problem: String) {
        let text = problem.clone();
        if self.problems.lock().note(problem) {
            self.log.warn(format_args!("{text}"));
        }
    }

    fn log_opened(&self, opened: &OpenedRun) {
        let OpenedRun { project_name, run_name, server_version, .. } = opened;
        self.log.info(format_args!(
            "the server (metrana {server_version}) {} run {project_name:?} / {run_name:?} with the \
             positions of {} series",
            if opened.created { "created" } else { "opened" },
            opened.series_cursors.len()
        ));
    }

    /// Everything up to `seq` is durable in a server's stores.
    pub fn take_ack(&self, seq: Seq) {
        if self.acked.fetch_max(seq.0, Ordering::Release) < seq.0 {
            self.ledger.lock().acked(seq);
            self.advance(|progress| progress.acked = progress.acked.max(seq));
        }
    }

    /// Points and attributes neither acknowledged nor dropped.
    pub fn pending(&self) -> Tally {
        self.counters().pending
    }

    /// Finished renderings that are neither acknowledged nor dropped.
    pub fn pending_renderings(&self) -> u64 {
        self.renderings.lock().pending(Seq(self.acked.load(Ordering::Acquire)))
    }

    /// Why a flush or a close that began then comes back before everything was acknowledged.
    pub fn late(&self, begun: Instant) -> FlushError {
        FlushError::Timeout {
            pending: self.pending().total(),
            renderings: self.pending_renderings(),
            waited: begun.elapsed(),
        }
    }
}

impl SenderHost for Shared {
    fn on_acked(&self, seq: Seq) {
        self.log.debug(format_args!("all up to batch {seq} is acknowledged"));
        self.has_reached_server.store(true, Ordering::Release);
        self.take_ack(seq);
    }

    fn on_problem(&self, problem: SenderProblem) {
        if let SenderProblem::Damaged { first, last, .. } = &problem {
            self.ledger.lock().discard(*first, *last);
        }
        let level = match problem {
            SenderProblem::Refused { .. } | SenderProblem::Damaged { .. } => LogLevel::Error,
            SenderProblem::RetriesSpent { .. } | SenderProblem::Spool { .. } => LogLevel::Warn,
        };
        self.report_at(level, problem.to_string());
        self.advance(|_| {});
    }

    fn on_opened(&self, opened: &OpenedRun) {
        self.has_reached_server.store(true, Ordering::Release);
        self.log_opened(opened);
        self.intake.lock().seed(&cursors_of(opened));
        *self.opened.lock() = Some(opened.clone());
        self.advance(|_| {});
        if let Some(warning) = opened.renamed() {
            self.report(warning);
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let counters = self.counters();
        Heartbeat {
            points_added: counters.added.points(),
            points_dropped: counters.dropped.points(),
            points_pending: counters.pending.points(),
            spooled_bytes: self.spooled_bytes.load(Ordering::Relaxed),
        }
    }
}

/// The server's cursors in the form that the spool's have.
fn cursors_of(opened: &OpenedRun) -> CursorSet {
    let series = opened.series_cursors.iter().map(|cursor| SeriesCursor {
        name: cursor.metric_name.clone(),
        scale: cursor.scale,
        labels: cursor.labels.clone(),
        env_id: Some(cursor.env_id.clone()).filter(|env_id| !env_id.is_empty()),
        position: cursor.position,
    });
    let environments = opened.environment_cursors.iter().map(|cursor| EnvironmentCursor {
        env_id: cursor.env_id.clone(),
        rl_step: cursor.rl_step,
        episode: cursor.episode,
        ended_episode: cursor.ended_episode,
    });
    CursorSet { series: series.collect(), environments: environments.collect() }
}
