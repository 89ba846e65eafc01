//! A writer as it is found in a run's folder.

use std::path::{Path, PathBuf};

use super::RunFolderError;
use super::info::{self, WriterInfo};
use super::kept;
use super::liveness::{Here, Liveness};
use super::writer_folder::{LOCK, WRITER_JSON, is_stillborn, read_acked};
use crate::renderings;
use crate::spool;
use crate::types::Seq;

/// A writer found in a run's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterEntry {
    /// Its place in the run.
    pub number: u32,
    /// Its folder.
    pub path: PathBuf,
    /// What it wrote about itself, if that is there and can be read.
    pub info: Option<WriterInfo>,
    /// Whether it lives.
    pub liveness: Liveness,
    /// Whether there is a rendering, or something in spool or ring beyond what a follower
    /// acknowledged, or was in a ring whose loss nobody has told yet.
    pub is_undelivered: bool,
    /// Why `info` is missing, `is_undelivered` a guess, or the ring lost.
    pub problem: Option<String>,
    /// Why the folder stays where it is though all in it is delivered: nobody delivers it again.
    pub kept: Option<String>,
}

impl WriterEntry {
    /// The writer of this number in a run's folder; `None` if it is gone by now.
    pub(super) fn read(run_folder: &Path, number: u32, here: &Here) -> Option<Self> {
        let path = run_folder.join(format!("{number:06}"));
        if !here.is_network && is_stillborn(&path) {
            return None;
        }
        let mut is_damaged = false;
        let (info, mut problem) = match info::read::<WriterInfo>(&path.join(WRITER_JSON)) {
            Ok(info) => (Some(info), None),
            Err(_) if !path.exists() => return None,
            Err(error) => {
                // A writer that has just begun has none yet; one that is there was whole once.
                is_damaged = !error.is_missing();
                (None, Some(error.to_string()))
            }
        };
        let lock = path.join(LOCK);
        let liveness = here.judge(&lock, info.as_ref());
        if liveness == Liveness::Live && info.is_some() && !here.is_network && !lock.exists() {
            problem = Some(format!(
                "{} is missing, so nothing tells whether the writer lives; if it does not, an empty \
                 file of that name lets it be delivered",
                lock.display()
            ));
        }
        let mut is_undelivered = is_undelivered(&path, info.as_ref()).unwrap_or_else(|error| {
            problem.get_or_insert(error.to_string());
            true
        });
        is_undelivered |= is_damaged;
        if let Some(info) = &info
            && liveness == Liveness::Dead
            && info.ended.is_none()
            && info.ring_capacity > 0
            && let Some(why) = info.ring_loss()
        {
            problem.get_or_insert(info.about_ring("is lost", &why));
            is_undelivered = true;
        }
        let kept = kept::read(&path);
        Some(Self { number, path, info, liveness, is_undelivered, problem, kept })
    }
}

/// Whether there is something in spool, ring or folder of renderings that nobody acknowledged.
pub(super) fn is_undelivered(
    path: &Path,
    info: Option<&WriterInfo>,
) -> Result<bool, RunFolderError> {
    if renderings::has_left(path).map_err(RunFolderError::io("listing", path))? {
        return Ok(true);
    }
    let Some(info) = info else { return Ok(!spool::is_empty(path)?) };
    let last = spool::last_seq(path, info.writer_id)?;
    let has_ring = info.ended.is_none() && info.ring.as_deref().is_some_and(Path::exists);
    Ok(has_ring || last > read_acked(path).unwrap_or(Seq(0)))
}
