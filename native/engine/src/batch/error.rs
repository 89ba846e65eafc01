//! What can go wrong when batches are written and read.

use crate::types::{MAX_BATCH_POINTS, MAX_ORDINAL};

/// A segment or a batch that could not be encoded. Nothing of a refused segment was taken.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The batch has no room for the segment: seal it and push again into the empty one.
    #[error("the batch is full ({MAX_BATCH_POINTS} points, {MAX_ORDINAL} repeats of a position)")]
    Full,
    /// The caller's numbers contradict each other; pushing again would not help.
    #[error("a segment of {count} points came with {values} values and {timestamps} timestamps")]
    Mismatch {
        /// Points the segment announces.
        count: usize,
        /// Values that came with it.
        values: usize,
        /// Timestamps that came with it.
        timestamps: usize,
    },
    /// A coordinate outside what a position may be, or a metric without a number.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// zstd failed, which only lack of memory explains.
    #[error("compression failed: {0}")]
    Compression(#[source] std::io::Error),
}

impl EncodeError {
    /// Whether sealing the batch and pushing again is the answer.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

/// Bytes that are no payload of this version. Never a panic, however the bytes came about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload is of a version this build does not know.
    #[error(
        "payload version {found} is not one this metrana reads ({supported}): \
         upgrade metrana here to the version that wrote it, or newer"
    )]
    Version {
        /// The payload's version.
        found: u16,
        /// The newest version this build reads.
        supported: u16,
    },
    /// A kind, tag, type, codec or flag nobody has defined.
    #[error("unknown {what} {found}")]
    Unknown {
        /// What the number should have named.
        what: &'static str,
        /// The number.
        found: u8,
    },
    /// The bytes end before what they announce.
    #[error("the payload ends inside {0}")]
    Truncated(&'static str),
    /// Parts of the payload contradict each other or the format.
    #[error("malformed payload: {0}")]
    Malformed(&'static str),
    /// Something is larger than the format allows.
    #[error("{0} is above the limit")]
    Limit(&'static str),
}
