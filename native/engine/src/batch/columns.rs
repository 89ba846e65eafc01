//! Integer columns: positions and timestamps as deltas, or as runs of equal deltas.
//!
//! Per series the column begins with its first number as the (wrapping) difference to the previous
//! series' first, then describes the `count − 1` steps from number to number: one by one, or as
//! `(delta, run length)`. A counter that grows by one costs two varints however long it is.

use super::error::DecodeError;
use super::varint::{Reader, put_varint, put_zigzag};

/// Takes a column series by series.
pub trait DeltaSink {
    /// The first number of the next series, as the difference to the previous series' first.
    fn first(&mut self, delta: i64);
    /// `count` steps of `delta`.
    fn steps(&mut self, delta: i64, count: u64);
    /// The series ends.
    fn end(&mut self) {}
}

/// Writes runs of equal deltas.
#[derive(Debug, Default)]
pub struct RunWriter {
    bytes: Vec<u8>,
    delta: i64,
    count: u64,
}

impl RunWriter {
    /// What was written since [`Self::clear`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets all but the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl DeltaSink for RunWriter {
    #[inline]
    fn first(&mut self, delta: i64) {
        put_zigzag(&mut self.bytes, delta);
    }

    #[inline]
    fn steps(&mut self, delta: i64, count: u64) {
        if delta != self.delta {
            self.end();
            self.delta = delta;
        }
        self.count += count;
    }

    #[inline]
    fn end(&mut self) {
        if self.count > 0 {
            put_zigzag(&mut self.bytes, self.delta);
            put_varint(&mut self.bytes, self.count);
            self.count = 0;
        }
    }
}

/// Writes every delta.
#[derive(Debug, Default)]
pub struct DeltaWriter {
    bytes: Vec<u8>,
}

impl DeltaSink for DeltaWriter {
    #[inline]
    fn first(&mut self, delta: i64) {
        put_zigzag(&mut self.bytes, delta);
    }

    #[inline]
    fn steps(&mut self, delta: i64, count: u64) {
        for _ in 0..count {
            put_zigzag(&mut self.bytes, delta);
        }
    }
}

/// How far one encoding may fall behind the other before it is given up.
const HOPELESS_BYTES: usize = 16 * 1024;

/// Writes a column both ways and gives the shorter.
#[derive(Debug, Default)]
pub struct ShorterWriter {
    runs: RunWriter,
    deltas: DeltaWriter,
    without_runs: bool,
    without_deltas: bool,
}

impl ShorterWriter {
    /// The shorter column, and whether it is that of deltas.
    pub fn bytes(&self) -> (&[u8], bool) {
        let (runs, deltas) = (&self.runs.bytes, &self.deltas.bytes);
        let by_deltas = !self.without_deltas && (self.without_runs || deltas.len() < runs.len());
        (if by_deltas { deltas } else { runs }, by_deltas)
    }

    /// Forgets all but the buffers.
    pub fn clear(&mut self) {
        self.runs.bytes.clear();
        self.deltas.bytes.clear();
        (self.without_runs, self.without_deltas) = (false, false);
    }
}

impl DeltaSink for ShorterWriter {
    #[inline]
    fn first(&mut self, delta: i64) {
        if !self.without_runs {
            self.runs.first(delta);
        }
        if !self.without_deltas {
            self.deltas.first(delta);
        }
    }

    #[inline]
    fn steps(&mut self, delta: i64, count: u64) {
        if !self.without_runs {
            self.runs.steps(delta, count);
        }
        if !self.without_deltas {
            self.deltas.steps(delta, count);
        }
    }

    #[inline]
    fn end(&mut self) {
        self.runs.end();
        let (runs, deltas) = (self.runs.bytes.len(), self.deltas.bytes.len());
        self.without_runs |= !self.without_deltas && runs > deltas + HOPELESS_BYTES;
        self.without_deltas |= !self.without_runs && deltas > runs + HOPELESS_BYTES;
    }
}

/// What a decoded column may hold.
#[derive(Clone, Copy, Debug)]
pub enum Range {
    /// Any i64; differences wrap.
    Any,
    /// −1 (unused) up to this.
    Position(i64),
}

impl Range {
    /// `value + delta × count`, if that is in the range.
    #[inline]
    fn advance(self, value: i64, delta: i64, count: u64) -> Result<i64, DecodeError> {
        let count = count as i64;
        match self {
            Self::Any => Ok(value.wrapping_add(delta.wrapping_mul(count))),
            Self::Position(max) => delta
                .checked_mul(count)
                .and_then(|distance| value.checked_add(distance))
                .filter(|end| (-1..=max).contains(end))
                .ok_or(DecodeError::Limit("a position")),
        }
    }
}

/// Most bytes a column of `points` points can take in either encoding.
pub const fn max_column_bytes(points: usize) -> usize {
    // A delta of up to ten bytes and a run length of up to three (1,000,000) for every point.
    points * 13
}

/// Appends a column of delta runs to `out`; `counts` are the points of each series.
pub fn read_runs(
    bytes: &[u8],
    counts: impl Iterator<Item = u32>,
    range: Range,
    out: &mut Vec<i64>,
) -> Result<(), DecodeError> {
    const WHAT: &str = "a column";
    let mut reader = Reader::new(bytes);
    let mut first = 0_i64;
    for count in counts {
        // Firsts wrap: from any position to any other is within 64 bits.
        first = first.wrapping_add(reader.zigzag(WHAT)?);
        range.advance(first, 0, 0)?;
        out.push(first);
        let mut value = first;
        let mut left = u64::from(count) - 1;
        while left > 0 {
            let delta = reader.zigzag(WHAT)?;
            let run = reader.varint(WHAT)?;
            if run == 0 || run > left {
                return Err(DecodeError::Malformed("a column's runs do not add up"));
            }
            let end = range.advance(value, delta, run)?;
            if delta == 0 {
                out.extend(std::iter::repeat_n(value, run as usize));
            } else {
                let step = |index: i64| value.wrapping_add(delta.wrapping_mul(index));
                out.extend((1..=run as i64).map(step));
            }
            value = end;
            left -= run;
        }
    }
    reader.finish("a column is longer than its series")
}

/// Appends a column of plain deltas to `out`.
pub fn read_deltas(
    bytes: &[u8],
    counts: impl Iterator<Item = u32>,
    range: Range,
    out: &mut Vec<i64>,
) -> Result<(), DecodeError> {
    const WHAT: &str = "a column";
    let mut reader = Reader::new(bytes);
    let mut first = 0_i64;
    for count in counts {
        first = first.wrapping_add(reader.zigzag(WHAT)?);
        range.advance(first, 0, 0)?;
        out.push(first);
        let mut value = first;
        for _ in 1..count {
            value = range.advance(value, reader.zigzag(WHAT)?, 1)?;
            out.push(value);
        }
    }
    reader.finish("a column is longer than its series")
}
