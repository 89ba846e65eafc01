//! What lies in a writer's folder of renderings.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::sidecar::Sidecar;
use crate::spool::SpoolFiles;
use crate::types::RenderingId;

const RENDERINGS: &str = "renderings";
const WHOLE: &str = "mp4";
const PART: &str = "part";
const SIDECAR: &str = "json";
const TEMPORARY: &str = "tmp";

/// Where a writer's renderings wait.
pub fn renderings_folder(writer_folder: &Path) -> PathBuf {
    writer_folder.join(RENDERINGS)
}

/// The file of a rendering that is finished.
pub(super) fn whole_path(folder: &Path, id: RenderingId) -> PathBuf {
    folder.join(format!("{id}.{WHOLE}"))
}

/// The file of a rendering that is being encoded.
pub(super) fn part_path(folder: &Path, id: RenderingId) -> PathBuf {
    folder.join(format!("{id}.{PART}"))
}

pub(super) fn sidecar_path(folder: &Path, id: RenderingId) -> PathBuf {
    folder.join(format!("{id}.{SIDECAR}"))
}

/// The files of one rendering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub has_whole: bool,
    pub has_part: bool,
    pub has_sidecar: bool,
}

impl Found {
    /// Whether a video is there, finished or not.
    pub fn has_video(self) -> bool {
        self.has_whole || self.has_part
    }
}

/// The renderings in a writer's folder, by id; none if there is no folder of them.
pub(crate) fn list(writer_folder: &Path) -> io::Result<BTreeMap<RenderingId, Found>> {
    let mut all: BTreeMap<RenderingId, Found> = BTreeMap::new();
    for path in files(writer_folder)? {
        let id = path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse().ok());
        let (Some(id), Some(extension)) = (id, path.extension().and_then(OsStr::to_str)) else {
            continue;
        };
        let mut found = all.get(&id).copied().unwrap_or_default();
        match extension {
            WHOLE => found.has_whole = true,
            PART => found.has_part = true,
            SIDECAR => found.has_sidecar = true,
            _ => continue,
        }
        all.insert(id, found);
    }
    Ok(all)
}

fn files(writer_folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(renderings_folder(writer_folder)) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// How many videos lie in a writer's folder.
pub(crate) fn video_count(writer_folder: &Path) -> io::Result<u64> {
    let all = list(writer_folder)?;
    Ok(all.values().filter(|found| found.has_video()).count() as u64)
}

/// Whether videos lie in a writer's folder that are in no spool, or not wholly.
///
/// # Errors
///
/// When that cannot be read.
pub fn has_left(writer_folder: &Path) -> io::Result<bool> {
    video_count(writer_folder).map(|count| count > 0)
}

/// What is left of renderings in a writer's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftRenderings {
    /// No video.
    Nothing,
    /// Videos that nobody can seal: what they show is not known.
    Unreadable,
    /// Videos that a recovery seals, or one by a newer engine.
    Unsealed,
}

/// Looks at what is left, sidecars included.
///
/// # Errors
///
/// When that cannot be read.
pub fn left(writer_folder: &Path) -> io::Result<LeftRenderings> {
    let folder = renderings_folder(writer_folder);
    let mut left = LeftRenderings::Nothing;
    for (id, found) in list(writer_folder)? {
        if !found.has_video() {
            continue;
        }
        match Sidecar::read(&sidecar_path(&folder, id)) {
            Err(error) if error.is_for_good() => left = LeftRenderings::Unreadable,
            _ => return Ok(LeftRenderings::Unsealed),
        }
    }
    Ok(left)
}

/// Deletes the files of a rendering that is in the spool. In this order: a file that was begun would
/// be taken for a rendering of its own without the finished one, and one without its sidecar cannot
/// be sealed.
pub(crate) fn remove(
    writer_folder: &Path,
    id: RenderingId,
    files: &dyn SpoolFiles,
) -> io::Result<()> {
    let folder = renderings_folder(writer_folder);
    for path in [part_path(&folder, id), whole_path(&folder, id), sidecar_path(&folder, id)] {
        // A file that is not there costs a look, not a change.
        if path.try_exists().unwrap_or(true) {
            remove_file(&path, files)?;
        }
    }
    Ok(())
}

/// Deletes what a dead writer's encoders left on the way: files that were being written, and sidecars
/// without a video.
pub(crate) fn remove_rest(writer_folder: &Path, files: &dyn SpoolFiles) -> io::Result<()> {
    let all = list(writer_folder)?;
    for path in self::files(writer_folder)? {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let is_on_its_way =
            name.starts_with(b".") || path.extension() == Some(OsStr::new(TEMPORARY));
        let is_alone = || {
            let stem = path.file_stem().and_then(OsStr::to_str);
            let found = stem.and_then(|stem| stem.parse().ok()).and_then(|id| all.get(&id));
            path.extension() == Some(OsStr::new(SIDECAR))
                && found.is_some_and(|found| !found.has_video())
        };
        if is_on_its_way || is_alone() {
            remove_file(&path, files)?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path, files: &dyn SpoolFiles) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
