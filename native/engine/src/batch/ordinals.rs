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

/// Finds repeats; its buffers are kept from batch to batch.
#[derive(Debug, Default)]
pub struct Ordinals {
    seen: HashMap<Position, u16, RandomState>,
    series: Vec<u32>,
    bytes: Vec<u8>,
}

impl Ordinals {
    /// Finds the series with repeats among `series` and their points' ordinals.
    pub fn find<'a>(&mut self, series: impl Iterator<Item = (&'a SeriesState, &'a [Piece])>) {
        self.series.clear();
        self.bytes.clear();
        for (index, (state, pieces)) in series.enumerate() {
            if state.late > 0 && self.append(pieces) {
                self.series.push(index as u32);
            }
        }
    }

    /// Indices of the series with repeats, rising.
    pub fn series(&self) -> &[u32] {
        &self.series
    }

    /// A varint for each point of these series.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether any position repeats; if not, nothing is appended.
    fn append(&mut self, pieces: &[Piece]) -> bool {
        let start = self.bytes.len();
        self.seen.clear();
        let mut repeats = false;
        for position in pieces.iter().flat_map(positions) {
            let count = self.seen.entry(position).or_insert(0);
            put_varint(&mut self.bytes, u64::from(*count));
            repeats |= *count > 0;
            // The encoder takes at most 65,535 pieces that may repeat, so this never wraps.
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
