//! The payloads of sealed batches, byte for byte as `docs/decisions/001-frame-and-batch.md` draws
//! them.
//!
//! ```text
//! points       PointsEncoder ─ staged ─ seal ─▶ bytes ─ decode ─▶ PointColumns
//! attributes   crate::attributes
//! renderings   encode_piece ─▶ bytes ─ decode_piece ─▶ RenderingPiece
//! declarations crate::declarations
//! ```
//!
//! A payload has no magic and no checksum: the frame around it has both.

mod bound;
mod columns;
mod decode;
mod error;
mod groups;
mod ordinals;
mod points;
mod rendering;
mod rows;
mod seal;
mod section;
mod staged;
mod values;
pub(crate) mod varint;

pub use decode::{PointColumns, PointsDecoder, decode_points};
pub use error::{DecodeError, EncodeError};
pub use points::{
    Axis, Mark, PointsEncoder, PointsSummary, Segment, SeriesKey, Timestamps, Values,
};
pub use rendering::{RenderingEnd, RenderingPiece, decode_piece, encode_piece, piece_head_len};
pub use rows::{NumberMap, RowsError, TableRows, table_rows};

use crate::types::BatchKind;
use varint::Reader;

/// The version of every payload written, and the newest read.
pub const PAYLOAD_VERSION: u16 = 1;

/// Flags of a series in a points payload.
mod series_flags {
    /// Logged by `log_distributed`.
    pub const DISTRIBUTED: u8 = 1;
    /// Its values are float64.
    pub const WIDE: u8 = 2;
    /// It has rewound points.
    pub const REWOUND: u8 = 4;
    /// It has ordinals other than 0.
    pub const ORDINALS: u8 = 8;
    /// Its values are differences, not plain words.
    pub const DIFFERENCES: u8 = 16;
    /// All that are defined.
    pub const ALL: u8 = DISTRIBUTED | WIDE | REWOUND | ORDINALS | DIFFERENCES;
}

/// What a payload says of itself in its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Points, attributes or a piece of a rendering.
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

/// Reads kind and counts of a batch's payload without decoding the rest; renderings count nothing.
///
/// # Errors
///
/// [`DecodeError`] for another version or kind, or bytes that end too early.
pub fn peek(payload: &[u8]) -> Result<BatchInfo, DecodeError> {
    read_header(&mut Reader::new(payload))
}

/// `version u16, kind u8, flags u8`, and the two counts of a kind that has any.
pub(crate) fn read_header(reader: &mut Reader<'_>) -> Result<BatchInfo, DecodeError> {
    const WHAT: &str = "the header";
    read_version(reader)?;
    let kind = match reader.u8(WHAT)? {
        kind if kind == BatchKind::Points as u8 => BatchKind::Points,
        kind if kind == BatchKind::Attributes as u8 => BatchKind::Attributes,
        kind if kind == BatchKind::Renderings as u8 => BatchKind::Renderings,
        found => return Err(DecodeError::Unknown { what: "kind of batch", found }),
    };
    let flags = reader.u8(WHAT)?;
    let known = if kind == BatchKind::Renderings { rendering::LAST } else { 0 };
    if flags & !known != 0 {
        return Err(DecodeError::Unknown { what: "batch flags", found: flags });
    }
    let info = BatchInfo {
        kind,
        float_point_count: 0,
        rl_point_count: 0,
        attribute_count: 0,
        env_attribute_count: 0,
    };
    if kind == BatchKind::Renderings {
        return Ok(info);
    }
    let (first, second) = (reader.varint(WHAT)?, reader.varint(WHAT)?);
    Ok(if kind == BatchKind::Points {
        BatchInfo { float_point_count: first, rl_point_count: second, ..info }
    } else {
        BatchInfo { attribute_count: first, env_attribute_count: second, ..info }
    })
}

/// Refuses payloads of versions this build does not read.
pub(crate) fn read_version(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match reader.u16("the version")? {
        PAYLOAD_VERSION => Ok(()),
        found => Err(DecodeError::Version { found, supported: PAYLOAD_VERSION }),
    }
}

#[cfg(test)]
mod tests;
