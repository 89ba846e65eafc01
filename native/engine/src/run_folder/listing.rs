//! What lies in a folder, and since when.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::error::RunFolderError;
use super::info::{self, WriterInfo};
use super::writer_folder::WRITER_JSON;
use crate::platform;
use crate::ring::{DeadRing, dead_rings};
use crate::types::WriterId;

/// Whether a file or folder was last changed so long ago; not known counts as no. One from as far in
/// the future counts as old: the clock was wrong then or is now, and waiting would take as long.
pub fn is_older(path: &Path, age: Duration) -> bool {
    let changed = path.metadata().and_then(|metadata| metadata.modified());
    changed.is_ok_and(|at| at.elapsed().unwrap_or_else(|is_ahead| is_ahead.duration()) > age)
}

/// The names in a folder; a missing folder has none.
pub fn names(folder: &Path) -> Result<Vec<String>, RunFolderError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RunFolderError::io("listing", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(RunFolderError::io("listing", folder))?.file_name();
        // Ours are ASCII.
        names.extend(name.into_string());
    }
    Ok(names)
}

/// The writer numbers among the names in a folder, ascending.
pub fn numbers(folder: &Path) -> Result<Vec<u32>, RunFolderError> {
    let mut numbers: Vec<u32> = names(folder)?
        .iter()
        .filter(|name| name.len() >= 6 && name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|name| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The rings in this machine's memory that no recovery will find: they say where their writer's
/// folder was, and it is gone from there. Who is gone may still come back, or be somewhere else.
///
/// # Errors
///
/// When the memory's folder cannot be listed.
pub fn orphaned_rings() -> io::Result<Vec<DeadRing>> {
    let Some(memory) = platform::shared_memory_folder() else { return Ok(Vec::new()) };
    dead_rings(memory, |writer_id, folder| {
        folder.is_some_and(|folder| !is_writers(folder, writer_id))
    })
}

/// Whether it is the writer's folder. Not knowing counts as yes.
fn is_writers(folder: &Path, writer_id: WriterId) -> bool {
    match info::read::<WriterInfo>(&folder.join(WRITER_JSON)) {
        Ok(info) => info.writer_id == writer_id,
        Err(RunFolderError::Io { source, .. }) => source.kind() != io::ErrorKind::NotFound,
        Err(_) => true,
    }
}
