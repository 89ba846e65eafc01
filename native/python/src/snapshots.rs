//! What a writer says of itself, as the dicts that the client makes its snapshots of.

use metrana_engine::counters::{Counters, Kind};
use metrana_engine::engine::Identity;
use metrana_engine::status::Status;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Counters as `get_metrics()` names them.
const KINDS: [(&str, Kind); 4] = [
    ("float_points", Kind::Float),
    ("rl_float_points", Kind::Rl),
    ("attribute_updates", Kind::Attribute),
    ("env_attribute_updates", Kind::EnvAttribute),
];

/// Who the run and its writer are, by name.
///
/// # Errors
///
/// `MemoryError`, here and below.
pub fn identity(py: Python<'_>, identity: Identity) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("run_id", identity.run_id.to_string())?;
    dict.set_item("writer_id", identity.writer_id.to_string())?;
    dict.set_item("writer_number", identity.writer_number)?;
    dict.set_item("workspace_name", identity.workspace_name)?;
    dict.set_item("project_name", identity.project_name)?;
    dict.set_item("run_name", identity.run_name)?;
    dict.set_item("orchestration_id", identity.orchestration_id)?;
    dict.set_item("created", identity.created)?;
    Ok(dict)
}

/// The counters, by the attribute names of `get_metrics()`; `evicted` errors beside the engine's.
pub fn counters<'py>(
    py: Python<'py>,
    counters: &Counters,
    evicted: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let tallies = [
        ("added", counters.added),
        ("enqueued", counters.enqueued),
        ("spooled", counters.spooled),
        ("sent", counters.sent),
        ("dropped", counters.dropped),
    ];
    for (kind_name, kind) in KINDS {
        for (verb, tally) in tallies {
            dict.set_item(format!("{kind_name}_{verb}"), tally.get(kind))?;
        }
    }
    dict.set_item("connection_attempts", counters.connection_attempts)?;
    dict.set_item("requests_sent", counters.requests_sent)?;
    dict.set_item("send_errors", counters.send_errors)?;
    dict.set_item("errors_reported", counters.errors_reported)?;
    dict.set_item("errors_evicted", counters.errors_evicted + evicted)?;
    Ok(dict)
}

/// `points` and `attributes` that are neither sent nor dropped, how many of both are `unsealed`, and
/// how many more are `lost` though they were accepted.
pub fn left<'py>(py: Python<'py>, counters: &Counters) -> PyResult<Bound<'py, PyDict>> {
    let Counters { pending, unsealed, lost, .. } = counters;
    let dict = PyDict::new(py);
    dict.set_item("points", pending.points())?;
    dict.set_item("attributes", pending.total() - pending.points())?;
    dict.set_item("unsealed", unsealed.total())?;
    dict.set_item("lost", lost.total())?;
    Ok(dict)
}

/// How the writer is doing, by the attribute names of `status()`.
pub fn status(py: Python<'_>, status: Status) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("server_url", status.server_url)?;
    dict.set_item("connected", status.connected)?;
    dict.set_item("ring", status.ring)?;
    dict.set_item("loss_window_ms", status.loss_window.as_secs_f64() * 1000.0)?;
    dict.set_item("pending_points", status.pending_points)?;
    dict.set_item("spooled_bytes", status.spooled_bytes)?;
    dict.set_item("last_ack_age_s", status.last_ack_age.map(|age| age.as_secs_f64()))?;
    dict.set_item("problems", status.problems)?;
    Ok(dict)
}
