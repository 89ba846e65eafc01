//! Ordinals: how often a position of a series came before within the batch.
//!
//! A position can only repeat in a series that has a segment not above all before it; the others,
//! which are nearly all there are, are not looked at.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::points::Axis;
use super::staged::{Piece, SeriesState};
use super::varint::put_varint;
use crate::types::Position;

/// Finds repeats series by series; its buffers are kept from batch to batch.
#[derive(Debug, Default)]
pub struct Ordinals {
    seen: HashMap<Position, u16, RandomState>,
    bytes: Vec<u8>,
}

impl Ordinals {
    /// A varint for each point of the series that have repeats.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the batch before.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Whether a position of the series repeats; if not, nothing is appended.
    pub fn append(&mut self, state: &SeriesState, pieces: &[Piece]) -> bool {
        if state.late == 0 {
            return false;
        }
        let start = self.bytes.len();
        self.seen.clear();
        let mut repeats = false;
        for position in pieces.iter().flat_map(positions) {
            let count = self.seen.entry(position).or_insert(0);
            put_varint(&mut self.bytes, u64::from(*count));
            repeats |= *count > 0;
            // The encoder takes at most 65,535 pieces that may repeat: what wraps is never read.
            *count = count.wrapping_add(1);
        }
        if !repeats {
            self.bytes.truncate(start);
        }
        repeats
    }
}

fn positions(piece: &Piece) -> impl Iterator<Item = Position> {
    let (start, axis) = (piece.start, piece.axis());
    (0..i64::from(piece.count())).map(move |distance| match axis {
        Axis::Step => Position { step: start.step + distance, ..start },
        Axis::Episode => Position { episode: start.episode + distance, ..start },
    })
}
