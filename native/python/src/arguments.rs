//! Arguments that several calls share.

use metrana_engine::types::Scale;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString};

use crate::names::refused;

/// `evaluation`: True or False, NumPy's too.
pub struct Evaluation(pub bool);

impl<'a, 'py> FromPyObject<'a, 'py> for Evaluation {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(flag) = value.cast::<PyBool>() {
            return Ok(Self(flag.is_true()));
        }
        // PyO3 knows NumPy's bool; everything else with a truth value is a mistake.
        value.extract().map(Self).map_err(|_: PyErr| refused(&value, "evaluation", "True or False"))
    }
}

/// A scale by its name, in any case; None is `ML_STEP`.
///
/// # Errors
///
/// `MetranaValidationError` for anything else.
pub fn scale(value: Option<&Bound<'_, PyAny>>) -> PyResult<Scale> {
    const SCALES: [Scale; 3] = [Scale::MlStep, Scale::Episode, Scale::EnvironmentStep];
    let Some(value) = value else { return Ok(Scale::MlStep) };
    // Members of the enumeration are strings too.
    let name = value.cast::<PyString>().ok().and_then(|name| name.to_str().ok());
    name.and_then(|name| {
        SCALES.into_iter().find(|scale| scale.name().eq_ignore_ascii_case(name.trim()))
    })
    .ok_or_else(|| refused(value, "scale", "'ML_STEP', 'EPISODE' or 'ENVIRONMENT_STEP'"))
}
