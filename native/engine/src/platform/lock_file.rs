//! Files whose locks end with the process that took them.
//!
//! A `flock` is the open file's, and a forked child has the same open file: as long as it lives, a
//! dead parent looks alive. So a child closes its copies of all [`LockFile`]s at the fork itself,
//! before anything of it runs, and whoever forks: the C library's handlers also run for a `fork` that
//! Python knows nothing of, and while a thread is in the middle of opening a run. What starts a
//! program without `fork` closes them in `exec`.
//!
//! Locks by `fcntl` are not inherited, but the kernel lets go of them as soon as anybody in the
//! process closes the file, whoever copies its folder, say.

use std::cell::UnsafeCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sync::{Mutex, MutexGuard};

/// The descriptors that a child closes. Held for opening and closing one, and during each fork: no
/// child has one that is not in here.
static OPEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
/// The lock of the above while this process forks.
static FORKING: Forking = Forking(UnsafeCell::new(None));
/// See [`fork_count`].
static FORKS: AtomicU32 = AtomicU32::new(0);

struct Forking(UnsafeCell<Option<MutexGuard<'static, Vec<RawFd>>>>);

// SAFETY: it is only touched by the thread that has the lock which is in it, or is about to be.
unsafe impl Sync for Forking {}

/// How many forks lie between this process and the one that asked first: an object that remembers
/// another number is the copy of a parent's.
#[inline]
#[must_use]
pub fn fork_count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Makes [`fork_count`] count from now on.
///
/// # Errors
///
/// As `pthread_atfork(3)`.
pub fn watch_forks() -> io::Result<()> {
    static IS_WATCHED: Mutex<bool> = Mutex::new(false);
    let mut is_watched = IS_WATCHED.lock();
    if !*is_watched {
        // SAFETY: the handlers are there as long as this library is.
        let error =
            unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        *is_watched = true;
    }
    Ok(())
}

extern "C" fn before_fork() {
    let open = OPEN.lock();
    // SAFETY: this thread has the lock.
    unsafe { *FORKING.0.get() = Some(open) };
}

extern "C" fn in_parent() {
    // SAFETY: this thread has the lock, by `before_fork`.
    drop(unsafe { (*FORKING.0.get()).take() });
}

/// Does only what is allowed after a fork of a process with threads: it allocates and waits for
/// nothing.
extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: this is a copy of the thread that has the lock, by `before_fork`.
    if let Some(mut open) = unsafe { (*FORKING.0.get()).take() } {
        open.drain(..).for_each(close_in_child);
    }
}

/// Puts another file in the place of the descriptor, so that its number stays taken: whoever drops
/// the child's copy of a [`LockFile`] must not close what is somebody else's by then.
fn close_in_child(fd: RawFd) {
    // SAFETY: these calls take plain numbers and a constant path. The descriptor is a `LockFile`'s
    // that nobody uses meanwhile, for there is only this thread.
    unsafe {
        libc::close(fd);
        let other = libc::open(c"/".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if other >= 0 && other != fd {
            libc::dup2(other, fd);
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::close(other);
        }
    }
}

/// A file that is open for its lock. In a forked child it is another one, without it.
#[derive(Debug)]
pub struct LockFile {
    /// Closed by [`Drop`] alone.
    file: ManuallyDrop<File>,
}

impl LockFile {
    /// Opens the file; its lock is not taken yet.
    ///
    /// # Errors
    ///
    /// As `open(2)`.
    pub fn open(options: &OpenOptions, path: &Path) -> io::Result<Self> {
        watch_forks()?;
        let mut open = OPEN.lock();
        let file = options.open(path)?;
        open.push(file.as_raw_fd());
        Ok(Self { file: ManuallyDrop::new(file) })
    }
}

impl Deref for LockFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        let mut open = OPEN.lock();
        let own = self.file.as_raw_fd();
        open.retain(|fd| *fd != own);
        // A child that was just made may not have closed its copy yet.
        let _ = self.file.unlock();
        // SAFETY: this is the only place that drops it, and nothing uses it after. Under the lock, or
        // a child could be made that has it still.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs::TryLockError;

    use super::*;
    use crate::platform::private_file;

    fn locked(path: &Path) -> LockFile {
        let lock = LockFile::open(private_file().write(true).create(true), path).unwrap();
        lock.try_lock().unwrap();
        lock
    }

    /// Forks a child that does `work` and ends.
    fn fork(work: impl FnOnce() -> bool) -> libc::pid_t {
        // SAFETY: the child waits for no other thread, and runs nothing of the parent's.
        match unsafe { libc::fork() } {
            0 => {
                let code = i32::from(!work());
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(code) }
            }
            child => child,
        }
    }

    /// Whether the child's work said yes.
    fn succeeded(child: libc::pid_t) -> bool {
        let mut status = 0;
        // SAFETY: `child` is ours, and is waited for once.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        status == 0
    }

    fn has_open(path: &Path) -> bool {
        let is_it = |entry: io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| std::fs::read_link(entry.path()).is_ok_and(|of| of == path))
        };
        std::fs::read_dir("/proc/self/fd").unwrap().any(is_it)
    }

    #[test]
    fn test_a_child_has_none_of_its_parents_locks_and_leaves_them_taken() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let _locks = paths.each_ref().map(|path| locked(path));
        assert!(paths.iter().all(|path| has_open(path)));
        assert!(succeeded(fork(|| !paths.iter().any(|path| has_open(path)))));
        for path in &paths {
            let taken = File::open(path).unwrap().try_lock();
            assert!(matches!(taken, Err(TryLockError::WouldBlock)), "{taken:?}");
        }
    }

    #[test]
    fn test_dropping_a_childs_copy_closes_nothing_of_the_childs() {
        let folder = tempfile::tempdir().unwrap();
        let lock = locked(&folder.path().join("lock"));
        let count = fork_count();
        let child = fork(|| {
            let own = File::open("/dev/null").unwrap();
            drop(lock);
            own.metadata().is_ok() && fork_count() == count + 1
        });
        assert!(succeeded(child));
        assert_eq!(fork_count(), count);
    }

    #[test]
    fn test_no_child_has_a_lock_that_was_opened_while_it_was_forked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::thread::scope(|scope| {
            let forking = scope.spawn(|| {
                (0..200)
                    .map(|_| succeeded(fork(|| !has_open(&path))))
                    .filter(|is_free| *is_free)
                    .count()
            });
            while !forking.is_finished() {
                // That others can take it at once is part of it.
                drop(locked(&path));
            }
            assert_eq!(forking.join().unwrap(), 200);
        });
    }
}
