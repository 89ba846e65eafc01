//! Writes a points payload from staged points.

use super::columns::{DeltaSink, DeltaWriter, LengthCounter, RunWriter};
use super::error::EncodeError;
use super::ordinals::Ordinals;
use super::points::Axis;
use super::section::{ABSENT, SECOND_ENCODING, SectionWriter};
use super::staged::{Arenas, Piece, PieceTimes, PieceValues, SeriesState, Staged};
use super::values::{f32s, f64s, widen};
use super::varint::{put_varint, put_zigzag};
use super::{PAYLOAD_VERSION, series_flags};
use crate::types::{BatchKind, Compression, Position};

/// Seals batches; its buffers are kept from one to the next.
#[derive(Debug, Default)]
pub struct Sealer {
    sorted: Vec<Piece>,
    offsets: Vec<u32>,
    ordinals: Ordinals,
    column: Vec<u8>,
    narrow: Vec<u32>,
    wide: Vec<u64>,
    planes: [Vec<u8>; f64s::PLANES],
    sections: SectionWriter,
}

/// What the columns are written from: pieces sorted by series.
#[derive(Clone, Copy)]
struct Batch<'a> {
    series: &'a [SeriesState],
    pieces: &'a [Piece],
    arenas: &'a Arenas,
}

impl<'a> Batch<'a> {
    /// Each series with its pieces.
    fn by_series(self) -> impl Iterator<Item = (&'a SeriesState, &'a [Piece])> {
        let mut rest = self.pieces;
        self.series.iter().map(move |state| {
            let (pieces, behind) = rest.split_at(state.pieces as usize);
            rest = behind;
            (state, pieces)
        })
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
        if !staged.totals.grouped {
            self.sort(staged);
        }
        let pieces = if staged.totals.grouped { &staged.pieces } else { &self.sorted };
        let pieces = &pieces[..staged.pieces.len()];
        let batch = Batch { series: &staged.series, pieces, arenas: &staged.arenas };
        self.ordinals.find(batch.by_series());

        write_header(staged, out);
        let mut sections =
            Sections { writer: &mut self.sections, column: &mut self.column, compression, out };
        sections.write_series(batch, self.ordinals.series())?;
        let [rl_step, episode, step] = staged.totals.used;
        sections.write_positions(batch, rl_step, |start| start.rl_step, None)?;
        sections.write_positions(batch, episode, |start| start.episode, Some(Axis::Episode))?;
        sections.write_positions(batch, step, |start| start.step, Some(Axis::Step))?;
        sections.write_times(batch)?;
        sections.write_rewound(batch)?;
        sections.write_present(self.ordinals.bytes())?;

        collect_values(batch, &mut self.narrow, &mut self.wide);
        f32s::split(&self.narrow, &mut self.planes[..f32s::PLANES]);
        sections.write_planes(&self.planes[..f32s::PLANES])?;
        f64s::split(&self.wide, &mut self.planes);
        sections.write_planes(&self.planes)
    }

    /// A counting sort: as many passes as it takes to read each piece twice.
    fn sort(&mut self, staged: &Staged) {
        self.offsets.clear();
        self.offsets.extend(staged.series.iter().scan(0, |offset, state| {
            let start = *offset;
            *offset += state.pieces;
            Some(start)
        }));
        if self.sorted.len() < staged.pieces.len() {
            self.sorted.resize(staged.pieces.len(), Piece::BLANK);
        }
        for piece in &staged.pieces {
            let offset = &mut self.offsets[piece.series as usize];
            self.sorted[*offset as usize] = *piece;
            *offset += 1;
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

/// Where sections go to.
struct Sections<'a> {
    writer: &'a mut SectionWriter,
    column: &'a mut Vec<u8>,
    compression: Compression,
    out: &'a mut Vec<u8>,
}

impl Sections<'_> {
    fn write_column(&mut self, encoding: u8) -> Result<(), EncodeError> {
        self.writer.write(self.out, self.column, encoding, self.compression)
    }

    /// A section that is absent when it has no bytes.
    fn write_present(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.is_empty() {
            self.out.push(ABSENT);
            return Ok(());
        }
        self.writer.write(self.out, bytes, 0, self.compression)
    }

    fn write_series(&mut self, batch: Batch<'_>, ordinals: &[u32]) -> Result<(), EncodeError> {
        self.column.clear();
        let (mut metric, mut env) = (0, 0);
        let mut with_ordinals = ordinals.iter().copied().peekable();
        for (index, state) in batch.series.iter().enumerate() {
            let key = state.key;
            put_zigzag(self.column, i64::from(key.metric.0) - metric);
            put_zigzag(self.column, i64::from(key.env.0) - env);
            (metric, env) = (i64::from(key.metric.0), i64::from(key.env.0));
            put_varint(self.column, u64::from(state.points));
            let has_ordinals = with_ordinals.next_if_eq(&(index as u32)).is_some();
            let flag = |is_set, bit| if is_set { bit } else { 0 };
            self.column.push(
                flag(key.distributed, series_flags::DISTRIBUTED)
                    | flag(state.wide, series_flags::WIDE)
                    | flag(state.rewound, series_flags::REWOUND)
                    | flag(has_ordinals, series_flags::ORDINALS),
            );
        }
        self.write_column(0)
    }

    /// The coordinate `of` positions; it grows along `axis`.
    fn write_positions(
        &mut self,
        batch: Batch<'_>,
        is_used: bool,
        of: impl Fn(&Position) -> i64,
        axis: Option<Axis>,
    ) -> Result<(), EncodeError> {
        if !is_used {
            self.out.push(ABSENT);
            return Ok(());
        }
        self.column.clear();
        let mut sink = RunWriter::new(self.column);
        let mut first = 0;
        for (_, pieces) in batch.by_series() {
            // The first piece's link to itself would be a step too many.
            let mut value = of(&pieces[0].start);
            sink.first(value - first);
            first = value;
            for (index, piece) in pieces.iter().enumerate() {
                let start = of(&piece.start);
                if index > 0 {
                    sink.steps(start - value, 1);
                }
                let inside = u64::from(piece.count()) - 1;
                let delta = i64::from(axis == Some(piece.axis()));
                if inside > 0 {
                    sink.steps(delta, inside);
                }
                value = start + delta * inside as i64;
            }
            sink.end();
        }
        self.write_column(0)
    }

    fn write_times(&mut self, batch: Batch<'_>) -> Result<(), EncodeError> {
        let mut lengths = LengthCounter::default();
        put_times(batch, &mut lengths);
        self.column.clear();
        if lengths.delta_bytes < lengths.run_bytes {
            put_times(batch, &mut DeltaWriter::new(self.column));
            return self.write_column(SECOND_ENCODING);
        }
        put_times(batch, &mut RunWriter::new(self.column));
        self.write_column(0)
    }

    /// Alternating lengths of runs of points that are not, and are, rewound.
    fn write_rewound(&mut self, batch: Batch<'_>) -> Result<(), EncodeError> {
        self.column.clear();
        for (_, pieces) in batch.by_series().filter(|(state, _)| state.rewound) {
            let (mut is_rewound, mut run) = (false, 0);
            for piece in pieces {
                if piece.rewound() != is_rewound {
                    put_varint(self.column, run);
                    (is_rewound, run) = (piece.rewound(), 0);
                }
                run += u64::from(piece.count());
            }
            put_varint(self.column, run);
        }
        if self.column.is_empty() {
            self.out.push(ABSENT);
            return Ok(());
        }
        self.write_column(0)
    }

    /// Planes of zeros alone are absent.
    fn write_planes(&mut self, planes: &[Vec<u8>]) -> Result<(), EncodeError> {
        for plane in planes {
            let is_zero = plane.chunks(256).all(|bytes| bytes.iter().fold(0, |or, b| or | b) == 0);
            self.write_present(if is_zero { &[] } else { plane })?;
        }
        Ok(())
    }
}

/// The times of all points; differences wrap, for any i64 may follow any other.
fn put_times(batch: Batch<'_>, sink: &mut impl DeltaSink) {
    let (mut first, mut is_first);
    (first, is_first) = (0_i64, true);
    for (_, pieces) in batch.by_series() {
        let mut before = 0;
        for piece in pieces {
            let mut put = |time: i64| {
                if is_first {
                    sink.first(time.wrapping_sub(first));
                    (first, is_first) = (time, false);
                } else {
                    sink.steps(time.wrapping_sub(before), 1);
                }
                before = time;
            };
            match batch.arenas.times(piece) {
                PieceTimes::All(time) => {
                    put(time);
                    let inside = u64::from(piece.count()) - 1;
                    if inside > 0 {
                        sink.steps(0, inside);
                    }
                }
                PieceTimes::Each(times) => times.iter().copied().for_each(put),
            }
        }
        sink.end();
        is_first = true;
    }
}

/// The differences of all values, by width.
fn collect_values(batch: Batch<'_>, narrow: &mut Vec<u32>, wide: &mut Vec<u64>) {
    narrow.clear();
    wide.clear();
    for (state, pieces) in batch.by_series() {
        if state.wide {
            collect_wide(batch.arenas, pieces, wide);
        } else {
            collect_narrow(batch.arenas, pieces, narrow);
        }
    }
}

fn collect_narrow(arenas: &Arenas, pieces: &[Piece], words: &mut Vec<u32>) {
    let mut before = 0;
    for piece in pieces {
        let mut word = |bits: u32| {
            let ordered = f32s::order(bits);
            f32s::difference(ordered, std::mem::replace(&mut before, ordered))
        };
        match arenas.values(piece) {
            PieceValues::OneNarrow(bits) => words.push(word(bits)),
            PieceValues::Narrow(values) => words.extend(values.iter().map(|bits| word(*bits))),
            // A series with a wide piece is wide.
            PieceValues::OneWide(_) | PieceValues::Wide(_) => {}
        }
    }
}

fn collect_wide(arenas: &Arenas, pieces: &[Piece], words: &mut Vec<u64>) {
    let mut before = 0;
    for piece in pieces {
        let mut word = |bits: u64| {
            let ordered = f64s::order(bits);
            f64s::difference(ordered, std::mem::replace(&mut before, ordered))
        };
        match arenas.values(piece) {
            PieceValues::OneNarrow(bits) => words.push(word(widen(bits))),
            PieceValues::OneWide(bits) => words.push(word(bits)),
            PieceValues::Narrow(values) => {
                words.extend(values.iter().map(|bits| word(widen(*bits))));
            }
            PieceValues::Wide(values) => words.extend(values.iter().map(|bits| word(*bits))),
        }
    }
}
