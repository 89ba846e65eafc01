//! How long the payload of a batch can become at most.
//!
//! Known after every segment, so that a caller can seal before a message grows too large, and cheap:
//! the longest varint that any link between two segments takes is known from their bits or-ed
//! together, and every link is taken to be that long.

use super::points::Axis;
use super::staged::{Piece, PieceTimes, SeriesState};
use super::varint::{varint_len, zigzag};

/// The header and the heads of all sections.
const PAYLOAD_BYTES: usize = 300;
/// An entry of the series section, the firsts of four columns and a run in each.
const SERIES_BYTES: usize = 14 + 4 * 10 + 4 * RUN_BYTES;
/// A run whose delta takes one byte, and a count of at most 1,000,000.
const RUN_BYTES: usize = 1 + COUNT_BYTES;
const COUNT_BYTES: usize = 3;

/// What the bound is computed from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bound {
    series: usize,
    /// Pieces, and those of more than one point.
    pieces: usize,
    long_pieces: usize,
    /// Points that bring their own timestamp.
    timed_points: usize,
    /// Steps from piece to piece in `rl_step`, `episode`, `step`, and between timestamps:
    /// zigzagged, all or-ed.
    links: [u64; 4],
    /// Whether pieces grow along `episode`, `step`.
    grows: [bool; 2],
    value_bytes: usize,
    /// Bytes of rewound runs and ordinals.
    repeat_bytes: usize,
}

impl Bound {
    /// Counts in a piece that is about to be added to its series.
    #[inline]
    pub fn add(&mut self, series: &SeriesState, piece: &Piece, times: &PieceTimes<'_>) {
        let count = piece.count() as usize;
        self.pieces += 1;
        if count > 1 {
            self.long_pieces += 1;
            self.grows[usize::from(piece.axis() == Axis::Step)] = true;
        }
        if series.points == 0 {
            self.series += 1;
        } else {
            let (start, end) = (piece.start, series.end);
            self.links[0] |= zigzag(start.rl_step - end.rl_step);
            self.links[1] |= zigzag(start.episode - end.episode);
            self.links[2] |= zigzag(start.step - end.step);
        }
        self.add_times(series, times);
        self.value_bytes += count * if series.wide { 8 } else { 4 };
        if piece.wide() && !series.wide {
            self.value_bytes += 4 * (count + series.points as usize);
        }
        self.add_repeats(series, piece);
    }

    #[inline]
    fn add_times(&mut self, series: &SeriesState, times: &PieceTimes<'_>) {
        let first = match times {
            PieceTimes::All(time) => *time,
            PieceTimes::Each(times) => {
                self.timed_points += times.len();
                let link = |pair: &[i64]| zigzag(pair[1].wrapping_sub(pair[0]));
                self.links[3] |= times.windows(2).fold(0, |or, pair| or | link(pair));
                times.first().copied().unwrap_or_default()
            }
        };
        if series.points > 0 {
            self.links[3] |= zigzag(first.wrapping_sub(series.end_time));
        }
    }

    #[inline]
    fn add_repeats(&mut self, series: &SeriesState, piece: &Piece) {
        if piece.rewound() {
            // It may end a run and begin the next.
            self.repeat_bytes += 2 * COUNT_BYTES;
        }
        let is_late = series.is_late(piece.start);
        if is_late || series.late > 0 {
            self.repeat_bytes += COUNT_BYTES * piece.count() as usize;
        }
        if is_late && series.late == 0 {
            self.repeat_bytes += COUNT_BYTES * series.points as usize;
        }
    }

    /// The bound.
    pub fn bytes(&self) -> usize {
        let grows = [false, self.grows[0], self.grows[1], false];
        let mut bytes = PAYLOAD_BYTES + self.series * SERIES_BYTES;
        for (or, grows) in self.links.into_iter().zip(grows) {
            // A coordinate that never changes is one run in each series.
            if or != 0 || grows {
                bytes += self.pieces * (varint_len(or) + 1) + self.long_pieces * RUN_BYTES;
            }
        }
        bytes += self.timed_points * (varint_len(self.links[3]) + 1);
        bytes + self.value_bytes + self.repeat_bytes
    }
}
