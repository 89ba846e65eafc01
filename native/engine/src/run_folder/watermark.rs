//! How far a writer's batches are acknowledged: what lies before may be deleted, what is missing
//! behind it is lost.

use std::path::Path;

use super::info::{self, SenderKind, WriterInfo};
use super::writer_folder::{ACKED, WRITER_JSON, read_acked};
use super::{CURSORS, RunFolderError};
use crate::spool;
use crate::types::Seq;

/// How far the batches of a writer are acknowledged, as its folder tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// Up to here, and no further.
    Known(Seq),
    /// At least up to here: a writer that sends deletes what its server has, and says only at its
    /// end how far that was.
    AtLeast(Seq),
}

impl Watermark {
    /// Of the writer in this folder.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read. A `writer.json` that cannot be read tells nothing.
    pub fn read(folder: &Path) -> Result<Self, RunFolderError> {
        match info::read::<WriterInfo>(&folder.join(WRITER_JSON)) {
            Ok(info) => Self::of(folder, &info),
            Err(_) => read_acked(folder).map(Self::AtLeast),
        }
    }

    /// The same for somebody who has read its `writer.json`.
    ///
    /// # Errors
    ///
    /// When the watermark beside it cannot be read.
    pub fn of(folder: &Path, info: &WriterInfo) -> Result<Self, RunFolderError> {
        let acked = read_acked(folder)?;
        if let Some(at_end) = info.acked {
            return Ok(Self::Known(acked.max(Seq(at_end))));
        }
        // Before a writer deletes anything it writes its positions.
        let has_cursors =
            || folder.with_file_name(CURSORS).join(format!("{:06}", info.number)).exists();
        let is_damaged = || acked == Seq(0) && folder.join(ACKED).exists();
        let is_known = (info.sender == SenderKind::None || !has_cursors()) && !is_damaged();
        Ok(if is_known { Self::Known(acked) } else { Self::AtLeast(acked) })
    }

    /// The first batch that is to be had from the spool in this folder, or is lost.
    ///
    /// # Errors
    ///
    /// When the spool cannot be read.
    pub fn first_due(self, folder: &Path) -> Result<Seq, RunFolderError> {
        Ok(match self {
            Self::Known(acked) => Seq(acked.0 + 1),
            Self::AtLeast(acked) => Seq(acked.0 + 1).max(spool::first_seq(folder)?),
        })
    }
}
