//! What writers have in memory, for whoever wonders where points are, or what takes its room.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use super::memory::Memory;
use super::{PREFIX, RingError};
use crate::platform::LockFile;
use crate::types::WriterId;

/// A ring that no process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRing {
    /// The file.
    pub path: PathBuf,
    /// Whose it was.
    pub writer_id: WriterId,
    /// Where that one's folder was, if the ring says so.
    pub folder: Option<PathBuf>,
    /// What the file takes.
    pub bytes: u64,
    /// How much of it is in no spool.
    pub unsealed_bytes: u64,
}

/// The rings in a folder that no process holds, if `is_wanted` says so of whose they are. Those are
/// left out that cannot be read: another user's, or of a newer version.
///
/// # Errors
///
/// When the folder cannot be listed.
pub fn dead_rings(
    folder: &Path,
    is_wanted: impl Fn(WriterId, Option<&Path>) -> bool,
) -> io::Result<Vec<DeadRing>> {
    let mut rings = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(writer_id) = id.and_then(|id| id.parse().ok()) {
            rings.extend(look(entry.path(), writer_id, &is_wanted));
        }
    }
    rings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(rings)
}

/// How much of a writer's ring is in no spool, padding included, whether the writer lives or not.
/// Takes no lock and changes nothing.
///
/// # Errors
///
/// When the file is missing, of a newer version or another writer, or its offsets make no sense.
pub fn unsealed_bytes(path: &Path, writer_id: WriterId) -> Result<u64, RingError> {
    let (tail, committed) = Memory::look(path, writer_id)?.span();
    Ok(committed - tail)
}

fn look(
    path: PathBuf,
    writer_id: WriterId,
    is_wanted: impl Fn(WriterId, Option<&Path>) -> bool,
) -> Option<DeadRing> {
    let memory = Memory::look(&path, writer_id).ok()?;
    let wanted_folder = || {
        let folder = memory.folder();
        is_wanted(writer_id, folder.as_deref()).then_some(folder)
    };
    // Otherwise its lock is left alone: somebody may be about to recover it.
    wanted_folder()?;
    let lock = LockFile::open(OpenOptions::new().read(true), &path).ok()?;
    lock.try_lock_shared().ok()?;
    // Nobody writes to it any more: before, it may have been a writer's in the middle of a change.
    let folder = wanted_folder()?;
    Some(DeadRing {
        folder,
        bytes: lock.metadata().ok()?.len(),
        unsealed_bytes: memory.committed().0 - memory.tail().0 + memory.unsealed(),
        path,
        writer_id,
    })
}
