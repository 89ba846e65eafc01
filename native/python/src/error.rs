//! The one place where errors of the engine become Python exceptions.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// An error in bytes that came from elsewhere.
pub fn value_error(error: &dyn std::error::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

macro_rules! exceptions {
    ($($name:ident = $class:literal),* $(,)?) => {$(
        /// Makes the exception of `metrana.errors` of this name.
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
    validation = "MetranaValidationError",
}
