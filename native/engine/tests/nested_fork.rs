//! Another library's fork handler that forks in its turn. Handlers stay for the life of the process, so
//! this one has a file, which is a process, of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![cfg(target_os = "linux")]

use std::fs::OpenOptions;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use metrana_engine::platform::{LockFile, fork_count};

/// A deadlock ends with the process after so many seconds.
const PATIENCE_S: u32 = 30;

static FORKS_IN_HANDLER: AtomicBool = AtomicBool::new(true);
static INNER_FORKS: AtomicU32 = AtomicU32::new(0);

/// Forks once for each fork of others; its own child ends in the fork of which it is a part.
extern "C" fn forking_handler() {
    if FORKS_IN_HANDLER.swap(false, Ordering::Relaxed) {
        assert_eq!(wait_for(fork(|| has_no_lock(1))), 0);
        INNER_FORKS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Forks a child that does `work` and ends with what that gives.
fn fork(work: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the child waits for no other thread, and runs nothing of the parent's.
    match unsafe { libc::fork() } {
        0 => {
            let code = work();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(code) }
        }
        child => child,
    }
}

fn wait_for(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `child` is ours, and is waited for once.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

/// What a child finds wrong; 0: nothing.
fn has_no_lock(generation: u32) -> i32 {
    let is_lock = |file: &std::fs::DirEntry| {
        std::fs::read_link(file.path()).is_ok_and(|path| path.ends_with("nested-fork-lock"))
    };
    let has_lock = std::fs::read_dir("/proc/self/fd").unwrap().flatten().any(|file| is_lock(&file));
    i32::from(has_lock) + 2 * i32::from(fork_count() != generation)
}

#[test]
fn test_a_fork_in_a_fork_handler_waits_for_nothing_and_gets_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nested-fork-lock");
    let open = || LockFile::open(OpenOptions::new().write(true).create(true), &path).unwrap();
    // SAFETY: the handler is there as long as the process is; no child inherits the alarm.
    unsafe {
        // Before the engine's, so that it runs after it, with the engine's locks taken.
        assert_eq!(libc::pthread_atfork(Some(forking_handler), None, None), 0);
        libc::alarm(PATIENCE_S);
    }
    let lock = open();
    lock.try_lock().unwrap();
    assert_eq!(wait_for(fork(|| has_no_lock(1))), 0);
    assert_eq!(INNER_FORKS.load(Ordering::Relaxed), 1);
    // Nothing is left of the two forks: the next one finds all as the first did.
    drop(lock);
    let _lock = open();
    FORKS_IN_HANDLER.store(true, Ordering::Relaxed);
    assert_eq!(wait_for(fork(|| has_no_lock(1))), 0);
    assert_eq!((INNER_FORKS.load(Ordering::Relaxed), fork_count()), (2, 0));
}
