//! Delivering what dead writers left: the same stream a living writer has, from a spool that grows
//! no more.
//!
//! Whoever delivers holds the dead writer's lock, so two of them never meet, and has run
//! [`recover`](crate::recovery::recover), so the spool is all there is. A batch that the server has
//! already is recognised by its seq, so a delivery may be broken off and begun again anywhere.

mod dead_writers;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::sync::Mutex;

pub use dead_writers::{DeadWriters, DeliveryEvent, OnEvent};

use crate::engine_log::EngineLog;
use crate::recovery::{RecoveryError, RecoveryReport};
use crate::run_folder::{
    Liveness, RunFolder, RunFolderError, RunInfo, WriterEnd, WriterInfo, WriterLock, keep,
    missing_batches, missing_elsewhere, missing_so_far, read_acked, write_acked,
};
use crate::sender::{
    Cancel, Connector, Ending, SenderConfig, SenderHost, SenderProblem, SenderSettings, WhenSpent,
    send_all,
};
use crate::spool_source::SpoolSource;
use crate::transport::{NameConflict, OpenRun, OpenedRun, Refusal, ResumeStrategy, WriterIdentity};
use crate::types::Seq;

/// Hears how far a delivery has got: everything up to the first seq of at most the second is at the
/// server.
pub type OnProgress = Arc<dyn Fn(Seq, Seq) + Send + Sync>;

/// Hears why an attempt failed that is made again.
pub type OnRetry = Arc<dyn Fn(&str) + Send + Sync>;

/// What `run.json` calls the local server, whichever that is.
const LOCAL: &str = "local";

/// How deliveries are made.
#[derive(Clone)]
pub struct DeliveryOptions {
    /// The server.
    pub connector: Arc<dyn Connector>,
    /// What it is called in `run.json`: `local` or the normalised URL. A run's data may go to
    /// another one too (`sync --url`), from its beginning.
    pub destination: String,
    pub settings: SenderSettings,
    /// For one who waits and would see nothing; by default nobody hears of it.
    pub on_retry: OnRetry,
}

impl DeliveryOptions {
    /// Settings for one who waits for the end: it gives up after about 20 seconds without
    /// a server, 40 at most.
    pub fn new(connector: Arc<dyn Connector>, destination: impl Into<String>) -> Self {
        let settings = SenderSettings {
            max_send_retries: Some(10),
            when_spent: WhenSpent::GiveUp,
            ..SenderSettings::default()
        };
        Self { connector, destination: destination.into(), settings, on_retry: Arc::new(|_| {}) }
    }
}

impl fmt::Debug for DeliveryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryOptions")
            .field("destination", &self.destination)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A writer whose batches are all at the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Under which name and id the server keeps the run.
    pub opened: OpenedRun,
    /// The last batch there ever was; 0: none.
    pub last_seq: Seq,
    /// How many batches that was, of a kept one without those that are missing.
    pub batch_count: u64,
    /// Its folder is gone. It stays while its ring may still turn up, or if `kept` says why.
    pub is_removed: bool,
    /// Why its folder is kept: neither the spool nor the server has what the writer began with.
    pub kept: Option<String>,
    /// For the user: what was damaged.
    pub problems: Vec<String>,
}

/// Why a writer could not be delivered. Its data stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The server will not have it.
    #[error("{0}")]
    Refused(Refusal),
    /// It was broken off: no server, or cancelled.
    #[error("delivered up to batch {acked} of {last}: {error}")]
    Incomplete {
        /// All up to here is at the server.
        acked: Seq,
        /// All there is.
        last: Seq,
        /// Why not all.
        error: String,
    },
    /// Its folder cannot be read or written.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// It could not be recovered.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The system has no descriptors to spare.
    #[error("cannot begin to deliver: {0}")]
    Start(#[from] io::Error),
}

impl DeliverError {
    /// Whether the next writer would fare no better.
    pub fn is_for_all(&self) -> bool {
        matches!(self, Self::Incomplete { .. } | Self::Start(_))
    }
}

/// Delivers a dead writer that was recovered, ends it at the server, and removes its folder. If its
/// ring may still turn up, the writer stays open and its folder where it is. If the server says that
/// it lacks what the spool begins behind, the folder is kept; at the run's own destination it is
/// marked, so that nobody delivers it again. Blocks.
///
/// # Errors
///
/// See [`DeliverError`]; what was delivered until then is at the server, and the rest is kept.
pub fn deliver(
    run: &RunFolder,
    lock: WriterLock,
    recovered: &RecoveryReport,
    options: &DeliveryOptions,
    cancel: &Cancel,
    progress: OnProgress,
) -> Result<Delivered, DeliverError> {
    let folder = lock.path().to_owned();
    let is_own = run.run().destination == options.destination;
    let acked = if is_own { read_acked(&folder)? } else { Seq(0) };
    // A URL says which server acknowledged that; a spool that was copied may have had another local
    // one. Whatever is there is sent again then, and the server knows what it has.
    let held = if options.destination == LOCAL { Seq(0) } else { acked };
    let first = recovered.first_seq.max(Seq(held.0 + 1));
    let host = Arc::new(Host {
        oldest: recovered.first_seq,
        last: recovered.last_seq,
        progress,
        on_retry: Arc::clone(&options.on_retry),
        heard: Mutex::default(),
    });
    let config = SenderConfig {
        connector: Arc::clone(&options.connector),
        spool: Box::new(SpoolSource::ended(&folder)),
        host: Arc::clone(&host) as Arc<dyn SenderHost>,
        run_id: run.run().run_id,
        writer_id: lock.info().writer_id,
        first_seq: first,
        oldest_seq: Some(recovered.first_seq),
        open: Some(open_run(run.run(), lock.info(), run.undelivered_before(lock.info().number)?)),
        settings: options.settings.clone(),
        log: Arc::new(EngineLog::off()),
        background: None,
    };
    let report = send_all(config, recovered.last_seq, ending(lock.info(), recovered), cancel)?;
    let heard = std::mem::take(&mut *host.heard.lock());
    // What another server has says nothing about the run's own.
    if is_own && report.acked > acked {
        write_acked(&folder, report.acked)?;
    }
    if !report.ended {
        return Err(heard.refusal.map_or_else(
            || DeliverError::Incomplete {
                acked: report.acked,
                last: recovered.last_seq,
                error: report.error.unwrap_or_else(|| "it was cancelled".to_owned()),
            },
            DeliverError::Refused,
        ));
    }
    let missing = heard.missing(recovered.first_seq);
    let kept = match missing {
        // What another server lacks is no reason to withhold the rest from the run's own.
        Some((first, last)) if !is_own => Some(missing_elsewhere(first, last)),
        Some((first, last)) if !recovered.is_complete() => Some(missing_so_far(first, last)),
        Some((first, last)) => {
            keep(&folder, first, last)?;
            Some(missing_batches(&folder, first, last))
        }
        None => None,
    };
    let before = if kept.is_some() { recovered.first_seq.0 - 1 } else { 0 };
    let (last_seq, batch_count) = (recovered.last_seq, recovered.last_seq.0.saturating_sub(before));
    let is_removed = kept.is_none() && recovered.is_complete();
    if is_removed {
        // Its positions outlive it: recovery has written them.
        lock.remove_delivered()?;
    }
    let Heard { opened, problems, .. } = heard;
    Ok(Delivered { opened, last_seq, batch_count, is_removed, kept, problems })
}

fn ending(info: &WriterInfo, recovered: &RecoveryReport) -> Ending {
    match info.ended {
        _ if !recovered.is_complete() => Ending::LeftOpen,
        Some(WriterEnd::Closed) => Ending::Closed,
        _ => Ending::Died,
    }
}

/// How a run is opened for a writer whose data exists already: it is stored under another name
/// rather than refused.
fn open_run(run: &RunInfo, writer: &WriterInfo, earlier_writers: Vec<WriterIdentity>) -> OpenRun {
    OpenRun {
        run_id: run.run_id,
        workspace_name: run.workspace_name.clone(),
        project_name: run.project_name.clone(),
        run_name: run.run_name.clone(),
        experiment_name: writer.options.experiment_name.clone(),
        orchestration_id: run.orchestration_id.clone(),
        resume_strategy: match writer.options.resume_strategy.as_str() {
            "allow" => ResumeStrategy::Allow,
            _ => ResumeStrategy::Never,
        },
        name_conflict: NameConflict::Rename,
        create_project_if_missing: writer.options.create_project_if_missing,
        by_run_id: run.run_name.is_empty(),
        created_at_ms: run.created_at_ms,
        writer: WriterIdentity::of(writer, Liveness::Dead),
        earlier_writers,
        want_cursors: false,
    }
}

/// Who hears of a delivery.
struct Host {
    /// The first batch that the spool has.
    oldest: Seq,
    last: Seq,
    progress: OnProgress,
    on_retry: OnRetry,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    opened: OpenedRun,
    refusal: Option<Refusal>,
    /// Of the batches before the spool's first the server has all up to here, if it says so.
    stored: Option<Seq>,
    problems: Vec<String>,
}

impl Heard {
    /// The first and the last batch that neither the server has nor a spool which begins so.
    fn missing(&self, oldest: Seq) -> Option<(Seq, Seq)> {
        let (first, last) = (Seq(self.stored?.0 + 1), Seq(oldest.0.saturating_sub(1)));
        (first <= last).then_some((first, last))
    }
}

impl SenderHost for Host {
    fn on_acked(&self, seq: Seq) {
        (self.progress)(seq, self.last.max(seq));
    }

    fn on_welcome(&self, first: Seq, stored: Option<Seq>) {
        if let Some(stored) = stored.filter(|_| first == self.oldest) {
            // The first answer counts: what is stored behind the gap hides it from some servers.
            self.heard.lock().stored.get_or_insert(stored);
        }
    }

    fn on_problem(&self, problem: SenderProblem) {
        match problem {
            SenderProblem::Refused { refusal, .. } => self.heard.lock().refusal = Some(refusal),
            // The error that ends the delivery says as much.
            SenderProblem::RetriesSpent { .. } => {}
            problem => self.heard.lock().problems.push(problem.to_string()),
        }
    }

    fn on_retry(&self, error: &str) {
        (self.on_retry)(error);
    }

    fn on_opened(&self, opened: &OpenedRun) {
        self.heard.lock().opened = opened.clone();
    }
}
