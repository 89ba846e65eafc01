//! What is left to do when somebody deletes segments under the one who writes them.
//!
//! The file that is being written is open still, so its bytes can be had: they go into a new file
//! of the same name. Segments that ended before it are gone.

use std::io;
use std::path::Path;
use std::time::Instant;

use super::{CurrentSegment, SpoolWriter};
use crate::platform;
use crate::spool::segment::segment_path;
use crate::spool::{FsyncPolicy, SpoolError, SpoolFile, SpoolFiles};
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
    /// Whether somebody moved the folder. What its path names then is another's or nothing: so all
    /// goes into the file that is open, however long that gets, and nothing is deleted.
    pub fn set_moved(&mut self, is_moved: bool) {
        self.is_in_place = !is_moved;
    }

    /// Goes on in another folder. The current segment is still in the old one: see
    /// [`rescue`](Self::rescue).
    pub fn go_on_in(&mut self, folder: &Path) {
        folder.clone_into(&mut self.folder);
    }

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
        let files = self.options.files.as_ref();
        let copy = copy_whole(files, segment, &path).map_err(SpoolError::io("writing", &path))?;
        if self.options.fsync != FsyncPolicy::Never {
            let folder = &self.folder;
            files.sync_folder(folder).map_err(SpoolError::io("syncing", folder))?;
        }
        (segment.file, segment.is_torn, segment.is_copy) = (copy, false, true);
        let bytes = segment.bytes;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(Some(Rescued { bytes, lost_bytes: self.forget_deleted(acked) }))
    }

    /// The file of the next number that no file has: whoever deletes and restores files may have
    /// left some that nobody here knows of.
    pub(super) fn create_segment(&self) -> Result<(u64, Box<dyn SpoolFile>), SpoolError> {
        let mut number = self.next_number;
        loop {
            let path = segment_path(&self.folder, number);
            let created = if self.is_in_place {
                self.options.files.create(&path)
            } else {
                Err(io::Error::new(io::ErrorKind::NotFound, "its folder is not there any more"))
            };
            match created {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                created => {
                    let file = created.map_err(SpoolError::io("creating", &path))?;
                    return Ok((number, file));
                }
            }
        }
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

/// Under another name until it is whole: readers take half a segment for damage as soon as another
/// follows.
fn copy_whole(
    files: &dyn SpoolFiles,
    segment: &mut CurrentSegment,
    path: &Path,
) -> io::Result<Box<dyn SpoolFile>> {
    let temporary = platform::temporary_path(path)?;
    let mut copy = files.create(&temporary)?;
    let copied = segment
        .file
        .copy_to(segment.bytes, copy.as_mut())
        .and_then(|()| files.rename(&temporary, path));
    if copied.is_err() {
        let _ = files.remove(&temporary);
    }
    copied.map(|()| copy)
}
