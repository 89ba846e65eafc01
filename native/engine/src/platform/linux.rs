//! The Linux side of [`platform`](super).

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::mm::Advice;

use super::Filesystem;

const TMPFS: u32 = 0x0102_1994;

/// `f_type` of file systems that several machines may see at once (`statfs(2)`, `linux/magic.h`
/// and the drivers of those outside the kernel). FUSE counts, because what is behind it is unknown.
const NETWORK: [u32; 17] = [
    0x0000_6969, // NFS
    0x0000_517b, // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x5346_414f, // AFS
    0x6b41_4653, // AFS, the kernel's own
    0x7375_7245, // Coda
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x00c3_6400, // Ceph
    0x1983_0326, // BeeGFS
    0x2003_0528, // OrangeFS
    0x7461_636f, // OCFS2
    0x0116_1970, // GFS2
    0xaad7_aaea, // PanFS
    0x6573_5546, // FUSE, virtiofs
    0x0102_1997, // 9P
];

/// The kind of file system that holds `path`.
///
/// # Errors
///
/// As `statfs(2)`.
pub fn filesystem(path: &Path) -> io::Result<Filesystem> {
    // Magic numbers are 32 bits wide, in a word that is signed on some machines.
    let magic = rustix::fs::statfs(path)?.f_type as u32;
    Ok(match magic {
        TMPFS => Filesystem::Tmpfs,
        magic if NETWORK.contains(&magic) => Filesystem::Network,
        _ => Filesystem::Local,
    })
}

/// Where files live in memory that outlasts the process.
#[must_use]
pub fn shared_memory_folder() -> Option<&'static Path> {
    Some(Path::new("/dev/shm"))
}

/// Allocates `bytes` of the file for good: a later store into it cannot run out of space.
///
/// # Errors
///
/// As `fallocate(2)`; ENOSPC says so here and not as SIGBUS later.
pub fn reserve_space(file: &File, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)?)
}

/// Maps every page for writing now, so that no later store faults.
///
/// # Safety
///
/// `start .. start + bytes` must be one mapping that is readable and writable.
///
/// # Errors
///
/// As `madvise(2)` with `MADV_POPULATE_WRITE`: EINVAL before Linux 5.14, EFAULT where a store
/// would raise SIGBUS.
pub unsafe fn prefault(start: *mut u8, bytes: usize) -> io::Result<()> {
    // SAFETY: populating changes no content; the range is one mapping, as the caller promises.
    unsafe { rustix::mm::madvise(start.cast::<c_void>(), bytes, Advice::LinuxPopulateWrite) }?;
    Ok(())
}

/// An id of this machine that outlasts reboots; of this boot alone where the system has none
/// (many containers). `None` when nothing is known.
#[must_use]
pub fn machine_id() -> Option<String> {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .into_iter()
        .find_map(|path| read_id(Path::new(path)))
        .or_else(|| boot_id().map(|boot| format!("boot-{boot}")))
}

/// An id of the kernel's current boot, the same in all its containers.
#[must_use]
pub fn boot_id() -> Option<String> {
    read_id(Path::new("/proc/sys/kernel/random/boot_id"))
}

/// The name of this host.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The unit of the times in `/proc`, the same on all machines we are built for.
const TICKS_PER_SECOND: i64 = 100;
/// The time of the boot is told in whole seconds, and clocks are set now and then.
const START_SLACK_MS: i64 = 2000;

/// Whether the process of that number runs and is the one that was there at a time (Unix
/// milliseconds): containers give out the same numbers again and again. Not knowing counts as yes.
#[must_use]
pub fn is_running(pid: u32, at_ms: i64) -> bool {
    let Ok(boot) = std::fs::read_to_string("/proc/stat") else { return true };
    let boot_s = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    let Some(boot_s) = boot_s else { return true };
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => is_alive_since(&stat, boot_s, at_ms).unwrap_or(true),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The 20th word is the process's start in ticks since the boot.
fn is_alive_since(stat: &str, boot_s: i64, at_ms: i64) -> Option<bool> {
    let mut words = words_from_state(stat)?;
    let is_dead = matches!(words.next()?, "Z" | "X");
    let ticks: i64 = words.nth(18)?.parse().ok()?;
    let started_ms = boot_s * 1000 + ticks * 1000 / TICKS_PER_SECOND;
    Some(!is_dead && started_ms <= at_ms + START_SLACK_MS)
}

/// `stat` is the process's line in `/proc`: behind the name in brackets, which may hold anything, are
/// its state and more words.
fn words_from_state(stat: &str) -> Option<impl Iterator<Item = &str>> {
    let (_, words) = stat.rsplit_once(')')?;
    Some(words.split_ascii_whitespace())
}

/// Whether the process's first thread has ended and the names of all others begin with `prefix`. Not
/// knowing counts as no.
#[must_use]
pub fn is_left_to_threads(prefix: &str) -> bool {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return false };
    let Some(first) = stat.split_ascii_whitespace().next() else { return false };
    let state = words_from_state(&stat).and_then(|mut words| words.next());
    // Its line stays as long as any thread runs.
    if state != Some("Z") {
        return false;
    }
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return false };
    threads.into_iter().all(|thread| {
        let Ok(thread) = thread else { return false };
        let name = || std::fs::read_to_string(thread.path().join("comm"));
        thread.file_name() == first || name().is_ok_and(|name| name.starts_with(prefix))
    })
}

fn read_id(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let id = text.trim();
    // systemd writes "uninitialized" into images that are to get an id at first boot.
    let is_id = id.len() >= 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_shared_memory_is_tmpfs() {
        let folder = shared_memory_folder().unwrap();
        assert_eq!(filesystem(folder).unwrap(), Filesystem::Tmpfs);
    }

    #[test]
    fn test_this_machine_and_boot_have_ids() {
        assert!(machine_id().is_some());
        assert_eq!(boot_id(), boot_id());
        assert!(boot_id().is_some());
        assert!(!host_name().is_empty());
    }

    #[test]
    fn test_a_process_runs_if_it_is_the_one_that_was_there() {
        let now = crate::clock::now_ms();
        assert!(is_running(std::process::id(), now));
        assert!(!is_running(std::process::id(), now - 365 * 86_400_000), "another had its number");
        assert!(!is_running(u32::MAX >> 1, now));
        let stat = |state: &str| format!("7 (a) b) {state} 1{} 300 0", " 0".repeat(17));
        assert_eq!(is_alive_since(&stat("S"), 10, 13_000), Some(true));
        assert_eq!(is_alive_since(&stat("S"), 10, 10_999), Some(false));
        assert_eq!(is_alive_since(&stat("Z"), 10, 13_000), Some(false));
    }

    #[test]
    fn test_a_process_whose_first_thread_runs_is_nobodys() {
        assert!(!is_left_to_threads(""));
    }

    #[test]
    fn test_an_uninitialised_machine_id_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine-id");
        for (text, id) in [
            ("uninitialized\n", None),
            ("", None),
            ("0123456789abcdef0123456789abcdef\n", Some("0123456789abcdef0123456789abcdef")),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_id(&path).as_deref(), id);
        }
    }
}
