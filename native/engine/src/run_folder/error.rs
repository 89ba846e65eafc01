//! What goes wrong with a run's folder.

use std::io;
use std::path::{Path, PathBuf};

use super::INFO_VERSION;
use crate::spool::SpoolError;
use crate::types::RunId;

/// What goes wrong with a run's folder.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
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
    /// The run belongs to another job.
    #[error(
        "run {run_name:?} belongs to orchestration id {theirs:?}, and this process has {ours:?}"
    )]
    OtherJob {
        /// The run's name.
        run_name: String,
        /// The run's orchestration id.
        theirs: String,
        /// This process's.
        ours: String,
    },
    /// The name is held by a run with another id than the one asked for.
    #[error("run {run_name:?} is run {found}, not {wanted}")]
    OtherRun {
        /// The run's name.
        run_name: String,
        /// The id it has.
        found: RunId,
        /// The id that was asked for.
        wanted: RunId,
    },
    /// A file that does not say what it should.
    #[error("{} cannot be read: {what}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A newer metrana wrote it.
    #[error(
        "{} has version {version}, and this metrana reads up to {INFO_VERSION}: upgrade metrana to read it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The writer's process lives, or another one delivers it right now.
    #[error("the writer in {} lives, or is being delivered", .0.display())]
    WriterLives(PathBuf),
    /// The writer is another machine's.
    #[error("the writer in {} is of host {host}; nothing here can tell whether it lives", path.display())]
    WriterIsForeign {
        /// The writer's folder.
        path: PathBuf,
        /// Where it was started.
        host: String,
    },
    /// The folder changed under us too often.
    #[error("{} keeps changing; no writer number could be claimed", .0.display())]
    Contended(PathBuf),
    /// The spool inside cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl RunFolderError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
