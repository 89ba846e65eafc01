//! Files whose locks end with the process that took them.
//!
//! A `flock` is the open file's, and a forked child has the same open file: as long as it lives, a
//! dead parent looks alive. So a child closes its copies of all [`LockFile`]s at the fork itself,
//! before anything of it runs, and whoever forks: the C library's handlers also run for a `fork` that
//! Python knows nothing of, and while a thread is in the middle of opening a run. What starts a
//! program without `fork` closes them in `exec`.
//!
//! A fork waits for the list of what is to be closed, so the list is never held over a call that may
//! wait for a disk or for another machine: a file is in it a moment after it is opened, and not any
//! more a moment before it is closed. A child that is made in such a moment keeps a copy of the file,
//! but of no lock. Opening notices such a child and opens the file once more, for a lock that is the
//! parent's alone; closing lets go of the lock first, which lets go of it for all copies.
//!
//! Locks by `fcntl` are not inherited, but the kernel lets go of them as soon as anybody in the
//! process closes the file, whoever copies its folder, say.

use std::cell::{Cell, UnsafeCell};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::FileId;
use crate::sync::{Mutex, MutexGuard};

/// Held during each fork, and otherwise only for a look.
static OPEN: Mutex<Open> = Mutex::new(Open { descriptors: Vec::new(), child_count: 0 });
/// The lock of the above while this process forks.
static FORKING: Forking = Forking(UnsafeCell::new(None));
/// See [`fork_count`].
static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// How many forks, one in a handler of the other, this thread has begun and not ended.
    static FORK_DEPTH: Cell<u32> = const { Cell::new(0) };
}

struct Open {
    /// What a child closes.
    descriptors: Vec<RawFd>,
    /// Forks of this process, successful or not: if it has not changed, no child was made.
    child_count: u32,
}

struct Forking(UnsafeCell<Option<MutexGuard<'static, Open>>>);

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
    static IS_WATCHED: AtomicBool = AtomicBool::new(false);
    static WATCHING: Mutex<()> = Mutex::new(());
    // Without the lock, which a child of a fork in this moment would have to wait for in vain.
    if IS_WATCHED.load(Ordering::Acquire) {
        return Ok(());
    }
    let _watching = WATCHING.lock();
    if !IS_WATCHED.load(Ordering::Acquire) {
        // SAFETY: the handlers are there as long as this library is.
        let error =
            unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        IS_WATCHED.store(true, Ordering::Release);
    }
    Ok(())
}

extern "C" fn before_fork() {
    let depth = FORK_DEPTH.get();
    FORK_DEPTH.set(depth + 1);
    if depth > 0 {
        // Another library's handler forks in its turn: this thread has the lock.
        return;
    }
    let mut open = OPEN.lock();
    open.child_count = open.child_count.wrapping_add(1);
    // SAFETY: this thread has the lock.
    unsafe { *FORKING.0.get() = Some(open) };
}

extern "C" fn in_parent() {
    end_fork();
}

/// Does only what is allowed after a fork of a process with threads: it allocates and waits for
/// nothing.
extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    if FORK_DEPTH.get() > 0
        // SAFETY: this is a copy of the thread that has the lock, by `before_fork`.
        && let Some(open) = unsafe { &mut *FORKING.0.get() }
    {
        open.descriptors.drain(..).for_each(close_in_child);
    }
    end_fork();
}

/// The lock is kept until the outermost fork has ended, which goes on in the child of an inner one.
fn end_fork() {
    let depth = FORK_DEPTH.get();
    FORK_DEPTH.set(depth.saturating_sub(1));
    if depth == 1 {
        // SAFETY: this thread has the lock, by `before_fork`.
        drop(unsafe { (*FORKING.0.get()).take() });
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
        let mut child_count = OPEN.lock().child_count;
        let mut file = options.open(path)?;
        loop {
            let mut open = OPEN.lock();
            if open.child_count == child_count {
                open.descriptors.push(file.as_raw_fd());
                return Ok(Self { file: ManuallyDrop::new(file) });
            }
            // That child may have this file open, and would have every lock that is taken on it.
            child_count = open.child_count;
            drop(open);
            file = open_anew(options, path, &file)?;
        }
    }
}

/// Opens a file once more that is open already, even if it was to be a new one.
fn open_anew(options: &OpenOptions, path: &Path, file: &File) -> io::Result<File> {
    match options.clone().create_new(false).open(path) {
        Ok(again) if FileId::of(&again)? == FileId::of(file)? => Ok(again),
        // Somebody has deleted it meanwhile.
        Ok(_) => options.open(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => options.open(path),
        Err(error) => Err(error),
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
        // For every child, too: one that was just made may not have closed its copy yet, and one that
        // is made between the next two steps never will.
        let _ = self.file.unlock();
        let own = self.file.as_raw_fd();
        OPEN.lock().descriptors.retain(|fd| *fd != own);
        // SAFETY: this is the only place that drops it, and nothing uses it after. It is not in the
        // list any more: its number may be another file's from here on, which no child may close.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs::TryLockError;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::platform::private_file;

    /// What takes longer hangs.
    const PATIENCE: Duration = Duration::from_secs(20);

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
        open_count(path) > 0
    }

    fn open_count(path: &Path) -> usize {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        files.filter(|file| std::fs::read_link(file.path()).is_ok_and(|of| of == path)).count()
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

    /// A child that stays until it is dropped.
    struct Staying(libc::pid_t);

    impl Staying {
        fn fork() -> Self {
            // SAFETY: waits for a signal that ends it.
            Self(fork(|| unsafe { libc::pause() } == 0))
        }
    }

    impl Drop for Staying {
        fn drop(&mut self) {
            // SAFETY: it is ours, and has not been waited for.
            unsafe { libc::kill(self.0, libc::SIGKILL) };
            succeeded(self.0);
        }
    }

    /// Lets go of a lock as a process does that is killed: only by closing the file.
    fn die(mut lock: LockFile) {
        let mut open = OPEN.lock();
        open.descriptors.retain(|fd| *fd != lock.as_raw_fd());
        // SAFETY: nothing uses it after. Under the lock, for whoever is dead makes no children.
        unsafe { ManuallyDrop::drop(&mut lock.file) };
        std::mem::forget(lock);
    }

    /// A child that was just made may not have closed its copy yet.
    fn is_free_soon(path: &Path) -> bool {
        let options = &mut private_file();
        options.read(true).write(true);
        eventually(|| LockFile::open(options, path).unwrap().try_lock().is_ok())
    }

    fn eventually(is_so: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        while !is_so() {
            if begun.elapsed() > PATIENCE {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Opening it waits for the other end.
    fn fifo(folder: &Path) -> PathBuf {
        let path = folder.join("fifo");
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a path that ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        path
    }

    fn other_end(path: &Path) -> File {
        File::options().write(true).open(path).unwrap()
    }

    /// A thread that opens a file for its lock, once it waits for the other end.
    fn opening<'a>(
        scope: &'a std::thread::Scope<'a, '_>,
        path: &'a Path,
    ) -> std::thread::ScopedJoinHandle<'a, LockFile> {
        let (begun, has_begun) = mpsc::channel();
        let opening = scope.spawn(move || {
            // SAFETY: asks for a number.
            begun.send(unsafe { libc::gettid() }).unwrap();
            LockFile::open(OpenOptions::new().read(true), path).unwrap()
        });
        let stat = format!("/proc/self/task/{}/stat", has_begun.recv().unwrap());
        let sleeps = || std::fs::read_to_string(&stat).unwrap().contains(") S ");
        assert!(eventually(sleeps), "it waits for the other end");
        opening
    }

    #[test]
    fn test_no_child_keeps_a_lock_that_was_opened_while_it_was_forked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::thread::scope(|scope| {
            let forking = scope.spawn(|| (0..100).map(|_| Staying::fork()).collect::<Vec<_>>());
            while !forking.is_finished() {
                die(locked(&path));
                assert!(is_free_soon(&path), "a child has it");
                // That others can take it at once is part of it.
                drop(locked(&path));
            }
            drop(forking.join().unwrap());
        });
    }

    #[test]
    fn test_a_child_made_between_opening_and_listing_keeps_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(folder.path());
        std::thread::scope(|scope| {
            let opening = opening(scope, &path);
            // As when the process is copied in the middle of a fork.
            before_fork();
            let _other_end = other_end(&path);
            assert!(eventually(|| open_count(&path) == 2), "both ends are open");
            let _child = Staying::fork();
            in_parent();
            let lock = opening.join().unwrap();
            lock.try_lock().unwrap();
            die(lock);
            assert!(is_free_soon(&path), "the child has it");
        });
    }

    #[test]
    fn test_a_new_file_is_the_same_one_when_it_is_opened_once_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut options = private_file();
        options.write(true).create_new(true);
        let file = options.open(&path).unwrap();
        let again = open_anew(&options, &path, &file).unwrap();
        assert_eq!(FileId::of(&again).unwrap(), FileId::of(&file).unwrap());
        std::fs::remove_file(&path).unwrap();
        let other = open_anew(&options, &path, &file).unwrap();
        assert_ne!(FileId::of(&other).unwrap(), FileId::of(&file).unwrap());
        // What is there now is somebody else's.
        let error = open_anew(&options, &path, &file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn test_the_outer_fork_ends_in_the_child_of_an_inner_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        watch_forks().unwrap();
        let count = fork_count();
        let child = fork(|| {
            // SAFETY: ends a child that waits for itself.
            unsafe { libc::alarm(PATIENCE.as_secs() as u32) };
            before_fork();
            before_fork();
            in_child();
            in_parent();
            drop(locked(&path));
            fork_count() == count + 2
        });
        assert!(succeeded(child));
    }

    #[test]
    fn test_a_fork_does_not_wait_for_a_file_that_cannot_be_opened_yet() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(folder.path());
        std::thread::scope(|scope| {
            let opening = opening(scope, &path);
            let (forked, has_forked) = mpsc::channel();
            scope.spawn(move || forked.send(succeeded(fork(|| true))));
            let in_time = has_forked.recv_timeout(PATIENCE);
            // Whatever came of it, nobody shall wait any longer.
            let _other_end = other_end(&path);
            drop(opening.join().unwrap());
            assert_eq!(in_time, Ok(true));
        });
    }
}
