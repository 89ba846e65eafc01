//! What Python hands over to open a run, as the engine's configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrana_engine::config::{
    BackpressureStrategy, BatchConfig, Connect, EngineConfig, FsyncPolicy, LogLevel, QueueConfig,
    ResumeStrategy, RunConfig, ServerConfig, SpoolConfig,
};
use metrana_engine::ring::RingOptions;
use metrana_engine::sender::{Destination, SenderSettings};
use metrana_engine::spool::SpoolOptions;
use metrana_engine::types::{Compression, RunId};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::faults::ErrorStrategy;

/// How long written batches may stay out of reach of a power cut with `fsync="interval"`.
const FSYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A `metrana.engine_options.EngineOptions`: resolved and checked, so what is wrong here is a bug.
#[derive(FromPyObject)]
pub struct Options {
    data_dir: PathBuf,
    destination: String,
    workspace_name: String,
    project_name: String,
    run_name: Option<String>,
    experiment_name: String,
    run_id: Option<String>,
    orchestration_id: String,
    resume_strategy: String,
    create_project_if_missing: bool,
    logger_id: String,
    /// `local`: wherever the local server's state file says; else a URL.
    server: Option<String>,
    api_key: Option<String>,
    connect_required: bool,
    connect_within_secs: f64,
    max_pending_requests: usize,
    max_send_retries: Option<u32>,
    send_retry_initial_backoff_secs: f64,
    send_retry_max_backoff_secs: f64,
    batch_max_age_secs: f64,
    max_msg_size: usize,
    compression: String,
    queue_capacity: Option<u64>,
    backpressure_strategy: String,
    enqueue_timeout_secs: f64,
    spool_max_bytes: Option<u64>,
    fsync: String,
    error_strategy: String,
    log_level: String,
}

impl Options {
    /// How faults of background threads come to light.
    ///
    /// # Errors
    ///
    /// An unknown name.
    pub fn error_strategy(&self) -> PyResult<ErrorStrategy> {
        ErrorStrategy::from_name(&self.error_strategy)
            .ok_or_else(|| unknown("error_strategy", &self.error_strategy))
    }

    /// The engine's configuration.
    ///
    /// # Errors
    ///
    /// An unknown name.
    pub fn into_config(self) -> PyResult<EngineConfig> {
        Ok(EngineConfig {
            server: self.server(),
            batch: self.batch()?,
            queue: self.queue()?,
            spool: self.spool()?,
            ring: RingOptions::default(),
            log_level: LogLevel::from_name(&self.log_level)
                .ok_or_else(|| unknown("log_level", &self.log_level))?,
            run: RunConfig {
                resume: match self.resume_strategy.as_str() {
                    "never" => ResumeStrategy::Never,
                    "allow" => ResumeStrategy::Allow,
                    other => return Err(unknown("resume_strategy", other)),
                },
                run_id: self.run_id.map(|id| id.parse::<RunId>()).transpose().map_err(
                    |error: metrana_engine::types::IdParseError| {
                        PyValueError::new_err(error.to_string())
                    },
                )?,
                destination: self.destination,
                workspace_name: self.workspace_name,
                project_name: self.project_name,
                run_name: self.run_name,
                experiment_name: self.experiment_name,
                orchestration_id: self.orchestration_id,
                create_project_if_missing: self.create_project_if_missing,
                logger_id: self.logger_id,
                client_version: metrana_engine::VERSION.to_owned(),
            },
            data_dir: self.data_dir,
        })
    }

    fn server(&self) -> Option<ServerConfig> {
        let destination = match self.server.as_deref()? {
            "local" => Destination::Local { data_dir: self.data_dir.clone() },
            url => Destination::Server { url: url.to_owned(), token: self.api_key.clone() },
        };
        let within = seconds(self.connect_within_secs);
        let connect =
            if self.connect_required { Connect::Required(within) } else { Connect::Within(within) };
        let settings = SenderSettings {
            max_pending_requests: self.max_pending_requests,
            max_send_retries: self.max_send_retries,
            initial_backoff: seconds(self.send_retry_initial_backoff_secs),
            max_backoff: seconds(self.send_retry_max_backoff_secs),
            ..SenderSettings::default()
        };
        Some(ServerConfig { connector: Arc::new(destination), connect, settings })
    }

    fn batch(&self) -> PyResult<BatchConfig> {
        Ok(BatchConfig {
            max_age: seconds(self.batch_max_age_secs),
            max_msg_size: self.max_msg_size,
            compression: match self.compression.as_str() {
                "none" => Compression::None,
                "zstd" => Compression::Zstd,
                other => return Err(unknown("compression", other)),
            },
        })
    }

    fn queue(&self) -> PyResult<QueueConfig> {
        Ok(QueueConfig {
            capacity: self.queue_capacity,
            strategy: match self.backpressure_strategy.as_str() {
                "drop_new" => BackpressureStrategy::DropNew,
                "block" => BackpressureStrategy::Block,
                "raise" => BackpressureStrategy::Raise,
                other => return Err(unknown("backpressure_strategy", other)),
            },
            enqueue_timeout: seconds(self.enqueue_timeout_secs),
        })
    }

    fn spool(&self) -> PyResult<SpoolConfig> {
        let fsync = match self.fsync.as_str() {
            "never" => FsyncPolicy::Never,
            "interval" => FsyncPolicy::Interval(FSYNC_INTERVAL),
            "always" => FsyncPolicy::Always,
            other => return Err(unknown("fsync", other)),
        };
        let options = SpoolOptions { fsync, ..SpoolOptions::default() };
        Ok(SpoolConfig { max_bytes: self.spool_max_bytes, options })
    }
}

/// A duration of as many seconds as one can have.
pub fn seconds(count: f64) -> Duration {
    Duration::try_from_secs_f64(count).unwrap_or(Duration::MAX)
}

fn unknown(name: &str, value: &str) -> PyErr {
    PyValueError::new_err(format!("{name}: {value:?} is unknown"))
}
