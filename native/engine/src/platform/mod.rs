//! What differs between operating systems, behind one set of functions.
//!
//! Everything Linux-only lives in [`linux`](self): reserving and prefaulting memory, telling tmpfs
//! and network file systems apart, who this machine and this boot are. Elsewhere the functions
//! answer "unknown" or "unsupported", and the engine takes its portable way: an anonymous ring, and
//! writers of another machine only if their `writer.json` says so.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(unix)]
mod lock_file;
#[cfg(not(unix))]
mod lock_file_portable;
#[cfg(not(target_os = "linux"))]
mod portable;
mod signals;

#[cfg(target_os = "linux")]
pub use linux::{
    boot_id, filesystem, host_name, is_left_to_threads, is_running, machine_id, prefault,
    reserve_space, shared_memory_folder,
};
#[cfg(unix)]
pub use lock_file::{LockFile, fork_count, watch_forks};
#[cfg(not(unix))]
pub use lock_file_portable::{LockFile, fork_count, watch_forks};
#[cfg(not(target_os = "linux"))]
pub use portable::{
    boot_id, filesystem, host_name, is_left_to_threads, is_running, machine_id, prefault,
    reserve_space, shared_memory_folder,
};
pub use signals::without_signals;

/// What kind of file system a path lies on, as far as the engine cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// Memory: survives the process, not the machine.
    Tmpfs,
    /// Shared between machines (NFS, Lustre, CIFS, Ceph, FUSE …): locks prove nothing there.
    Network,
    /// A disk of this machine, or unknown.
    Local,
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What an unprivileged process may still use.
    pub free_bytes: u64,
    /// All there is.
    pub total_bytes: u64,
}

impl Space {
    /// Whether there is more than is left to others: 5 % of all, at most 1 GiB.
    ///
    /// # Errors
    ///
    /// What there is and what is left to others, in a sentence.
    pub fn check(self) -> Result<(), String> {
        let spared = (self.total_bytes / 20).min(1 << 30);
        if self.free_bytes > spared {
            return Ok(());
        }
        let free = self.free_bytes;
        Err(format!("{free} bytes are free on the disk, and {spared} are left to others"))
    }
}

/// Room on the file system that holds `path`.
///
/// # Errors
///
/// When the path is missing, or the system cannot tell.
pub fn space(path: &Path) -> io::Result<Space> {
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Options that create a file only its owner may read; the caller adds how to open it.
#[must_use]
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Creates a folder only its owner may enter.
///
/// # Errors
///
/// As `mkdir(2)`: that it is there already is an error, which is what makes it a claim.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates a folder and its parents, each only for its owner; those that exist stay as they are.
///
/// # Errors
///
/// As `mkdir(2)`.
pub fn create_private_folders(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Whether a file that was replaced must be the new one after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Yes: costs an fsync.
    Durable,
    /// It may be the old one, the new one or empty.
    Lazy,
}

/// A name beside `path` that nobody else uses, and that no listing takes for something else.
///
/// # Errors
///
/// When the system has no random bytes.
pub fn temporary_path(path: &Path) -> io::Result<PathBuf> {
    let random = random_bytes::<8>()?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:016x}", u64::from_le_bytes(random)));
    Ok(path.with_file_name(name))
}

/// Asks for the line of the cache that holds this address, to be written to soon. Nothing waits for it.
#[inline]
pub fn fetch_for_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch accesses nothing, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Bytes nobody can guess.
///
/// # Errors
///
/// When the system has none.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// How many names a file has; 0 when it was deleted under us. `None` where that is not known.
///
/// # Errors
///
/// As `fstat(2)`.
pub fn link_count(file: &File) -> io::Result<Option<u64>> {
    #[cfg(unix)]
    {
        Ok(Some(std::os::unix::fs::MetadataExt::nlink(&file.metadata()?)))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(None)
    }
}

/// The number of the device a path lies on, which tells one tmpfs mount from another.
///
/// # Errors
///
/// As `stat(2)`.
pub fn device(path: &Path) -> io::Result<Option<u64>> {
    #[cfg(unix)]
    {
        Ok(Some(std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(path)?)))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(None)
    }
}

/// Which file it is, whatever it is called. It is no other file's as long as somebody has it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of an open file; `None` where files have no such number.
    ///
    /// # Errors
    ///
    /// As `fstat(2)`.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    /// Whether the path names this file.
    ///
    /// # Errors
    ///
    /// As `stat(2)`, but a missing path is an answer.
    pub fn is_at(self, path: &Path) -> io::Result<bool> {
        match std::fs::metadata(path) {
            Ok(named) => Ok(Self::from_metadata(&named) == Some(self)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[cfg(unix)]
    #[expect(clippy::unnecessary_wraps, reason = "not every system has them")]
    fn from_metadata(metadata: &std::fs::Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }

    #[cfg(not(unix))]
    fn from_metadata(_: &std::fs::Metadata) -> Option<Self> {
        None
    }
}

/// Whether the file that is open is still the one its path names.
///
/// # Errors
///
/// As `stat(2)`, but a missing path is an answer.
pub fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    match FileId::of(file)? {
        Some(id) => id.is_at(path),
        None => path.try_exists(),
    }
}

/// Makes the names in a folder durable (a new or renamed file is lost with power otherwise).
///
/// # Errors
///
/// As `fsync(2)`.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        File::open(path)?.sync_all()
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_space_of_a_folder_is_positive() {
        let folder = tempfile::tempdir().unwrap();
        let space = space(folder.path()).unwrap();
        assert!(space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
    }

    #[test]
    fn test_files_and_folders_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_private_folders(&inner).unwrap();
        let file = inner.join("file");
        private_file().write(true).create_new(true).open(&file).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        assert!(create_private_folder(&inner).is_err());
    }

    #[test]
    fn test_link_count_falls_to_zero_when_the_file_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = private_file().write(true).create_new(true).open(&path).unwrap();
        assert_eq!(link_count(&file).unwrap(), Some(1));
        assert!(is_same_file(&file, &path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(link_count(&file).unwrap(), Some(0));
        assert!(!is_same_file(&file, &path).unwrap());
    }
}
