//! The wall clock of points: coarse, because a finer one costs more than the rest of a logging
//! call.

/// Unix milliseconds, as of the kernel's last tick (1 to 10 ms ago) where that can be had.
#[cfg(target_os = "linux")]
#[inline]
pub(crate) fn now_ms() -> i64 {
    use rustix::time::{ClockId, clock_gettime};
    // The vDSO answers without a system call.
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// Unix milliseconds.
#[cfg(not(target_os = "linux"))]
#[inline]
pub(crate) fn now_ms() -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
