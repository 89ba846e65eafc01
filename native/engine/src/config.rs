//! What a writer is opened with. Every default is the contract's; names, environment variables and
//! friendly messages are the client's business, so here everything is already resolved.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::engine_log::LogLevel;
use crate::error::InvalidArgument;
use crate::ring::RingOptions;
use crate::sender::{Connector, SenderSettings};
use crate::spool::SpoolOptions;
use crate::types::{Compression, RunId};

/// Smallest `max_msg_size`: below it the envelope and one long metric name fill a message.
pub const MIN_MAX_MSG_SIZE: usize = 16 * 1024;
/// What a message needs beside its batch's payload (envelope, framing), see decision 001.
pub const MESSAGE_OVERHEAD_BYTES: usize = 1024;

/// Everything [`Engine::open`](crate::engine::Engine::open) needs.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The data directory (`$METRANA_DIR`): spools lie in `<data_dir>/spool`.
    pub data_dir: PathBuf,
    /// Which run, and who writes to it.
    pub run: RunConfig,
    /// Where batches are sent; `None`: nowhere, the spool is the destination.
    pub server: Option<ServerConfig>,
    /// When batches are sealed and how.
    pub batch: BatchConfig,
    /// What happens when the queue is full.
    pub queue: QueueConfig,
    /// The spool on disk.
    pub spool: SpoolConfig,
    /// The ring in memory.
    pub ring: RingOptions,
    /// How much is written to `engine.log` in the writer's folder.
    pub log_level: LogLevel,
}

impl EngineConfig {
    /// A writer without a server and with the defaults of the contract.
    pub fn offline(data_dir: impl Into<PathBuf>, run: RunConfig) -> Self {
        Self {
            data_dir: data_dir.into(),
            run,
            server: None,
            batch: BatchConfig::default(),
            queue: QueueConfig::default(),
            spool: SpoolConfig::default(),
            ring: RingOptions::default(),
            log_level: LogLevel::default(),
        }
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, named as `init()` names it.
    pub fn validate(&self) -> Result<(), InvalidArgument> {
        if self.batch.max_msg_size < MIN_MAX_MSG_SIZE {
            return Err(InvalidArgument::new(
                "max_msg_size",
                format!("{} bytes; at least {MIN_MAX_MSG_SIZE}", self.batch.max_msg_size),
            ));
        }
        if self.batch.max_age.is_zero() {
            return Err(InvalidArgument::new("batch_max_age_secs", "0; it must be positive"));
        }
        if self.queue.capacity == Some(0) {
            return Err(InvalidArgument::new("queue_capacity", "0; at least 1, or None"));
        }
        if self.run.run_name.is_none() && self.run.run_id.is_none() {
            return Err(InvalidArgument::new("run_name", "missing; a run has a name or a run_id"));
        }
        Ok(())
    }
}

/// Which run, and who writes to it.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// `local` or the normalised URL; part of the run folder's name.
    pub destination: String,
    pub workspace_name: String,
    pub project_name: String,
    /// `None` only when `run_id` names the run.
    pub run_name: Option<String>,
    pub experiment_name: String,
    /// Resumes this run; `None`: the name decides.
    pub run_id: Option<RunId>,
    pub orchestration_id: String,
    pub resume: ResumeStrategy,
    pub create_project_if_missing: bool,
    /// Who the points of `log_distributed` are from; empty: the writer.
    pub logger_id: String,
    pub client_version: String,
}

impl RunConfig {
    /// A run of this name in the default project of the local destination.
    pub fn local(run_name: impl Into<String>, orchestration_id: impl Into<String>) -> Self {
        Self {
            destination: "local".to_owned(),
            workspace_name: "default".to_owned(),
            project_name: "default".to_owned(),
            run_name: Some(run_name.into()),
            experiment_name: String::new(),
            run_id: None,
            orchestration_id: orchestration_id.into(),
            resume: ResumeStrategy::Never,
            create_project_if_missing: true,
            logger_id: String::new(),
            client_version: crate::VERSION.to_owned(),
        }
    }

    /// Naming a run by its id says that it is to be gone on with.
    pub fn resumes(&self) -> ResumeStrategy {
        if self.run_id.is_some() { ResumeStrategy::Allow } else { self.resume }
    }
}

/// What to do when the run exists and belongs to another job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResumeStrategy {
    /// Refuse, naming both orchestration ids.
    #[default]
    Never,
    /// Go on with it.
    Allow,
}

/// Where and how batches are sent.
#[derive(Clone)]
pub struct ServerConfig {
    /// Finds the server before every attempt.
    pub connector: Arc<dyn Connector>,
    /// Whether opening may fail for want of a server.
    pub connect: Connect,
    pub settings: SenderSettings,
}

impl ServerConfig {
    /// The contract's defaults, mode `auto`.
    pub fn new(connector: Arc<dyn Connector>) -> Self {
        Self {
            connector,
            connect: Connect::Within(Duration::from_secs(5)),
            settings: SenderSettings::default(),
        }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("destination", &self.connector.describe())
            .field("connect", &self.connect)
            .field("settings", &self.settings)
            .finish()
    }
}

/// How long opening waits for the server, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// Mode `auto`: after this time go on into the spool and keep connecting.
    Within(Duration),
    /// Mode `online`: fail after this time.
    Required(Duration),
}

/// When batches are sealed and how.
#[derive(Clone, Copy, Debug)]
pub struct BatchConfig {
    /// Longest that a point waits to be sealed.
    pub max_age: Duration,
    /// Largest message, the envelope included.
    pub max_msg_size: usize,
    pub compression: Compression,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(1),
            max_msg_size: 1024 * 1024,
            compression: Compression::default(),
        }
    }
}

/// What happens when the queue is full.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Most points that are accepted and not yet sealed; `None`: what the ring's bytes hold.
    pub capacity: Option<u64>,
    pub strategy: BackpressureStrategy,
    /// How long a call waits for room before the strategy applies; `Block` waits on.
    pub enqueue_timeout: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            capacity: None,
            strategy: BackpressureStrategy::DropNew,
            enqueue_timeout: Duration::from_millis(100),
        }
    }
}

/// What a call does when there is no room for its points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackpressureStrategy {
    /// Drop them and count them.
    #[default]
    DropNew,
    /// Wait for room as long as it takes.
    Block,
    /// Fail with [`LogError::QueueFull`](crate::error::LogError::QueueFull).
    Raise,
}

/// The spool on disk.
#[derive(Clone, Debug, Default)]
pub struct SpoolConfig {
    /// Most bytes a writer's spool takes; `None`: until 5 % or 1 GiB of the disk is left.
    pub max_bytes: Option<u64>,
    pub options: SpoolOptions,
}

/// When the spool is forced to the disk. Death of the process needs none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// The operating system decides.
    #[default]
    Never,
    /// At most this long after a write.
    Interval(Duration),
    /// After every batch.
    Always,
}
