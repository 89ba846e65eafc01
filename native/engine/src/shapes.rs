//! Whether the parts of a call fit together: checked outside the lock.

use crate::calls::{EnvCall, SeriesCall, Spread, Steps};
use crate::error::InvalidArgument;
use crate::record::value_count;

/// # Errors
///
/// Steps or timestamps that are not one a value.
pub(crate) fn check_series(call: &SeriesCall<'_>) -> Result<(), InvalidArgument> {
    let count = value_count(&call.values);
    if let Steps::Each(each) = call.steps {
        check_length("step", each.len(), count)?;
    }
    match call.timestamps {
        None | Some(Spread::All(_)) => Ok(()),
        Some(Spread::PerEnv(each) | Spread::Each(each)) => {
            check_length("timestamp", each.len(), count)
        }
    }
}

/// # Errors
///
/// Values, episodes or timestamps whose shape is not the call's.
pub(crate) fn check_env_call(call: &EnvCall<'_>) -> Result<(), InvalidArgument> {
    let count = call.envs.len().saturating_mul(call.per_env);
    check_length("value", value_count(&call.values), count)?;
    for (argument, spread) in [("episode", call.episodes), ("timestamp", call.timestamps)] {
        match spread {
            None | Some(Spread::All(_)) => {}
            Some(Spread::PerEnv(each)) => check_length(argument, each.len(), call.envs.len())?,
            Some(Spread::Each(each)) => check_length(argument, each.len(), count)?,
        }
    }
    Ok(())
}

fn check_length(
    argument: &'static str,
    found: usize,
    wanted: usize,
) -> Result<(), InvalidArgument> {
    if found == wanted {
        return Ok(());
    }
    Err(InvalidArgument::new(argument, format!("{found} of them where {wanted} are needed")))
}
