//! Values of a call as the engine takes them: float64 or float32 slices with a shape.
//!
//! Python numbers, flat lists of them and contiguous NumPy float arrays are read here; anything
//! else goes through `metrana.values`, which knows every other kind of array.

use metrana_engine::calls::Values;
use numpy::{Element, PyArrayDyn, PyArrayMethods as _, PyUntypedArray, PyUntypedArrayMethods as _};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::error::validation;

/// Numbers of one metric, with the shape they were given in.
pub struct Block<'py> {
    data: Data<'py>,
    shape: Shape,
}

enum Data<'py> {
    One([f64; 1]),
    Many(Vec<f64>),
    F64(Bound<'py, PyArrayDyn<f64>>),
    F32(Bound<'py, PyArrayDyn<f32>>),
}

/// The shape of an argument. More than two dimensions are never allowed, so none is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Scalar,
    Row(usize),
    Grid(usize, usize),
    /// Its number of dimensions.
    Deeper(usize),
}

impl Shape {
    pub fn of(dimensions: &[usize]) -> Self {
        match *dimensions {
            [] => Self::Scalar,
            [length] => Self::Row(length),
            [rows, columns] => Self::Grid(rows, columns),
            _ => Self::Deeper(dimensions.len()),
        }
    }

    /// As Python writes it.
    pub fn shown(self) -> String {
        match self {
            Self::Scalar => "()".to_owned(),
            Self::Row(length) => format!("({length},)"),
            Self::Grid(rows, columns) => format!("({rows}, {columns})"),
            Self::Deeper(count) => format!("of {count} dimensions"),
        }
    }
}

impl Block<'_> {
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The number, if it is one and no array.
    pub fn scalar(&self) -> Option<f64> {
        match &self.data {
            Data::One([number]) => Some(*number),
            _ => None,
        }
    }

    /// The numbers, row-major.
    ///
    /// # Errors
    ///
    /// As [`numbers`].
    pub fn values(&self, name: &dyn std::fmt::Display) -> PyResult<Values<'_>> {
        Ok(match &self.data {
            Data::One(number) => Values::F64(number),
            Data::Many(numbers) => Values::F64(numbers),
            Data::F64(array) => Values::F64(numbers(array, self.shape, name)?),
            Data::F32(array) => Values::F32(numbers(array, self.shape, name)?),
        })
    }
}

/// Reads the argument `value` of a call, or an entry of a mapping.
///
/// # Errors
///
/// `MetranaValidationError` naming `name` for what holds no real numbers.
pub fn block<'py>(value: &Bound<'py, PyAny>, name: &dyn std::fmt::Display) -> PyResult<Block<'py>> {
    if let Some(number) = plain(value) {
        return Ok(scalar(number));
    }
    if let Some(block) = contiguous(value) {
        return Ok(block);
    }
    if let Some(block) = flat(value) {
        return Ok(block);
    }
    if let Some(number) = item(value) {
        return Ok(scalar(number));
    }
    converted(value, name)
}

fn scalar<'py>(number: f64) -> Block<'py> {
    Block { data: Data::One([number]), shape: Shape::Scalar }
}

/// A Python float, int or bool, and NumPy's float64, which is a float. None: another kind, or an
/// int that no float64 is near to.
pub fn plain(value: &Bound<'_, PyAny>) -> Option<f64> {
    if let Ok(number) = value.cast::<PyFloat>() {
        return Some(number.value());
    }
    if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return value.extract().ok();
    }
    None
}

/// As [`plain`], but only what is read without running Python code.
pub fn inert(value: &Bound<'_, PyAny>) -> Option<f64> {
    if let Ok(number) = value.cast::<PyFloat>() {
        return Some(number.value());
    }
    if !value.is_exact_instance_of::<PyInt>() && !value.is_exact_instance_of::<PyBool>() {
        return None; // its class may have a `__float__` of its own
    }
    let mut overflow = 0;
    // SAFETY: the object is alive and an int, for which the function raises nothing.
    let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
    #[expect(clippy::cast_precision_loss, reason = "the nearest float64 is what is logged")]
    let nearest = number as f64;
    (overflow == 0).then_some(nearest)
}

fn contiguous<'py>(value: &Bound<'py, PyAny>) -> Option<Block<'py>> {
    // Subclasses have meanings of their own, such as masked arrays.
    if !numpy_is_loaded(value.py()) || !value.is_exact_instance_of::<PyUntypedArray>() {
        return None;
    }
    if let Ok(array) = value.cast::<PyArrayDyn<f32>>() {
        let shape = Shape::of(array.shape());
        return (is_slice(array.as_untyped()) && shape != Shape::Scalar)
            .then(|| Block { data: Data::F32(array.clone()), shape });
    }
    let array = value.cast::<PyArrayDyn<f64>>().ok()?;
    let shape = Shape::of(array.shape());
    (is_slice(array.as_untyped()) && shape != Shape::Scalar)
        .then(|| Block { data: Data::F64(array.clone()), shape })
}

/// Whether an array lies in memory as a slice does.
pub fn is_slice(array: &Bound<'_, PyUntypedArray>) -> bool {
    array.is_c_contiguous() && array.is_aligned()
}

/// The numbers of an array that was taken with this shape, row-major.
///
/// # Errors
///
/// `MetranaValidationError` naming `name` where Python code that ran since then gave the array
/// another shape, layout or dtype.
pub fn numbers<'a, T: Element>(
    array: &'a Bound<'_, PyArrayDyn<T>>,
    shape: Shape,
    name: &dyn std::fmt::Display,
) -> PyResult<&'a [T]> {
    let is_as_taken = array.as_any().cast::<PyArrayDyn<T>>().is_ok()
        && is_slice(array.as_untyped())
        && Shape::of(array.shape()) == shape;
    if !is_as_taken {
        let message = format!("{name}: its shape or dtype was changed while the call read it");
        return Err(validation(array.py(), message));
    }
    // SAFETY: its type and layout were checked right now, and the engine copies the slice before
    // the call that passes it returns. A thread that writes to the array meanwhile makes the values
    // it writes undefined, as with NumPy itself.
    Ok(unsafe { array.as_slice() }?)
}

/// A list or tuple of plain numbers.
fn flat<'py>(value: &Bound<'py, PyAny>) -> Option<Block<'py>> {
    let numbers: Vec<f64> = if let Ok(list) = value.cast::<PyList>() {
        list.iter().map(|item| plain(&item)).collect::<Option<_>>()?
    } else {
        let tuple = value.cast::<PyTuple>().ok()?;
        tuple.iter().map(|item| plain(&item)).collect::<Option<_>>()?
    };
    let shape = Shape::Row(numbers.len());
    Some(Block { data: Data::Many(numbers), shape })
}

/// A tensor of no dimensions, of whatever library: its `item()`.
fn item(value: &Bound<'_, PyAny>) -> Option<f64> {
    let py = value.py();
    // Of NumPy's, a masked one would give the number under its mask.
    if numpy_is_loaded(py)
        && value.is_instance_of::<PyUntypedArray>()
        && !value.is_exact_instance_of::<PyUntypedArray>()
    {
        return None;
    }
    let dimensions = value.getattr(intern!(py, "ndim")).ok()?;
    if dimensions.extract::<usize>().ok()? != 0 {
        return None;
    }
    let item = value.call_method0(intern!(py, "item")).ok()?;
    // A time in nanoseconds gives an int too; only ints are looked at, for it takes a while.
    if item.is_instance_of::<PyInt>() && is_time(value).unwrap_or(false) {
        return None;
    }
    plain(&item)
}

fn is_time(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    let Some(dtype) = value.getattr_opt(intern!(py, "dtype"))? else { return Ok(false) };
    let Some(kind) = dtype.getattr_opt(intern!(py, "kind"))? else { return Ok(false) };
    Ok(matches!(kind.cast::<PyString>()?.to_str()?, "m" | "M"))
}

fn converted<'py>(value: &Bound<'py, PyAny>, name: &dyn std::fmt::Display) -> PyResult<Block<'py>> {
    static CONVERT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let convert = CONVERT.import(value.py(), "metrana.values", "as_values")?;
    let result = convert.call1((value, name.to_string()))?;
    mark_numpy_loaded();
    if let Some(number) = plain(&result) {
        return Ok(scalar(number));
    }
    if let Ok(array) = result.cast::<PyArrayDyn<f32>>() {
        let shape = Shape::of(array.shape());
        return Ok(Block { data: Data::F32(array.clone()), shape });
    }
    let array = result.cast_into::<PyArrayDyn<f64>>()?;
    let shape = Shape::of(array.shape());
    Ok(Block { data: Data::F64(array), shape })
}

static NUMPY_IS_LOADED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Whether anybody imported NumPy yet. Asking whether something is an array would import it, which
/// takes longer than a million log calls, and nothing is an array before.
pub fn numpy_is_loaded(py: Python<'_>) -> bool {
    use std::sync::atomic::Ordering::Relaxed;
    if NUMPY_IS_LOADED.load(Relaxed) {
        return true;
    }
    let loaded = py
        .import(intern!(py, "sys"))
        .and_then(|sys| sys.getattr(intern!(py, "modules")))
        .and_then(|modules| modules.contains(intern!(py, "numpy")))
        .unwrap_or(false);
    if loaded {
        mark_numpy_loaded();
    }
    loaded
}

pub fn mark_numpy_loaded() {
    NUMPY_IS_LOADED.store(true, std::sync::atomic::Ordering::Relaxed);
}
