//! The one place where errors of the engine become Python exceptions.

use metrana_engine::engine::InterruptCheck;
use metrana_engine::error::{FlushError, InvalidArgument, LogError, OpenError, RefusalReason};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::writer::Writer;

macro_rules! exceptions {
    ($($name:ident = $class:literal),* $(,)?) => {$(
        #[doc = concat!("Makes a `", $class, "`.")]
        pub fn $name(py: Python<'_>, message: impl Into<String>) -> PyErr {
            static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            match CLASS.import(py, "metrana.errors", $class) {
                Ok(class) => PyErr::from_type(class.clone(), (message.into(),)),
                Err(error) => error,
            }
        }
    )*};
}

exceptions! {
    already_exists = "MetranaRunAlreadyExistsError",
    closed = "MetranaLoggerClosedError",
    closing = "MetranaClosingError",
    init = "MetranaLoggerInitError",
    mismatch = "MetranaOrchestrationIdMismatchError",
    no_api_key = "NoMetranaApiKeyError",
    not_initialized = "MetranaNotInitializedError",
    process_fork = "MetranaProcessForkError",
    queue_full = "MetranaEventQueueFullError",
    sender = "MetranaSenderError",
    validation = "MetranaValidationError",
}

/// An error in bytes that came from elsewhere.
pub fn value_error(error: &dyn std::error::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

pub fn invalid(py: Python<'_>, error: &InvalidArgument) -> PyErr {
    validation(py, error.to_string())
}

/// A call on a run that is closed.
pub fn run_is_closed(py: Python<'_>) -> PyErr {
    closed(py, "the run is closed: call metrana.init() to open another, or this one again")
}

pub fn log_error(py: Python<'_>, error: LogError) -> PyErr {
    match error {
        LogError::Invalid(error) => invalid(py, &error),
        LogError::QueueFull { .. } => queue_full(py, error.to_string()),
        // Without a pending exception of its own only if the check was not ours.
        LogError::Interrupted { .. } => sender(py, error.to_string()),
        LogError::Closed => run_is_closed(py),
    }
}

pub fn flush_error(py: Python<'_>, error: FlushError, writer: &Writer) -> PyErr {
    match error {
        FlushError::Timeout { pending: 1.., .. } => {
            closing(py, format!("{error}; {}", whereabouts(py, writer)))
        }
        FlushError::Timeout { renderings: 1.., .. } => {
            let data_dir = writer.engine().map(|engine| engine.data_dir().join("spool"));
            let spool = data_dir.unwrap_or_default();
            let spool = spool.display();
            let then = "metrana sync delivers what is there once this process has ended";
            closing(py, format!("{error}; {spool} keeps them, and {then}"))
        }
        FlushError::Timeout { .. } | FlushError::Lost { .. } | FlushError::Interrupted => {
            closing(py, error.to_string())
        }
        FlushError::Closed => run_is_closed(py),
    }
}

/// Where what a writer has not delivered yet is, and who delivers it.
fn whereabouts(py: Python<'_>, writer: &Writer) -> String {
    let (Some(engine), Some(counters), Some(status)) =
        (writer.engine(), writer.counters(py), writer.status(py))
    else {
        return String::new();
    };
    let is_lasting = status.ring == "tmpfs";
    let memory = if is_lasting {
        "this machine's memory until it is restarted"
    } else {
        "this process's memory, which are lost if it ends before its disk takes them"
    };
    let spool = engine.data_dir().join("spool");
    let spool = spool.display();
    let pending = counters.pending.total();
    let unsealed = counters.unsealed.total();
    let sealed = pending.saturating_sub(unsealed);
    let places = match sealed {
        0 => format!("they are in {memory}"),
        _ if unsealed == 0 => format!("they are in {spool}"),
        _ => format!("{sealed} of them are in {spool}, {unsealed} in {memory}"),
    };
    let which = match sealed {
        _ if is_lasting || unsealed == 0 => "them",
        0 => return places,
        _ => "those in the spool",
    };
    format!("{places}; metrana sync delivers {which} once this process has ended")
}

pub fn open_error(py: Python<'_>, error: OpenError) -> PyErr {
    let message = error.to_string();
    match error {
        OpenError::Invalid(error) => invalid(py, &error),
        OpenError::OrchestrationMismatch { .. } => mismatch(py, message),
        OpenError::Refused { reason, .. } => match reason {
            RefusalReason::RunExists => already_exists(py, message),
            RefusalReason::OrchestrationMismatch => mismatch(py, message),
            RefusalReason::Unauthenticated => no_api_key(py, message),
            RefusalReason::Version
            | RefusalReason::RunNotFound
            | RefusalReason::RunDeleted
            | RefusalReason::ProjectNotFound
            | RefusalReason::Other => init(py, message),
        },
        OpenError::RunNotFound(_)
        | OpenError::NotConnected { .. }
        | OpenError::Interrupted
        | OpenError::NoTransport(_)
        | OpenError::Io { .. } => init(py, message),
    }
}

/// Runs what may wait, without the interpreter's lock and open to Ctrl-C.
///
/// # Errors
///
/// What a signal handler raised meanwhile, else what `map` makes of the operation's error.
pub fn waiting<T: Send, E: Send>(
    py: Python<'_>,
    operation: impl FnOnce(InterruptCheck<'_>) -> Result<T, E> + Send,
    map: impl FnOnce(Python<'_>, E) -> PyErr,
) -> PyResult<T> {
    let mut raised = None;
    let result = py.detach(|| {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method lacks `for<'py>`"
        )]
        operation(&mut || match Python::attach(|py| py.check_signals()) {
            Ok(()) => false,
            Err(error) => {
                raised = Some(error);
                true
            }
        })
    });
    match (raised, result) {
        (Some(error), _) => Err(error),
        (None, result) => result.map_err(|error| map(py, error)),
    }
}
