//! The drain thread: seals what callers put into the ring, in time and in order.
//!
//! It wakes when a quarter of the ring or queue has come in, when somebody waits (for room, or for
//! a flush), and else every tenth of `batch_max_age` to see whether something has lain there long
//! enough. The order of a piece's end is fixed: frames into the spool, next seq and tail into the
//! ring, and only then is the sender told. When the spool cannot be written, everything stays in
//! the ring, is reported once, and tried again. Finished renderings come while nothing else is due,
//! a piece at a time.

mod acked;
mod folder;
mod left_alone;
mod renderings;

pub(crate) use folder::OwnFolder;
use renderings::OwnRenderings;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::platform;
use crate::ring::{Consumer, OutsideRing, Ring, RingOptions, RingStart};
use crate::run_folder::{RunFolderError, RunInfo, WriterInfo};
use crate::seal::{Piece, SealError, SealState, Sealer};
use crate::sender::Sender;
use crate::shared::{DrainRequest, Shared};
use crate::spool::SpoolWriter;
use crate::types::{Lsn, Seq, WriterId};

/// Longest and shortest sleep of an idle thread.
const MAX_SLEEP: Duration = Duration::from_millis(100);
const MIN_SLEEP: Duration = Duration::from_millis(5);
/// A ring that dies with the process is emptied this often.
pub(crate) const MEMORY_RING_AGE: Duration = Duration::from_millis(25);
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// While somebody waits for the end.
const LAST_RETRY_OF_END: Duration = Duration::from_millis(200);

/// Owned by the thread while it runs, and by whoever closes the writer after that.
#[derive(Debug)]
pub(crate) struct Drain {
    pub shared: Arc<Shared>,
    pub spool: SpoolWriter,
    /// `None`: nobody sends.
    sender: Option<Arc<Sender>>,
    consumer: Consumer,
    /// The ring dies with the process.
    is_memory: bool,
    /// The ring that takes the place of one that was deleted, once that one is empty.
    successor: Option<Consumer>,
    sealer: Sealer,
    state: SealState,
    settings: DrainSettings,
    window: Vec<u64>,
    /// When the oldest record in the ring was first seen.
    waiting_since: Option<Instant>,
    retry: Option<Retry>,
    checked_at: Instant,
    /// Whether the disk had room at the last look.
    has_space: bool,
    folder: OwnFolder,
    renderings: OwnRenderings,
    /// Points and attributes that found no room, as far as the log tells.
    dropped: u64,
    /// When it gives up, because only our threads are left of the process.
    leave_by: Option<Instant>,
}

/// How and when to seal.
#[derive(Clone, Debug)]
pub(crate) struct DrainSettings {
    pub writer_id: WriterId,
    pub max_age: Duration,
    pub ring: RingOptions,
    /// Most bytes of the spool; `None`: as the disk allows.
    pub spool_max_bytes: Option<u64>,
    /// What the folder is made anew with if somebody deletes it.
    pub run: RunInfo,
    pub info: WriterInfo,
}

/// What a writer's ring and spool are made of.
#[derive(Debug)]
pub(crate) struct DrainParts {
    pub consumer: Consumer,
    pub spool: SpoolWriter,
    pub sealer: Sealer,
    pub sender: Option<Arc<Sender>>,
    pub folder: OwnFolder,
}

#[derive(Debug)]
struct Retry {
    at: Instant,
    delay: Duration,
}

/// Why nothing could be sealed.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Ring(#[from] OutsideRing),
    #[error("{0}")]
    NoSpace(String),
    #[error(transparent)]
    Folder(#[from] RunFolderError),
}

impl Drain {
    pub fn new(shared: Arc<Shared>, parts: DrainParts, settings: DrainSettings) -> Self {
        let DrainParts { consumer, spool, sealer, sender, folder } = parts;
        let tail = consumer.tail();
        let state = SealState::at(tail, consumer.next_seq());
        Self {
            is_memory: !shared.has_tmpfs_ring(),
            shared,
            spool,
            sender,
            consumer,
            successor: None,
            sealer,
            state,
            settings,
            window: Vec::new(),
            waiting_since: None,
            retry: None,
            checked_at: Instant::now(),
            has_space: true,
            folder,
            renderings: OwnRenderings::default(),
            dropped: 0,
            leave_by: None,
        }
    }

    /// The thread's body. Gives itself back, so that a close can finish what it holds.
    pub fn run(mut self) -> Self {
        loop {
            let request = self.shared.next_request(self.sleep());
            let has_failed = self.turn(&request).is_err();
            let is_over = request.end_by.is_some_and(|end_by| {
                let is_done = self.has_sealed_ring() && self.first_rendering().is_none();
                (!has_failed && is_done) || Instant::now() >= end_by
            });
            if is_over {
                break;
            }
        }
        self.log_dropped();
        self.leave();
        self.count_left_renderings();
        self.shared.advance(|progress| progress.has_ended = true);
        self
    }

    fn turn(&mut self, request: &DrainRequest) -> Result<(), ()> {
        let now = Instant::now();
        let result = if self.is_due(request, now) { self.seal_and_report(request) } else { Ok(()) };
        let result = result.and_then(|()| self.seal_rendering(request, now));
        if now.duration_since(self.checked_at) >= CHECK_INTERVAL {
            self.checked_at = now;
            self.check_ring();
            // What failed is made again in its own time.
            if self.retry.is_none()
                && let Err(error) = self.check_folder()
            {
                self.fail(&error, LAST_RETRY);
            }
            self.hear_follower();
            self.log_dropped();
            self.look_for_others();
            // What the deleted ring holds has no other place, so it does not wait to be old enough.
            if self.successor.is_some() && self.is_due(request, now) {
                let _ = self.seal_and_report(request);
            }
        }
        if let Err(error) = self.spool.sync_if_due() {
            self.shared.report(format!("the spool could not be forced to the disk: {error}"));
        }
        self.delete_acked();
        result
    }

    fn sleep(&self) -> Duration {
        let idle = (self.max_age() / 10).clamp(MIN_SLEEP, MAX_SLEEP);
        match &self.retry {
            Some(retry) => retry.at.saturating_duration_since(Instant::now()).max(MIN_SLEEP),
            None if self.is_memory => MEMORY_RING_AGE.min(self.rendering_pause()),
            None => idle.min(self.rendering_pause()),
        }
    }

    fn max_age(&self) -> Duration {
        if self.is_memory {
            self.settings.max_age.min(MEMORY_RING_AGE)
        } else {
            self.settings.max_age
        }
    }

    fn is_due(&mut self, request: &DrainRequest, now: Instant) -> bool {
        if self.consumer.tail() == self.consumer.committed() && self.successor.is_none() {
            self.waiting_since = None;
            // There may be nothing to write, but a flush waits for an answer, or files are missing.
            return request.flush_to.is_some()
                || self.retry.as_ref().is_some_and(|retry| now >= retry.at);
        }
        let since = *self.waiting_since.get_or_insert(now);
        if let Some(retry) = &self.retry
            && now < retry.at
            && request.flush_to.is_none()
            && request.end_by.is_none()
        {
            return false;
        }
        let is_old = self.is_memory
            || self.successor.is_some()
            || now.duration_since(since) >= self.max_age();
        // A failed attempt is made again whatever woke the thread.
        request.seal
            || request.flush_to.is_some()
            || request.end_by.is_some()
            || is_old
            || self.retry.is_some()
    }

    fn seal_and_report(&mut self, request: &DrainRequest) -> Result<(), ()> {
        let urgent = request.flush_to.is_some() || request.end_by.is_some();
        match self.seal_all(urgent) {
            Ok(()) => {
                if self.retry.take().is_some() {
                    self.shared.note("the spool can be written again".to_owned());
                }
                self.waiting_since = None;
                self.shared.advance(|_| {});
                Ok(())
            }
            Err(error) => {
                let is_ending = request.end_by.is_some();
                self.fail(&error, if is_ending { LAST_RETRY_OF_END } else { LAST_RETRY });
                Err(())
            }
        }
    }

    fn fail(&mut self, error: &DrainError, longest: Duration) {
        let delay = if let Some(retry) = &self.retry {
            (retry.delay * 2).min(longest)
        } else {
            self.shared.report(format!(
                "nothing can be written to the spool, points wait in memory: {error}"
            ));
            FIRST_RETRY
        };
        self.retry = Some(Retry { at: Instant::now() + delay, delay });
    }

    /// Seals everything committed. Blocks on the disk.
    fn seal_all(&mut self, urgent: bool) -> Result<(), DrainError> {
        self.check_folder()?;
        self.seal_window(urgent)?;
        if let Some(consumer) = self.successor.take() {
            // Nobody writes to the old ring any more, so it is empty for good.
            self.consumer = consumer;
            self.consumer.predecessor_is_sealed();
            self.seal_window(urgent)?;
        }
        Ok(())
    }

    fn seal_window(&mut self, urgent: bool) -> Result<(), DrainError> {
        let (mut start, end) = (self.consumer.tail(), self.consumer.committed());
        if start == end {
            return Ok(());
        }
        let mut window = std::mem::take(&mut self.window);
        let mut result = self.consumer.read(start, end, &mut window).map_err(DrainError::from);
        let first = start;
        while result.is_ok() && start < end {
            let rest = &window[((start.0 - first.0) / 8) as usize..];
            result = self.seal_piece(rest, start, urgent).map(|behind| start = behind);
        }
        self.window = window;
        result
    }

    fn seal_piece(&mut self, words: &[u64], start: Lsn, urgent: bool) -> Result<Lsn, DrainError> {
        self.check_space()?;
        let (state, spool) = (&mut self.state, &mut self.spool);
        let piece = self.sealer.seal_piece(words, start, urgent, state, spool)?;
        self.consumer.release(piece.end, self.state.next_seq)?;
        let end = piece.end;
        self.publish(piece);
        Ok(end)
    }

    /// The piece is in the spool and the ring knows it: count it and tell everybody.
    fn publish(&mut self, piece: Piece) {
        let last_seq = Seq(self.state.next_seq.0 - 1);
        let mut points = piece.lost.points();
        let has_batches = !piece.batches.is_empty();
        for (seq, tally) in &piece.batches {
            self.shared.log.debug(format_args!(
                "sealed batch {seq}: {} points, {} attributes",
                tally.points(),
                tally.total() - tally.points()
            ));
        }
        {
            let mut ledger = self.shared.ledger.lock();
            ledger.lose(piece.lost);
            for (seq, tally) in piece.batches {
                ledger.sealed(seq, tally);
                points += tally.points();
            }
        }
        self.shared.spooled_bytes.store(self.spool.bytes(), Ordering::Relaxed);
        // Release: whoever sees this room sees the ring's too.
        self.shared.sealed_points.fetch_add(points, Ordering::Release);
        for problem in piece.problems {
            self.shared.report(problem);
        }
        self.shared
            .advance(|progress| (progress.sealed, progress.last_seq) = (piece.end, last_seq));
        if has_batches && let Some(sender) = &self.sender {
            sender.notify(last_seq);
        }
    }

    /// A full queue is noticed by the callers, who do not write to the log.
    fn log_dropped(&mut self) {
        let dropped = self.shared.intake.lock().dropped().total();
        if dropped > self.dropped {
            let more = dropped - self.dropped;
            self.shared.log.warn(format_args!(
                "the queue was full: {more} points and attributes were dropped, {dropped} in all"
            ));
            self.dropped = dropped;
        }
    }

    // ── Room on the disk ───────────────────────────────────────────────────────────────────────

    /// What the server has is deleted before room is denied, the segment being written too: nobody
    /// else would ever make any.
    fn check_space(&mut self) -> Result<(), DrainError> {
        self.look_for_space().or_else(|_| {
            self.spool.end_acked_segment(Seq(self.shared.acked.load(Ordering::Acquire)));
            self.delete_acked();
            self.look_for_space()
        })
    }

    fn look_for_space(&mut self) -> Result<(), DrainError> {
        let used = self.spool.bytes();
        match self.settings.spool_max_bytes {
            Some(most) if used >= most => {
                return Err(DrainError::NoSpace(format!(
                    "the spool has {used} bytes and may have {most} (spool_max_bytes)"
                )));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        // The disk fills slowly compared with the second between two looks; a lack is looked at
        // again at each attempt.
        if self.has_space && self.checked_at.elapsed() < CHECK_INTERVAL {
            return Ok(());
        }
        let Ok(space) = platform::space(self.folder.place.path()) else { return Ok(()) };
        let checked = space.check();
        self.has_space = checked.is_ok();
        checked.map_err(DrainError::NoSpace)
    }

    // ── The ring ───────────────────────────────────────────────────────────────────────────────

    /// Someone deleted the ring's file (systemd's `RemoveIPC` does at logout): a crash would lose
    /// what is in it, so a new one takes its place.
    fn check_ring(&mut self) {
        if self.successor.is_some() || !self.shared.ring.lock().is_unlinked() {
            return;
        }
        // Before there is another ring: the less is in neither of the two when the process dies.
        let _ = self.seal_window(false);
        // Under the callers' lock, so that no record lands in between.
        let mut new_ring = None;
        let mut intake = self.shared.intake.lock();
        let end = self.consumer.committed();
        let start = RingStart {
            lsn: end,
            next_seq: self.state.next_seq,
            unsealed_bytes: end.0 - self.consumer.tail().0,
        };
        let made = Ring::create(&self.settings.ring, self.settings.writer_id, start);
        let problem = match made {
            Ok((ring, producer, consumer)) => {
                ring.set_folder(self.folder.place.path());
                intake.replace_ring(producer);
                let kind = ring.kind().name();
                self.is_memory = ring.kind().path().is_none();
                self.successor = Some(consumer);
                new_ring = Some(ring);
                format!("the ring's file was deleted by somebody; a new one is in {kind}")
            }
            Err(error) => format!("the ring's file was deleted, and there is no new one: {error}"),
        };
        drop(intake);
        if let Some(ring) = new_ring {
            *self.shared.ring.lock() = ring;
        }
        self.shared.note(problem);
    }

    pub fn writer_id(&self) -> WriterId {
        self.settings.writer_id
    }

    /// Whether recovery finds what is in the ring after the process's end.
    pub fn has_lasting_ring(&self) -> bool {
        !self.is_memory
    }

    /// Everything committed is in the spool, and no rendering is left.
    pub fn is_empty(&self) -> bool {
        self.has_sealed_ring() && !self.has_left_renderings()
    }

    /// Everything committed is in the spool.
    pub fn has_sealed_ring(&self) -> bool {
        self.successor.is_none() && self.consumer.tail() == self.consumer.committed()
    }
}
