//! Finding and delivering every dead writer of a destination: what `init()` does beside its own
//! run, and `metrana sync`.

use std::path::PathBuf;
use std::sync::Arc;

use super::{DeliverError, Delivered, DeliveryOptions, OnProgress, deliver};
use crate::recovery::{RecoveryOptions, RecoveryReport, RingOutcome, recover};
use crate::run_folder::{Liveness, RunFolder, RunFolderError, WriterEntry, WriterLock};
use crate::sender::{BackgroundJob, Cancel};
use crate::types::Seq;

/// Most batches in flight beside a living sender, whose acknowledgements should not wait.
const BACKGROUND_PENDING_REQUESTS: usize = 4;

/// What a sweep tells while it runs.
#[derive(Debug)]
pub enum DeliveryEvent<'a> {
    /// Everything up to the first seq of at most the second is at the server.
    Progress {
        run: &'a RunFolder,
        number: u32,
        acked: Seq,
        last: Seq,
    },
    Delivered {
        run: &'a RunFolder,
        number: u32,
        delivered: Delivered,
    },
    Failed {
        run: &'a RunFolder,
        number: u32,
        error: DeliverError,
    },
    /// What a writer lost that is not delivered, now or ever, or why it is not known.
    Lost {
        run: &'a RunFolder,
        number: u32,
        problems: Vec<String>,
    },
    /// A writer that is left alone: all in its folder is delivered, and this is why it is kept.
    Kept {
        run: &'a RunFolder,
        number: u32,
        why: String,
    },
    /// A run's folder that cannot be read.
    Unreadable(RunFolderError),
}

/// Hears what a sweep tells; called from the thread that sweeps.
pub type OnEvent = Arc<dyn Fn(DeliveryEvent<'_>) + Send + Sync>;

/// The dead writers of one destination in one data directory.
#[derive(Clone, Debug)]
pub struct DeadWriters {
    pub data_dir: PathBuf,
    /// Only runs whose own destination is this; `None`: all of them.
    pub of_destination: Option<String>,
    pub options: DeliveryOptions,
    /// How rings' rests are sealed.
    pub recovery: RecoveryOptions,
    /// Take over writers of other machines too, of which nobody here can tell whether they live.
    pub force: bool,
}

impl DeadWriters {
    /// Delivers them, run after run, in the order in which the writers began. Ends early when the
    /// server cannot be reached any more. Writers that live, or that somebody else delivers, are
    /// left alone. Blocks.
    pub fn deliver(&self, cancel: &Cancel, on_event: &OnEvent) {
        let (runs, unreadable) = match RunFolder::list_all(&self.data_dir) {
            Ok(found) => found,
            Err(error) => return on_event(DeliveryEvent::Unreadable(error)),
        };
        for error in unreadable {
            on_event(DeliveryEvent::Unreadable(error));
        }
        for run in runs.iter().filter(|run| self.is_wanted(run)) {
            if self.deliver_run(run, cancel, on_event).is_err() {
                break;
            }
        }
    }

    /// The work of [`Self::deliver`] beside a living sender.
    pub fn in_background(mut self, on_event: OnEvent) -> BackgroundJob {
        let pending = &mut self.options.settings.max_pending_requests;
        *pending = (*pending).min(BACKGROUND_PENDING_REQUESTS);
        Box::new(move |cancel| self.deliver(&cancel, &on_event))
    }

    fn is_wanted(&self, run: &RunFolder) -> bool {
        self.of_destination.as_ref().is_none_or(|wanted| *wanted == run.run().destination)
    }

    /// `Err`: it makes no sense to go on.
    fn deliver_run(&self, run: &RunFolder, cancel: &Cancel, on_event: &OnEvent) -> Result<(), ()> {
        if let Err(error) = run.remove_stillborn() {
            on_event(DeliveryEvent::Unreadable(error));
        }
        let entries = match run.writers() {
            Ok(entries) => entries,
            Err(error) => {
                on_event(DeliveryEvent::Unreadable(error));
                return Ok(());
            }
        };
        for entry in &entries {
            if entry.info.is_none() && entry.is_undelivered {
                let problems = entry.problem.iter().cloned().collect();
                on_event(DeliveryEvent::Lost { run, number: entry.number, problems });
            }
            if !self.is_dead(entry) {
                continue;
            }
            if cancel.is_cancelled() {
                return Err(());
            }
            let number = entry.number;
            if let Some(why) = entry.kept.clone() {
                on_event(DeliveryEvent::Kept { run, number, why });
                continue;
            }
            match self.deliver_writer(run, entry, cancel, on_event) {
                Ok(Some(delivered)) => {
                    on_event(DeliveryEvent::Delivered { run, number, delivered });
                }
                // There was nothing, or somebody else is at it.
                Ok(None) | Err(DeliverError::Folder(RunFolderError::WriterLives(_))) => {}
                Err(error) => {
                    let is_for_all = error.is_for_all();
                    if !cancel.is_cancelled() {
                        on_event(DeliveryEvent::Failed { run, number, error });
                    }
                    if is_for_all {
                        return Err(());
                    }
                }
            }
        }
        Ok(())
    }

    fn is_dead(&self, entry: &WriterEntry) -> bool {
        match entry.liveness {
            Liveness::Live => false,
            Liveness::Dead => true,
            Liveness::Foreign => self.force,
        }
    }

    /// `None`: it never logged anything, or nothing of that is left.
    fn deliver_writer(
        &self,
        run: &RunFolder,
        entry: &WriterEntry,
        cancel: &Cancel,
        on_event: &OnEvent,
    ) -> Result<Option<Delivered>, DeliverError> {
        let mut lock = WriterLock::take(&entry.path, self.force)?;
        if lock.kept().is_some() {
            // Somebody else has delivered it since it was listed, and told.
            return Ok(None);
        }
        let recovered = recover(&mut lock, &self.recovery)?;
        if recovered.last_seq == Seq(0) && recovered.is_complete() {
            lock.remove_delivered()?;
            if !recovered.problems.is_empty() {
                let (number, problems) = (entry.number, recovered.problems);
                on_event(DeliveryEvent::Lost { run, number, problems });
            }
            return Ok(None);
        }
        let (on_progress, progress_run) = (Arc::clone(on_event), run.clone());
        let number = entry.number;
        let progress: OnProgress = Arc::new(move |acked, last| {
            on_progress(DeliveryEvent::Progress { run: &progress_run, number, acked, last });
        });
        let delivered = deliver(run, lock, &recovered, &self.options, cancel, progress);
        let RecoveryReport { ring, problems, .. } = recovered;
        match delivered {
            Ok(mut delivered) => {
                delivered.problems.splice(0..0, problems);
                Ok(Some(delivered))
            }
            Err(error) => {
                // What became of its ring the next recovery does not find out any more.
                if ring != RingOutcome::Ended && !problems.is_empty() {
                    on_event(DeliveryEvent::Lost { run, number, problems });
                }
                Err(error)
            }
        }
    }
}

impl DeliveryEvent<'_> {
    /// What of it the user should hear when nobody watches the progress.
    pub fn problems(self) -> Vec<String> {
        match self {
            Self::Progress { .. } => Vec::new(),
            Self::Delivered { run, number, delivered } => {
                let kept = delivered.kept.map(|why| about_writer(run, number, &why));
                delivered.problems.into_iter().chain(kept).collect()
            }
            Self::Kept { run, number, why } => vec![about_writer(run, number, &why)],
            Self::Failed { run, number, error } => {
                let name = &run.run().run_name;
                vec![format!("writer {number} of run {name:?} could not be delivered: {error}")]
            }
            Self::Lost { run, number, problems } => {
                problems.iter().map(|problem| about_writer(run, number, problem)).collect()
            }
            Self::Unreadable(error) => vec![error.to_string()],
        }
    }
}

fn about_writer(run: &RunFolder, number: u32, what: &str) -> String {
    format!("writer {number} of run {:?}: {what}", run.run().run_name)
}
