//! Ending a writer, and what `fork` needs.

mod last_work;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use last_work::{LastWork, lose_unkept};

pub(crate) use last_work::is_ending;

use crate::attributes::{AttributeOperation, AttributeUpdate, CloseStatus};
use crate::chunk::{AttributesChunk, Chunk};
use crate::clock::now_ms;
use crate::config::EngineConfig;
use crate::counters::Tally;
use crate::drain::Drain;
use crate::engine::{Engine, InterruptCheck, LOOK_INTERVAL};
use crate::error::FlushError;
use crate::sender::ConnectionState;
use crate::shared::{AllLocks, Shared};

/// Stopping takes milliseconds: a thread that needs this much longer, because a disk or a network
/// file system does not answer, is left to itself. A close is over a second after its time.
const OVERTIME: Duration = Duration::from_millis(800);

/// What the last work on the disk is given however late it begins: a disk that is well needs less.
const LEAST_FOR_DISK: Duration = Duration::from_millis(100);

/// What a disk that did not answer in time keeps from the spool is sealed if it answers after all
/// within this long; nobody waits for it any more.
const AFTERWARDS: Duration = Duration::from_secs(60);

/// Even a close without patience waits this long for room in ring and spool. A spool at its limit
/// gets none from a server that is stuck, and that may not cost the caller a second.
const LEAST_PATIENCE: Duration = Duration::from_millis(600);

/// What a timeout beyond the reach of clocks comes to: a century.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How long a close without patience waits for a server that is there. Its close record is urgent,
/// so a server near by has answered by then; nobody notices the rest.
const LAST_WORD: Duration = Duration::from_millis(100);

/// What became of the batches when the writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// The server has all of them and knows that no more will come.
    Done,
    /// The user wanted no more of them.
    Dropped,
    /// There is no server, or it never took the run: the spool is where they are to be.
    Kept,
    /// Some are on their way still: whoever comes by delivers them.
    Unfinished,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "the server has everything",
            Self::Dropped => "what was not acknowledged is dropped",
            Self::Kept => "the spool keeps everything",
            Self::Unfinished => "the rest is to be delivered",
        })
    }
}

/// How the drain thread ended.
enum Ended {
    InTime(Box<Drain>),
    /// It has not yet: the disk does not answer.
    Late(JoinHandle<Drain>),
    /// Of a panic.
    Died,
}

/// How long a close waits for what does not answer.
struct Patience<'a> {
    check_interrupt: InterruptCheck<'a>,
    was_interrupted: bool,
    /// What has not stopped by then is left to itself.
    stop_by: Instant,
}

impl Patience<'_> {
    /// Looks for an interrupt, and remembers it. It leaves no more time than a close without patience
    /// has.
    fn is_interrupted(&mut self) -> bool {
        if !self.was_interrupted && (self.check_interrupt)() {
            self.was_interrupted = true;
            self.stop_by = self.stop_by.min(Instant::now() + LEAST_PATIENCE + OVERTIME);
        }
        self.was_interrupted
    }

    fn left(&self) -> Duration {
        self.stop_by.saturating_duration_since(Instant::now())
    }

    /// Lasts for the disk's last work, too.
    fn extend_for_disk(&mut self) {
        self.stop_by = self.stop_by.max(Instant::now() + LEAST_FOR_DISK);
    }
}

thread_local! {
    /// What [`Engine::fork_prepare`] took in this thread.
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

/// A writer's locks, from before a fork until after it. Fields are dropped in this order.
#[derive(Debug)]
struct Held {
    _locks: AllLocks<'static>,
    shared: Arc<Shared>,
}

impl Engine {
    /// Logs the close record, seals, waits for acknowledgements at most `timeout`, and gives the
    /// writer up. Zero drops what is unacked, unless the run never reached a server, or the disk does
    /// not answer; a server that is connected is given [`LAST_WORD`] all the same, because a run whose
    /// close record does not arrive counts as lost. The second call does nothing. Blocks.
    ///
    /// # Errors
    ///
    /// [`FlushError::Timeout`]: closed, the rest lies in ring or spool for whoever delivers it; a disk
    /// that does not answer is left a thread that holds the folder's lock until it does.
    /// [`FlushError::Interrupted`]: the same, and the interrupt was seen. [`FlushError::Lost`]: the
    /// ring was not one that outlives the process.
    pub fn close(
        &self,
        timeout: Duration,
        status: CloseStatus,
        check_interrupt: InterruptCheck<'_>,
    ) -> Result<(), FlushError> {
        let begun = Instant::now();
        let is_dropping = timeout.is_zero() && self.has_run_at_server();
        let seal_by = begun + timeout.clamp(LEAST_PATIENCE, FOR_EVER);
        let stop_by = begun + timeout.min(FOR_EVER) + OVERTIME;
        let mut patience = Patience { check_interrupt, was_interrupted: false, stop_by };
        if !self.take_last_record(status, seal_by, &mut patience) {
            return Ok(());
        }
        let files = Arc::clone(&self.parts.config.spool.options.files);
        let drain = match self.end_drain(seal_by, &mut patience) {
            Ended::InTime(drain) => *drain,
            ended => {
                // Nobody is told that no more will come: what is not sealed is somewhere still.
                let delivery = self.stop_sender(&patience);
                if let Ended::Late(thread) = ended {
                    let by = Instant::now() + AFTERWARDS;
                    self.shared().ask(|request| request.end_by = Some(by));
                    LastWork { delivery, files }.do_after(thread, self.parts.identity.writer_id);
                }
                let was_interrupted = patience.was_interrupted;
                return Err(if was_interrupted {
                    FlushError::Interrupted
                } else {
                    self.shared().late(begun)
                });
            }
        };
        let wait = match self.connection_state() {
            Some(ConnectionState::Connected) if is_dropping => LAST_WORD,
            _ => timeout.saturating_sub(begun.elapsed()),
        };
        let is_sealed = drain.is_empty();
        // The server is not told that no more will come as long as the ring holds more, or the folder a
        // rendering.
        let mut delivery = if is_sealed || is_dropping {
            self.end_sender(wait, &mut patience)
        } else {
            self.stop_sender(&patience)
        };
        if is_dropping && (delivery != Delivery::Done || !is_sealed) {
            self.shared().discard_pending();
            delivery = Delivery::Dropped;
        }
        let lost = lose_unkept(&drain);
        patience.extend_for_disk();
        let is_done = LastWork { delivery, files }.do_within(drain, &mut patience);
        match delivery {
            _ if patience.was_interrupted => Err(FlushError::Interrupted),
            _ if lost > 0 => Err(FlushError::Lost { lost, waited: begun.elapsed() }),
            Delivery::Unfinished => Err(self.shared().late(begun)),
            _ if !is_done || !is_sealed => Err(self.shared().late(begun)),
            Delivery::Done | Delivery::Dropped | Delivery::Kept => Ok(()),
        }
    }

    /// Puts the close record behind everything else and shuts the door. `false`: it was shut.
    fn take_last_record(
        &self,
        status: CloseStatus,
        by: Instant,
        patience: &mut Patience<'_>,
    ) -> bool {
        if self.is_inherited() {
            return false;
        }
        let operation = AttributeOperation::Close { status, timestamp_ms: now_ms() };
        let mut operations = Vec::new();
        AttributeUpdate { initial: false, operation }.encode(&mut operations);
        let record = Chunk::Attributes(AttributesChunk {
            count: 1,
            operations,
            envs: Vec::new(),
            tally: Tally::default(),
        });
        let mut is_last_try = false;
        loop {
            let seen = self.shared().progress.lock().generation;
            {
                let mut intake = self.shared().intake.lock();
                if intake.is_closed() {
                    return false;
                }
                // Without room in time the run ends without its record: its writer counts as lost.
                if intake.put(&record) || is_last_try {
                    intake.close();
                    return true;
                }
            }
            self.shared().ask_to_seal();
            self.shared().await_progress(seen, LOOK_INTERVAL);
            // Outside the lock: a caller's check may wait for one who waits for it, as the
            // interpreter's does while another thread forks.
            is_last_try =
                patience.is_interrupted() || self.has_drain_stopped() || Instant::now() >= by;
        }
    }

    /// An interrupt leaves the thread no more time than a close without patience would.
    fn end_drain(&self, by: Instant, patience: &mut Patience<'_>) -> Ended {
        let Some(handle) = self.parts.drain.lock().take() else { return Ended::Died };
        self.shared().ask(|request| request.end_by = Some(by));
        let mut is_hurried = false;
        let mut seen = u64::MAX;
        loop {
            let progress = self.shared().await_progress(seen, LOOK_INTERVAL);
            seen = progress.generation;
            if progress.has_ended || handle.is_finished() {
                return handle.join().map_or(Ended::Died, |drain| Ended::InTime(Box::new(drain)));
            }
            if patience.left().is_zero() {
                return Ended::Late(handle);
            }
            if !is_hurried && patience.is_interrupted() {
                is_hurried = true;
                let by = by.min(Instant::now() + LEAST_PATIENCE);
                self.shared().ask(|request| request.end_by = Some(by));
            }
        }
    }

    fn connection_state(&self) -> Option<ConnectionState> {
        self.parts.sender.as_ref().map(|sender| sender.connection().state)
    }

    fn end_sender(&self, timeout: Duration, patience: &mut Patience<'_>) -> Delivery {
        let Some(sender) = &self.parts.sender else { return Delivery::Kept };
        sender.close();
        let begun = Instant::now();
        // A server that never answered is not waited for: nothing can be acknowledged.
        while self.is_server_reached() || sender.wait(Duration::ZERO).is_some() {
            let left = timeout.saturating_sub(begun.elapsed());
            if let Some(report) = sender.wait(left.min(LOOK_INTERVAL)) {
                return if report.ended { Delivery::Done } else { Delivery::Unfinished };
            }
            if left.is_zero() || patience.is_interrupted() {
                break;
            }
        }
        self.stop_sender(patience)
    }

    /// Whatever is unacknowledged.
    fn stop_sender(&self, patience: &Patience<'_>) -> Delivery {
        let Some(sender) = &self.parts.sender else { return Delivery::Kept };
        sender.stop();
        sender.wait(patience.left());
        if self.has_run_at_server() { Delivery::Unfinished } else { Delivery::Kept }
    }

    // ── Fork ───────────────────────────────────────────────────────────────────────────────────

    /// Takes every lock that a child could meet, so that nothing is in the middle of a change when the
    /// process is copied. Waits for no disk.
    /// Follow it with [`Self::fork_in_parent`] and [`Self::fork_in_child`], in the same thread.
    pub fn fork_prepare(&self) {
        if self.is_inherited() {
            return;
        }
        let shared = Arc::clone(&self.parts.shared);
        let locks = shared.lock_all();
        // SAFETY: the locks are where they are as long as `shared` is, which `Held` drops last.
        let locks = unsafe { std::mem::transmute::<AllLocks<'_>, AllLocks<'static>>(locks) };
        HELD.with_borrow_mut(|held| held.push(Held { _locks: locks, shared }));
    }

    /// Releases what [`Self::fork_prepare`] took.
    pub fn fork_in_parent(&self) {
        drop(self.take_held());
    }

    /// Leaves an engine whose every call says [`LogError::Closed`](crate::error::LogError::Closed),
    /// as does any copy in a child. Its locks stay taken, for nobody ever asks for them again. The
    /// child opens a writer of its own with [`Self::child_config`] at its first log.
    pub fn fork_in_child(&self) {
        std::mem::forget(self.take_held());
    }

    fn take_held(&self) -> Option<Held> {
        let is_own = |held: &mut Held| Arc::ptr_eq(&held.shared, &self.parts.shared);
        HELD.with_borrow_mut(|held| held.extract_if(.., is_own).next())
    }

    /// What a forked child opens its own writer of the same run with.
    pub fn child_config(&self) -> EngineConfig {
        let mut config = self.parts.config.clone();
        let identity = &self.parts.identity;
        config.run.run_name = Some(identity.run_name.clone());
        config.run.workspace_name.clone_from(&identity.workspace_name);
        config.run.project_name.clone_from(&identity.project_name);
        config.run.run_id = Some(identity.run_id);
        config
    }
}

impl Drop for Engine {
    /// Without a close: what is in the ring is left to recovery, as after a crash, but the threads
    /// end.
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        if let Some(sender) = &self.parts.sender {
            sender.stop();
        }
        self.shared().ask(|request| request.end_by = Some(Instant::now()));
        // SAFETY: this is the only place that drops it, and nothing uses it after.
        unsafe { std::mem::ManuallyDrop::drop(&mut self.parts) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::config::RunConfig;
    use crate::ring::{RingOptions, RingPlace};

    #[test]
    fn test_a_fork_does_not_wait_for_a_disk_that_keeps_the_folder_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::offline(folder.path(), RunConfig::local("run", "job"));
        let place = RingPlace::Folder(folder.path().to_owned());
        config.ring = RingOptions { capacity_bytes: 1 << 20, place };
        let engine = Engine::open(config, &mut || false).unwrap();
        // As while the drain thread makes a folder anew that somebody deleted.
        let held = engine.shared().folder.lock();
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let engine = &engine;
            scope.spawn(move || {
                engine.fork_prepare();
                engine.fork_in_parent();
                tell.send(())
            });
            let in_time = told.recv_timeout(Duration::from_secs(20));
            drop(held);
            assert_eq!(in_time, Ok(()));
        });
    }
}
