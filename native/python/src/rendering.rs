//! Renderings: what encoders ask of their writer, and pieces as a server takes them in.

use metrana_engine::batch::{self, RenderingEnd};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyTuple};

use crate::error::{log_error, run_is_closed, value_error};
use crate::writer::Writer;

/// Where a writer's renderings are encoded; `None` in mode `disabled`.
///
/// # Errors
///
/// `MetranaLoggerClosedError`, `OSError`.
pub fn folder(py: Python<'_>, writer: &Writer) -> PyResult<Option<String>> {
    let Some(engine) = writer.engine() else { return Ok(None) };
    match py.detach(|| engine.rendering_folder())? {
        Some(folder) => Ok(Some(folder.to_string_lossy().into_owned())),
        None => Err(run_is_closed(py)),
    }
}

/// Gives a finished rendering to its writer.
///
/// # Errors
///
/// `ValueError` for no id, `MetranaLoggerClosedError`.
pub fn finished(py: Python<'_>, writer: &Writer, rendering_id: &str) -> PyResult<()> {
    let id = rendering_id.parse().map_err(|_| {
        PyValueError::new_err(format!("rendering_id {rendering_id:?}: 32 hexadecimal digits"))
    })?;
    let Some(engine) = writer.engine() else { return Ok(()) };
    py.detach(|| engine.rendering_finished(id)).map_err(|error| log_error(py, error))
}

/// What the last piece of a rendering says of the whole.
#[pyclass(frozen, get_all, module = "metrana._native")]
pub struct RenderingInfo {
    /// The environment that it shows.
    env_id: String,
    /// The episode that it shows.
    episode: i64,
    /// That of the first frame.
    rl_step: i64,
    /// Its place among the videos of the episode, from 1.
    part: u32,
    /// Pixels.
    width: u32,
    /// Pixels.
    height: u32,
    /// Frames a second.
    fps: f64,
    /// Frames; 0: the file does not say.
    frame_count: u64,
    /// Bytes of the file.
    size: u64,
    /// The file's SHA-256, 32 bytes.
    sha256: Py<PyBytes>,
}

impl RenderingInfo {
    fn new(py: Python<'_>, end: RenderingEnd) -> Self {
        Self {
            env_id: end.env_id,
            episode: end.episode,
            rl_step: end.rl_step,
            part: end.part,
            width: end.width,
            height: end.height,
            fps: end.fps,
            frame_count: end.frame_count,
            size: end.size,
            sha256: PyBytes::new(py, &end.sha256).unbind(),
        }
    }
}

/// Decode a piece of a rendering.
///
/// Args:
///     payload: Payload of a batch of kind `renderings`.
///
/// Returns:
///     `(rendering_id, offset, data, last)`: the 16 bytes of the id, where in the file `data` belongs,
///     a memoryview into `payload`, and a `RenderingInfo` if this is the last piece, else None.
///
/// Raises:
///     ValueError: For bytes that are no piece of a rendering of a known version.
#[pyfunction]
pub fn decode_rendering<'py>(payload: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyTuple>> {
    let py = payload.py();
    let bytes = PyBackedBytes::from(payload.clone());
    let piece = batch::decode_piece(&bytes).map_err(|error| value_error(&error))?;
    let from = bytes.len() - piece.data.len();
    let last = piece.last.map(|end| Bound::new(py, RenderingInfo::new(py, end))).transpose()?;
    let view = py.import("builtins")?.getattr("memoryview")?.call1((payload,))?;
    let data = view.get_item(pyo3::types::PySlice::new(py, from as isize, isize::MAX, 1))?;
    (PyBytes::new(py, &piece.rendering_id.0), piece.offset, data, last).into_pyobject(py)
}
