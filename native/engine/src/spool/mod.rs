//! The spool: sealed batches on the user's disk, in the order they will be sent.
//!
//! A writer's folder holds append-only segments (`00000001.spool` …), each a header and frames;
//! `docs/decisions/001-frame-and-batch.md` draws every byte. One [`SpoolWriter`] appends; any
//! number of [`SpoolReader`]s follow, in this process and in others, without telling it.
//!
//! What holds, and what the other parts rest on:
//!
//! - A frame is written whole or not at all: after a write that failed the segment is cut back
//!   before anything else is written, so nothing torn ever stays in the middle.
//! - A reader never gives out bytes whose checksum is wrong; what it had to leave out it reports,
//!   with the range of sequence numbers that will never come.
//! - A segment begins with every declaration its writer has made so far, and declares later numbers
//!   before the batch that first uses them. So a reader may begin at any segment, and deleting
//!   acknowledged ones takes nothing that is still needed (recovery of a ring included).

pub mod cursors;
mod files;
mod frame;
mod numbers;
mod reader;
mod scanner;
mod segment;
mod summary;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use cursors::{CursorSet, CursorsError, EnvironmentCursor, SeriesCursor};
pub(crate) use files::replace_file;
pub use files::{Disk, SpoolFile, SpoolFiles};
pub use frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION, FrameHeader, FrameHeaderError, FrameKind,
    MAX_PAYLOAD_BYTES,
};
pub use numbers::{DeclarationSource, Numbers, UnknownNumber};
pub use reader::{Damage, Frame, SpoolEvent, SpoolReader};
pub use segment::{
    SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader, SegmentHeaderError, segment_numbers,
    segment_path,
};
pub use summary::{SegmentSummary, SpoolSummary, first_seq, is_empty, last_seq, summarize};
pub use writer::{
    Appended, DEFAULT_SEGMENT_BYTES, Rescued, SealedBatch, SpoolOptions, SpoolWriter,
};

pub use crate::config::FsyncPolicy;

/// Why a spool cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The system refused.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A newer engine wrote this segment, or something in it.
    #[error("{}: {what}", path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
        /// What was found and what to upgrade.
        what: String,
    },
    /// A payload longer than any reader would take.
    #[error("a payload of {0} bytes; a frame holds at most {MAX_PAYLOAD_BYTES}")]
    PayloadTooLarge(usize),
    /// A batch uses a number that nobody can declare.
    #[error(transparent)]
    UnknownNumber(#[from] UnknownNumber),
}

impl SpoolError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether the disk (or the quota) is full: trying again later may succeed.
    pub fn is_out_of_space(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }
}

impl From<SpoolError> for io::Error {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Io { ref source, .. } => Self::new(source.kind(), error),
            _ => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod tests;
