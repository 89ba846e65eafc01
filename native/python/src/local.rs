//! The local server of a data directory.

use std::path::PathBuf;

use metrana_engine::server_state::find_local_server as find;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::options::seconds;

/// Find the server that runs on this machine for a data directory. Blocks up to the timeout.
///
/// Args:
///     data_dir: The data directory.
///     timeout_secs: Longest wait for it to take a connection.
///
/// Returns:
///     `http_url`, `grpc_url`, `token` (None: it asks for none), `pid`; or None if none runs.
///
/// Raises:
///     RuntimeError: If its state file is there and cannot be read.
#[pyfunction]
#[pyo3(signature = (data_dir, timeout_secs=0.2))]
pub fn find_local_server(
    py: Python<'_>,
    data_dir: PathBuf,
    timeout_secs: f64,
) -> PyResult<Option<Bound<'_, PyDict>>> {
    let found = py.detach(|| find(&data_dir, seconds(timeout_secs)));
    let Some(state) = found.map_err(|error| PyRuntimeError::new_err(error.to_string()))? else {
        return Ok(None);
    };
    let dict = PyDict::new(py);
    dict.set_item("http_url", &state.http_url)?;
    dict.set_item("grpc_url", &state.grpc_url)?;
    dict.set_item("token", state.token())?;
    dict.set_item("pid", state.pid)?;
    Ok(Some(dict))
}
