//! Turns points payloads back into columns.

use super::error::DecodeError;
use super::points::PointsSummary;

/// Points as columns of equal length, in the batch's order: grouped by series, and in the order in
/// which they were logged inside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointColumns {
    /// Writer-local metric number.
    pub metric_no: Vec<u32>,
    /// Writer-local environment number, 0: none.
    pub env_no: Vec<u32>,
    /// −1: unused.
    pub rl_step: Vec<i64>,
    /// −1: unused.
    pub episode: Vec<i64>,
    /// −1: unused.
    pub step: Vec<i64>,
    /// Unix milliseconds.
    pub timestamp_ms: Vec<i64>,
    /// The value, exact: NaN payloads and the sign of zero included.
    pub value: Vec<f64>,
    /// 1: logged by `log_distributed`.
    pub distributed: Vec<u8>,
    /// 1: not above the writer's greatest position of the series when it was logged.
    pub rewound: Vec<u8>,
    /// How many earlier points of the batch and series lie at the same position.
    pub ordinal: Vec<u16>,
}

/// Appends the points of `payload` to `out`.
///
/// # Errors
///
/// Any [`DecodeError`]; `out` is then unchanged.
pub fn decode_points(payload: &[u8], out: &mut PointColumns) -> Result<PointsSummary, DecodeError> {
    let _ = (payload, out);
    todo!()
}
