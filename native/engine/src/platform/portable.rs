//! Where nothing is known about the operating system: every answer is the careful one.

use std::fs::File;
use std::io;
use std::path::Path;

use super::Filesystem;

/// The kind of file system that holds `path`: unknown, so a local one.
///
/// # Errors
///
/// When the path is missing.
pub fn filesystem(path: &Path) -> io::Result<Filesystem> {
    path.metadata().map(|_| Filesystem::Local)
}

/// No memory is known to outlast the process.
#[must_use]
pub fn shared_memory_folder() -> Option<&'static Path> {
    None
}

/// Unsupported.
///
/// # Errors
///
/// Always.
pub fn reserve_space(_file: &File, _bytes: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Unsupported; the caller touches the pages itself where that is safe.
///
/// # Safety
///
/// None needed: nothing is done.
///
/// # Errors
///
/// Always.
pub unsafe fn prefault(_start: *mut u8, _bytes: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Unknown, so no writer here is ever taken for dead by its machine.
#[must_use]
pub fn machine_id() -> Option<String> {
    None
}

/// Unknown.
#[must_use]
pub fn boot_id() -> Option<String> {
    None
}

/// Not known, which counts as yes.
#[must_use]
pub fn is_running(_pid: u32, _at_ms: i64) -> bool {
    true
}

/// Not known, which counts as no.
#[must_use]
pub fn is_left_to_threads(_prefix: &str) -> bool {
    false
}

/// The name of this host, if its environment tells.
#[must_use]
pub fn host_name() -> String {
    std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).unwrap_or_default()
}
