//! Ending a writer, and what `fork` needs.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::attributes::{AttributeOperation, AttributeUpdate, CloseStatus};
use crate::chunk::{AttributesChunk, Chunk};
use crate::clock::now_ms;
use crate::config::EngineConfig;
use crate::counters::Tally;
use crate::drain::Drain;
use crate::engine::{Engine, InterruptCheck, LOOK_INTERVAL};
use crate::error::FlushError;
use crate::run_folder::{WriterEnd, WriterInfo};
use crate::sender::ConnectionState;
use crate::shared::{AllLocks, Shared};

/// Stopping takes milliseconds: a thread that needs this much longer, because a disk or a network
/// file system does not answer, is left to itself. A close is over a second after its time.
const OVERTIME: Duration = Duration::from_millis(900);

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
    /// writer up. Zero drops what is unacked, unless the run never reached a server; a server that
    /// is connected is given [`LAST_WORD`] all the same, because a run whose close record does not
    /// arrive counts as lost. The second call does nothing. Blocks.
    ///
    /// # Errors
    ///
    /// [`FlushError::Timeout`]: closed, the rest lies in ring or spool for whoever delivers it.
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
        let mut is_interrupted = false;
        let mut is_stopped = || {
            is_interrupted = is_interrupted || check_interrupt();
            is_interrupted
        };
        if !self.take_last_record(status, seal_by, &mut is_stopped) {
            return Ok(());
        }
        let drain = self.end_drain(seal_by, stop_by, &mut is_stopped);
        let Some(drain) = drain else {
            // Nobody is told that no more will come: what is not sealed is somewhere still.
            self.stop_sender(stop_by);
            return Err(if is_interrupted { FlushError::Interrupted } else { self.late(begun) });
        };
        let wait = match self.connection_state() {
            Some(ConnectionState::Connected) if is_dropping => LAST_WORD,
            _ => timeout.saturating_sub(begun.elapsed()),
        };
        let is_sealed = drain.is_empty();
        // The server is not told that no more will come as long as the ring holds more.
        let mut delivery = if is_sealed || is_dropping {
            self.end_sender(wait, stop_by, &mut is_stopped)
        } else {
            self.stop_sender(stop_by)
        };
        if is_dropping && (delivery != Delivery::Done || !is_sealed) {
            self.shared().discard_pending();
            delivery = Delivery::Dropped;
        }
        let lost = if drain.has_lasting_ring() { 0 } else { self.shared().lose_unsealed().total() };
        if lost > 0 {
            self.shared().report(format!(
                "{lost} points and attributes are lost: nothing could be written to the spool, and \
                 the ring was in this process's memory"
            ));
        }
        self.give_up(drain, delivery);
        match delivery {
            _ if is_interrupted => Err(FlushError::Interrupted),
            _ if lost > 0 => Err(FlushError::Lost { lost, waited: begun.elapsed() }),
            Delivery::Unfinished => Err(self.late(begun)),
            _ if !is_sealed => Err(self.late(begun)),
            Delivery::Done | Delivery::Dropped | Delivery::Kept => Ok(()),
        }
    }

    fn late(&self, begun: Instant) -> FlushError {
        let pending = self.shared().pending().total();
        FlushError::Timeout { pending, waited: begun.elapsed() }
    }

    /// Puts the close record behind everything else and shuts the door. `false`: it was shut.
    fn take_last_record(
        &self,
        status: CloseStatus,
        by: Instant,
        check_interrupt: InterruptCheck<'_>,
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
            is_last_try = check_interrupt() || self.has_drain_stopped() || Instant::now() >= by;
        }
    }

    /// `None`: the disk is not done by then, and the thread is left to itself. An interrupt leaves
    /// it no more time than a close without patience would.
    fn end_drain(
        &self,
        mut by: Instant,
        mut stop_by: Instant,
        check_interrupt: InterruptCheck<'_>,
    ) -> Option<Drain> {
        let handle = self.parts.drain.lock().take()?;
        self.shared().ask(|request| request.end_by = Some(by));
        let mut is_interrupted = false;
        let mut seen = u64::MAX;
        loop {
            let progress = self.shared().await_progress(seen, LOOK_INTERVAL);
            seen = progress.generation;
            if progress.has_ended || handle.is_finished() {
                return handle.join().ok();
            }
            if Instant::now() >= stop_by {
                return None;
            }
            if !is_interrupted && check_interrupt() {
                is_interrupted = true;
                by = by.min(Instant::now() + LEAST_PATIENCE);
                stop_by = stop_by.min(by + OVERTIME);
                self.shared().ask(|request| request.end_by = Some(by));
            }
        }
    }

    fn connection_state(&self) -> Option<ConnectionState> {
        self.parts.sender.as_ref().map(|sender| sender.connection().state)
    }

    fn end_sender(
        &self,
        timeout: Duration,
        stop_by: Instant,
        check_interrupt: InterruptCheck<'_>,
    ) -> Delivery {
        let Some(sender) = &self.parts.sender else { return Delivery::Kept };
        sender.close();
        let begun = Instant::now();
        // A server that never answered is not waited for: nothing can be acknowledged.
        while self.is_server_reached() || sender.wait(Duration::ZERO).is_some() {
            let left = timeout.saturating_sub(begun.elapsed());
            if let Some(report) = sender.wait(left.min(LOOK_INTERVAL)) {
                return if report.ended { Delivery::Done } else { Delivery::Unfinished };
            }
            if left.is_zero() || check_interrupt() {
                break;
            }
        }
        self.stop_sender(stop_by)
    }

    /// Whatever is unacknowledged.
    fn stop_sender(&self, by: Instant) -> Delivery {
        let Some(sender) = &self.parts.sender else { return Delivery::Kept };
        sender.stop();
        sender.wait(by.saturating_duration_since(Instant::now()));
        if self.has_run_at_server() { Delivery::Unfinished } else { Delivery::Kept }
    }

    /// Leaves the folder as the next process is to find it, and lets go of its lock.
    fn give_up(&self, mut drain: Drain, delivery: Delivery) {
        let shared = self.shared();
        if let Err(problem) = drain.write_cursors() {
            shared.report(problem);
        }
        drain.delete_acked();
        if let Err(error) = drain.spool.sync() {
            shared.report(format!("the spool could not be forced to the disk: {error}"));
        }
        let (is_sealed, info) = (drain.is_empty(), drain.info());
        drop(drain);
        shared.log.info(format_args!("closed: {delivery}, all sealed: {is_sealed}"));
        let Some(folder) = shared.folder.lock().take() else { return };
        let is_over = match delivery {
            Delivery::Dropped => true,
            Delivery::Done => is_sealed,
            Delivery::Kept | Delivery::Unfinished => false,
        };
        let ended = if is_over {
            // Nobody needs it any more; what is worth keeping are the cursors beside it.
            folder.withdraw().map_err(|error| error.to_string())
        } else if is_sealed && folder.place().is_kept() {
            let last_seq = Some(shared.ring.lock().next_seq().0 - 1);
            let acked = Some(shared.acked.load(Ordering::Acquire));
            let info = WriterInfo { ended: Some(WriterEnd::Closed), last_seq, acked, ..info };
            let files = self.parts.config.spool.options.files.as_ref();
            folder.place().write_info(&info, files).map_err(|error| error.to_string())
        } else {
            // The ring stays for recovery, and for whoever finds a folder that was moved: it does
            // not say there that its writer has ended.
            return;
        };
        if let Err(problem) = ended {
            shared.report(problem);
            if !is_over {
                // As far as anybody can read, the ring is still to be looked into.
                return;
            }
        }
        if let Err(error) = shared.ring.lock().unlink() {
            shared.report(error.to_string());
        }
    }

    // ── Fork ───────────────────────────────────────────────────────────────────────────────────

    /// Takes every lock, so that no file is in the middle of a change when the process is copied.
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
