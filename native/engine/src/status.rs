//! A snapshot of how a writer is doing, in the words of the public `status()`.

use std::time::Duration;

/// How a writer is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// The server batches go to, if any; `connected` says whether a stream is open.
    pub server_url: Option<String>,
    pub connected: bool,
    /// `tmpfs` or `memory`.
    pub ring: &'static str,
    /// What a SIGKILL of the process loses at most: 0 with a tmpfs ring.
    pub loss_window: Duration,
    /// Points accepted and neither acknowledged nor dropped.
    pub pending_points: u64,
    /// Bytes of this writer's spool on disk.
    pub spooled_bytes: u64,
    /// Since the last acknowledgement; `None`: there was none.
    pub last_ack_age: Option<Duration>,
    /// Sentences for the user, the newest last.
    pub problems: Vec<String>,
}
