//! A run's folder in the data directory: who the run is, who writes to it, who of them lives.
//!
//! ```text
//! <data dir>/spool/<run folder>/   32 hex digits of SHA-256(destination NUL workspace NUL project NUL run_name)
//!   run.json                       created once; whoever does it is the run's creator
//!   cursors/<number>               a writer's greatest positions; outlive its folder
//!   <number>/                      one writer, six digits; making the folder is the claim
//!     lock  writer.json  00000001.spool …  acked  kept  renderings/
//! ```
//!
//! No string of the user's ever names a folder. Names that begin with a dot are on their way in or
//! out and no one's business.

mod entry;
mod error;
mod info;
mod kept;
mod listing;
mod liveness;
mod place;
mod watermark;
mod writer_folder;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

pub use crate::config::ResumeStrategy;
pub use entry::WriterEntry;
pub use error::RunFolderError;
pub use info::{INFO_VERSION, RunInfo, SenderKind, WriterEnd, WriterInfo, WriterOptions};
pub use kept::{keep, missing_batches, missing_elsewhere, missing_so_far};
pub use listing::orphaned_rings;
pub use liveness::Liveness;
pub use place::WriterPlace;
pub use watermark::Watermark;
pub use writer_folder::{Fate, WriterFolder, WriterLock, is_of_writer, read_acked, write_acked};

use entry::is_undelivered;
use listing::{is_older, names, numbers};
use liveness::Here;
use writer_folder::{WRITER_JSON, is_stillborn};

use crate::clock::now_ms;
use crate::platform;
use crate::spool::{CursorSet, CursorsError};
use crate::transport::WriterIdentity;
use crate::types::RunId;

const SPOOL: &str = "spool";
const RUN_JSON: &str = "run.json";
const CURSORS: &str = "cursors";

/// How often a claim starts anew because the folder changed under it.
const CLAIM_ATTEMPTS: usize = 100;
/// How long a `run.json` that is not whole is taken for one that is being written, which happens
/// only on file systems without hard links.
const BEING_WRITTEN: Duration = Duration::from_secs(2);
/// How old a file or folder is that nobody is making any more, whatever the clocks of machines that
/// share a file system differ by. Nobody waits for what is damaged: there may be much of it.
const OLD: Duration = Duration::from_secs(60);

/// What names a run on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunNames<'a> {
    /// `local` or the normalised URL.
    pub destination: &'a str,
    pub workspace_name: &'a str,
    pub project_name: &'a str,
    pub run_name: &'a str,
}

impl RunNames<'_> {
    /// The name of the run's folder.
    pub fn folder_name(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.destination);
        for name in [self.workspace_name, self.project_name, self.run_name] {
            hash.update([0]);
            hash.update(name);
        }
        hash.finalize()[..16].iter().fold(String::new(), |mut name, byte| {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
            name
        })
    }
}

/// A process that wants to write to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRequest<'a> {
    pub names: RunNames<'a>,
    pub experiment_name: &'a str,
    pub orchestration_id: &'a str,
    pub resume: ResumeStrategy,
    /// The run must have this id; `None`: whichever the folder holds, or a new one.
    pub run_id: Option<RunId>,
}

/// As what a process came to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The run is new: what `init()` is given applies.
    Created,
    /// The run has the same orchestration id.
    Joined,
    /// The run is another job's, and resuming it is allowed.
    Resumed,
}

/// A run's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
    run: RunInfo,
}

impl RunFolder {
    /// Creates, joins or resumes a run, or refuses to.
    ///
    /// # Errors
    ///
    /// [`RunFolderError::OtherJob`] and [`RunFolderError::OtherRun`] are the refusals.
    pub fn claim(
        data_dir: &Path,
        request: &RunRequest<'_>,
    ) -> Result<(Self, Claim), RunFolderError> {
        let path = data_dir.join(SPOOL).join(request.names.folder_name());
        let file = path.join(RUN_JSON);
        for _ in 0..CLAIM_ATTEMPTS {
            platform::create_private_folders(&path)
                .map_err(RunFolderError::io("creating", &path))?;
            let mut run = new_run(request).map_err(RunFolderError::io("naming", &path))?;
            let mut claim = Claim::Created;
            if let Some(run_id) = writers_run(&path, &file, request)? {
                (run.run_id, claim) = (run_id, Claim::Resumed);
            }
            match info::create_run(&file, &run) {
                Ok(true) => return Ok((Self { path, run }, claim)),
                Ok(false) => match read_run(&file) {
                    Ok(run) => {
                        let claim = admit(&run, request)?;
                        return Ok((Self { path, run }, claim));
                    }
                    // Withdrawn since: the name is free again.
                    Err(error) if error.is_missing() => {}
                    Err(error) => match info::remove_empty(&file) {
                        // It says nothing, so the name is free.
                        Ok(true) => {}
                        _ => return Err(error),
                    },
                },
                // The folder went with a run that was withdrawn.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // Only if it is empty: made here, for nothing.
                    let _ = std::fs::remove_dir(&path);
                    return Err(RunFolderError::io("creating", &file)(error));
                }
            }
        }
        Err(RunFolderError::Contended(path))
    }

    /// Opens a run's folder that is there.
    ///
    /// # Errors
    ///
    /// When its `run.json` is missing or cannot be read.
    pub fn open(path: &Path) -> Result<Self, RunFolderError> {
        let file = path.join(RUN_JSON);
        Ok(Self { path: path.to_owned(), run: read_run(&file)? })
    }

    /// The folders of all runs in a data directory, by path; those without a `run.json` that can
    /// be read are left out.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read; a missing one is empty.
    pub fn list(data_dir: &Path) -> Result<Vec<Self>, RunFolderError> {
        Ok(Self::list_all(data_dir)?.0)
    }

    /// The same, and why folders were left out in which writers lie.
    ///
    /// # Errors
    ///
    /// See [`list`](Self::list).
    pub fn list_all(data_dir: &Path) -> Result<(Vec<Self>, Vec<RunFolderError>), RunFolderError> {
        let root = data_dir.join(SPOOL);
        let mut paths: Vec<_> = names(&root)?
            .into_iter()
            .filter(|name| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .map(|name| root.join(name))
            .collect();
        paths.sort_unstable();
        let (mut folders, mut unreadable) = (Vec::new(), Vec::new());
        for path in paths {
            match Self::open(&path) {
                Ok(folder) => folders.push(folder),
                Err(_) if numbers(&path).is_ok_and(|writers| writers.is_empty()) => {}
                Err(error) => unreadable.push(error),
            }
        }
        Ok((folders, unreadable))
    }

    /// The folder of the run with this id, if it is in this data directory.
    ///
    /// # Errors
    ///
    /// See [`list`](Self::list).
    pub fn find(data_dir: &Path, run_id: RunId) -> Result<Option<Self>, RunFolderError> {
        Ok(Self::list(data_dir)?.into_iter().find(|folder| folder.run.run_id == run_id))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who the run is.
    pub fn run(&self) -> &RunInfo {
        &self.run
    }

    /// Whether the folder is on a file system that machines share.
    pub fn is_on_network(&self) -> bool {
        Here::at(&self.path).is_network
    }

    /// Claims the next writer number and locks its folder.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn claim_writer(&self) -> Result<WriterFolder, RunFolderError> {
        for _ in 0..CLAIM_ATTEMPTS {
            let number = self.greatest_number()? + 1;
            let path = self.path.join(format!("{number:06}"));
            match platform::create_private_folder(&path) {
                Ok(()) => match WriterFolder::lock(path, number) {
                    // Deleted again, or somebody asks just now whether its writer lives: there are
                    // more numbers.
                    Err(RunFolderError::WriterLives(_)) => {}
                    Err(error) if error.is_missing() => {}
                    locked => return locked,
                },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(RunFolderError::io("creating", &path)(error)),
            }
        }
        Err(RunFolderError::Contended(self.path.clone()))
    }

    /// The writers in the folder, by number. One that died before it wrote who it is never logged, and
    /// is left out.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn writers(&self) -> Result<Vec<WriterEntry>, RunFolderError> {
        let here = Here::at(&self.path);
        let numbers = numbers(&self.path)?;
        let read = |number| WriterEntry::read(&self.path, number, &here);
        Ok(numbers.into_iter().filter_map(read).collect())
    }

    /// The undelivered writers with lower numbers, in their order, as the server is told of them when
    /// a later one opens the run.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn undelivered_before(&self, number: u32) -> Result<Vec<WriterIdentity>, RunFolderError> {
        let entries = self.writers()?.into_iter();
        Ok(entries
            .filter(|entry| entry.number < number)
            // Not those that lost everything: nobody will ever open the run for them.
            .filter(|entry| is_undelivered(&entry.path, entry.info.as_ref()).unwrap_or(true))
            .filter_map(|entry| Some(WriterIdentity::of(entry.info.as_ref()?, entry.liveness)))
            .collect())
    }

    /// The greatest positions that all its writers left, and what could not be read of them.
    pub fn cursors(&self) -> (CursorSet, Vec<CursorsError>) {
        let folder = self.path.join(CURSORS);
        let mut cursors = CursorSet::default();
        let mut problems = Vec::new();
        for number in numbers(&folder).unwrap_or_default() {
            match CursorSet::read(&folder.join(format!("{number:06}"))) {
                Ok(read) => cursors.merge(read),
                Err(problem) => problems.push(problem),
            }
        }
        (cursors, problems)
    }

    /// Whether this writer left its positions.
    pub fn has_cursors(&self, number: u32) -> bool {
        self.path.join(CURSORS).join(format!("{number:06}")).exists()
    }

    /// Undoes [`Claim::Created`]: the server refused the run. Call it after the writer's folder was
    /// withdrawn; if others write to the run by now, it stays.
    ///
    /// # Errors
    ///
    /// When `run.json` cannot be deleted.
    pub fn withdraw(self) -> Result<(), RunFolderError> {
        if !numbers(&self.path)?.is_empty() {
            return Ok(());
        }
        let file = self.path.join(RUN_JSON);
        std::fs::remove_file(&file).map_err(RunFolderError::io("deleting", &file))?;
        // Only if it is empty, which it need not be.
        let _ = std::fs::remove_dir(&self.path);
        Ok(())
    }

    /// Deletes the folders of writers that died before they wrote who they are.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, or one in it not be deleted.
    pub fn remove_stillborn(&self) -> Result<(), RunFolderError> {
        if self.is_on_network() {
            return Ok(());
        }
        let paths = numbers(&self.path)?.into_iter();
        let paths = paths.map(|number| self.path.join(format!("{number:06}")));
        paths
            .filter(|path| is_stillborn(path))
            .try_for_each(|path| writer_folder::remove(&path, None))
    }

    fn greatest_number(&self) -> Result<u32, RunFolderError> {
        let writers = numbers(&self.path)?;
        let cursors = numbers(&self.path.join(CURSORS))?;
        Ok(writers.into_iter().chain(cursors).max().unwrap_or(0))
    }
}

fn new_run(request: &RunRequest<'_>) -> io::Result<RunInfo> {
    let run_id = match request.run_id {
        Some(run_id) => run_id,
        None => RunId(platform::random_bytes()?),
    };
    let names = request.names;
    Ok(RunInfo {
        version: INFO_VERSION,
        run_id,
        destination: names.destination.to_owned(),
        workspace_name: names.workspace_name.to_owned(),
        project_name: names.project_name.to_owned(),
        run_name: names.run_name.to_owned(),
        experiment_name: request.experiment_name.to_owned(),
        orchestration_id: request.orchestration_id.to_owned(),
        created_at_ms: now_ms(),
        machine_id: platform::machine_id(),
    })
}

/// The run of the writers that lie in a folder without a `run.json`, which then is not new: the file
/// was lost. `None`: there are none.
fn writers_run(
    path: &Path,
    file: &Path,
    request: &RunRequest<'_>,
) -> Result<Option<RunId>, RunFolderError> {
    let writers = numbers(path)?;
    // In this order: nobody becomes a writer before the file is there.
    if writers.is_empty() || file.exists() {
        return Ok(None);
    }
    let lost =
        |what: &str| RunFolderError::Unreadable { path: file.to_owned(), what: what.to_owned() };
    let read = |number: &u32| {
        let writer = path.join(format!("{number:06}")).join(WRITER_JSON);
        info::read::<WriterInfo>(&writer).ok().map(|info| info.run_id)
    };
    let Some(run_id) = writers.iter().find_map(read) else {
        return Err(lost("it is missing, and no writer beside it says which run it was"));
    };
    if let Some(wanted) = request.run_id.filter(|wanted| *wanted != run_id) {
        let run_name = request.names.run_name.to_owned();
        return Err(RunFolderError::OtherRun { run_name, found: run_id, wanted });
    }
    match request.resume {
        ResumeStrategy::Allow => Ok(Some(run_id)),
        // Whose job it was is not known any more.
        ResumeStrategy::Never => Err(lost(
            "it is missing beside writers of the run; resume_strategy=\"allow\" goes on with it",
        )),
    }
}

fn admit(run: &RunInfo, request: &RunRequest<'_>) -> Result<Claim, RunFolderError> {
    if let Some(wanted) = request.run_id.filter(|wanted| *wanted != run.run_id) {
        let run_name = run.run_name.clone();
        return Err(RunFolderError::OtherRun { run_name, found: run.run_id, wanted });
    }
    if run.orchestration_id == request.orchestration_id {
        return Ok(Claim::Joined);
    }
    match request.resume {
        ResumeStrategy::Allow => Ok(Claim::Resumed),
        ResumeStrategy::Never => Err(RunFolderError::OtherJob {
            run_name: run.run_name.clone(),
            theirs: run.orchestration_id.clone(),
            ours: request.orchestration_id.to_owned(),
        }),
    }
}

/// Reads a `run.json` that may be in the middle of being written.
fn read_run(path: &Path) -> Result<RunInfo, RunFolderError> {
    let begun = Instant::now();
    loop {
        match info::read_run(path) {
            Err(RunFolderError::Unreadable { .. })
                if begun.elapsed() < BEING_WRITTEN && !is_older(path, OLD) =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests;
