//! A process that has ended but for our threads.
//!
//! A child that is forked in another thread than the first goes on in that one alone. Once it returns
//! the C library is to end the process, as it does with the last of its threads, whichever that is.
//! Nobody is there any more to close the run, so ours have to end by themselves.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Drain;
use crate::platform;
use crate::sender::Sender;
use crate::types::Seq;

/// What the names of all our threads begin with.
const OUR_THREADS: &str = "metrana-";
/// How long the end of the process waits for disk and server.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

impl Drain {
    /// Once only our threads are left, they end soon.
    pub(super) fn look_for_others(&mut self) {
        if self.leave_by.is_some() || !platform::is_left_to_threads(OUR_THREADS) {
            return;
        }
        self.shared.log.info(format_args!("the process has ended but for the threads of this run"));
        let by = Instant::now() + LAST_PATIENCE;
        self.leave_by = Some(by);
        self.shared.ask(|request| request.end_by = Some(by));
    }

    /// Ends the sender's thread, and this one is about to end. The folder is left as one of a process
    /// that was killed: nobody said that the run has ended.
    pub(super) fn leave(&mut self) {
        let Some(by) = self.leave_by else { return };
        self.force_to_disk();
        if let Some(sender) = &self.sender {
            self.await_acks(sender, by);
            sender.stop();
        }
    }

    /// Nobody else delivers the rest before the next process of the run.
    fn await_acks(&self, sender: &Sender, by: Instant) {
        let last_seq = Seq(self.state.next_seq.0 - 1);
        let mut seen = u64::MAX;
        // A server that never answered is not waited for, nor one that refused.
        while self.shared.has_reached_server.load(Ordering::Acquire)
            && sender.wait(Duration::ZERO).is_none()
        {
            let left = by.saturating_duration_since(Instant::now());
            let progress = self.shared.await_progress(seen, left);
            seen = progress.generation;
            if progress.acked >= last_seq || left.is_zero() {
                break;
            }
        }
    }
}
