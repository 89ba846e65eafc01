//! Delivery of what dead writers left, to a server: `metrana sync`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use metrana_engine::deliver::{DeadWriters, DeliveryEvent, DeliveryOptions, OnEvent, OnRetry};
use metrana_engine::sender::{Cancel, Destination};
use metrana_engine::sync::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::spool::recovery_options;

/// How often Python gets to handle its signals.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the delivering thread tells the one that waits; it never touches a Python object.
enum Told {
    Delivered {
        project_name: String,
        run_name: String,
        number: u32,
        batch_count: u64,
        warning: Option<String>,
    },
    /// As many batches of a writer whose folder is kept.
    Rest(u64),
    Problem(String),
    /// Why the first attempt failed that is made again.
    Retry(String),
}

/// Deliver every dead writer of a data directory to a server.
///
/// Blocks until all is acknowledged or nothing more can be done; the GIL is released meanwhile and
/// Ctrl-C ends it, which loses nothing. Writers that live, or that somebody else delivers, are left
/// alone.
///
/// Args:
///     data_dir: The data directory.
///     url: The server, for which the data of every run is taken; None: the local server, for
///         which that of local runs is.
///     token: What the server asks for; a local server's is found.
///     force: Take over writers of other machines too.
///     on_delivered: Called with `project_name`, `run_name`, `number`, `batch_count` and `warning`
///         (None, or that the run is stored under another name) of each writer that is done.
///     server_dir: Without a URL, the data directory whose local server it is. Default: `data_dir`.
///     on_retry: Called once, at the first attempt that fails and is made again, with its error.
///
/// Returns:
///     `writer_count`, `batch_count` and `problems`.
///
/// Raises:
///     KeyboardInterrupt: For Ctrl-C.
///     RuntimeError: If no thread could be started.
#[pyfunction]
#[pyo3(signature = (data_dir, url=None, token=None, force=false, on_delivered=None, server_dir=None, on_retry=None))]
#[expect(clippy::too_many_arguments, reason = "keywords in Python")]
pub fn deliver_spools<'py>(
    py: Python<'py>,
    data_dir: PathBuf,
    url: Option<String>,
    token: Option<String>,
    force: bool,
    on_delivered: Option<&Bound<'py, PyAny>>,
    server_dir: Option<PathBuf>,
    on_retry: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (told, heard) = mpsc::channel();
    // A receiver may not be lent to the code that runs without the GIL as it is.
    let heard = Mutex::new(heard);
    // Dropped on the way out, whichever that is: the thread ends soon after.
    let (_canceller, cancel) = Cancel::pair();
    let destination = if let Some(url) = url {
        (Destination::Server { url: url.clone(), token }, url)
    } else {
        let data_dir = server_dir.unwrap_or_else(|| data_dir.clone());
        (Destination::Local { data_dir }, "local".to_owned())
    };
    let mut writers = dead_writers(data_dir, destination, force);
    writers.options.on_retry = tell_once(told.clone());
    thread::Builder::new()
        .name("metrana-deliver".to_owned())
        .spawn(move || sweep(&writers, &cancel, told))
        .map_err(|error| PyRuntimeError::new_err(format!("cannot deliver: {error}")))?;
    let (mut writer_count, mut total, mut problems) = (0_u64, 0_u64, Vec::new());
    loop {
        match py.detach(|| heard.lock().recv_timeout(LOOK_INTERVAL)) {
            Ok(Told::Problem(problem)) => problems.push(problem),
            Ok(Told::Retry(error)) => {
                if let Some(call) = on_retry {
                    call.call1((error,))?;
                }
            }
            Ok(Told::Delivered { project_name, run_name, number, batch_count, warning }) => {
                writer_count += 1;
                total += batch_count;
                if let Some(call) = on_delivered {
                    let event = PyDict::new(py);
                    event.set_item("project_name", project_name)?;
                    event.set_item("run_name", run_name)?;
                    event.set_item("number", number)?;
                    event.set_item("batch_count", batch_count)?;
                    event.set_item("warning", warning)?;
                    call.call1((event,))?;
                }
            }
            Ok(Told::Rest(batch_count)) => total += batch_count,
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let report = PyDict::new(py);
    report.set_item("writer_count", writer_count)?;
    report.set_item("batch_count", total)?;
    report.set_item("problems", problems)?;
    Ok(report)
}

fn dead_writers(
    data_dir: PathBuf,
    (destination, name): (Destination, String),
    force: bool,
) -> DeadWriters {
    let is_local = name == "local";
    DeadWriters {
        data_dir,
        of_destination: is_local.then(|| name.clone()),
        options: DeliveryOptions::new(Arc::new(destination), name),
        recovery: recovery_options(),
        force,
    }
}

fn tell_once(told: mpsc::Sender<Told>) -> OnRetry {
    let is_told = AtomicBool::new(false);
    Arc::new(move |error| {
        if !is_told.swap(true, Ordering::Relaxed) {
            // As in `sweep`.
            let _ = told.send(Told::Retry(error.to_owned()));
        }
    })
}

fn sweep(writers: &DeadWriters, cancel: &Cancel, told: mpsc::Sender<Told>) {
    let on_event: OnEvent = Arc::new(move |event| {
        // A failed send: whoever waited has gone, and there is nobody to tell.
        if let DeliveryEvent::Delivered { run, number, delivered } = &event {
            let warning = delivered.opened.renamed();
            if delivered.kept.is_some() {
                let _ = told.send(Told::Rest(delivered.batch_count));
                if let Some(warning) = warning {
                    let _ = told.send(Told::Problem(warning));
                }
            } else {
                let run = run.run();
                let _ = told.send(Told::Delivered {
                    project_name: run.project_name.clone(),
                    run_name: run.run_name.clone(),
                    number: *number,
                    batch_count: delivered.batch_count,
                    warning,
                });
            }
        }
        for problem in event.problems() {
            let _ = told.send(Told::Problem(problem));
        }
    });
    writers.deliver(cancel, &on_event);
}
