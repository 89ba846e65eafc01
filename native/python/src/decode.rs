//! Sealed payloads as Python and NumPy objects: what a server needs to take batches in.
//!
//! Everything here works on bytes that came from elsewhere. What is wrong with them is a
//! `ValueError`, never a panic.

use metrana_engine::attributes::{self, AttributeOperation, AttributeValue, CloseStatus};
use metrana_engine::batch::{self, PointColumns};
use metrana_engine::declarations::{self, Declaration};
use metrana_engine::types::BatchKind;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::error::value_error;

/// The catalog's numbers for one batch: who wrote it, and what its local numbers stand for.
///
/// Args:
///     run_no: Number of the run.
///     writer_no: Number of the writer.
///     seq: The batch's sequence number.
///     logger_no: Number of the logger, for points of `log_distributed`; other points get 0.
///     metric_nos: Catalog numbers by local metric number, a uint32 array; 0 means undeclared.
///     env_nos: The same for environments; local number 0 is "none" and stays 0.
#[pyclass(frozen, module = "metrana._native")]
pub struct NumberMap {
    run_no: u32,
    writer_no: u32,
    seq: u64,
    logger_no: u32,
    metric_nos: Vec<u32>,
    env_nos: Vec<u32>,
}

#[pymethods]
impl NumberMap {
    #[new]
    fn new(
        run_no: u32,
        writer_no: u32,
        seq: u64,
        logger_no: u32,
        metric_nos: PyReadonlyArray1<'_, u32>,
        env_nos: PyReadonlyArray1<'_, u32>,
    ) -> Self {
        let (metric_nos, env_nos) = (metric_nos.as_array(), env_nos.as_array());
        Self {
            run_no,
            writer_no,
            seq,
            logger_no,
            metric_nos: metric_nos.to_vec(),
            env_nos: env_nos.to_vec(),
        }
    }
}

/// Why a batch could not be turned into rows of the store.
#[derive(Debug, thiserror::Error)]
enum RowsError {
    #[error("batch {seq}: {source}")]
    Payload { seq: u64, source: batch::DecodeError },
    #[error("batch {seq} uses {kind} {number}, which was not declared")]
    Undeclared { seq: u64, kind: &'static str, number: u32 },
}

/// Rows of the points table, but for the columns that are the same throughout a batch.
#[derive(Default)]
struct Rows {
    points: PointColumns,
    run_no: Vec<u32>,
    logger_no: Vec<u32>,
    writer_no: Vec<u32>,
    seq: Vec<u64>,
}

impl Rows {
    fn append(&mut self, payload: &[u8], map: &NumberMap) -> Result<(), RowsError> {
        let first = self.points.value.len();
        batch::decode_points(payload, &mut self.points)
            .map_err(|source| RowsError::Payload { seq: map.seq, source })?;
        let end = self.points.value.len();
        for number in &mut self.points.metric_no[first..] {
            *number = translate(&map.metric_nos, *number, "metric", map.seq)?;
        }
        for number in self.points.env_no[first..].iter_mut().filter(|number| **number != 0) {
            *number = translate(&map.env_nos, *number, "environment", map.seq)?;
        }
        let logger_nos =
            self.points.distributed[first..].iter().map(|flag| u32::from(*flag) * map.logger_no);
        self.logger_no.extend(logger_nos);
        self.run_no.resize(end, map.run_no);
        self.writer_no.resize(end, map.writer_no);
        self.seq.resize(end, map.seq);
        Ok(())
    }

    /// The columns in the order of the store's schema.
    fn into_arrays(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let arrays = PyDict::new(py);
        let Self { points, run_no, logger_no, writer_no, seq } = self;
        arrays.set_item("run_no", PyArray1::from_vec(py, run_no))?;
        arrays.set_item("metric_no", PyArray1::from_vec(py, points.metric_no))?;
        arrays.set_item("env_no", PyArray1::from_vec(py, points.env_no))?;
        arrays.set_item("rl_step", PyArray1::from_vec(py, points.rl_step))?;
        arrays.set_item("episode", PyArray1::from_vec(py, points.episode))?;
        arrays.set_item("step", PyArray1::from_vec(py, points.step))?;
        arrays.set_item("timestamp_ms", PyArray1::from_vec(py, points.timestamp_ms))?;
        arrays.set_item("value", PyArray1::from_vec(py, points.value))?;
        arrays.set_item("logger_no", PyArray1::from_vec(py, logger_no))?;
        arrays.set_item("writer_no", PyArray1::from_vec(py, writer_no))?;
        arrays.set_item("seq", PyArray1::from_vec(py, seq))?;
        arrays.set_item("ordinal", PyArray1::from_vec(py, points.ordinal))?;
        arrays.set_item("rewound", PyArray1::from_vec(py, points.rewound))?;
        Ok(arrays)
    }
}

fn translate(numbers: &[u32], local: u32, kind: &'static str, seq: u64) -> Result<u32, RowsError> {
    match numbers.get(local as usize) {
        Some(&number) if number != 0 => Ok(number),
        _ => Err(RowsError::Undeclared { seq, kind, number: local }),
    }
}

/// Decode points batches into the columns of the points table.
///
/// The GIL is released while decoding. Either all batches are decoded or none.
///
/// Args:
///     batches: Payloads of points batches, each with the catalog's numbers for it.
///
/// Returns:
///     Arrays of equal length by column name, in the order of the schema: run_no, metric_no, env_no
///     (uint32), rl_step, episode, step, timestamp_ms (int64), value (float64), logger_no, writer_no
///     (uint32), seq (uint64), ordinal (uint16), rewound (uint8).
///
/// Raises:
///     ValueError: For bytes that are no points payload of a known version, or a number that the
///         map does not know. The message names the batch's seq.
#[pyfunction]
pub fn decode_points(
    py: Python<'_>,
    batches: Vec<(PyBackedBytes, Py<NumberMap>)>,
) -> PyResult<Bound<'_, PyDict>> {
    let rows = py.detach(|| {
        let mut rows = Rows::default();
        for (payload, map) in &batches {
            rows.append(payload, map.get())?;
        }
        Ok(rows)
    });
    rows.map_err(|error: RowsError| value_error(&error))?.into_arrays(py)
}

/// What a sealed payload says of itself, without decoding it.
#[pyclass(frozen, get_all, module = "metrana._native")]
pub struct BatchInfo {
    /// `points` or `attributes`.
    kind: &'static str,
    /// Points of `log` and `log_distributed`.
    float_point_count: u64,
    /// Points of the RL functions.
    rl_point_count: u64,
    /// Attributes, tags and descriptions of the run.
    attribute_count: u64,
    /// Attributes of environments and episodes.
    env_attribute_count: u64,
}

/// Read kind and counts of a points or attributes payload without decoding the rest.
///
/// Raises:
///     ValueError: For bytes that are no payload of a known version.
#[pyfunction]
pub fn batch_info(payload: PyBackedBytes) -> PyResult<BatchInfo> {
    let info = batch::peek(&payload).map_err(|error| value_error(&error))?;
    let kind = match info.kind {
        BatchKind::Points => "points",
        BatchKind::Attributes => "attributes",
    };
    Ok(BatchInfo {
        kind,
        float_point_count: info.float_point_count,
        rl_point_count: info.rl_point_count,
        attribute_count: info.attribute_count,
        env_attribute_count: info.env_attribute_count,
    })
}

/// Decode a declarations payload.
///
/// Returns:
///     `("metric", no, scale, name, labels)` and `("environment", no, env_id)` tuples in order.
///
/// Raises:
///     ValueError: For bytes that are no declarations payload of a known version.
#[pyfunction]
pub fn decode_declarations(py: Python<'_>, payload: PyBackedBytes) -> PyResult<Bound<'_, PyList>> {
    let entries = py
        .detach(|| declarations::decode_declarations(&payload))
        .map_err(|error| value_error(&error))?;
    let entries: Vec<_> =
        entries.into_iter().map(|entry| declaration(py, entry)).collect::<PyResult<_>>()?;
    PyList::new(py, entries)
}

fn declaration(py: Python<'_>, entry: Declaration) -> PyResult<Bound<'_, PyAny>> {
    match entry {
        Declaration::Metric { no, scale, name, labels } => {
            let labels = labels.into_iter().collect::<Labels>();
            ("metric", no.0, scale.name(), name, labels).into_bound_py_any(py)
        }
        Declaration::Environment { no, env_id } => {
            ("environment", no.0, env_id).into_bound_py_any(py)
        }
    }
}

/// Labels in the order in which they were written: sorted by key.
type Labels = std::collections::BTreeMap<String, String>;

/// Decode an attributes payload.
///
/// Returns:
///     Operations in order, as tuples: `("set", path, type, value, initial)`, `("set_env", env_no,
///     episode or None, path, type, value)`, `("set_tags" | "add_tags" | "remove_tags", tags,
///     initial)`, `("set_description", text, initial)` and `("close", status, timestamp_ms)`.
///     `initial` is True for what `init()` was given. `type` and `value` are `"null"` None, `"bool"`
///     bool, `"int"` str of decimal digits (exact at any size), `"float"` float, `"string"` str,
///     `"datetime"` str in ISO 8601, `"string_list"` list of str, `"empty_mapping"` {},
///     `"empty_list"` []. `status` is `"finished"` or `"failed"`.
///
/// Raises:
///     ValueError: For bytes that are no attributes payload of a known version.
#[pyfunction]
pub fn decode_attributes(py: Python<'_>, payload: PyBackedBytes) -> PyResult<Bound<'_, PyList>> {
    let updates = py
        .detach(|| attributes::decode_attributes(&payload))
        .map_err(|error| value_error(&error))?;
    let updates: Vec<_> = updates
        .into_iter()
        .map(|update| operation(py, update.operation, update.initial))
        .collect::<PyResult<_>>()?;
    PyList::new(py, updates)
}

fn operation(
    py: Python<'_>,
    operation: AttributeOperation,
    initial: bool,
) -> PyResult<Bound<'_, PyAny>> {
    match operation {
        AttributeOperation::Set { path, value } => {
            let (kind, value) = typed_value(py, value)?;
            ("set", path, kind, value, initial).into_bound_py_any(py)
        }
        AttributeOperation::SetEnvironment { env, episode, path, value } => {
            let (kind, value) = typed_value(py, value)?;
            ("set_env", env.0, episode, path, kind, value).into_bound_py_any(py)
        }
        AttributeOperation::SetTags(tags) => ("set_tags", tags, initial).into_bound_py_any(py),
        AttributeOperation::AddTags(tags) => ("add_tags", tags, initial).into_bound_py_any(py),
        AttributeOperation::RemoveTags(tags) => {
            ("remove_tags", tags, initial).into_bound_py_any(py)
        }
        AttributeOperation::SetDescription(text) => {
            ("set_description", text, initial).into_bound_py_any(py)
        }
        AttributeOperation::Close { status, timestamp_ms } => {
            let status = match status {
                CloseStatus::Finished => "finished",
                CloseStatus::Failed => "failed",
            };
            ("close", status, timestamp_ms).into_bound_py_any(py)
        }
    }
}

fn typed_value(
    py: Python<'_>,
    value: AttributeValue,
) -> PyResult<(&'static str, Bound<'_, PyAny>)> {
    Ok(match value {
        AttributeValue::Null => ("null", py.None().into_bound(py)),
        AttributeValue::Bool(flag) => ("bool", flag.into_bound_py_any(py)?),
        AttributeValue::Int(digits) => ("int", digits.into_bound_py_any(py)?),
        AttributeValue::Float(number) => ("float", number.into_bound_py_any(py)?),
        AttributeValue::Text(text) => ("string", text.into_bound_py_any(py)?),
        AttributeValue::DateTime(text) => ("datetime", text.into_bound_py_any(py)?),
        AttributeValue::TextList(texts) => ("string_list", texts.into_bound_py_any(py)?),
        AttributeValue::EmptyMapping => ("empty_mapping", PyDict::new(py).into_any()),
        AttributeValue::EmptyList => ("empty_list", PyList::empty(py).into_any()),
    })
}

/// The CRC32C (Castagnoli) of some bytes, as frames and messages carry it.
#[pyfunction]
pub fn crc32c(py: Python<'_>, data: PyBackedBytes) -> u32 {
    py.detach(|| ::crc32c::crc32c(&data))
}

/// Reads the tuples that [`decode_attributes`] gives, for what `log_attributes` passes in.
pub fn parse_update(update: &Bound<'_, PyTuple>) -> PyResult<attributes::AttributeUpdate> {
    let kind: String = update.get_item(0)?.extract()?;
    let operation = match kind.as_str() {
        "set" => AttributeOperation::Set {
            path: update.get_item(1)?.extract()?,
            value: parse_value(&update.get_item(2)?, &update.get_item(3)?)?,
        },
        "set_tags" => AttributeOperation::SetTags(update.get_item(1)?.extract()?),
        "add_tags" => AttributeOperation::AddTags(update.get_item(1)?.extract()?),
        "remove_tags" => AttributeOperation::RemoveTags(update.get_item(1)?.extract()?),
        "set_description" => AttributeOperation::SetDescription(update.get_item(1)?.extract()?),
        other => return Err(PyValueError::new_err(format!("unknown operation {other:?}"))),
    };
    let initial = update.get_item(update.len() - 1)?.extract()?;
    Ok(attributes::AttributeUpdate { initial, operation })
}

/// Reads a type and its value, as [`decode_attributes`] gives them.
pub fn parse_value(kind: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<AttributeValue> {
    let kind: String = kind.extract()?;
    Ok(match kind.as_str() {
        "null" => AttributeValue::Null,
        "bool" => AttributeValue::Bool(value.extract()?),
        "int" => AttributeValue::Int(value.extract()?),
        "float" => AttributeValue::Float(value.extract()?),
        "string" => AttributeValue::Text(value.extract()?),
        "datetime" => AttributeValue::DateTime(value.extract()?),
        "string_list" => AttributeValue::TextList(value.extract()?),
        "empty_mapping" => AttributeValue::EmptyMapping,
        "empty_list" => AttributeValue::EmptyList,
        other => return Err(PyValueError::new_err(format!("unknown attribute type {other:?}"))),
    })
}
