//! Threads that no signal reaches.

/// Runs `start` with every signal blocked in this thread, so that a thread started by it inherits a
/// full mask: signals go to the threads of the program itself, whose handlers expect them there
/// (Python runs them in its main thread, and a blocking call there must be interrupted).
#[cfg(unix)]
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let old = block_all();
    let result = start();
    if let Some(old) = old {
        // SAFETY: `old` was filled by the call that blocked them; no old mask is asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    }
    result
}

/// Blocks every signal in this thread; the mask that was in force, if that worked.
#[cfg(unix)]
fn block_all() -> Option<libc::sigset_t> {
    // SAFETY: a signal set is plain data that the next calls overwrite, and both pointers are to
    // sets that live in this frame.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        let error = libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        (error == 0).then_some(old)
    }
}

/// Where signals are not a thing of threads.
#[cfg(not(unix))]
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    start()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn is_blocked(signal: i32) -> bool {
        // SAFETY: asks for the mask alone, into a set of this frame.
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
            libc::sigismember(&raw const mask, signal) == 1
        }
    }

    #[test]
    fn test_a_thread_started_without_signals_blocks_them_and_its_parent_does_not() {
        let thread = without_signals(|| {
            std::thread::spawn(|| is_blocked(libc::SIGINT) && is_blocked(libc::SIGTERM))
        });
        assert!(thread.join().unwrap());
        assert!(!is_blocked(libc::SIGINT));
    }
}
