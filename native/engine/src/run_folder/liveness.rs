//! Who is alive: the lock of a writer, and what can be told without it.
//!
//! A writer holds the `flock` on its `lock` file from its first byte to its exit; the kernel lets
//! go of it however the process ends. Asking takes a *shared* lock for an instant, so that two who
//! ask do not mistake each other for the writer.
//!
//! A lock proves something only among processes of one kernel, and on a file system of their own:
//!
//! | file system | `boot_id` | `machine_id` | verdict |
//! |---|---|---|---|
//! | any | other | other | foreign, unless the writer wrote that it ended |
//! | any | other | ours | dead: the machine was started anew since |
//! | local | ours | any | what the lock says |
//! | network | ours | any | what the lock on its ring says, which is in this machine's memory |
//!
//! The same boot id is the same kernel, so a container without a machine id of its own is still
//! known. Missing or unreadable is never dead.

use std::fs::{OpenOptions, TryLockError};
use std::path::Path;

use super::info::{WriterEnd, WriterInfo};
use crate::platform::{self, Filesystem, LockFile};

/// Whether a writer's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It does, or nothing proves that it does not.
    Live,
    /// It does not: its spool may be sealed, cut and deleted by whoever takes its lock.
    Dead,
    /// It is another machine's: nothing can be known, so its spool is only followed.
    Foreign,
}

/// This machine, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Here {
    pub(super) machine_id: Option<String>,
    pub(super) boot_id: Option<String>,
    pub(super) is_network: bool,
}

impl Here {
    /// `folder` is on the file system in question.
    pub(super) fn at(folder: &Path) -> Self {
        Self {
            machine_id: platform::machine_id(),
            boot_id: platform::boot_id(),
            // A file system that cannot be named may be anything: then locks prove nothing.
            is_network: platform::filesystem(folder).unwrap_or(Filesystem::Network)
                == Filesystem::Network,
        }
    }

    /// Whether the writer in this folder lives.
    pub(super) fn judge(&self, lock: &Path, info: Option<&WriterInfo>) -> Liveness {
        // Between claiming its folder and writing who it is, a writer has no info.
        let Some(info) = info else { return Liveness::Live };
        let is_same =
            |ours: &Option<String>, theirs: &Option<String>| ours.is_some() && ours == theirs;
        let is_our_boot = is_same(&self.boot_id, &info.boot_id);
        let is_our_machine = is_same(&self.machine_id, &info.machine_id);
        match (is_our_boot, is_our_machine) {
            (false, false) if info.ended.is_some() => Liveness::Dead,
            (false, false) => Liveness::Foreign,
            (false, true) if self.boot_id.is_some() && info.boot_id.is_some() => Liveness::Dead,
            _ if self.is_network => Self::judge_by_ring(info),
            _ if is_free(lock) => Liveness::Dead,
            _ => Liveness::Live,
        }
    }

    fn judge_by_ring(info: &WriterInfo) -> Liveness {
        let is_dead = info.ended == Some(WriterEnd::Closed)
            || info.ended == Some(WriterEnd::Recovered)
            || info.ring.as_deref().is_some_and(is_free);
        if is_dead { Liveness::Dead } else { Liveness::Live }
    }
}

/// Whether the file is there and nobody holds its lock.
pub(super) fn is_free(path: &Path) -> bool {
    // Closing the file lets go of the lock again.
    LockFile::open(OpenOptions::new().read(true), path)
        .is_ok_and(|file| file.try_lock_shared().is_ok())
}

/// What came of reaching for a lock.
#[derive(Debug)]
pub(super) enum Reached {
    /// It is ours as long as the file stays open.
    Taken(LockFile),
    /// Somebody has it.
    Held,
    /// This file system has no locks.
    Unsupported,
}

/// Takes the lock of a file that must be there.
pub(super) fn reach(path: &Path) -> std::io::Result<Reached> {
    let file = LockFile::open(platform::private_file().read(true).write(true), path)?;
    match file.try_lock() {
        // A file that was deleted and made anew meanwhile is another lock.
        Ok(()) if platform::is_same_file(&file, path)? => Ok(Reached::Taken(file)),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(Reached::Held),
        Err(TryLockError::Error(error)) => match error.kind() {
            std::io::ErrorKind::Unsupported | std::io::ErrorKind::InvalidInput => {
                Ok(Reached::Unsupported)
            }
            // ENOLCK has no kind of its own.
            _ if error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error()) => {
                Ok(Reached::Unsupported)
            }
            _ => Err(error),
        },
    }
}
