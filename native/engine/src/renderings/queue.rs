//! What encoders say is finished, on its way to the drain thread.

use std::collections::VecDeque;

use crate::types::{RenderingId, Seq};

/// The finished renderings of a living writer.
#[derive(Debug, Default)]
pub(crate) struct RenderingQueue {
    /// Not sealed yet, oldest first.
    waiting: VecDeque<RenderingId>,
    /// How many ever were finished.
    finished: u64,
    /// The last batches of those that are sealed, ascending.
    sealed: VecDeque<Seq>,
    /// How many videos lay in the folder when the writer had ended, if it has.
    left: Option<u64>,
}

impl RenderingQueue {
    pub fn push(&mut self, id: RenderingId) {
        self.waiting.push_back(id);
        self.finished += 1;
    }

    pub fn first(&self) -> Option<RenderingId> {
        self.waiting.front().copied()
    }

    /// The first is done with: in the spool up to this batch, or left where it is.
    pub fn pop(&mut self, last: Option<Seq>) {
        self.waiting.pop_front();
        self.sealed.extend(last);
    }

    /// How many were ever finished. Less those that wait, they are done with.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    pub fn has_ended(&mut self, left: u64) {
        self.left = Some(left);
    }

    /// Nothing of what is not acknowledged will ever be sent.
    pub fn discard(&mut self) {
        self.left = Some(0);
        self.sealed.clear();
    }

    /// How many are not acknowledged.
    pub fn pending(&mut self, acked: Seq) -> u64 {
        while self.sealed.front().is_some_and(|last| *last <= acked) {
            self.sealed.pop_front();
        }
        self.left.unwrap_or(self.waiting.len() as u64) + self.sealed.len() as u64
    }
}
