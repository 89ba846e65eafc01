//! Sealed payloads as Python and NumPy objects: what a server needs to take batches in.
//!
//! Everything here works on bytes that came from elsewhere. What is wrong with them is a
//! `ValueError`, never a panic.

use metrana_engine::attributes::{self, AttributeOperation, AttributeValue, CloseStatus};
use metrana_engine::batch;
use metrana_engine::declarations::{self, Declaration};
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
pub struct NumberMap(batch::NumberMap);

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
        let (metric_nos, env_nos) = (metric_nos.as_array().to_vec(), env_nos.as_array().to_vec());
        Self(batch::NumberMap { run_no, writer_no, seq, logger_no, metric_nos, env_nos })
    }
}

/// Decode points batches into the columns of the points table, in the table's order.
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
    let batches: Vec<_> = batches.iter().map(|(payload, map)| (&**payload, &map.get().0)).collect();
    let rows = py.detach(|| batch::table_rows(&batches)).map_err(|error| value_error(&error))?;
    let arrays = PyDict::new(py);
    arrays.set_item("run_no", PyArray1::from_vec(py, rows.run_no))?;
    arrays.set_item("metric_no", PyArray1::from_vec(py, rows.metric_no))?;
    arrays.set_item("env_no", PyArray1::from_vec(py, rows.env_no))?;
    arrays.set_item("rl_step", PyArray1::from_vec(py, rows.rl_step))?;
    arrays.set_item("episode", PyArray1::from_vec(py, rows.episode))?;
    arrays.set_item("step", PyArray1::from_vec(py, rows.step))?;
    arrays.set_item("timestamp_ms", PyArray1::from_vec(py, rows.timestamp_ms))?;
    arrays.set_item("value", PyArray1::from_vec(py, rows.value))?;
    arrays.set_item("logger_no", PyArray1::from_vec(py, rows.logger_no))?;
    arrays.set_item("writer_no", PyArray1::from_vec(py, rows.writer_no))?;
    arrays.set_item("seq", PyArray1::from_vec(py, rows.seq))?;
    arrays.set_item("ordinal", PyArray1::from_vec(py, rows.ordinal))?;
    arrays.set_item("rewound", PyArray1::from_vec(py, rows.rewound))?;
    Ok(arrays)
}

/// What a sealed payload says of itself, without decoding it.
#[pyclass(frozen, get_all, module = "metrana._native")]
pub struct BatchInfo {
    /// `points`, `attributes` or `renderings`.
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

/// Read kind and counts of a batch's payload without decoding the rest; renderings count nothing.
///
/// Raises:
///     ValueError: For bytes that are no payload of a known version.
#[pyfunction]
pub fn batch_info(payload: PyBackedBytes) -> PyResult<BatchInfo> {
    let info = batch::peek(&payload).map_err(|error| value_error(&error))?;
    Ok(BatchInfo {
        kind: info.kind.name(),
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
