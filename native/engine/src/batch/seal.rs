//! Writes a points payload from staged points.
//!
//! One series after the other is brought together and put into all columns while it is in the
//! processor's cache; the columns become sections at the end.

use super::columns::{DeltaSink, RunWriter, ShorterWriter};
use super::error::EncodeError;
use super::groups::ValueGroups;
use super::ordinals::Ordinals;
use super::points::Axis;
use super::section::{ABSENT, SECOND_ENCODING, SectionWriter};
use super::staged::{Arenas, Piece, PieceTimes, SeriesState, Staged};
use super::varint::{put_varint, put_zigzag};
use super::{PAYLOAD_VERSION, series_flags};
use crate::types::{BatchKind, Compression, Position};

/// Seals batches; its buffers are kept from one to the next.
#[derive(Debug, Default)]
pub struct Sealer {
    /// Indices of the pieces, sorted by series.
    order: Vec<u32>,
    offsets: Vec<u32>,
    /// The pieces of the series at hand.
    pieces: Vec<Piece>,
    columns: Columns,
    sections: SectionWriter,
}

/// The sections before they are compressed.
#[derive(Debug, Default)]
struct Columns {
    series: Vec<u8>,
    /// The series before.
    before: Firsts,
    rl_step: RunWriter,
    episode: RunWriter,
    step: RunWriter,
    times: ShorterWriter,
    rewound: Vec<u8>,
    ordinals: Ordinals,
    values: ValueGroups,
}

/// What a series' own numbers are written as the difference to.
#[derive(Clone, Copy, Debug)]
struct Firsts {
    metric: i64,
    env: i64,
    start: Position,
    time: i64,
}

impl Default for Firsts {
    fn default() -> Self {
        let start = Position { rl_step: 0, episode: 0, step: 0 };
        Self { metric: 0, env: 0, start, time: 0 }
    }
}

impl Sealer {
    /// Appends the payload to `out`; after an error `out` has a part of it.
    pub fn seal(
        &mut self,
        staged: &Staged,
        compression: Compression,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.columns.clear();
        if staged.totals.grouped {
            let mut rest = &staged.pieces[..];
            for state in &staged.series {
                let (pieces, behind) = rest.split_at(state.pieces as usize);
                rest = behind;
                self.columns.append(state, pieces, staged);
            }
        } else {
            self.append_sorted(staged);
        }
        write_header(staged, out);
        let writer = &mut self.sections;
        let used = staged.totals.used;
        self.columns.write(used, |raw, encoding| {
            if let Some(raw) = raw {
                return writer.write(out, raw, encoding, compression);
            }
            out.push(ABSENT);
            Ok(())
        })
    }

    /// A counting sort of the pieces' indices; the pieces themselves are read once more, when their
    /// series' turn has come.
    fn append_sorted(&mut self, staged: &Staged) {
        self.offsets.clear();
        self.offsets.extend(staged.series.iter().scan(0, |offset, state| {
            let start = *offset;
            *offset += state.pieces;
            Some(start)
        }));
        self.order.resize(staged.pieces.len(), 0);
        for (index, piece) in staged.pieces.iter().enumerate() {
            let offset = &mut self.offsets[piece.series as usize];
            self.order[*offset as usize] = index as u32;
            *offset += 1;
        }
        let mut rest = &self.order[..];
        for state in &staged.series {
            let (indices, behind) = rest.split_at(state.pieces as usize);
            rest = behind;
            self.pieces.clear();
            self.pieces.extend(indices.iter().map(|index| staged.pieces[*index as usize]));
            self.columns.append(state, &self.pieces, staged);
        }
    }
}

fn write_header(staged: &Staged, out: &mut Vec<u8>) {
    out.extend_from_slice(&PAYLOAD_VERSION.to_le_bytes());
    out.extend_from_slice(&[BatchKind::Points as u8, 0]);
    put_varint(out, staged.totals.summary.float_points);
    put_varint(out, staged.totals.summary.rl_points);
    put_varint(out, staged.series.len() as u64);
}

impl Columns {
    fn clear(&mut self) {
        self.series.clear();
        self.before = Firsts::default();
        self.rl_step.clear();
        self.episode.clear();
        self.step.clear();
        self.times.clear();
        self.rewound.clear();
        self.ordinals.clear();
        self.values.clear();
    }

    /// Appends a series to all columns.
    fn append(&mut self, state: &SeriesState, pieces: &[Piece], staged: &Staged) {
        let (arenas, [rl_step, episode, step]) = (&staged.arenas, staged.totals.used);
        let before = self.before;
        self.before.start = pieces[0].start;
        let start = before.start;
        if rl_step {
            put_positions(pieces, |at| at.rl_step, None, start, &mut self.rl_step);
        }
        if episode {
            put_positions(pieces, |at| at.episode, Some(Axis::Episode), start, &mut self.episode);
        }
        if step {
            put_positions(pieces, |at| at.step, Some(Axis::Step), start, &mut self.step);
        }
        self.before.time = put_times(pieces, arenas, before.time, &mut self.times);
        if state.rewound {
            put_rewound(pieces, &mut self.rewound);
        }
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        let flags = flag(state.key.distributed, series_flags::DISTRIBUTED)
            | flag(state.wide, series_flags::WIDE)
            | flag(state.rewound, series_flags::REWOUND)
            | flag(self.ordinals.append(state, pieces), series_flags::ORDINALS)
            | flag(self.values.append(state, pieces, arenas), series_flags::DIFFERENCES);
        self.append_entry(state, flags);
    }

    fn append_entry(&mut self, state: &SeriesState, flags: u8) {
        let (metric, env) = (i64::from(state.key.metric.0), i64::from(state.key.env.0));
        put_zigzag(&mut self.series, metric - self.before.metric);
        put_zigzag(&mut self.series, env - self.before.env);
        (self.before.metric, self.before.env) = (metric, env);
        put_varint(&mut self.series, u64::from(state.points));
        self.series.push(flags);
    }

    /// Gives the sections in their order to `write`: bytes and encoding, or None for an absent one.
    fn write(
        &mut self,
        used: [bool; 3],
        mut write: impl FnMut(Option<&[u8]>, u8) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let positions = [&self.rl_step, &self.episode, &self.step];
        write(present(&self.series), 0)?;
        for (column, is_used) in positions.into_iter().zip(used) {
            write(is_used.then_some(column.bytes()), 0)?;
        }
        let (times, by_deltas) = self.times.bytes();
        write(present(times), if by_deltas { SECOND_ENCODING } else { 0 })?;
        write(present(&self.rewound), 0)?;
        write(present(self.ordinals.bytes()), 0)?;
        // A plane of zeros is absent.
        self.values.write(|plane| write(if is_zero(plane) { None } else { Some(plane) }, 0))
    }
}

fn present(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.is_empty() { None } else { Some(bytes) }
}

fn is_zero(plane: &[u8]) -> bool {
    plane.chunks(256).all(|bytes| bytes.iter().fold(0, |or, byte| or | byte) == 0)
}

/// One coordinate of a series; it grows along `axis`. `before` is the previous series' start.
#[inline]
fn put_positions(
    pieces: &[Piece],
    of: impl Fn(&Position) -> i64,
    axis: Option<Axis>,
    before: Position,
    sink: &mut RunWriter,
) {
    let mut value = of(&pieces[0].start);
    sink.first(value - of(&before));
    for (index, piece) in pieces.iter().enumerate() {
        let start = of(&piece.start);
        if index > 0 {
            sink.steps(start - value, 1);
        }
        value = start;
        let inside = i64::from(piece.count()) - 1;
        if inside > 0 {
            let delta = i64::from(axis == Some(piece.axis()));
            sink.steps(delta, inside as u64);
            value += delta * inside;
        }
    }
    sink.end();
}

/// The times of a series, of which the first is returned. Differences wrap, for any i64 may follow
/// any other.
fn put_times(pieces: &[Piece], arenas: &Arenas, before: i64, sink: &mut ShorterWriter) -> i64 {
    let mut first = None;
    let mut last = 0;
    for piece in pieces {
        let (time, rest) = match arenas.times(piece) {
            PieceTimes::All(time) => (time, &[][..]),
            PieceTimes::Each([time, rest @ ..]) => (*time, rest),
            PieceTimes::Each([]) => continue,
        };
        if first.is_some() {
            sink.steps(time.wrapping_sub(last), 1);
        } else {
            sink.first(time.wrapping_sub(before));
            first = Some(time);
        }
        last = time;
        for &time in rest {
            sink.steps(time.wrapping_sub(last), 1);
            last = time;
        }
        let inside = piece.count() as usize - 1 - rest.len();
        if inside > 0 {
            sink.steps(0, inside as u64);
        }
    }
    sink.end();
    first.unwrap_or_default()
}

/// Alternating lengths of runs of points that are not, and are, rewound.
fn put_rewound(pieces: &[Piece], column: &mut Vec<u8>) {
    let (mut is_rewound, mut run) = (false, 0);
    for piece in pieces {
        if piece.rewound() != is_rewound {
            put_varint(column, run);
            (is_rewound, run) = (piece.rewound(), 0);
        }
        run += u64::from(piece.count());
    }
    put_varint(column, run);
}
