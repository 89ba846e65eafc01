//! Where a living writer's folder is, and whether it is still the one that was claimed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::info::{self, RunInfo, WriterInfo};
use super::writer_folder::{self, LOCK, WRITER_JSON};
use super::{RUN_JSON, RunFolder, RunFolderError, read_run};
use crate::platform::{self, Durability, FileId};
use crate::spool::{CursorSet, CursorsError, SpoolFiles};

/// What a [`WriterFolder`](super::WriterFolder) knows without its lock's file. So it can be asked,
/// and written to, while somebody forks: it holds no descriptor that a child would keep the writer
/// alive with.
#[derive(Clone, Debug)]
pub struct WriterPlace {
    path: PathBuf,
    number: u32,
    /// Of the lock's file; `None` where there are no locks, or nothing tells one file from another.
    lock_id: Option<FileId>,
}

impl WriterPlace {
    pub(super) fn new(path: PathBuf, number: u32, lock: Option<&File>) -> io::Result<Self> {
        let lock_id = lock.map_or(Ok(None), FileId::of)?;
        Ok(Self { path, number, lock_id })
    }

    /// The spool's segments lie right in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The writer's place in the run, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The folder of the run.
    pub fn run_path(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Whether the folder that was claimed is there. If not, whatever is may be another writer's:
    /// nothing there is to be written, deleted or believed. Not knowing counts as yes.
    pub fn is_kept(&self) -> bool {
        match self.lock_id {
            Some(id) => id.is_at(&self.path.join(LOCK)).unwrap_or(true),
            None => self.path.try_exists().unwrap_or(true),
        }
    }

    /// Writes `writer.json`, or replaces it.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the old one stays.
    pub fn write_info(
        &self,
        info: &WriterInfo,
        files: &dyn SpoolFiles,
    ) -> Result<(), RunFolderError> {
        info::replace(&self.path.join(WRITER_JSON), info, Durability::Durable, files)
    }

    /// Writes the greatest positions of this writer, beside the writers' folders: they outlive it.
    ///
    /// # Errors
    ///
    /// When they cannot be written; the old ones stay.
    pub fn write_cursors(
        &self,
        cursors: &CursorSet,
        files: &dyn SpoolFiles,
    ) -> Result<(), CursorsError> {
        writer_folder::write_cursors(&self.path, self.number, cursors, files)
    }

    /// Makes the run's folder anew that went with this one, if nobody else did.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or is another run's by now.
    pub fn restore_run(&self, run: &RunInfo) -> Result<RunFolder, RunFolderError> {
        let path = self.run_path();
        platform::create_private_folders(path).map_err(RunFolderError::io("creating", path))?;
        let file = path.join(RUN_JSON);
        if !info::create_run(&file, run).map_err(RunFolderError::io("creating", &file))? {
            let found = read_run(&file)?.run_id;
            if found != run.run_id {
                let (run_name, wanted) = (run.run_name.clone(), run.run_id);
                return Err(RunFolderError::OtherRun { run_name, found, wanted });
            }
        }
        Ok(RunFolder { path: path.to_owned(), run: run.clone() })
    }
}
