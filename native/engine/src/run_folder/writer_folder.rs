//! One writer's folder: claimed by its living writer, or taken over from a dead one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::info::{self, WriterInfo};
use super::kept;
use super::liveness::{Here, Liveness, Reached, is_free, reach};
use super::place::WriterPlace;
use super::{CURSORS, OLD, RunFolder, RunFolderError, is_older};
use crate::named_spool::has_nameless;
use crate::platform::{self, Durability, LockFile};
use crate::renderings::{self, LeftRenderings};
use crate::spool::{self, CursorSet, CursorsError, Disk, SpoolFiles, replace_file};
use crate::types::{Seq, WriterId};

pub(super) const LOCK: &str = "lock";
pub(super) const WRITER_JSON: &str = "writer.json";
pub(super) const ACKED: &str = "acked";
/// Extension of a folder that is being deleted.
const REMOVED: &str = "removed";

/// The folder of a writer that lives in this process. Its lock is held until this is dropped.
#[derive(Debug)]
pub struct WriterFolder {
    place: WriterPlace,
    /// `None` on a file system without locks.
    lock: Option<LockFile>,
}

impl WriterFolder {
    /// Locks a folder that is this writer's: just made, or made anew. A lock that is there already
    /// was left by an attempt that failed.
    pub(super) fn lock(path: PathBuf, number: u32) -> Result<Self, RunFolderError> {
        let lock_path = path.join(LOCK);
        platform::private_file()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(RunFolderError::io("creating", &lock_path))?;
        let lock = match reach(&lock_path).map_err(RunFolderError::io("locking", &lock_path))? {
            Reached::Taken(file) => Some(file),
            Reached::Unsupported => None,
            Reached::Held => return Err(RunFolderError::WriterLives(path)),
        };
        let place = WriterPlace::new(path, number, lock.as_deref())
            .map_err(RunFolderError::io("examining", &lock_path))?;
        Ok(Self { place, lock })
    }

    /// Claims a folder in place of one that was deleted: under the same number, unless another
    /// writer has come by it meanwhile, else under the next. Its `writer.json` is due then.
    ///
    /// # Errors
    ///
    /// When it cannot be written. Nothing has changed then, and the same call may be made again.
    pub fn claim_again(
        &mut self,
        run: &RunFolder,
        writer_id: WriterId,
    ) -> Result<(), RunFolderError> {
        let (path, number) = (self.place.path().to_owned(), self.place.number());
        let is_ours = match platform::create_private_folder(&path) {
            Ok(()) => true,
            // What is in it was deleted, but not what says whose it is.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                info::read::<WriterInfo>(&path.join(WRITER_JSON))
                    .is_ok_and(|info| info.writer_id == writer_id)
            }
            Err(error) => return Err(RunFolderError::io("creating", &path)(error)),
        };
        *self = if is_ours { Self::lock(path, number)? } else { run.claim_writer()? };
        Ok(())
    }

    /// Where it is, for whoever works in it.
    pub fn place(&self) -> &WriterPlace {
        &self.place
    }

    /// Where it is; the spool's segments lie right in it.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The writer's place in the run, from 1.
    pub fn number(&self) -> u32 {
        self.place.number()
    }

    /// Whether others can tell that this writer lives by its lock.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Writes `writer.json`, or replaces it.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the old one stays.
    pub fn write_info(&self, info: &WriterInfo) -> Result<(), RunFolderError> {
        self.place.write_info(info, &Disk)
    }

    /// Writes `writer.json` for the first time, before the ring is there: it outlives the process,
    /// and the next one makes it outlive the machine.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn announce(&self, info: &WriterInfo) -> Result<(), RunFolderError> {
        info::replace(&self.path().join(WRITER_JSON), info, Durability::Lazy, &Disk)
    }

    /// What somebody did to the folder since it was claimed.
    pub fn fate(&self) -> Fate {
        if self.place.is_kept() {
            return Fate::Kept;
        }
        match self.lock.as_deref().map(platform::link_count) {
            None | Some(Ok(Some(0))) => Fate::Deleted,
            Some(Ok(Some(_))) => Fate::Moved,
            // Not knowing is no reason to do anything.
            Some(Ok(None) | Err(_)) => Fate::Kept,
        }
    }

    /// Deletes the folder: the run was refused, nothing was ever logged, or the server has it all.
    /// One that somebody moved or deleted is left alone, and so is what is in its place.
    ///
    /// # Errors
    ///
    /// When it cannot be deleted.
    pub fn withdraw(self) -> Result<(), RunFolderError> {
        if self.place.is_kept() { remove(self.place.path(), self.lock) } else { Ok(()) }
    }
}

/// What became of a living writer's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing, as far as can be known.
    Kept,
    /// It is somewhere else, or something else is in its place.
    Moved,
    /// It is gone, and so is the lock in it.
    Deleted,
}

/// The lock of a dead writer, held by whoever recovers and delivers it, so that two of them never
/// meet. Let go by dropping it.
#[derive(Debug)]
pub struct WriterLock {
    path: PathBuf,
    info: WriterInfo,
    lock: Option<LockFile>,
    is_forced: bool,
}

impl WriterLock {
    /// Takes over the writer in this folder if it is dead; `force`: if it is foreign, too.
    ///
    /// # Errors
    ///
    /// [`RunFolderError::WriterLives`], [`RunFolderError::WriterIsForeign`], or what kept us from
    /// knowing.
    pub fn take(path: &Path, force: bool) -> Result<Self, RunFolderError> {
        let lock_path = path.join(LOCK);
        let info: WriterInfo = info::read(&path.join(WRITER_JSON))?;
        let here = Here::at(path);
        let liveness = here.judge(&lock_path, Some(&info));
        let is_forced = force && liveness == Liveness::Foreign;
        match liveness {
            Liveness::Live => return Err(RunFolderError::WriterLives(path.to_owned())),
            Liveness::Foreign if !force => {
                return Err(RunFolderError::WriterIsForeign {
                    path: path.to_owned(),
                    host: info.host,
                });
            }
            Liveness::Dead | Liveness::Foreign => {}
        }
        let lock = match reach(&lock_path).map_err(RunFolderError::io("locking", &lock_path))? {
            Reached::Taken(file) => Some(file),
            // Where locks prove nothing, two deliverers may meet: the server takes each batch once.
            Reached::Unsupported if here.is_network => None,
            Reached::Unsupported | Reached::Held => {
                return Err(RunFolderError::WriterLives(path.to_owned()));
            }
        };
        // What was read before the lock may have been another deliverer's past.
        let info = info::read(&path.join(WRITER_JSON))?;
        Ok(Self { path: path.to_owned(), info, lock, is_forced })
    }

    /// Where its spool is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it wrote about itself.
    pub fn info(&self) -> &WriterInfo {
        &self.info
    }

    /// Whether another machine's writer was taken over because somebody said so.
    pub fn is_forced(&self) -> bool {
        self.is_forced
    }

    /// Whether the lock is held, not only believed in.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Why the folder stays where it is though all in it is delivered; see
    /// [`WriterEntry`](super::WriterEntry).
    pub fn kept(&self) -> Option<String> {
        kept::read(&self.path)
    }

    /// Replaces `writer.json`.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the old one stays.
    pub fn write_info(
        &mut self,
        info: WriterInfo,
        files: &dyn SpoolFiles,
    ) -> Result<(), RunFolderError> {
        info::replace(&self.path.join(WRITER_JSON), &info, Durability::Durable, files)?;
        self.info = info;
        Ok(())
    }

    /// The greatest positions that the writer left, if it did.
    ///
    /// # Errors
    ///
    /// When they are there and cannot be read.
    pub fn read_cursors(&self) -> Result<Option<CursorSet>, CursorsError> {
        let path = self.path.with_file_name(CURSORS).join(format!("{:06}", self.info.number));
        match CursorSet::read(&path) {
            Err(CursorsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Writes the greatest positions of the dead writer, as it would have done at its close.
    ///
    /// # Errors
    ///
    /// When they cannot be written; the old ones stay.
    pub fn write_cursors(
        &self,
        cursors: &CursorSet,
        files: &dyn SpoolFiles,
    ) -> Result<(), CursorsError> {
        write_cursors(&self.path, self.info.number, cursors, files)
    }

    /// Deletes the folder: all in it was acknowledged. The run's folder and the cursors stay. If its
    /// spool ends in bytes that are no batch, it is put aside as `<number>-<writer_id>.unreadable`
    /// instead: nobody takes it for a writer's any more, and the bytes are there for whoever can
    /// read them. So it is if names are damaged that whole batches need, or if nothing tells what a
    /// rendering shows. It stays if a rendering is not sealed yet, which a recovery does, or if it is
    /// marked to be kept.
    ///
    /// # Errors
    ///
    /// When it cannot be deleted; what is left is swept away by the next one.
    pub fn remove_delivered(self) -> Result<(), RunFolderError> {
        if self.kept().is_some() {
            return Ok(());
        }
        let WriterInfo { writer_id, number, .. } = self.info;
        let summary = spool::summarize(&self.path, writer_id, |_| {})?;
        let left = renderings::left(&self.path);
        let left = left.map_err(RunFolderError::io("listing", &self.path))?;
        if left == LeftRenderings::Unsealed {
            return Ok(());
        }
        let is_readable = left == LeftRenderings::Nothing
            && summary.unread.is_empty()
            && !(summary.has_damaged_declarations && has_nameless(&self.path)?);
        if is_readable {
            return remove(&self.path, self.lock);
        }
        let aside = self.path.with_file_name(format!("{number:06}-{writer_id}.unreadable"));
        std::fs::rename(&self.path, aside).map_err(RunFolderError::io("putting aside", &self.path))
    }
}

/// Whether it is the folder of this writer, as far as can be read.
pub fn is_of_writer(folder: &Path, writer_id: WriterId) -> bool {
    let info = info::read::<WriterInfo>(&folder.join(WRITER_JSON));
    info.is_ok_and(|info| info.writer_id == writer_id)
}

pub(super) fn write_cursors(
    writer_folder: &Path,
    number: u32,
    cursors: &CursorSet,
    files: &dyn SpoolFiles,
) -> Result<(), CursorsError> {
    let folder = writer_folder.with_file_name(CURSORS);
    platform::create_private_folders(&folder).map_err(|source| CursorsError::Io {
        doing: "creating",
        path: folder.clone(),
        source,
    })?;
    cursors.write(&folder.join(format!("{number:06}")), files)
}

/// The watermark that a follower keeps in the folder: all up to it is acknowledged.
///
/// # Errors
///
/// When it cannot be read. A file that is damaged counts as none: what is delivered again is
/// recognised, and what is taken for delivered would be lost.
pub fn read_acked(writer_folder: &Path) -> Result<Seq, RunFolderError> {
    let path = writer_folder.join(ACKED);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let number = text.split(' ').next().and_then(|number| number.parse().ok()).map(Seq);
            Ok(number.filter(|acked| acked_text(*acked) == text).unwrap_or(Seq(0)))
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) =>
        {
            Ok(Seq(0))
        }
        Err(error) => Err(RunFolderError::io("reading", &path)(error)),
    }
}

/// The number and its CRC32C.
fn acked_text(acked: Seq) -> String {
    format!("{acked} {:08x}\n", crc32c::crc32c(&acked.0.to_le_bytes()))
}

/// Replaces the watermark. Not forced to the disk: what is delivered again is recognised.
///
/// # Errors
///
/// When it cannot be written; the old one stays.
pub fn write_acked(writer_folder: &Path, acked: Seq) -> Result<(), RunFolderError> {
    let path = writer_folder.join(ACKED);
    let text = acked_text(acked);
    replace_file(&Disk, &path, Durability::Lazy, text.as_bytes())
        .map_err(RunFolderError::io("writing", &path))
}

/// Whether the folder is that of a writer that died before it wrote who it is: nothing but a free lock
/// is in it, and what was on its way in, for longer than a claim takes.
pub(super) fn is_stillborn(path: &Path) -> bool {
    let holds_only_a_lock = || {
        let mut entries = std::fs::read_dir(path).ok()?;
        let is_no_data = |name: OsString| name == LOCK || name.as_encoded_bytes().starts_with(b".");
        Some(entries.all(|entry| entry.is_ok_and(|entry| is_no_data(entry.file_name()))))
    };
    let lock = path.join(LOCK);
    !path.join(WRITER_JSON).exists()
        && is_older(path, OLD)
        && holds_only_a_lock() == Some(true)
        && (!lock.exists() || is_free(&lock))
}

/// Takes the folder out of every listing in one step, then deletes it: a half-deleted one would
/// have no `writer.json` and so count as living for ever. `lock` is held until it is in no listing.
///
/// A network file system keeps a deleted file under another name while somebody has it open, and
/// the folder with it. What is left of folders is deleted with the next one of the run.
pub(super) fn remove(path: &Path, lock: Option<LockFile>) -> Result<(), RunFolderError> {
    let removed = platform::temporary_path(path).map_err(RunFolderError::io("removing", path))?;
    let mut removed = removed.into_os_string();
    removed.push(".");
    removed.push(REMOVED);
    let removed = PathBuf::from(removed);
    std::fs::rename(path, &removed).map_err(RunFolderError::io("removing", path))?;
    drop(lock);
    delete(&removed).map_err(RunFolderError::io("deleting", &removed))?;
    for left in path.parent().into_iter().flat_map(std::fs::read_dir).flatten().flatten() {
        if left.path().extension() == Some(OsStr::new(REMOVED)) {
            // It is nobody's loss that it stays; another process may be deleting it, too.
            let _ = delete(&left.path());
        }
    }
    Ok(())
}

fn delete(removed: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(removed) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        deleted => deleted,
    }
}
