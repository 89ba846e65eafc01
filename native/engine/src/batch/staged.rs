//! Points on their way into a batch: segments in the order of the calls, and what sealing wants to
//! know of each series.

use super::bound::Bound;
use super::points::{Axis, PointsSummary, Segment, SeriesKey, Timestamps, Values};
use super::values;
use crate::types::{Position, UNUSED};

const COUNT_MASK: u32 = 0x00ff_ffff;
const REWOUND: u32 = 1 << 24;
const ALONG_EPISODE: u32 = 1 << 25;
const TIMES_EACH: u32 = 1 << 26;
const WIDE: u32 = 1 << 27;

/// A segment as it is kept: 48 bytes, copied once to sort it. One point's value lies in it, more
/// lie in an arena.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Index of the series.
    pub series: u32,
    count_and_flags: u32,
    /// The first point's position.
    pub start: Position,
    time: i64,
    value: u64,
}

impl Piece {
    /// Points.
    pub const fn count(&self) -> u32 {
        self.count_and_flags & COUNT_MASK
    }

    /// Whether its points are rewound.
    pub const fn rewound(&self) -> bool {
        self.count_and_flags & REWOUND != 0
    }

    /// Whether a value of it is no float32.
    pub const fn wide(&self) -> bool {
        self.count_and_flags & WIDE != 0
    }

    /// What grows by one.
    pub const fn axis(&self) -> Axis {
        if self.count_and_flags & ALONG_EPISODE == 0 { Axis::Step } else { Axis::Episode }
    }

    /// The last point's position.
    pub const fn end(&self) -> Position {
        let distance = self.count() as i64 - 1;
        let mut end = self.start;
        match self.axis() {
            Axis::Step => end.step += distance,
            Axis::Episode => end.episode += distance,
        }
        end
    }
}

/// Values and times of pieces that have more than one.
#[derive(Debug, Default)]
pub struct Arenas {
    /// Bits of float32 values.
    pub narrow: Vec<u32>,
    /// Bits of float64 values.
    pub wide: Vec<u64>,
    /// Times.
    pub times: Vec<i64>,
}

/// A piece's times.
pub enum PieceTimes<'a> {
    /// One for all.
    All(i64),
    /// One per point.
    Each(&'a [i64]),
}

impl PieceTimes<'_> {
    fn last(&self) -> i64 {
        match *self {
            Self::All(time) | Self::Each(&[.., time]) => time,
            Self::Each(&[]) => 0,
        }
    }
}

/// A piece's values, as bits.
pub enum PieceValues<'a> {
    /// One float32.
    OneNarrow(u32),
    /// One float64.
    OneWide(u64),
    /// Several float32.
    Narrow(&'a [u32]),
    /// Several float64.
    Wide(&'a [u64]),
}

impl Arenas {
    /// The piece's times.
    #[inline]
    pub fn times(&self, piece: &Piece) -> PieceTimes<'_> {
        if piece.count_and_flags & TIMES_EACH == 0 {
            return PieceTimes::All(piece.time);
        }
        let start = piece.time as usize;
        PieceTimes::Each(&self.times[start..start + piece.count() as usize])
    }

    /// The piece's values.
    #[inline]
    pub fn values(&self, piece: &Piece) -> PieceValues<'_> {
        let (start, count) = (piece.value as usize, piece.count() as usize);
        match (piece.wide(), count) {
            (false, 1) => PieceValues::OneNarrow(piece.value as u32),
            (true, 1) => PieceValues::OneWide(piece.value),
            (false, _) => PieceValues::Narrow(&self.narrow[start..start + count]),
            (true, _) => PieceValues::Wide(&self.wide[start..start + count]),
        }
    }

    /// Keeps a segment's times; the piece's `time` field and flag.
    fn add_times(&mut self, timestamps: Timestamps<'_>) -> (i64, u32) {
        match timestamps {
            Timestamps::All(time) | Timestamps::Each(&[time]) => (time, 0),
            Timestamps::Each(times) => {
                self.times.extend_from_slice(times);
                ((self.times.len() - times.len()) as i64, TIMES_EACH)
            }
        }
    }

    /// Keeps a segment's values; the piece's `value` field and flag.
    fn add_values(&mut self, values: Values<'_>) -> (u64, u32) {
        match values {
            Values::F32(&[value]) => (u64::from(value.to_bits()), 0),
            Values::F64(&[value]) => match values::narrow(value) {
                Some(narrow) => (u64::from(narrow.to_bits()), 0),
                None => (value.to_bits(), WIDE),
            },
            Values::F32(values) => {
                self.narrow.extend(values.iter().map(|value| value.to_bits()));
                ((self.narrow.len() - values.len()) as u64, 0)
            }
            Values::F64(values) if values::all_narrow(values) => {
                self.narrow.extend(values.iter().map(|value| (*value as f32).to_bits()));
                ((self.narrow.len() - values.len()) as u64, 0)
            }
            Values::F64(values) => {
                self.wide.extend(values.iter().map(|value| value.to_bits()));
                ((self.wide.len() - values.len()) as u64, WIDE)
            }
        }
    }
}

/// What is known of a series while its points are collected.
#[derive(Clone, Debug)]
pub struct SeriesState {
    /// The series.
    pub key: SeriesKey,
    /// The series that followed this one when it was last pushed to.
    pub next: u32,
    /// Points.
    pub points: u32,
    /// Pieces.
    pub pieces: u32,
    /// Pieces that do not begin above all positions before them: only they can repeat one.
    pub late: u32,
    /// Whether a value is no float32.
    pub wide: bool,
    /// Whether a point is rewound.
    pub rewound: bool,
    pub(super) greatest: Position,
    pub(super) end: Position,
    pub(super) end_time: i64,
}

impl SeriesState {
    /// A series without points.
    pub const fn new(key: SeriesKey) -> Self {
        Self {
            key,
            next: 0,
            points: 0,
            pieces: 0,
            late: 0,
            wide: false,
            rewound: false,
            greatest: Position::NONE,
            end: Position::NONE,
            end_time: 0,
        }
    }

    /// Whether a piece that starts here may repeat a position.
    #[inline]
    pub fn is_late(&self, start: Position) -> bool {
        self.points > 0 && start <= self.greatest
    }

    /// Counts a piece in.
    #[inline]
    fn add(&mut self, piece: &Piece, end_time: i64) {
        self.end = piece.end();
        if self.is_late(piece.start) {
            self.late += 1;
            self.greatest = self.greatest.max(self.end);
        } else {
            self.greatest = self.end;
        }
        self.end_time = end_time;
        self.points += piece.count();
        self.pieces += 1;
        self.wide |= piece.wide();
        self.rewound |= piece.rewound();
    }
}

/// Sums over a batch.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Points.
    pub points: usize,
    /// The same by kind.
    pub summary: PointsSummary,
    /// Whether a point uses `rl_step`, `episode`, `step`.
    pub used: [bool; 3],
    /// Whether the pieces of each series are next to each other already.
    pub grouped: bool,
    bound: Bound,
}

impl Default for Totals {
    fn default() -> Self {
        let (summary, bound) = (PointsSummary::default(), Bound::default());
        Self { points: 0, summary, used: [false; 3], grouped: true, bound }
    }
}

impl Totals {
    /// No payload of the batch is longer.
    pub fn payload_bound(&self) -> usize {
        self.bound.bytes()
    }

    #[inline]
    fn add(&mut self, piece: &Piece, is_rl: bool) {
        let count = piece.count();
        self.points += count as usize;
        let kind = if is_rl { &mut self.summary.rl_points } else { &mut self.summary.float_points };
        *kind += u64::from(count);
        // The axis of a piece of several points is used, and its start says so.
        let start = piece.start;
        let used = [start.rl_step, start.episode, start.step];
        for (flag, coordinate) in self.used.iter_mut().zip(used) {
            *flag |= coordinate != UNUSED;
        }
    }
}

/// All of a batch before it is sealed.
#[derive(Debug, Default)]
pub struct Staged {
    /// Series in order of first appearance.
    pub series: Vec<SeriesState>,
    /// Pieces in order of arrival.
    pub pieces: Vec<Piece>,
    /// Their values and times.
    pub arenas: Arenas,
    /// Sums.
    pub totals: Totals,
}

impl Staged {
    /// Takes a segment that was checked: it is not empty and its lengths agree.
    pub fn push(
        &mut self,
        series: u32,
        segment: &Segment,
        timestamps: Timestamps<'_>,
        values: Values<'_>,
        is_rl: bool,
    ) {
        let (time, times_flag) = self.arenas.add_times(timestamps);
        let (value, wide_flag) = self.arenas.add_values(values);
        let rewound = if segment.rewound { REWOUND } else { 0 };
        let axis = if segment.axis == Axis::Episode { ALONG_EPISODE } else { 0 };
        let count_and_flags = segment.count | times_flag | wide_flag | rewound | axis;
        let piece = Piece { series, count_and_flags, start: segment.start, time, value };
        let before = self.pieces.last().map(|piece| piece.series);
        let (state, totals) = (&mut self.series[series as usize], &mut self.totals);
        totals.grouped &= state.points == 0 || before == Some(series);
        totals.add(&piece, is_rl);
        let times = self.arenas.times(&piece);
        totals.bound.add(state, &piece, &times);
        state.add(&piece, times.last());
        self.pieces.push(piece);
    }

    /// Counts the series' states anew after pieces were taken away.
    pub fn recount(&mut self) {
        for state in &mut self.series {
            *state = SeriesState::new(state.key);
        }
        for piece in &self.pieces {
            self.series[piece.series as usize].add(piece, self.arenas.times(piece).last());
        }
    }

    /// Forgets everything but the buffers.
    pub fn clear(&mut self) {
        self.series.clear();
        self.pieces.clear();
        self.arenas.narrow.clear();
        self.arenas.wide.clear();
        self.arenas.times.clear();
        self.totals = Totals::default();
    }
}
