//! The sender: takes sealed batches from a writer's spool to its server, and acknowledgements back.
//!
//! ```text
//! drain thread ── notify(seq) ──▶ sender thread (tokio, one thread, no signals)
//!                                   supervisor   connect, back off, connect again
//!                                     session    one stream: hello, frames, acks, end
//! on_acked(seq) ◀──────────────────     window   what was sent and is not acknowledged
//! ```
//!
//! It keeps no batch in memory: what is not acknowledged is read from the spool again after a
//! reconnect, the same bytes under the same seq, so the server recognises what it has. A stream
//! begins with the declarations of the spool segment that holds its first batch; after that frames
//! go out in the spool's order, at most `max_pending_requests` of them unacknowledged.

mod backoff;
mod connector;
mod session;
mod shared;
mod spool;
mod supervisor;
#[cfg(test)]
mod tests;
mod thread;
mod window;

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use connector::Connector;
#[cfg(feature = "grpc")]
pub use connector::Destination;
pub use shared::{Cancel, Canceller, CloseReport, Connection, ConnectionState, SenderCounters};
pub use spool::{FrameSource, Spool, SpoolItem};
pub use thread::{PendingOpen, Sender};

pub(crate) use session::Ending;
pub(crate) use thread::send_all;

use crate::engine_log::EngineLog;
use crate::transport::{Heartbeat, OpenRun, OpenedRun, Refusal};
use crate::types::{RunId, Seq, WriterId};

/// How a sender behaves; the defaults are the contract's.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderSettings {
    /// Most batches sent and not acknowledged. At least 1.
    pub max_pending_requests: usize,
    /// Failures in a row before one is reported. `None`: never reported.
    pub max_send_retries: Option<u32>,
    /// What happens when they are spent.
    pub when_spent: WhenSpent,
    /// Upper bound of the first wait between two attempts; it doubles with each failure.
    pub initial_backoff: Duration,
    /// Upper bound of every wait.
    pub max_backoff: Duration,
    /// Longest wait for the server to do something it owes, before the stream is given up.
    pub ack_timeout: Duration,
    /// Longest silence of the client.
    pub heartbeat_interval: Duration,
    /// After a random time in this range a stream is replaced, so that a load balancer can move it.
    pub stream_lifetime: RangeInclusive<Duration>,
}

impl Default for SenderSettings {
    fn default() -> Self {
        Self {
            max_pending_requests: 30,
            max_send_retries: Some(60),
            when_spent: WhenSpent::KeepTrying,
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(15),
            ack_timeout: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(15),
            stream_lifetime: Duration::from_secs(15 * 60)..=Duration::from_secs(30 * 60),
        }
    }
}

/// What a sender does after `max_send_retries` failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenSpent {
    /// A live run: goes on at the maximum backoff.
    KeepTrying,
    /// A delivery somebody waits for: ends.
    GiveUp,
}

/// Everything a sender needs to know.
pub struct SenderConfig {
    /// Asked for a transport before every attempt.
    pub connector: Arc<dyn Connector>,
    /// Where the batches are.
    pub spool: Box<dyn Spool>,
    /// Who hears of acks and problems.
    pub host: Arc<dyn SenderHost>,
    pub run_id: RunId,
    pub writer_id: WriterId,
    /// The first batch that is not acknowledged.
    pub first_seq: Seq,
    /// The first batch that a spool has which grows no more: from there on it is sent again if the
    /// server turns out not to have it. `None`: a living writer, which deletes what is acknowledged.
    pub oldest_seq: Option<Seq>,
    /// The run is not open at the server yet: opened with this before any batch is sent. Whatever
    /// it says, the run is stored under another name rather than refused, as it is being written.
    pub open: Option<OpenRun>,
    pub settings: SenderSettings,
    /// Hears of connections and of each batch that is sent.
    pub log: Arc<EngineLog>,
    /// Run once, in a thread of its own, after the first stream has been welcomed: delivers what
    /// earlier writers left behind.
    pub background: Option<BackgroundJob>,
}

/// Work beside a live sender; it ends soon after its [`Cancel`] says so.
pub type BackgroundJob = Box<dyn FnOnce(Cancel) + Send>;

impl fmt::Debug for SenderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderConfig")
            .field("destination", &self.connector.describe())
            .field("run_id", &self.run_id)
            .field("writer_id", &self.writer_id)
            .field("first_seq", &self.first_seq)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Who owns a sender. Called from the sender's thread; none of the calls may block.
pub trait SenderHost: Send + Sync {
    /// Everything up to and including `seq` is durable at the server: the spool may let go of it.
    fn on_acked(&self, seq: Seq);

    /// A stream that begins with batch `first` was welcomed. Of those before it the server has all up
    /// to `stored`; `None`: it does not say.
    fn on_welcome(&self, _first: Seq, _stored: Option<Seq>) {}

    /// Something the user should hear of. The host bounds how many it keeps.
    fn on_problem(&self, problem: SenderProblem);

    /// An attempt failed, and another will be made.
    fn on_retry(&self, _error: &str) {}

    /// The run was opened late, because the server could not be reached when the process started.
    fn on_opened(&self, _opened: &OpenedRun) {}

    /// The numbers the next heartbeat carries.
    fn heartbeat(&self) -> Heartbeat {
        Heartbeat::default()
    }
}

/// What goes wrong behind `log()`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenderProblem {
    /// Reported once per outage.
    #[error(
        "{failures} attempts in a row to send to {destination} failed, the last with: {error}. \
         The data is kept in the spool and sending is retried"
    )]
    RetriesSpent { destination: String, failures: u32, error: String },
    /// The server will not take this writer's data, and waiting would not change that.
    #[error(
        "{destination} refused the data: {refusal}. It is kept in the spool, nothing more is sent"
    )]
    Refused { destination: String, refusal: Refusal },
    /// Batches that could not be read from the spool; the rest is sent.
    #[error("batches {first} to {last} are lost: {message}")]
    Damaged { first: Seq, last: Seq, message: String },
    /// The spool could not be read at all just now.
    #[error("cannot read the spool: {message}")]
    Spool { message: String },
}

/// A sender that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the sender: {0}")]
pub struct StartError(#[from] io::Error);
