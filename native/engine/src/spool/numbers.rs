//! The writer-local numbers that batches use and segments declare.

use crate::types::{EnvNo, MetricNo};

/// Numbers of metrics and environments, in any order, possibly repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Of metrics.
    pub metrics: Vec<MetricNo>,
    /// Of environments; [`EnvNo::NONE`] needs no declaration and may be among them.
    pub envs: Vec<EnvNo>,
}

impl Numbers {
    /// Neither metrics nor environments.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.envs.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.metrics.len() + self.envs.len()
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.metrics.clear();
        self.envs.clear();
    }
}

/// Whoever knows what the numbers of a writer stand for: its registry, or what was read back from
/// the spool of a dead one.
pub trait DeclarationSource {
    /// Appends to `out` one declarations payload (version and all) of exactly these numbers, metrics first.
    ///
    /// # Errors
    ///
    /// A number that was never given out. `out` is of no use then.
    fn encode_declarations(
        &mut self,
        metrics: &[MetricNo],
        envs: &[EnvNo],
        out: &mut Vec<u8>,
    ) -> Result<(), UnknownNumber>;
}

/// A number without a name: a fault of the engine, or a declaration that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownNumber {
    /// Of a metric.
    #[error("metric number {0} was never declared")]
    Metric(MetricNo),
    /// Of an environment.
    #[error("environment number {0} was never declared")]
    Env(EnvNo),
}

/// Which numbers a segment has declared. Numbers are dense, so one bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct NumberSet {
    metrics: BitSet,
    envs: BitSet,
}

impl NumberSet {
    /// Those of `used` that are not in the set: each once, ascending.
    pub(super) fn missing(&self, used: &Numbers) -> Numbers {
        let metrics = used.metrics.iter().filter(|no| !self.metrics.contains(no.0));
        let envs = used.envs.iter().filter(|no| **no != EnvNo::NONE && !self.envs.contains(no.0));
        let mut missing =
            Numbers { metrics: metrics.copied().collect(), envs: envs.copied().collect() };
        missing.metrics.sort_unstable();
        missing.metrics.dedup();
        missing.envs.sort_unstable();
        missing.envs.dedup();
        missing
    }

    pub(super) fn insert(&mut self, numbers: &Numbers) {
        for no in &numbers.metrics {
            self.metrics.insert(no.0);
        }
        for no in &numbers.envs {
            self.envs.insert(no.0);
        }
    }

    /// All of them, ascending.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            metrics: self.metrics.iter().map(MetricNo).collect(),
            envs: self.envs.iter().map(EnvNo).collect(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct BitSet(Vec<u64>);

impl BitSet {
    fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn insert(&mut self, number: u32) {
        let at = number as usize / 64;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (number % 64);
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().enumerate().flat_map(|(at, &word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at as u32 * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_missing_numbers_are_given_once_without_the_empty_environment() {
        let mut set = NumberSet::default();
        set.insert(&Numbers { metrics: vec![MetricNo(1)], envs: vec![EnvNo(70)] });
        let used = Numbers {
            metrics: vec![MetricNo(200), MetricNo(1), MetricNo(200)],
            envs: vec![EnvNo(0), EnvNo(70), EnvNo(3), EnvNo(3)],
        };
        let missing = set.missing(&used);
        assert_eq!(
            (missing.metrics.as_slice(), missing.envs.as_slice()),
            (&[MetricNo(200)][..], &[EnvNo(3)][..])
        );
        set.insert(&missing);
        assert!(set.missing(&used).is_empty());
        let all = set.numbers();
        assert_eq!(all.metrics, [MetricNo(1), MetricNo(200)]);
        assert_eq!(all.envs, [EnvNo(3), EnvNo(70)]);
    }
}
