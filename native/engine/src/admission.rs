//! What became of a call, and waiting for room outside every lock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::chunk::Chunk;
use crate::config::BackpressureStrategy;
use crate::counters::Tally;
use crate::engine::{Engine, InterruptCheck};
use crate::error::LogError;

/// Longest wait between two looks for an interrupt.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

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
    /// Waits for room as the queue's strategy says and puts the rest in. Blocks.
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
    chunks: VecDeque<Chunk<'a>>,
    /// Progress when the last chunk was refused.
    seen: u64,
}

impl<'a> Remainder<'a> {
    pub(crate) fn new(engine: &'a Engine, chunks: VecDeque<Chunk<'a>>) -> Self {
        // What was refused before this look may fit by now; trying once more finds that out.
        Self { engine, chunks, seen: u64::MAX }
    }

    /// Blocks. See [`Admission::settle`].
    ///
    /// # Errors
    ///
    /// See [`Admission::settle`].
    pub fn settle(mut self, check_interrupt: InterruptCheck<'_>) -> Result<(), LogError> {
        let queue = self.engine.queue();
        let begun = Instant::now();
        let mut deadline = begun.checked_add(queue.enqueue_timeout);
        let mut left = self.chunks.len();
        while !self.try_again() {
            // Without its drain thread nothing makes room any more.
            if self.engine.is_closed() || self.engine.has_drain_stopped() {
                return Err(LogError::Closed);
            }
            if self.chunks.len() < left {
                // Room is being made, so a call larger than the queue is not late yet.
                (left, deadline) =
                    (self.chunks.len(), Instant::now().checked_add(queue.enqueue_timeout));
            }
            let now = Instant::now();
            if deadline.is_some_and(|at| now >= at) {
                match queue.strategy {
                    BackpressureStrategy::Block => {}
                    BackpressureStrategy::Raise => {
                        let dropped = self.tally().total();
                        return Err(LogError::QueueFull { dropped, waited: now - begun });
                    }
                    BackpressureStrategy::DropNew => {
                        self.drop_first();
                        left = self.chunks.len();
                        continue;
                    }
                }
            }
            if check_interrupt() {
                return Err(LogError::Interrupted { dropped: self.tally().total() });
            }
            let wait = match (queue.strategy, deadline) {
                (BackpressureStrategy::Block, _) | (_, None) => LOOK_INTERVAL,
                (_, Some(at)) => at.saturating_duration_since(now).min(LOOK_INTERVAL),
            };
            self.wait_for_room(wait);
        }
        Ok(())
    }

    /// Puts in what fits now; `true`: nothing is left. Never blocks.
    pub fn try_again(&mut self) -> bool {
        if self.chunks.is_empty() {
            return true;
        }
        let shared = self.engine.shared();
        // Before the attempt, so that room made after it is not missed.
        self.seen = shared.progress.lock().generation;
        let mut intake = shared.intake.lock();
        while let Some(chunk) = self.chunks.front()
            && !intake.is_closed()
            && intake.put(chunk)
        {
            self.chunks.pop_front();
        }
        drop(intake);
        shared.ask_to_seal();
        self.chunks.is_empty()
    }

    /// Blocks until there may be room for the next chunk, at most `timeout`; `false`: there is not.
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        self.engine.shared().await_progress(self.seen, timeout).generation != self.seen
    }

    fn drop_first(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.engine.shared().intake.lock().drop_chunk(&chunk);
        }
    }

    fn tally(&self) -> Tally {
        self.chunks.iter().fold(Tally::default(), |sum, chunk| sum + chunk.tally())
    }
}

impl Drop for Remainder<'_> {
    fn drop(&mut self) {
        while !self.chunks.is_empty() {
            self.drop_first();
        }
    }
}
