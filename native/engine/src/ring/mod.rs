//! The ring: where a point lives from the moment `log()` returns until it is sealed into the spool.
//!
//! It is a file in tmpfs, so what was committed outlives the process (`kill -9`, OOM) as long as
//! the machine lives; the next process to come by seals the rest. Where that cannot be had, the
//! same layout lies in anonymous memory, and [`RingKind::Memory`] says why. A file on the user's
//! file system is never mapped: write-back would stall a store for hundreds of milliseconds, and
//! ENOSPC would arrive as SIGBUS.
//!
//! ```text
//! 0      magic "METRRING"        8
//! 8      version u16, 0 u16, header length u32 (4096)
//! 16     writer_id               16
//! 32     capacity u64            bytes of data, a multiple of 4096
//! 64     committed u64           lsn behind the last whole record    (release-stored by the producer)
//! 128    tail u64                lsn before which all is in the spool (release-stored by the consumer)
//! 192    next_seq u64            seq of the next batch to be sealed   (stored before `tail`)
//! 256    unsealed u64            bytes before the ring's first that its deleted predecessor held and
//!                                nobody has sealed (0 in all rings but a successor, and there soon)
//! 512    folder                  of the writer: length u32 (0: not known, or being changed), UTF-8
//! 4096   data
//! ```
//!
//! The data is a window of one endless stream: the record with lsn `l` lies at `l mod capacity`.
//! Records are multiples of 8 bytes, 8-aligned, and never wrap; a PAD record fills the end.
//!
//! One [`Producer`] (under the callers' lock) and one [`Consumer`] (the drain thread, or whoever
//! recovers a dead writer) share the memory. They synchronise by two offsets: everything below
//! `committed` is the consumer's to read, everything below `tail` the producer's to overwrite.
//! Shared memory is only touched through raw pointers and atomics, never through a reference to
//! bytes that another process may change.
//!
//! Whoever has the ring's file open also holds its `flock`, so a live ring is told from a dead
//! one even where the spool lies on a network file system.

mod access;
mod consumer;
#[cfg(all(test, loom))]
mod interleavings;
mod memory;
mod producer;
mod records;
mod survey;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use consumer::{Consumer, OutsideRing};
pub use producer::{Producer, Slot};
pub use records::{BadRecord, RawRecord, Records, records};
pub use survey::{DeadRing, dead_rings, unsealed_bytes};

use memory::Memory;

use crate::platform;
use crate::types::{Lsn, Seq, WriterId};

/// The version of the layout above.
pub const RING_VERSION: u16 = 1;
/// Record kind that fills the end of the ring; [`Records`] skips it.
pub const PAD: u8 = 1;
/// Record kind of a point: its length is [`POINT_BYTES`], its word a metric number.
pub const POINT: u8 = 2;
/// Length of every POINT record.
pub const POINT_BYTES: usize = 32;
/// Room the ring has unless the settings say otherwise.
pub const DEFAULT_CAPACITY_BYTES: u64 = 8 << 20;

/// A ring in tmpfs is not made smaller than this for want of room there.
const MIN_CAPACITY_BYTES: u64 = 1 << 20;
/// Most of the free tmpfs one ring takes: a container's is small and shared with data loaders.
const FREE_SHARE: u64 = 16;
const PAGE_BYTES: u64 = 4096;
/// Record lengths are u32, and a ring of this size is a mistake anyway.
const MAX_CAPACITY_BYTES: u64 = 1 << 30;

/// Where a ring is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RingPlace {
    /// The system's shared memory folder, else anonymous memory.
    #[default]
    SharedMemory,
    /// This folder, if it is on tmpfs, else anonymous memory.
    Folder(PathBuf),
    /// Anonymous memory.
    Memory,
}

/// What a ring is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Room for records, in bytes; rounded up to whole pages. In tmpfs at most 1/16 of what is
    /// free there, but at least 1 MiB (or this, if less).
    pub capacity_bytes: u64,
    /// Where.
    pub place: RingPlace,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { capacity_bytes: DEFAULT_CAPACITY_BYTES, place: RingPlace::default() }
    }
}

/// Where in the stream a new ring begins: at the origin for a new writer, further on when the
/// ring of a living writer was deleted under it and is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingStart {
    /// The first lsn, a multiple of 8.
    pub lsn: Lsn,
    /// The seq of the next batch to be sealed.
    pub next_seq: Seq,
    /// Bytes before `lsn` that are in no spool yet, because the ring that is replaced holds them.
    pub unsealed_bytes: u64,
}

impl RingStart {
    /// The beginning of a writer.
    pub const ORIGIN: Self = Self { lsn: Lsn(0), next_seq: Seq(1), unsealed_bytes: 0 };
}

/// What became of a wish for a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingKind {
    /// A file in tmpfs: committed records survive the process.
    Tmpfs {
        /// Its path.
        path: PathBuf,
    },
    /// Anonymous memory: what is not sealed yet dies with the process.
    Memory {
        /// Why it is not in tmpfs.
        reason: String,
    },
}

impl RingKind {
    /// The word `status()` shows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tmpfs { .. } => "tmpfs",
            Self::Memory { .. } => "memory",
        }
    }

    /// Path of the ring's file, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tmpfs { path } => Some(path),
            Self::Memory { .. } => None,
        }
    }
}

/// Why there is no ring to be had from a file, or from memory.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The system refused.
    #[error("{doing} the ring {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The folder is not memory.
    #[error("{} is not on tmpfs", .0.display())]
    NotTmpfs(PathBuf),
    /// The file is not a ring, or not a whole one.
    #[error("{} is not a ring that can be read: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A newer engine made it.
    #[error(
        "{} has layout version {version}, and this metrana reads up to {RING_VERSION}: upgrade metrana to read it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// A process that lives has it open.
    #[error("{} is in use by a process that lives", .0.display())]
    InUse(PathBuf),
}

impl RingError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A handle on the ring's memory for those who neither write nor drain it.
#[derive(Clone, Debug)]
pub struct Ring {
    memory: Arc<Memory>,
    kind: RingKind,
}

impl Ring {
    /// Makes a ring for a writer, in tmpfs if that can be had, else in anonymous memory.
    ///
    /// # Errors
    ///
    /// Only when not even anonymous memory can be mapped.
    pub fn create(
        options: &RingOptions,
        writer_id: WriterId,
        start: RingStart,
    ) -> Result<(Self, Producer, Consumer), RingError> {
        let (memory, kind) = match Self::in_tmpfs(options, writer_id, start) {
            Ok((memory, path)) => (memory, RingKind::Tmpfs { path }),
            Err(reason) => {
                let memory =
                    Memory::anonymous(whole_pages(options.capacity_bytes), writer_id, start)?;
                (memory, RingKind::Memory { reason })
            }
        };
        Ok(Self::split(memory, kind))
    }

    /// Where [`create`](Self::create) will make the writer's ring, if it can: what is written down
    /// before it is there is found whenever the process dies.
    pub fn planned_path(options: &RingOptions, writer_id: WriterId) -> Option<PathBuf> {
        let folder = match &options.place {
            RingPlace::Memory => return None,
            RingPlace::Folder(folder) => folder.as_path(),
            RingPlace::SharedMemory => platform::shared_memory_folder()?,
        };
        Some(path_in(folder, writer_id))
    }

    /// Opens the ring that a dead writer left, to seal what is in it.
    ///
    /// # Errors
    ///
    /// When the file is missing, in use, of a newer version or another writer, or its offsets
    /// make no sense.
    pub fn open_existing(path: &Path, writer_id: WriterId) -> Result<(Self, Consumer), RingError> {
        let memory = Memory::open(path, writer_id)?;
        let (ring, _, consumer) = Self::split(memory, RingKind::Tmpfs { path: path.to_owned() });
        Ok((ring, consumer))
    }

    /// What the ring of a dead writer holds, and where in the stream that begins. Takes no lock and
    /// changes nothing, so that it may be asked while somebody else seals the ring: what that one
    /// released meanwhile is in the spool.
    ///
    /// # Errors
    ///
    /// See [`open_existing`](Self::open_existing), but for its being in use.
    pub fn look(path: &Path, writer_id: WriterId) -> Result<(Vec<u64>, Lsn), RingError> {
        let memory = Memory::look(path, writer_id)?;
        let (_, _, consumer) = Self::split(memory, RingKind::Tmpfs { path: path.to_owned() });
        let mut window = Vec::new();
        loop {
            let (tail, end) = (consumer.tail(), consumer.committed());
            // Fails when the tail moves on in between; it gets to the end some time.
            if consumer.read(tail, end, &mut window).is_ok() {
                return Ok((window, tail));
            }
        }
    }

    fn in_tmpfs(
        options: &RingOptions,
        writer_id: WriterId,
        start: RingStart,
    ) -> Result<(Memory, PathBuf), String> {
        let folder = match &options.place {
            RingPlace::Memory => return Err("the settings ask for memory".to_owned()),
            RingPlace::Folder(folder) => folder.as_path(),
            RingPlace::SharedMemory => platform::shared_memory_folder()
                .ok_or_else(|| "this system has no shared memory folder".to_owned())?,
        };
        Self::in_folder(folder, options.capacity_bytes, writer_id, start)
            .map_err(|error| error.to_string())
    }

    fn in_folder(
        folder: &Path,
        wanted_bytes: u64,
        writer_id: WriterId,
        start: RingStart,
    ) -> Result<(Memory, PathBuf), RingError> {
        let asking = |source| RingError::Io { doing: "placing", path: folder.to_owned(), source };
        if platform::filesystem(folder).map_err(asking)? != platform::Filesystem::Tmpfs {
            return Err(RingError::NotTmpfs(folder.to_owned()));
        }
        let free_bytes = platform::space(folder).map_err(asking)?.free_bytes;
        let path = path_in(folder, writer_id);
        let memory =
            Memory::create(&path, fitting_capacity(wanted_bytes, free_bytes), writer_id, start)?;
        Ok((memory, path))
    }

    fn split(memory: Memory, kind: RingKind) -> (Self, Producer, Consumer) {
        let memory = Arc::new(memory);
        let producer = Producer::new(Arc::clone(&memory));
        let consumer = Consumer::new(Arc::clone(&memory));
        (Self { memory, kind }, producer, consumer)
    }

    /// In tmpfs or in memory, and why.
    pub fn kind(&self) -> &RingKind {
        &self.kind
    }

    /// Whose ring it is.
    pub fn writer_id(&self) -> WriterId {
        self.memory.writer_id()
    }

    /// Bytes of records it has room for.
    pub fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    /// Bytes committed and not yet released, padding included.
    pub fn used(&self) -> u64 {
        let tail = self.tail();
        // Read after `tail`, so never below it.
        self.committed().0 - tail.0
    }

    /// The lsn behind the last committed record.
    pub fn committed(&self) -> Lsn {
        self.memory.committed()
    }

    /// The lsn before which all is in the spool.
    pub fn tail(&self) -> Lsn {
        self.memory.tail()
    }

    /// The seq of the next batch to be sealed.
    pub fn next_seq(&self) -> Seq {
        self.memory.next_seq()
    }

    /// Bytes of the stream that were lost with the ring this one replaced, if nobody sealed them
    /// before its process died.
    pub fn unsealed_bytes(&self) -> u64 {
        self.memory.unsealed()
    }

    /// Writes down where the writer's folder is: a ring may outlive it, and then nothing else tells
    /// whose it is.
    pub fn set_folder(&self, folder: &Path) {
        if let Ok(folder) = std::path::absolute(folder) {
            self.memory.set_folder(&folder);
        }
    }

    /// Whether the file was deleted under the writer (systemd's `RemoveIPC` does so at logout):
    /// then a crash would lose what is in it, and a new ring is due.
    pub fn is_unlinked(&self) -> bool {
        self.memory.is_unlinked()
    }

    /// Of the writer, as it was written down last; `None`: not known.
    pub fn folder(&self) -> Option<PathBuf> {
        self.memory.folder()
    }

    /// Leaves the ring to whoever recovers it, though this process may keep it mapped: nothing is put
    /// into it here any more.
    pub fn let_go(&self) {
        self.memory.unlock();
    }

    /// Deletes the ring's file; the memory stays valid. Called when all is sealed and the writer
    /// ends, and after recovery. Missing is fine.
    ///
    /// # Errors
    ///
    /// As `unlink(2)`.
    pub fn unlink(&self) -> Result<(), RingError> {
        let Some(path) = self.kind.path() else { return Ok(()) };
        // A path that names another file by now is not ours to delete.
        if !self.memory.is_file(path) {
            return Ok(());
        }
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RingError::Io { doing: "deleting", path: path.to_owned(), source })
            }
            _ => Ok(()),
        }
    }
}

/// What the names of rings begin with; the writer's id follows.
const PREFIX: &str = "metrana-";

fn path_in(folder: &Path, writer_id: WriterId) -> PathBuf {
    folder.join(format!("{PREFIX}{writer_id}"))
}

fn whole_pages(bytes: u64) -> u64 {
    bytes.clamp(PAGE_BYTES, MAX_CAPACITY_BYTES).next_multiple_of(PAGE_BYTES)
}

/// How large a ring may be where `free_bytes` are left.
fn fitting_capacity(wanted_bytes: u64, free_bytes: u64) -> u64 {
    let most = (free_bytes / FREE_SHARE).max(MIN_CAPACITY_BYTES);
    whole_pages(wanted_bytes).min(most / PAGE_BYTES * PAGE_BYTES)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
