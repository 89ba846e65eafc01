//! `log` and `log_distributed`.

use std::ptr;

use metrana_engine::calls::{Point, SeriesCall, Spread};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::arguments::scale;
use crate::error::validation;
use crate::names::{self, Qualifiers, refused};
use crate::number::{Block, Shape, block, inert};
use crate::whole::Whole;
use crate::writer::Writer;

/// The arguments of a call as Python gave them.
pub struct LogCall<'a, 'py> {
    pub metric_name: &'a Bound<'py, PyAny>,
    pub value: Option<&'a Bound<'py, PyAny>>,
    pub step: Option<&'a Bound<'py, PyAny>>,
    pub timestamp: Option<&'a Bound<'py, PyAny>>,
    pub scale: Option<&'a Bound<'py, PyAny>>,
    pub labels: Option<&'a Bound<'py, PyAny>>,
    pub evaluation: bool,
    pub distributed: bool,
}

/// What is the same for all metrics of a call.
struct Common<'a, 'py> {
    py: Python<'py>,
    writer: &'a Writer,
    steps: Whole<'py>,
    timestamps: Whole<'py>,
    qualifiers: Qualifiers<'a, 'py>,
    distributed: bool,
}

/// Logs one metric or a mapping of them: all of it, or nothing.
///
/// # Errors
///
/// `MetranaValidationError`, and what [`Writer::log_series`] raises.
pub fn log(py: Python<'_>, writer: &Writer, call: &LogCall<'_, '_>) -> PyResult<()> {
    let common = Common {
        py,
        writer,
        steps: Whole::read(call.step, "step")?,
        timestamps: Whole::read_time(call.timestamp)?,
        qualifiers: Qualifiers {
            scale: scale(call.scale)?,
            labels: call.labels,
            evaluation: call.evaluation,
        },
        distributed: call.distributed,
    };
    if common.distributed && matches!(common.steps, Whole::Absent) {
        return Err(validation(
            py,
            "step: log_distributed needs one (the global training step), so that points of several \
             processes align",
        ));
    }
    match call.metric_name.cast::<PyString>() {
        Ok(name) => log_one(&common, name, call.value),
        Err(_) => log_mapping(&common, call),
    }
}

fn log_one<'py>(
    common: &Common<'_, 'py>,
    name: &Bound<'py, PyString>,
    value: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = common.py;
    let value = value.ok_or_else(|| validation(py, "value: must be a number, not None"))?;
    let block = block(value, &"value")?;
    let metric = names::metric(common.writer, name, common.qualifiers)?;
    if let (Some(value), Some((step, timestamp_ms))) = (block.scalar(), common.scalars()) {
        let distributed = common.distributed;
        let point = Point { metric, step, timestamp_ms, value, distributed };
        return common.writer.log_point(py, point);
    }
    let call = common.series(metric, &block, &"value")?;
    common.writer.log_series(py, std::slice::from_ref(&call))
}

fn log_mapping<'py>(common: &Common<'_, 'py>, call: &LogCall<'_, 'py>) -> PyResult<()> {
    let py = common.py;
    let mapping = names::as_dict(call.metric_name).ok_or_else(|| {
        refused(call.metric_name, "metric_name", "a string, or a mapping of names to values")
    })?;
    if let Some(value) = call.value {
        return Err(refused(value, "value", "left out when metric_name is a mapping"));
    }
    if let Some(points) = known_scalars(common, &mapping) {
        return common.writer.log_points(py, &points);
    }
    // Converting a value may run Python code, which must not meet a half-read dict.
    let entries: Vec<_> = mapping.iter().collect();
    let mut blocks = Vec::with_capacity(entries.len());
    for (key, value) in &entries {
        let name =
            key.cast::<PyString>().map_err(|_| refused(key, "a key of metric_name", "a string"))?;
        let block = block(value, &Entry(name))?;
        let metric = names::metric(common.writer, name, common.qualifiers)?;
        blocks.push((name, metric, block));
    }
    if let Some((step, timestamp_ms)) = common.scalars()
        && let Some(points) = blocks
            .iter()
            .map(|(_, metric, block)| {
                let (metric, distributed) = (*metric, common.distributed);
                block.scalar().map(|value| Point { metric, step, timestamp_ms, value, distributed })
            })
            .collect::<Option<Vec<_>>>()
    {
        if let Some(tag) = common.qualifiers.tag() {
            let entries = blocks.iter().map(|(name, metric, _)| (*name, *metric));
            common.writer.names.lock().remember_mapping(entries, tag);
        }
        return common.writer.log_points(py, &points);
    }
    let calls = blocks
        .iter()
        .map(|(name, metric, block)| common.series(*metric, block, &Entry(name)))
        .collect::<PyResult<Vec<_>>>()?;
    common.writer.log_series(py, &calls)
}

/// The points of a mapping of plain numbers to names that were met before, as nearly all are.
fn known_scalars(common: &Common<'_, '_>, mapping: &Bound<'_, PyDict>) -> Option<Vec<Point>> {
    let (step, timestamp_ms) = common.scalars()?;
    let tag = common.qualifiers.tag()?;
    let distributed = common.distributed;
    let mut points = Vec::with_capacity(mapping.len());
    let mut names = common.writer.names.lock();
    let (mut position, mut name, mut value) = (0, ptr::null_mut(), ptr::null_mut());
    // No Python code runs in here, with the lock taken, so nothing changes the dict.
    // SAFETY: it is a dict, and the places for the answer are this function's.
    while unsafe {
        ffi::PyDict_Next(mapping.as_ptr(), &raw mut position, &raw mut name, &raw mut value)
    } != 0
    {
        // SAFETY: the dict holds references to both for as long as it is not changed.
        let (name, value) =
            unsafe { (Borrowed::from_ptr(common.py, name), Borrowed::from_ptr(common.py, value)) };
        let metric = names.known_entry(points.len(), name, tag)?;
        let value = inert(&value)?;
        points.push(Point { metric, step, timestamp_ms, value, distributed });
    }
    Some(points)
}

impl Common<'_, '_> {
    /// Step and timestamp, if each is absent or one number.
    fn scalars(&self) -> Option<(Option<i64>, Option<i64>)> {
        let one = |whole: &Whole<'_>| match whole {
            Whole::Absent => Some(None),
            Whole::One(number) => Some(Some(*number)),
            _ => None,
        };
        Some((one(&self.steps)?, one(&self.timestamps)?))
    }

    fn series<'s>(
        &'s self,
        metric: metrana_engine::types::MetricNo,
        block: &'s Block<'_>,
        name: &dyn std::fmt::Display,
    ) -> PyResult<SeriesCall<'s>> {
        let count = match block.shape() {
            Shape::Scalar => 1,
            Shape::Row(length) => length,
            shape => {
                let shown = shape.shown();
                return Err(validation(
                    self.py,
                    format!("{name}: must be a number or one-dimensional, not of shape {shown}"),
                ));
            }
        };
        let timestamps: Option<Spread<'_>> =
            self.timestamps.spread(self.py, "timestamp", Shape::Row(count))?;
        let steps = self.steps.steps(self.py, count)?;
        let distributed = self.distributed;
        Ok(SeriesCall { metric, steps, timestamps, values: block.values(name)?, distributed })
    }
}

/// How errors speak of a mapping's entry.
struct Entry<'a, 'py>(&'a Bound<'py, PyString>);

impl std::fmt::Display for Entry<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "value of {:?}", self.0.to_string_lossy())
    }
}
