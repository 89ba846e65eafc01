//! What of one stream was read from the spool and is not acknowledged yet.

use std::collections::VecDeque;

use crate::types::Seq;

/// Sequence numbers in flight, oldest first.
///
/// Everything the spool gives passes through here: batches that are sent, batches the server says
/// it has already, and ranges that are lost. So acknowledgements never run ahead of what the spool
/// was seen to hold, whatever a server claims.
#[derive(Debug)]
pub(super) struct Window {
    capacity: usize,
    in_flight: VecDeque<Entry>,
    /// Everything up to here needs no more attention.
    acked: Seq,
    /// The greatest seq read from the spool.
    last_read: Seq,
    /// The greatest seq the server has acknowledged.
    server_has: Seq,
}

#[derive(Debug)]
struct Entry {
    seq: Seq,
    /// Nothing is awaited for this one: it ends a lost range.
    lost: bool,
}

impl Window {
    /// A window behind `acked`.
    pub fn new(capacity: usize, acked: Seq) -> Self {
        Self {
            capacity: capacity.max(1),
            in_flight: VecDeque::new(),
            acked,
            last_read: acked,
            server_has: acked,
        }
    }

    pub fn acked(&self) -> Seq {
        self.acked
    }

    /// The greatest seq read from the spool.
    pub fn last_read(&self) -> Seq {
        self.last_read
    }

    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.in_flight.len() < self.capacity
    }

    /// Notes a batch read from the spool; false if the server has it, so that it need not be sent.
    pub fn read_batch(&mut self, seq: Seq) -> bool {
        self.last_read = self.last_read.max(seq);
        self.in_flight.push_back(Entry { seq, lost: false });
        self.settle();
        seq > self.server_has
    }

    /// Notes a range that ends with `last` and will never be sent.
    pub fn read_lost(&mut self, last: Seq) {
        self.last_read = self.last_read.max(last);
        self.in_flight.push_back(Entry { seq: last, lost: true });
        self.settle();
    }

    /// Notes the server's word that it has everything up to `seq`; true if that moved `acked`.
    pub fn ack(&mut self, seq: Seq) -> bool {
        let before = self.acked;
        self.server_has = self.server_has.max(seq);
        self.settle();
        self.acked > before
    }

    fn settle(&mut self) {
        while let Some(oldest) = self.in_flight.front() {
            if !oldest.lost && oldest.seq > self.server_has {
                break;
            }
            self.acked = self.acked.max(oldest.seq);
            self.in_flight.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(capacity: usize, read: u64) -> Window {
        let mut window = Window::new(capacity, Seq(0));
        for seq in 1..=read {
            assert!(window.read_batch(Seq(seq)));
        }
        window
    }

    #[test]
    fn test_acks_are_cumulative_and_repeats_change_nothing() {
        let mut window = window(4, 4);
        assert!(!window.has_room());
        assert!(window.ack(Seq(3)));
        assert!(!window.ack(Seq(3)));
        assert!(!window.ack(Seq(1)));
        assert_eq!(window.acked(), Seq(3));
        assert!(window.has_room() && !window.is_empty());
        assert!(window.ack(Seq(4)));
        assert!(window.is_empty());
    }

    #[test]
    fn test_an_ack_beyond_what_was_read_waits_for_the_reading() {
        let mut window = window(4, 2);
        assert!(window.ack(Seq(9)));
        assert_eq!(window.acked(), Seq(2));
        assert!(!window.read_batch(Seq(3)), "the server has it");
        assert_eq!(window.acked(), Seq(3));
        assert!(window.is_empty());
    }

    #[test]
    fn test_a_lost_range_is_acked_with_what_precedes_it() {
        let mut window = window(8, 2);
        window.read_lost(Seq(4));
        assert_eq!(window.acked(), Seq(0));
        assert!(window.read_batch(Seq(5)));
        assert!(window.ack(Seq(2)));
        assert_eq!(window.acked(), Seq(4));
        assert!(window.ack(Seq(5)));
        assert!(window.is_empty());
    }

    #[test]
    fn test_a_lost_range_with_nothing_before_it_is_acked_at_once() {
        let mut window = Window::new(1, Seq(6));
        window.read_lost(Seq(8));
        assert_eq!((window.acked(), window.last_read()), (Seq(8), Seq(8)));
    }
}
