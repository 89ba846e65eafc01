//! Files for their locks where no process is the copy of another.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::path::Path;

/// How many forks made this process: none.
#[inline]
#[must_use]
pub fn fork_count() -> u32 {
    0
}

/// There is nothing to watch.
///
/// # Errors
///
/// Never.
pub fn watch_forks() -> io::Result<()> {
    Ok(())
}

/// A file that is open for its lock.
#[derive(Debug)]
pub struct LockFile(File);

impl LockFile {
    /// Opens the file; its lock is not taken yet.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(options: &OpenOptions, path: &Path) -> io::Result<Self> {
        options.open(path).map(Self)
    }
}

impl Deref for LockFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}
