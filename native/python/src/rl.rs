//! `log_rl_episode` and `log_rl_environment_step`.

use metrana_engine::calls::EnvCall;
use metrana_engine::types::Scale;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::error::validation;
use crate::names::{self, Envs, Qualifiers, refused};
use crate::number::{Shape, block};
use crate::whole::Whole;
use crate::writer::Writer;

/// The arguments of a call as Python gave them.
pub struct RlCall<'a, 'py> {
    pub metric_name: &'a Bound<'py, PyAny>,
    pub value: &'a Bound<'py, PyAny>,
    pub rl_step: &'a Bound<'py, PyAny>,
    pub episode: Option<&'a Bound<'py, PyAny>>,
    pub env_id: Option<&'a Bound<'py, PyAny>>,
    pub labels: Option<&'a Bound<'py, PyAny>>,
    pub evaluation: bool,
    pub timestamp: Option<&'a Bound<'py, PyAny>>,
}

/// Logs episodes of one or many environments: all of the call, or nothing.
///
/// # Errors
///
/// `MetranaValidationError`, and what [`Writer::log_envs`] raises.
pub fn log_episode(py: Python<'_>, writer: &Writer, call: &RlCall<'_, '_>) -> PyResult<()> {
    log(py, writer, call, Scale::Episode)
}

/// Logs steps of one or many environments: all of the call, or nothing.
///
/// # Errors
///
/// `MetranaValidationError`, and what [`Writer::log_envs`] raises.
pub fn log_env_step(py: Python<'_>, writer: &Writer, call: &RlCall<'_, '_>) -> PyResult<()> {
    log(py, writer, call, Scale::EnvironmentStep)
}

fn log(py: Python<'_>, writer: &Writer, call: &RlCall<'_, '_>, scale: Scale) -> PyResult<()> {
    let name = call
        .metric_name
        .cast::<PyString>()
        .map_err(|_| refused(call.metric_name, "metric_name", "a string"))?;
    let block = block(call.value, &"value")?;
    let rl_step = Whole::read(Some(call.rl_step), "rl_step")?.one(py, "rl_step")?;
    let episodes = Whole::read(call.episode, "episode")?;
    let timestamps = Whole::read_time(call.timestamp)?;
    let envs = names::envs(writer, py, call.env_id)?;
    let per_env = points_per_env(py, block.shape(), &envs, scale)?;
    let qualifiers = Qualifiers { scale, labels: call.labels, evaluation: call.evaluation };
    // Before the arrays are read: labels may run Python code, which may change them.
    let metric = names::metric(writer, name, qualifiers)?;
    let spread = |whole, name| match &envs {
        Envs::One(_) => Whole::spread(whole, py, name, block.shape()),
        Envs::Many(numbers) => {
            Whole::spread_over_envs(whole, py, name, block.shape(), numbers.len())
        }
    };
    let call = EnvCall {
        rl_step,
        per_env,
        episodes: spread(&episodes, "episode")?,
        timestamps: spread(&timestamps, "timestamp")?,
        values: block.values(&"value")?,
        envs: envs.numbers(),
        metric,
    };
    writer.log_envs(py, &call, scale)
}

/// Points of each environment, as the shape of the values says.
fn points_per_env(py: Python<'_>, values: Shape, envs: &Envs, scale: Scale) -> PyResult<usize> {
    match (envs, values) {
        (Envs::One(_), Shape::Scalar) => Ok(1),
        (Envs::One(_), Shape::Row(length)) => Ok(length),
        (Envs::Many(ids), Shape::Row(length)) if length == ids.len() => Ok(1),
        (Envs::Many(ids), Shape::Grid(rows, columns))
            if rows == ids.len() && scale == Scale::EnvironmentStep =>
        {
            Ok(columns)
        }
        _ => Err(validation(py, wrong_shape(values, envs, scale))),
    }
}

fn wrong_shape(values: Shape, envs: &Envs, scale: Scale) -> String {
    let shown = values.shown();
    match envs {
        Envs::One(_) => format!(
            "value: of shape {shown} for one environment; allowed are a number or one dimension \
             (give env_id a list for several environments)"
        ),
        Envs::Many(ids) => {
            let count = ids.len();
            let grid = match scale {
                Scale::EnvironmentStep => format!(" or ({count}, steps)"),
                _ => String::new(),
            };
            format!(
                "value: of shape {shown} for env_id with {count} ids; allowed is ({count},){grid}"
            )
        }
    }
}
