//! What can go wrong, one enum per operation. The binding maps each variant to an exception in one
//! place; messages name the argument as the user wrote it.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// An argument that is refused, before anything of its call has been logged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{argument}: {message}")]
pub struct InvalidArgument {
    /// The argument's name in the public API.
    pub argument: &'static str,
    /// What it was and what is allowed.
    pub message: String,
}

impl InvalidArgument {
    pub fn new(argument: &'static str, message: impl Into<String>) -> Self {
        Self { argument, message: message.into() }
    }
}

/// Why a writer could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// The run exists and resuming it was not allowed.
    #[error(
        "run {run_name:?} exists with orchestration_id {theirs:?}, this process has {ours:?}: \
         choose another run_name, give the same orchestration_id, or resume_strategy=\"allow\""
    )]
    OrchestrationMismatch { run_name: String, ours: String, theirs: String },
    /// `run_id` names no run.
    #[error("no run with run_id {0}")]
    RunNotFound(String),
    /// The server refused the run.
    #[error("the server refused the run: {message}")]
    Refused { reason: RefusalReason, message: String },
    /// Mode `online` and no server within the time given.
    #[error("no connection to {url} within {waited:?}: {problem}")]
    NotConnected { url: String, waited: Duration, problem: String },
    /// The caller's interrupt check said stop.
    #[error("interrupted while opening the run")]
    Interrupted,
    /// The engine was built without the transport that the configuration asks for.
    #[error("this build has no transport for {0}")]
    NoTransport(String),
    #[error("{action}: {source}")]
    Io { action: String, source: io::Error },
}

/// Why a server refused a run, as the binding needs to tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    Version,
    Unauthenticated,
    RunExists,
    OrchestrationMismatch,
    RunNotFound,
    RunDeleted,
    ProjectNotFound,
    Other,
}

/// Why a call logged nothing, or not all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// Nothing of the call was logged.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// Strategy `raise`: these points were counted as dropped.
    #[error("the queue is full: {dropped} points were not taken after waiting {waited:?}")]
    QueueFull { dropped: u64, waited: Duration },
    /// The caller's interrupt check said stop: the rest of the call was counted as dropped.
    #[error("interrupted while waiting for room: {dropped} points were not taken")]
    Interrupted { dropped: u64 },
    #[error("the run is closed")]
    Closed,
}

/// Why a flush or a close came back early.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlushError {
    /// What is pending stays in ring and spool. If nothing is, the server or the disk has not said in
    /// time that it took the writer's end.
    #[error("{}", undelivered(*pending, *renderings, *waited))]
    Timeout {
        /// Points and attributes.
        pending: u64,
        /// Finished renderings, and at a close those that were being encoded.
        renderings: u64,
        waited: Duration,
    },
    /// The spool took nothing, and without shared memory there is nothing else that keeps it.
    #[error(
        "{lost} points and attributes are lost: nothing could be written to the spool for {:.1} s, \
         and the ring was in this process's memory",
        waited.as_secs_f64()
    )]
    Lost { lost: u64, waited: Duration },
    #[error("interrupted while flushing")]
    Interrupted,
    #[error("the run is closed")]
    Closed,
}

fn undelivered(pending: u64, renderings: u64, waited: Duration) -> String {
    let waited = waited.as_secs_f64();
    let videos = if renderings == 1 { "rendering" } else { "renderings" };
    let what = match (pending, renderings) {
        (0, 0) => {
            return format!(
                "nothing is undelivered, but the run's end was not confirmed after {waited:.1} s"
            );
        }
        (_, 0) => format!("{pending} points and attributes are"),
        (0, 1) => format!("1 {videos} is"),
        (0, _) => format!("{renderings} {videos} are"),
        (_, _) => format!("{pending} points and attributes and {renderings} {videos} are"),
    };
    format!("{what} still undelivered after {waited:.1} s")
}
