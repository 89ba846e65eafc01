//! The seam between the engine and the network: what is asked of a server, and what it answers.
//!
//! Two transports stand behind [`Transport`]: gRPC (`grpc`, feature `grpc`) and an in-memory twin
//! ([`memory`]) whose server side is a script. The types here are the wire contract of
//! `proto/metrana/v1/ingestion.proto` without protobuf, so that everything above this seam builds
//! and is tested without it.

#[cfg(feature = "grpc")]
pub mod grpc;
pub mod memory;

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;

use crate::types::{BatchKind, Position, RunId, Scale, Seq, WriterId};

/// The oldest and the newest version of the wire contract this engine speaks.
pub const PROTOCOL_VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;

/// A boxed future: what keeps [`Transport`] usable as a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to one server. Cheap to make; nothing is connected before the first call.
pub trait Transport: Send + Sync {
    /// Creates, joins or resumes a run for one writer.
    ///
    /// Resolves to [`TransportError::Refused`] if the server will not have the run, to
    /// [`TransportError::Unreachable`] if it could not be asked. Asking again is harmless: the same
    /// writer gets the same answer.
    fn open_run(&self, request: OpenRun) -> BoxFuture<'_, Result<OpenedRun, TransportError>>;

    /// Begins a writer's stream of batches. `hello` travels as its first message; the server's
    /// first answer, `Welcome` or `Refused`, comes out of the stream like every other.
    fn stream(&self, hello: Hello) -> BoxFuture<'_, Result<BatchStream, TransportError>>;
}

/// Both directions of a stream. Dropping it ends the call.
#[derive(Debug)]
pub struct BatchStream {
    /// To the server. It holds few messages, so a full one means that the network or the server is
    /// slower than the sender. Dropping it tells the server that nothing more will come.
    pub outgoing: mpsc::Sender<ClientMessage>,
    /// From the server; ends after an error, or when the server has ended the stream.
    pub incoming: mpsc::Receiver<Result<ServerMessage, TransportError>>,
}

/// Why a server did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The server answered, and the answer is no.
    #[error("{0}")]
    Refused(Refusal),
    /// There was no answer: no route, no listener, a broken connection, a server that failed.
    #[error("{0}")]
    Unreachable(String),
}

impl TransportError {
    /// Whether asking again later may succeed without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.retryable,
            Self::Unreachable(_) => true,
        }
    }
}

/// A server's no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: RefusalCode,
    /// One sentence for the user.
    pub message: String,
    /// Whether asking again later may succeed without anybody doing anything.
    pub retryable: bool,
}

/// What kind of no it is. The numbers are those of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum RefusalCode {
    /// A code this engine does not know.
    #[default]
    Unspecified = 0,
    Version = 1,
    Unauthenticated = 2,
    RunExists = 3,
    OrchestrationMismatch = 4,
    RunNotFound = 5,
    RunDeleted = 6,
    ProjectNotFound = 7,
    Invalid = 8,
    SequenceGap = 9,
    Malformed = 10,
    Superseded = 11,
    Unavailable = 12,
}

/// What a run is opened with. See the wire contract for each field's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRun {
    pub run_id: RunId,
    pub workspace_name: String,
    pub project_name: String,
    /// Empty only with `by_run_id`.
    pub run_name: String,
    pub experiment_name: String,
    pub orchestration_id: String,
    pub resume_strategy: ResumeStrategy,
    pub name_conflict: NameConflict,
    pub create_project_if_missing: bool,
    /// The run is named by `run_id` alone and must exist.
    pub by_run_id: bool,
    pub created_at_ms: i64,
    pub writer: WriterIdentity,
    /// Undelivered writers of the run's folder with lower numbers, in their order.
    pub earlier_writers: Vec<WriterIdentity>,
    pub want_cursors: bool,
}

/// Whether a run that exists may be gone on with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResumeStrategy {
    #[default]
    Never,
    Allow,
}

/// What becomes of a run whose name is held by one that may not be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameConflict {
    /// A process that is starting: its user hears of it.
    Refuse,
    /// Data that exists already: it is stored under a name of its own, never refused.
    Rename,
}

/// One process logging to a run, as the server's catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterIdentity {
    pub writer_id: WriterId,
    /// Place in the run's folder, from 1.
    pub number: u32,
    pub logger_id: String,
    pub host: String,
    pub pid: u32,
    pub client_version: String,
    pub opened_at_ms: i64,
    /// Its process is known to have ended: it gets no lease.
    pub dead: bool,
}

/// A run that the server has opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenedRun {
    /// Differs from the id that was asked for when that one became an alias. `None`: the server's answer held none.
    pub run_id: Option<RunId>,
    pub workspace_name: String,
    pub project_name: String,
    pub run_name: String,
    /// This writer created the run: what `init()` was given is applied.
    pub created: bool,
    /// The name that was asked for, if the run is stored under another; else empty.
    pub requested_name: String,
    pub server_version: String,
    pub series_cursors: Vec<SeriesCursor>,
    pub environment_cursors: Vec<EnvironmentCursor>,
}

impl OpenedRun {
    /// For the user: under which name the run is stored, if not under its own.
    pub fn renamed(&self) -> Option<String> {
        let Self { project_name, run_name, requested_name, .. } = self;
        (!requested_name.is_empty()).then(|| {
            format!(
                "the name {requested_name:?} is held by another run in project {project_name:?}, \
                 so this one is stored as {run_name:?}"
            )
        })
    }
}

/// The greatest position of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesCursor {
    pub metric_name: String,
    pub scale: Scale,
    /// Sorted by key.
    pub labels: Vec<(String, String)>,
    /// Empty: the series has no environment.
    pub env_id: String,
    pub position: Position,
}

/// Where an environment has got to; −1 where it has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentCursor {
    pub env_id: String,
    pub rl_step: i64,
    pub episode: i64,
    /// The greatest episode that has an EPISODE point: later env steps belong to the next.
    pub ended_episode: i64,
}

/// The first message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub run_id: RunId,
    pub writer_id: WriterId,
    /// The first batch the client holds no acknowledgement for.
    pub first_seq: Seq,
    /// Ranges (both ends included) that will never arrive: damaged on disk.
    pub lost: Vec<(Seq, Seq)>,
}

/// A sealed batch as it lies in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub seq: Seq,
    pub kind: BatchKind,
    pub payload: Vec<u8>,
    pub payload_crc32c: u32,
    /// Somebody waits for this one: the server commits without filling its group.
    pub urgent: bool,
}

/// What a writer tells its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    Hello(Hello),
    Declarations { payload: Vec<u8>, payload_crc32c: u32 },
    Batch(Batch),
    Heartbeat(Heartbeat),
    End(WriterEnd),
}

/// Keeps the writer's lease and the connection alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    pub points_added: u64,
    pub points_dropped: u64,
    pub points_pending: u64,
    pub spooled_bytes: u64,
}

/// The writer has no more data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterEnd {
    pub last_seq: Seq,
    /// Delivered on behalf of a writer that died without a close record.
    pub died: bool,
}

/// What a server tells a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    Welcome {
        server_version: String,
        /// Of the batches below the hello's first it has all up to here; `None`: it does not say.
        stored: Option<Seq>,
    },
    /// Everything up to and including this seq is durable.
    Ack(Seq),
    /// Answer to `End`.
    Ended,
    Refused(Refusal),
    /// Open a new stream: this server is going away.
    Reconnect,
}
