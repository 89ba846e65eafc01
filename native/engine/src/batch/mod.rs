//! The payloads of sealed batches. `docs/decisions/001-frame-and-batch.md` draws them.

mod decode;
mod error;
mod points;

pub use decode::{PointColumns, decode_points};
pub use error::{DecodeError, EncodeError};
pub use points::{
    Axis, Mark, PointsEncoder, PointsSummary, Segment, SeriesKey, Timestamps, Values,
};

use crate::types::BatchKind;

/// The version of every payload written, and the newest read.
pub const PAYLOAD_VERSION: u16 = 1;

/// What a payload says of itself in its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Points or attributes.
    pub kind: BatchKind,
    /// Points of `log` and `log_distributed`.
    pub float_point_count: u64,
    /// Points of the RL functions.
    pub rl_point_count: u64,
    /// Attribute, tag and description updates of the run.
    pub attribute_count: u64,
    /// Attribute updates of environments and episodes.
    pub env_attribute_count: u64,
}

/// Reads kind and counts of a points or attributes payload without decoding the rest.
///
/// # Errors
///
/// [`DecodeError`] for another version or kind, or bytes that end too early.
pub fn peek(payload: &[u8]) -> Result<BatchInfo, DecodeError> {
    let _ = payload;
    todo!()
}
