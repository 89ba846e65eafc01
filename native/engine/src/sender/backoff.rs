//! Waiting between attempts: exponential with full jitter, so that the writers of a cluster do not
//! come back to a restarted server all at once (the "full jitter" of AWS's "Exponential Backoff And
//! Jitter", 2015).

use std::ops::RangeInclusive;
use std::time::Duration;

/// Where in `0..=1` a random draw falls. The operating system is asked each time: waits are rare,
/// and a generator's state would be the same in forked processes.
pub(super) fn random_fraction() -> f64 {
    // A wait without jitter is the mildest failure there is.
    getrandom::u64().map_or(1.0, |bits| bits as f64 / u64::MAX as f64)
}

/// A random time in `range`.
pub(super) fn random_between(range: &RangeInclusive<Duration>) -> Duration {
    let width = range.end().saturating_sub(*range.start());
    *range.start() + width.mul_f64(random_fraction())
}

/// Counts failures in a row and says how long to wait after each.
#[derive(Debug)]
pub(super) struct Backoff {
    initial: Duration,
    max: Duration,
    /// After this many failures every wait is about the maximum.
    limit: Option<u32>,
    failures: u32,
}

impl Backoff {
    pub fn new(initial: Duration, max: Duration, limit: Option<u32>) -> Self {
        Self { initial, max: max.max(initial), limit, failures: 0 }
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes that something went well.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure; true if it is the one that spends the limit.
    pub fn fail(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.limit.is_some_and(|limit| self.failures == limit.saturating_add(1))
    }

    /// How long to wait now, by a draw in `0..=1`.
    pub fn delay(&self, draw: f64) -> Duration {
        if self.limit.is_some_and(|limit| self.failures > limit) {
            // Hopeless so far: no early attempts any more, a little spread is enough.
            return self.max.mul_f64(0.75 + 0.25 * draw);
        }
        let doublings = self.failures.saturating_sub(1).min(31);
        self.initial.saturating_mul(1 << doublings).min(self.max).mul_f64(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn test_delays_double_up_to_the_maximum_and_start_anew() {
        let mut backoff = Backoff::new(50 * MS, 300 * MS, None);
        let bounds: Vec<_> = (0..5)
            .map(|_| {
                backoff.fail();
                backoff.delay(1.0).as_millis()
            })
            .collect();
        assert_eq!(bounds, [50, 100, 200, 300, 300]);
        assert_eq!(backoff.delay(0.0), Duration::ZERO);
        backoff.reset();
        backoff.fail();
        assert_eq!(backoff.delay(1.0), 50 * MS);
    }

    #[test]
    fn test_the_limit_is_spent_once_and_then_waits_are_long() {
        let mut backoff = Backoff::new(50 * MS, 1000 * MS, Some(2));
        let spent: Vec<_> = (0..5).map(|_| backoff.fail()).collect();
        assert_eq!(spent, [false, false, true, false, false]);
        assert!(backoff.delay(0.0) >= 750 * MS);
        assert_eq!(backoff.delay(1.0), 1000 * MS);
    }

    #[test]
    fn test_no_number_of_failures_overflows() {
        let mut backoff = Backoff::new(Duration::MAX / 2, Duration::MAX / 2, None);
        backoff.failures = u32::MAX;
        backoff.fail();
        assert_eq!(backoff.delay(0.0), Duration::ZERO);
    }

    #[test]
    fn test_random_times_stay_in_their_range() {
        let range = 10 * MS..=20 * MS;
        assert!((0..100).all(|_| range.contains(&random_between(&range))));
        assert_eq!(random_between(&(5 * MS..=5 * MS)), 5 * MS);
    }
}
