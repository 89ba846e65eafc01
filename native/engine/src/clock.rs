//! The wall clock of points: coarse, because a finer one costs more than the rest of a logging
//! call.

/// Unix milliseconds, as of the kernel's last tick (1 to 10 ms ago) where that can be had.
#[cfg(target_os = "linux")]
#[inline]
pub(crate) fn now_ms() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // By the C library and not straight from the vDSO (which it asks): a process whose clock
    // somebody sets from outside, by preloading a library, has one clock and not two.
    // SAFETY: `now` is valid for the write; the clock exists since Linux 2.6.32, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut now) };
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// Unix milliseconds.
#[cfg(not(target_os = "linux"))]
#[inline]
pub(crate) fn now_ms() -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
