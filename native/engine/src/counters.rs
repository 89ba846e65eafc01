//! What was added, enqueued, spooled, sent and dropped, by kind of data.
//!
//! At every instant, for each kind: `added = sent + dropped + pending`.

use std::collections::VecDeque;

use crate::types::Seq;

/// Kinds of data that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Points of `log` and `log_distributed`.
    Float = 0,
    /// Points of the RL functions.
    Rl = 1,
    /// Attribute operations of the run.
    Attribute = 2,
    /// Attribute operations of environments.
    EnvAttribute = 3,
}

/// A count per [`Kind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub [u64; 4]);

impl Tally {
    pub const fn of(kind: Kind, count: u64) -> Self {
        let mut tally = Self([0; 4]);
        tally.0[kind as usize] = count;
        tally
    }

    pub const fn get(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Float and RL points, which are what the queue's capacity counts.
    pub const fn points(&self) -> u64 {
        self.0[Kind::Float as usize] + self.0[Kind::Rl as usize]
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

impl std::ops::Sub for Tally {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine -= theirs);
        self
    }
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// A consistent snapshot; every field only grows, but `unsealed` and `pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Given to the engine by calls that passed validation.
    pub added: Tally,
    /// Taken into the ring.
    pub enqueued: Tally,
    /// Sealed into the spool.
    pub spooled: Tally,
    /// Taken into the ring and never to be sealed: the part of `dropped` that was accepted.
    pub lost: Tally,
    /// In the ring alone: taken, and neither sealed nor lost yet.
    pub unsealed: Tally,
    /// Acknowledged by the server.
    pub sent: Tally,
    /// Refused for want of room, or thrown away by `close(0)`.
    pub dropped: Tally,
    /// Neither sent nor dropped yet.
    pub pending: Tally,
    pub connection_attempts: u64,
    pub requests_sent: u64,
    pub send_errors: u64,
    pub errors_reported: u64,
    pub errors_evicted: u64,
}

/// Most batches the ledger tells apart; beyond it neighbours are merged, and count as sent when the
/// later one is acknowledged. A run that is offline for a week stays small in memory.
const MAX_LEDGER_ENTRIES: usize = 8192;

/// What was sealed, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    spooled: Tally,
    sent: Tally,
    /// Sealed or not, it will never be sent.
    discarded: Tally,
    /// The part of it that was never sealed.
    lost: Tally,
    /// Batches that are not acknowledged, oldest first: the last seq and what it holds.
    unacked: VecDeque<(Seq, Tally)>,
}

impl Ledger {
    pub fn sealed(&mut self, seq: Seq, tally: Tally) {
        self.spooled += tally;
        if self.unacked.len() >= MAX_LEDGER_ENTRIES {
            self.merge_neighbours();
        }
        self.unacked.push_back((seq, tally));
    }

    fn merge_neighbours(&mut self) {
        let entries = std::mem::take(&mut self.unacked);
        let mut entries = entries.into_iter();
        while let Some((first, tally)) = entries.next() {
            self.unacked.push_back(match entries.next() {
                Some((second, more)) => (second, tally + more),
                None => (first, tally),
            });
        }
    }

    pub fn acked(&mut self, seq: Seq) {
        while let Some((last, tally)) = self.unacked.front().copied()
            && last <= seq
        {
            self.sent += tally;
            self.unacked.pop_front();
        }
    }

    /// What is sealed and not acknowledged will never be sent.
    pub fn discard_unacked(&mut self) {
        for (_, tally) in self.unacked.drain(..) {
            self.discarded += tally;
        }
    }

    /// These batches are damaged on disk. (A merged entry is taken if all of it is among them.)
    pub fn discard(&mut self, first: Seq, last: Seq) {
        let mut before = Seq(0);
        self.unacked.retain(|(seq, tally)| {
            // The entry's batches are `before + 1 ..= seq`, or fewer if some were acknowledged.
            let is_damaged = first.0 <= before.0 + 1 && *seq <= last;
            before = *seq;
            if is_damaged {
                self.discarded += *tally;
            }
            !is_damaged
        });
    }

    /// Enqueued, but it could not be sealed.
    pub fn lose(&mut self, tally: Tally) {
        self.lost += tally;
        self.discarded += tally;
    }

    pub const fn lost(&self) -> Tally {
        self.lost
    }

    pub const fn spooled(&self) -> Tally {
        self.spooled
    }

    pub const fn sent(&self) -> Tally {
        self.sent
    }

    pub const fn discarded(&self) -> Tally {
        self.discarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_sums_up_however_long_it_gets() {
        let mut ledger = Ledger::default();
        let count = 3 * MAX_LEDGER_ENTRIES as u64;
        for seq in 1..=count {
            ledger.sealed(Seq(seq), Tally::of(Kind::Rl, 2));
            assert!(ledger.unacked.len() <= MAX_LEDGER_ENTRIES);
        }
        ledger.acked(Seq(count - 1));
        assert_eq!(ledger.sent(), Tally::of(Kind::Rl, 2 * (count - 1)));
        ledger.discard_unacked();
        assert_eq!(ledger.spooled(), ledger.sent() + ledger.discarded());
        ledger.acked(Seq(count));
        assert_eq!(ledger.sent(), Tally::of(Kind::Rl, 2 * (count - 1)));
    }
}
