//! Integer columns: positions and timestamps as deltas, or as runs of equal deltas.
//!
//! Per series the column begins with its first number as the (wrapping) difference to the previous
//! series' first, then describes the `count − 1` steps from number to number: one by one, or as
//! `(delta, run length)`. A counter that grows by one costs two varints however long it is.

use super::error::DecodeError;
use super::varint::{Reader, put_varint, put_zigzag, varint_len, zigzag};

/// Takes a column series by series.
pub trait DeltaSink {
    /// The first number of the next series, as the difference to the previous series' first.
    fn first(&mut self, delta: i64);
    /// `count` steps of `delta`.
    fn steps(&mut self, delta: i64, count: u64);
    /// The series ends.
    fn end(&mut self);
}

/// Writes runs of equal deltas.
pub struct RunWriter<'a> {
    out: &'a mut Vec<u8>,
    delta: i64,
    count: u64,
}

impl<'a> RunWriter<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, delta: 0, count: 0 }
    }
}

impl DeltaSink for RunWriter<'_> {
    #[inline]
    fn first(&mut self, delta: i64) {
        put_zigzag(self.out, delta);
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
            put_zigzag(self.out, self.delta);
            put_varint(self.out, self.count);
            self.count = 0;
        }
    }
}

/// Writes every delta.
pub struct DeltaWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> DeltaWriter<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }
}

impl DeltaSink for DeltaWriter<'_> {
    #[inline]
    fn first(&mut self, delta: i64) {
        put_zigzag(self.out, delta);
    }

    #[inline]
    fn steps(&mut self, delta: i64, count: u64) {
        for _ in 0..count {
            put_zigzag(self.out, delta);
        }
    }

    #[inline]
    fn end(&mut self) {}
}

/// Counts what both writers would write.
#[derive(Debug, Default)]
pub struct LengthCounter {
    delta: i64,
    count: u64,
    /// Bytes of [`RunWriter`], without the firsts.
    pub run_bytes: u64,
    /// Bytes of [`DeltaWriter`], without the firsts.
    pub delta_bytes: u64,
}

impl DeltaSink for LengthCounter {
    #[inline]
    fn first(&mut self, _delta: i64) {}

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
            let delta_bytes = varint_len(zigzag(self.delta)) as u64;
            self.delta_bytes += delta_bytes * self.count;
            self.run_bytes += delta_bytes + varint_len(self.count) as u64;
            self.count = 0;
        }
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
