//! What went wrong behind `log()`: kept for `take_errors`, bounded, and never twice in a row.

use std::collections::VecDeque;

/// Most problems that wait to be taken, and most that `status()` shows.
const MAX_WAITING: usize = 100;
const MAX_SHOWN: usize = 10;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    /// Not taken yet, oldest first.
    waiting: VecDeque<String>,
    /// The last ones, taken or not.
    shown: VecDeque<String>,
    reported: u64,
    evicted: u64,
}

impl Problems {
    pub fn report(&mut self, problem: String) {
        self.reported += 1;
        self.note(problem.clone());
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            self.evicted += 1;
        }
        self.waiting.push_back(problem);
    }

    /// For `status()` alone: a limitation, not a failure. `false`: it is shown already.
    pub fn note(&mut self, problem: String) -> bool {
        if self.shown.contains(&problem) {
            return false;
        }
        if self.shown.len() == MAX_SHOWN {
            self.shown.pop_front();
        }
        self.shown.push_back(problem);
        true
    }

    pub fn take(&mut self) -> Vec<String> {
        self.waiting.drain(..).collect()
    }

    pub fn shown(&self) -> Vec<String> {
        self.shown.iter().cloned().collect()
    }

    pub const fn reported(&self) -> u64 {
        self.reported
    }

    pub const fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_evicted_and_counted() {
        let mut problems = Problems::default();
        for i in 0..MAX_WAITING + 3 {
            problems.report(i.to_string());
        }
        assert_eq!((problems.reported(), problems.evicted()), (MAX_WAITING as u64 + 3, 3));
        assert_eq!(problems.take()[0], "3");
        assert!(problems.take().is_empty());
        assert_eq!(problems.shown().len(), MAX_SHOWN);
    }
}
