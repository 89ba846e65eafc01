//! What is left to do when somebody deletes segments under the one who writes them.
//!
//! The file that is being written is open still, so its bytes can be had: they go into a new file
//! of the same name. Segments that ended before it are gone.

use std::time::Instant;

use super::SpoolWriter;
use crate::spool::SpoolError;
use crate::spool::segment::segment_path;
use crate::types::Seq;

/// What became of a spool whose files were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Bytes that are in the spool again.
    pub bytes: u64,
    /// Bytes of segments that nobody had acknowledged and that are gone.
    pub lost_bytes: u64,
}

impl SpoolWriter {
    /// Writes the current segment anew if somebody deleted its file; `None`: nobody did. The folder
    /// must be there. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Nothing has changed then, and the same call may be made again.
    pub fn rescue(&mut self, acked: Seq) -> Result<Option<Rescued>, SpoolError> {
        let path = self.current_path();
        let Some(segment) = &mut self.current else { return Ok(None) };
        if !segment.file.is_deleted().map_err(SpoolError::io("examining", &path))? {
            return Ok(None);
        }
        let files = &self.options.files;
        let mut copy = files.create(&path).map_err(SpoolError::io("creating", &path))?;
        if let Err(source) = segment.file.copy_to(segment.bytes, copy.as_mut()) {
            let _ = files.remove(&path);
            return Err(SpoolError::io("writing", &path)(source));
        }
        (segment.file, segment.is_torn, segment.is_copy) = (copy, false, true);
        let bytes = segment.bytes;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(Some(Rescued { bytes, lost_bytes: self.forget_deleted(acked) }))
    }

    fn forget_deleted(&mut self, acked: Seq) -> u64 {
        let mut lost_bytes = 0;
        let folder = &self.folder;
        self.ended.retain(|segment| {
            let is_there = segment_path(folder, segment.number).try_exists().unwrap_or(true);
            if !is_there && segment.last_seq > acked {
                lost_bytes += segment.bytes;
            }
            is_there
        });
        lost_bytes
    }
}
