//! Which writers of this process are closed and not let go of yet.
//!
//! Their locks are taken, by a process that lives, and yet nobody logs to them any more: whoever goes
//! on with the run reads where they stood. Without a lock, for a fork would leave one taken.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::WriterId;

/// Closing takes milliseconds but for a disk that does not answer, so few meet here.
const MOST: usize = 64;

/// Half of each id, which is random; 0: free.
static ENDING: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// Until it is dropped, the writer is ending.
#[derive(Debug)]
pub(super) struct Ending(Option<&'static AtomicU64>);

/// With [`MOST`] others ending, this one counts as living.
pub(super) fn begin(writer_id: WriterId) -> Ending {
    let half = half(writer_id);
    let take =
        |place: &&AtomicU64| place.compare_exchange(0, half, Ordering::AcqRel, Ordering::Relaxed);
    Ending(ENDING.iter().find(|place| take(place).is_ok()))
}

/// Whether the writer was opened here, and its close could not wait for its end.
pub(crate) fn is_ending(writer_id: WriterId) -> bool {
    ENDING.iter().any(|place| place.load(Ordering::Acquire) == half(writer_id))
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            place.store(0, Ordering::Release);
        }
    }
}

fn half(writer_id: WriterId) -> u64 {
    let (half, _) = writer_id.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*half)
}
