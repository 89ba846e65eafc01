//! The value columns of a batch: a group of byte planes for each width and way of writing words.

use super::error::EncodeError;
use super::staged::{Arenas, Piece, PieceValues, SeriesState};
use super::values::{f32s, f64s, widen};
use crate::types::MetricNo;

/// Collects values series by series; its buffers are kept from batch to batch.
#[derive(Debug, Default)]
pub struct ValueGroups {
    narrow_plain: Vec<u32>,
    narrow_differences: Vec<u32>,
    wide_plain: Vec<u64>,
    wide_differences: Vec<u64>,
    /// The series at hand.
    narrow: Vec<u32>,
    wide: Vec<u64>,
    planes: [Vec<u8>; f64s::PLANES],
    choice: Choice,
}

/// Chooses between plain words and differences. A short series says little, but its neighbours are
/// mostly the same metric in other environments: what they said counts, less and less.
#[derive(Debug, Default)]
struct Choice {
    metric: MetricNo,
    advantage: i64,
}

impl Choice {
    fn prefers_differences(&mut self, metric: MetricNo, points: u32, advantage: i64) -> bool {
        let carried = if metric == self.metric { self.advantage / 2 } else { 0 };
        *self = Self { metric, advantage: carried + advantage };
        // A single value has nothing to differ from.
        points > 1 && self.advantage > 0
    }
}

impl ValueGroups {
    /// Forgets the batch before.
    pub fn clear(&mut self) {
        self.narrow_plain.clear();
        self.narrow_differences.clear();
        self.wide_plain.clear();
        self.wide_differences.clear();
        self.choice = Choice::default();
    }

    /// Appends the values of a series; returns whether as differences.
    pub fn append(&mut self, state: &SeriesState, pieces: &[Piece], arenas: &Arenas) -> bool {
        if state.wide {
            return self.append_wide(state, pieces, arenas);
        }
        self.narrow.clear();
        for piece in pieces {
            match arenas.values(piece) {
                PieceValues::OneNarrow(bits) => self.narrow.push(bits),
                PieceValues::Narrow(values) => self.narrow.extend_from_slice(values),
                // A series with a wide piece is wide.
                PieceValues::OneWide(_) | PieceValues::Wide(_) => {}
            }
        }
        let advantage = f32s::advantage_of_differences(&self.narrow);
        let differs = self.choice.prefers_differences(state.key.metric, state.points, advantage);
        if differs {
            f32s::put_differences(&self.narrow, &mut self.narrow_differences);
        } else {
            f32s::put_plain(&self.narrow, &mut self.narrow_plain);
        }
        differs
    }

    fn append_wide(&mut self, state: &SeriesState, pieces: &[Piece], arenas: &Arenas) -> bool {
        self.wide.clear();
        for piece in pieces {
            match arenas.values(piece) {
                PieceValues::OneNarrow(bits) => self.wide.push(widen(bits)),
                PieceValues::OneWide(bits) => self.wide.push(bits),
                PieceValues::Narrow(values) => {
                    self.wide.extend(values.iter().map(|bits| widen(*bits)));
                }
                PieceValues::Wide(values) => self.wide.extend_from_slice(values),
            }
        }
        let advantage = f64s::advantage_of_differences(&self.wide);
        let differs = self.choice.prefers_differences(state.key.metric, state.points, advantage);
        if differs {
            f64s::put_differences(&self.wide, &mut self.wide_differences);
        } else {
            f64s::put_plain(&self.wide, &mut self.wide_plain);
        }
        differs
    }

    /// Gives the planes of the groups that have values to `write`.
    pub fn write(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        for words in [&self.narrow_plain, &self.narrow_differences] {
            if !words.is_empty() {
                f32s::split(words, &mut self.planes);
                self.planes[..f32s::PLANES].iter().try_for_each(|plane| write(plane))?;
            }
        }
        for words in [&self.wide_plain, &self.wide_differences] {
            if !words.is_empty() {
                f64s::split(words, &mut self.planes);
                self.planes.iter().try_for_each(|plane| write(plane))?;
            }
        }
        Ok(())
    }
}
