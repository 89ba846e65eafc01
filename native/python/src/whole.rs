//! Whole numbers of a call: steps, `rl_step`, episodes and timestamps, with their shape.

use metrana_engine::calls::{Spread, Steps};
use numpy::{PyArrayDyn, PyArrayMethods as _, PyUntypedArray, PyUntypedArrayMethods as _};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyInt, PyList};

use crate::error::validation;
use crate::number::{Shape, is_slice, mark_numpy_loaded, numbers, numpy_is_loaded};

/// The last millisecond of the year 9999, the last that ISO 8601 has four digits for.
const MAX_TIME_MS: i64 = 253_402_300_799_999;

/// A position or time as it was given.
pub enum Whole<'py> {
    /// None.
    Absent,
    One(i64),
    Many(Vec<i64>, Shape),
    Array(Bound<'py, PyArrayDyn<i64>>, Shape),
}

impl<'py> Whole<'py> {
    /// Reads an optional argument. Ranges are the engine's to check.
    ///
    /// # Errors
    ///
    /// `MetranaValidationError` naming `name`: a bool, a float that is not whole, NaN, text, ….
    pub fn read(value: Option<&Bound<'py, PyAny>>, name: &'static str) -> PyResult<Self> {
        let Some(value) = value else { return Ok(Self::Absent) };
        if value.is_exact_instance_of::<PyInt>() {
            return exact(value, name).map(Self::One);
        }
        if numpy_is_loaded(value.py())
            && value.is_exact_instance_of::<PyUntypedArray>()
            && let Ok(array) = value.cast::<PyArrayDyn<i64>>()
            && is_slice(array.as_untyped())
            && array.ndim() > 0
        {
            let shape = Shape::of(array.shape());
            return Ok(Self::Array(array.clone(), shape));
        }
        if let Ok(list) = value.cast::<PyList>()
            && let Some(numbers) = plain_list(list)
        {
            let shape = Shape::Row(numbers.len());
            return Ok(Self::Many(numbers, shape));
        }
        Self::converted(value, name)
    }

    /// Reads the argument `timestamp`.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and a time before 1970 or after the year 9999.
    pub fn read_time(value: Option<&Bound<'py, PyAny>>) -> PyResult<Self> {
        if value.is_none() {
            return Ok(Self::Absent);
        }
        let times = Self::read(value, "timestamp")?.copied("timestamp")?;
        let outside =
            times.slice("timestamp")?.iter().find(|time| !(0..=MAX_TIME_MS).contains(*time));
        match (outside, value) {
            (Some(time), Some(value)) => Err(validation(
                value.py(),
                format!(
                    "timestamp: must be Unix milliseconds, 0 to {MAX_TIME_MS} (the year 9999), \
                     not {time}"
                ),
            )),
            _ => Ok(times),
        }
    }

    fn converted(value: &Bound<'py, PyAny>, name: &'static str) -> PyResult<Self> {
        static CONVERT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let convert = CONVERT.import(value.py(), "metrana.values", "as_whole_numbers")?;
        let result = convert.call1((value, name))?;
        mark_numpy_loaded();
        if result.is_exact_instance_of::<PyInt>() {
            return exact(&result, name).map(Self::One);
        }
        let array = result.cast_into::<PyArrayDyn<i64>>()?;
        let shape = Shape::of(array.shape());
        Ok(Self::Array(array, shape))
    }

    /// With an array's numbers as they are now: what is checked must be what is logged.
    fn copied(self, name: &'static str) -> PyResult<Self> {
        Ok(match self {
            Self::Array(array, shape) => Self::Many(numbers(&array, shape, &name)?.to_vec(), shape),
            other => other,
        })
    }

    pub fn shape(&self) -> Shape {
        match self {
            Self::Absent | Self::One(_) => Shape::Scalar,
            Self::Many(_, shape) | Self::Array(_, shape) => *shape,
        }
    }

    fn slice(&self, name: &'static str) -> PyResult<&[i64]> {
        match self {
            Self::Absent => Ok(&[]),
            Self::One(number) => Ok(std::slice::from_ref(number)),
            Self::Many(numbers, _) => Ok(numbers),
            Self::Array(array, shape) => numbers(array, *shape, &name),
        }
    }

    /// As the steps of `count` points.
    ///
    /// # Errors
    ///
    /// A sequence of another length.
    pub fn steps(&self, py: Python<'_>, count: usize) -> PyResult<Steps<'_>> {
        match self {
            Self::Absent => Ok(Steps::Next),
            Self::One(number) => Ok(Steps::From(*number)),
            _ => self.each(py, "step", Shape::Row(count)).map(Steps::Each),
        }
    }

    /// As one number for all points or one for each, in the shape of the values.
    ///
    /// # Errors
    ///
    /// Any other shape.
    pub fn spread(
        &self,
        py: Python<'_>,
        name: &'static str,
        values: Shape,
    ) -> PyResult<Option<Spread<'_>>> {
        match self {
            Self::Absent => Ok(None),
            Self::One(number) => Ok(Some(Spread::All(*number))),
            _ => self.each(py, name, values).map(|numbers| Some(Spread::Each(numbers))),
        }
    }

    /// As [`Self::spread`], where a row may also give one number for each of `env_count`
    /// environments.
    ///
    /// # Errors
    ///
    /// Any other shape.
    pub fn spread_over_envs(
        &self,
        py: Python<'_>,
        name: &'static str,
        values: Shape,
        env_count: usize,
    ) -> PyResult<Option<Spread<'_>>> {
        if self.shape() == Shape::Row(env_count) {
            return Ok(Some(Spread::PerEnv(self.slice(name)?)));
        }
        if let (Shape::Row(length), Shape::Grid(_, columns)) = (self.shape(), values) {
            let other = if length == columns { ": a row gives one per environment" } else { "" };
            return Err(validation(
                py,
                format!(
                    "{name}: of shape ({length},) with values of shape {}; allowed are one number, \
                     ({env_count},) or the values' shape{other}",
                    values.shown()
                ),
            ));
        }
        self.spread(py, name, values)
    }

    fn each(&self, py: Python<'_>, name: &'static str, values: Shape) -> PyResult<&[i64]> {
        // A scalar is one point, which a row of one may place.
        let values = if values == Shape::Scalar { Shape::Row(1) } else { values };
        if self.shape() == values {
            return self.slice(name);
        }
        let given = match self.shape() {
            Shape::Deeper(count) => format!("of {count} dimensions"),
            shape => format!("of shape {}", shape.shown()),
        };
        Err(validation(
            py,
            format!(
                "{name}: {given} with values of shape {}; allowed are one number or the values' \
                 shape",
                values.shown()
            ),
        ))
    }

    /// The one number an argument must be.
    ///
    /// # Errors
    ///
    /// A sequence, or nothing.
    pub fn one(&self, py: Python<'_>, name: &'static str) -> PyResult<i64> {
        match self {
            Self::One(number) => Ok(*number),
            _ if self.shape() == Shape::Row(1) => Ok(self.slice(name)?[0]),
            Self::Absent => {
                Err(validation(py, format!("{name}: must be a whole number, not None")))
            }
            _ => Err(validation(
                py,
                format!("{name}: must be one whole number, not of shape {}", self.shape().shown()),
            )),
        }
    }
}

fn exact(value: &Bound<'_, PyAny>, name: &'static str) -> PyResult<i64> {
    value.extract().map_err(|_| {
        let shown = if value.str().is_ok() { value.to_string() } else { "a huge int".to_owned() };
        validation(value.py(), format!("{name}: must be a whole number below 2**63, not {shown}"))
    })
}

fn plain_list(list: &Bound<'_, PyList>) -> Option<Vec<i64>> {
    list.iter()
        .map(|item| item.is_exact_instance_of::<PyInt>().then(|| item.extract().ok()).flatten())
        .collect()
}
