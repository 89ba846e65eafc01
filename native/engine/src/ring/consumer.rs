//! The reading side of a ring.

use std::ptr;
use std::sync::Arc;

use super::memory::Memory;
use crate::types::{Lsn, Seq};

/// Takes records out of a ring. There is one: the drain thread's, or that of whoever recovers.
#[derive(Debug)]
pub struct Consumer {
    memory: Arc<Memory>,
}

/// A window was asked for, or released, that is not between the ring's tail and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{from} to {to} is not within the ring, which holds {tail} to {committed}")]
pub struct OutsideRing {
    /// First lsn asked for.
    pub from: Lsn,
    /// Lsn behind the last one asked for.
    pub to: Lsn,
    /// The ring's tail.
    pub tail: Lsn,
    /// The ring's end.
    pub committed: Lsn,
}

impl Consumer {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { memory }
    }

    /// The lsn before which all was released.
    pub fn tail(&self) -> Lsn {
        self.memory.tail()
    }

    /// The lsn behind the last committed record: all before it is whole.
    pub fn committed(&self) -> Lsn {
        self.memory.committed()
    }

    /// The seq of the next batch to be sealed.
    pub fn next_seq(&self) -> Seq {
        self.memory.next_seq()
    }

    /// Copies the records `from .. to`, in order and with the padding between them, into `out`,
    /// which is emptied first. Bounds must be of records; [`records`](super::records) walks them.
    ///
    /// # Errors
    ///
    /// When the window is not within the ring; `out` is empty then.
    pub fn read(&self, from: Lsn, to: Lsn, out: &mut Vec<u64>) -> Result<(), OutsideRing> {
        out.clear();
        self.check(from, to)?;
        let bytes = to.0 - from.0;
        out.reserve((bytes / 8) as usize);
        let capacity = self.memory.capacity();
        let first = (from.0 % capacity) as usize;
        let before_end = bytes.min(capacity - first as u64) as usize;
        let target: *mut u8 = out.as_mut_ptr().cast();
        self.memory.reads(first as u64, before_end as u64);
        self.memory.reads(0, bytes - before_end as u64);
        // SAFETY: `from .. to` is committed and not released, so the producer does not write there
        // (`check` read `committed` with acquire), and at most `capacity` long, so the two parts lie
        // in the data and do not overlap. `out` has room for `bytes`, which are whole words, and
        // any bytes make a valid u64.
        unsafe {
            ptr::copy_nonoverlapping(self.memory.data().add(first), target, before_end);
            ptr::copy_nonoverlapping(
                self.memory.data(),
                target.add(before_end),
                bytes as usize - before_end,
            );
            out.set_len((bytes / 8) as usize);
        }
        Ok(())
    }

    /// Gives everything before `tail` back to the producer: it is in the spool, and the next batch
    /// will be `next_seq`.
    ///
    /// # Errors
    ///
    /// When `tail` is behind the old one or ahead of what is committed; nothing is released then.
    pub fn release(&mut self, tail: Lsn, next_seq: Seq) -> Result<(), OutsideRing> {
        self.check(tail, tail)?;
        self.memory.set_tail(tail, next_seq);
        Ok(())
    }

    /// All before this ring's first record is in the spool.
    pub fn predecessor_is_sealed(&mut self) {
        self.memory.set_unsealed(0);
    }

    fn check(&self, from: Lsn, to: Lsn) -> Result<(), OutsideRing> {
        let (tail, committed) = (self.tail(), self.committed());
        let is_inside = tail <= from && from <= to && to <= committed;
        if is_inside && from.0.is_multiple_of(8) && to.0.is_multiple_of(8) {
            Ok(())
        } else {
            Err(OutsideRing { from, to, tail, committed })
        }
    }
}
