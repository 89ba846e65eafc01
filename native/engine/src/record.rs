//! Records of the ring: written by logging calls, read when a window is sealed.
//!
//! All integers are little-endian. A record is a multiple of 8 bytes, lies 8-aligned and never
//! wraps. It begins with `kind u8, flags u8, 0 u16, word u32`; `word` is the record's length in
//! bytes, but for POINT, which is always 32 bytes and keeps the metric's number there.
//!
//! ```text
//! 1 PAD                 skip `word` bytes
//! 2 POINT               8 step i64   16 timestamp_ms i64   24 value f64
//! 3 BLOCK               8 metric_no u32   12 segment_count u32   16 rl_step i64
//!                       24 timestamp_ms i64   32 point_count u32   36 0 u32
//!                       40 segments: env_no u32, count u32 (bit 31: rewound), episode i64, step i64
//!                       .. point_count timestamps i64, if flagged   .. values f64 or f32, padded to 8
//! 4 DECLARE_METRIC      8 a metric's declaration, padded to 8
//! 5 DECLARE_ENVIRONMENT 8 an environment's declaration, padded to 8
//! 6 ATTRIBUTES          8 operation_count u32   12 byte_length u32   16 operations, padded to 8
//! ```

use crate::calls::Values;
use crate::ring::{RawRecord, Slot};
use crate::types::{EnvNo, Lsn, MetricNo};

const _: () = assert!(cfg!(target_endian = "little"), "records are copied as they lie in memory");

/// Bytes of a BLOCK before its segments.
pub const BLOCK_HEADER_BYTES: usize = 40;
/// Bytes of one segment of a BLOCK.
pub const SEGMENT_BYTES: usize = size_of::<BlockSegment>();
/// Bytes of ATTRIBUTES before its operations.
pub const ATTRIBUTES_HEADER_BYTES: usize = 16;
/// Bytes of a declaration's record before the declaration.
pub const DECLARE_HEADER_BYTES: usize = 8;

/// Logged by `log_distributed`.
pub const FLAG_DISTRIBUTED: u8 = 1;
/// The POINT is not above its writer's greatest position of the series.
pub const FLAG_REWOUND: u8 = 2;
/// A BLOCK's values are f32.
pub const FLAG_F32: u8 = 4;
/// A BLOCK has a timestamp per point.
pub const FLAG_TIMESTAMPS: u8 = 8;

const SEGMENT_REWOUND: u32 = 1 << 31;
/// Most points of one segment of a BLOCK.
pub const MAX_SEGMENT_POINTS: usize = (SEGMENT_REWOUND - 1) as usize;

const POINT: u8 = crate::ring::POINT;
const BLOCK: u8 = 3;
const DECLARE_METRIC: u8 = 4;
const DECLARE_ENVIRONMENT: u8 = 5;
const ATTRIBUTES: u8 = 6;

/// Consecutive points of one environment in a BLOCK, as they lie in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BlockSegment {
    env_no: u32,
    count_and_rewound: u32,
    /// The first point's, or −1.
    pub episode: i64,
    /// The first point's, or −1.
    pub step: i64,
}

impl BlockSegment {
    /// `count` is at most [`MAX_SEGMENT_POINTS`].
    pub const fn new(env: EnvNo, count: u32, rewound: bool, episode: i64, step: i64) -> Self {
        let mark = if rewound { SEGMENT_REWOUND } else { 0 };
        Self { env_no: env.0, count_and_rewound: count | mark, episode, step }
    }

    pub const fn env(&self) -> EnvNo {
        EnvNo(self.env_no)
    }

    pub const fn count(&self) -> u32 {
        self.count_and_rewound & !SEGMENT_REWOUND
    }

    pub const fn rewound(&self) -> bool {
        self.count_and_rewound & SEGMENT_REWOUND != 0
    }

    /// Splits off what follows the first `count` points. `episode_runs`: which coordinate grows.
    #[must_use]
    pub const fn split(&self, count: u32, episode_runs: bool) -> (Self, Self) {
        let (env, rewound) = (self.env(), self.rewound());
        let grown = count as i64;
        let (episode, step) = if episode_runs { (grown, 0) } else { (0, grown) };
        (
            Self::new(env, count, rewound, self.episode, self.step),
            Self::new(env, self.count() - count, rewound, self.episode + episode, self.step + step),
        )
    }
}

/// Types that are their bytes: no padding, every bit pattern valid.
///
/// # Safety
///
/// Exactly that.
unsafe trait Plain: Copy {}
// SAFETY: primitive numbers.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for i64 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: `repr(C)` of u32, u32, i64, i64: 24 bytes at alignment 8, no padding.
unsafe impl Plain for BlockSegment {}

fn bytes_of<T: Plain>(items: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, and u8 has no alignment to keep.
    unsafe { std::slice::from_raw_parts(items.as_ptr().cast(), size_of_val(items)) }
}

/// `None` if the bytes are too few or not aligned.
fn items_of<T: Plain>(bytes: &[u8], count: usize) -> Option<&[T]> {
    let bytes = bytes.get(..count.checked_mul(size_of::<T>())?)?;
    if bytes.as_ptr().align_offset(align_of::<T>()) != 0 {
        return None;
    }
    // SAFETY: in bounds, aligned, and every bit pattern is a value of a `Plain` type.
    Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), count) })
}

/// `bytes` rounded up to a whole record.
pub const fn padded(bytes: usize) -> usize {
    (bytes + 7) & !7
}

/// Writes a POINT into a slot of [`POINT_BYTES`](crate::ring::POINT_BYTES).
#[inline]
pub fn write_point(
    slot: &mut Slot<'_>,
    metric: MetricNo,
    flags: u8,
    step: i64,
    timestamp_ms: i64,
    value: f64,
) {
    slot.put_header(POINT, flags, metric.0);
    slot.put_i64(step);
    slot.put_i64(timestamp_ms);
    slot.put_f64(value);
}

/// Timestamps of a BLOCK.
#[derive(Clone, Copy, Debug)]
pub enum BlockTimestamps<'a> {
    /// One for all.
    All(i64),
    /// One per point.
    Each(&'a [i64]),
    /// One per row of `per_row` points, where the block's first point has `done` before it in the
    /// first row.
    Rows { rows: &'a [i64], per_row: usize, done: usize },
}

/// What a BLOCK is written from.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    pub metric: MetricNo,
    pub distributed: bool,
    pub rl_step: i64,
    pub segments: &'a [BlockSegment],
    pub timestamps: BlockTimestamps<'a>,
    pub values: Values<'a>,
}

/// Number of values.
pub const fn value_count(values: &Values<'_>) -> usize {
    match values {
        Values::F32(values) => values.len(),
        Values::F64(values) => values.len(),
    }
}

const fn value_bytes(values: &Values<'_>) -> usize {
    match values {
        Values::F32(_) => 4,
        Values::F64(_) => 8,
    }
}

impl Block<'_> {
    /// Bytes of the record.
    pub const fn record_bytes(&self) -> usize {
        let points = value_count(&self.values);
        let stamps = match self.timestamps {
            BlockTimestamps::All(_) => 0,
            BlockTimestamps::Each(_) | BlockTimestamps::Rows { .. } => 8,
        };
        BLOCK_HEADER_BYTES
            + self.segments.len() * SEGMENT_BYTES
            + padded(points * (value_bytes(&self.values) + stamps))
    }

    /// Writes the record into a slot of [`Self::record_bytes`].
    pub fn write(&self, slot: &mut Slot<'_>) {
        let (mut flags, mut common_ms) = (if self.distributed { FLAG_DISTRIBUTED } else { 0 }, 0);
        if matches!(self.values, Values::F32(_)) {
            flags |= FLAG_F32;
        }
        match self.timestamps {
            BlockTimestamps::All(timestamp_ms) => common_ms = timestamp_ms,
            BlockTimestamps::Each(_) | BlockTimestamps::Rows { .. } => flags |= FLAG_TIMESTAMPS,
        }
        slot.put_header(BLOCK, flags, slot.left() as u32);
        slot.put_u32(self.metric.0);
        slot.put_u32(self.segments.len() as u32);
        slot.put_i64(self.rl_step);
        slot.put_i64(common_ms);
        slot.put_u32(value_count(&self.values) as u32);
        slot.put_u32(0);
        slot.put_bytes(bytes_of(self.segments));
        self.write_timestamps(slot);
        match self.values {
            Values::F32(values) => slot.put_f32s(values),
            Values::F64(values) => slot.put_f64s(values),
        }
        slot.fill();
    }

    fn write_timestamps(&self, slot: &mut Slot<'_>) {
        match self.timestamps {
            BlockTimestamps::All(_) => {}
            BlockTimestamps::Each(each) => slot.put_i64s(each),
            BlockTimestamps::Rows { rows, per_row, done } => {
                for i in done..done + value_count(&self.values) {
                    slot.put_i64(rows[i / per_row]);
                }
            }
        }
    }
}

/// Bytes of a record that declares `declaration`.
pub const fn declare_bytes(declaration: &[u8]) -> usize {
    DECLARE_HEADER_BYTES + padded(declaration.len())
}

/// Writes a metric's declaration into a slot of [`declare_bytes`].
pub fn write_declare_metric(slot: &mut Slot<'_>, declaration: &[u8]) {
    write_declare(slot, DECLARE_METRIC, declaration);
}

/// Writes an environment's declaration into a slot of [`declare_bytes`].
pub fn write_declare_environment(slot: &mut Slot<'_>, declaration: &[u8]) {
    write_declare(slot, DECLARE_ENVIRONMENT, declaration);
}

fn write_declare(slot: &mut Slot<'_>, kind: u8, declaration: &[u8]) {
    slot.put_header(kind, 0, slot.left() as u32);
    slot.put_bytes(declaration);
    slot.fill();
}

/// Bytes of a record with these attribute operations.
pub const fn attributes_bytes(operations: &[u8]) -> usize {
    ATTRIBUTES_HEADER_BYTES + padded(operations.len())
}

/// Writes ATTRIBUTES into a slot of [`attributes_bytes`].
pub fn write_attributes(slot: &mut Slot<'_>, count: u32, operations: &[u8]) {
    slot.put_header(ATTRIBUTES, 0, slot.left() as u32);
    slot.put_u32(count);
    slot.put_u32(operations.len() as u32);
    slot.put_bytes(operations);
    slot.fill();
}

/// A record as read back.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    Point {
        metric: MetricNo,
        distributed: bool,
        rewound: bool,
        step: i64,
        timestamp_ms: i64,
        value: f64,
    },
    Block(Block<'a>),
    /// With its padding: the decoder knows where it ends.
    DeclareMetric(&'a [u8]),
    /// With its padding.
    DeclareEnvironment(&'a [u8]),
    Attributes {
        count: u32,
        operations: &'a [u8],
    },
}

/// The bytes of a record contradict each other or name a kind nobody has defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of kind {kind} at {lsn} cannot be read")]
pub struct BadBody {
    pub kind: u8,
    pub lsn: Lsn,
}

/// Reads a record's body. Never panics, whatever the bytes.
///
/// # Errors
///
/// [`BadBody`].
pub fn read<'a>(raw: &RawRecord<'a>) -> Result<Record<'a>, BadBody> {
    let bytes = bytes_of(raw.words);
    let record = match raw.kind {
        POINT => read_point(bytes),
        BLOCK => read_block(bytes).map(Record::Block),
        DECLARE_METRIC => bytes.get(DECLARE_HEADER_BYTES..).map(Record::DeclareMetric),
        DECLARE_ENVIRONMENT => bytes.get(DECLARE_HEADER_BYTES..).map(Record::DeclareEnvironment),
        ATTRIBUTES => read_attributes(bytes),
        _ => None,
    };
    record.ok_or(BadBody { kind: raw.kind, lsn: raw.lsn })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_point<'a>(record: &[u8]) -> Option<Record<'a>> {
    let flags = record[1];
    Some(Record::Point {
        metric: MetricNo(u32_at(record, 4)?),
        distributed: flags & FLAG_DISTRIBUTED != 0,
        rewound: flags & FLAG_REWOUND != 0,
        step: i64_at(record, 8)?,
        timestamp_ms: i64_at(record, 16)?,
        value: f64::from_bits(i64_at(record, 24)? as u64),
    })
}

fn read_block(record: &[u8]) -> Option<Block<'_>> {
    let flags = record[1];
    let point_count = u32_at(record, 32)? as usize;
    let rest = record.get(BLOCK_HEADER_BYTES..)?;
    let segments = items_of::<BlockSegment>(rest, u32_at(record, 12)? as usize)?;
    if segments.iter().map(|segment| segment.count() as usize).sum::<usize>() != point_count {
        return None;
    }
    let rest = &rest[size_of_val(segments)..];
    let (timestamps, rest) = if flags & FLAG_TIMESTAMPS == 0 {
        (BlockTimestamps::All(i64_at(record, 24)?), rest)
    } else {
        let each = items_of::<i64>(rest, point_count)?;
        (BlockTimestamps::Each(each), &rest[size_of_val(each)..])
    };
    let values = if flags & FLAG_F32 == 0 {
        Values::F64(items_of(rest, point_count)?)
    } else {
        Values::F32(items_of(rest, point_count)?)
    };
    Some(Block {
        metric: MetricNo(u32_at(record, 8)?),
        distributed: flags & FLAG_DISTRIBUTED != 0,
        rl_step: i64_at(record, 16)?,
        segments,
        timestamps,
        values,
    })
}

fn read_attributes(record: &[u8]) -> Option<Record<'_>> {
    let operations = record.get(ATTRIBUTES_HEADER_BYTES..)?.get(..u32_at(record, 12)? as usize)?;
    Some(Record::Attributes { count: u32_at(record, 8)?, operations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{POINT_BYTES, Ring, RingOptions, RingPlace, RingStart, records};
    use crate::types::WriterId;

    /// What `write` puts into a slot of this size, as a window has it.
    fn written(bytes: usize, write: impl FnOnce(&mut Slot<'_>)) -> Vec<u64> {
        let options = RingOptions { capacity_bytes: 1 << 16, place: RingPlace::Memory };
        let (_, mut producer, consumer) =
            Ring::create(&options, WriterId([1; 16]), RingStart::ORIGIN).unwrap();
        write(&mut producer.reserve(bytes).unwrap());
        producer.commit();
        let mut window = Vec::new();
        consumer.read(consumer.tail(), consumer.committed(), &mut window).unwrap();
        window
    }

    fn read_all(window: &[u64]) -> Result<Vec<Record<'_>>, BadBody> {
        records(window, Lsn(0)).map(|raw| read(&raw.unwrap())).collect()
    }

    #[test]
    fn golden_point() {
        let window = written(POINT_BYTES, |slot| {
            write_point(slot, MetricNo(7), FLAG_DISTRIBUTED | FLAG_REWOUND, 3, 1_000, 0.5);
        });
        let mut expected = vec![2, 3, 0, 0, 7, 0, 0, 0];
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0xe8, 3, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);
        assert_eq!(bytes_of(&window), expected);
    }

    #[test]
    fn golden_block() {
        let segments = [
            BlockSegment::new(EnvNo(1), 2, false, 4, 5),
            BlockSegment::new(EnvNo(2), 1, true, 0, 9),
        ];
        let block = Block {
            metric: MetricNo(3),
            distributed: false,
            rl_step: 6,
            segments: &segments,
            timestamps: BlockTimestamps::Rows { rows: &[10, 11], per_row: 2, done: 0 },
            values: Values::F32(&[1.0, 2.0, -1.0]),
        };
        let window = written(block.record_bytes(), |slot| block.write(slot));
        let mut expected = vec![3, 12, 0, 0, 128, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0];
        expected.extend([6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 0, 0, 0, 1, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        expected
            .extend([10, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x80, 0xbf, 0, 0, 0, 0]);
        assert_eq!(bytes_of(&window), expected);
    }

    #[test]
    fn golden_declaration_and_attributes() {
        let window = written(declare_bytes(b"abc"), |slot| write_declare_environment(slot, b"abc"));
        assert_eq!(bytes_of(&window), [5, 0, 0, 0, 16, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0, 0]);
        let window = written(declare_bytes(b""), |slot| write_declare_metric(slot, b""));
        assert_eq!(bytes_of(&window), [4, 0, 0, 0, 8, 0, 0, 0]);
        let window = written(attributes_bytes(b"xy"), |slot| write_attributes(slot, 1, b"xy"));
        let head = [6, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(bytes_of(&window)[..16], head);
        assert_eq!(bytes_of(&window)[16..], [b'x', b'y', 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_block_is_read_as_it_was_written() {
        let segments = [BlockSegment::new(EnvNo(1), 2, false, 4, 5)];
        let block = Block {
            metric: MetricNo(3),
            distributed: true,
            rl_step: 6,
            segments: &segments,
            timestamps: BlockTimestamps::All(77),
            values: Values::F64(&[1.5, f64::NAN]),
        };
        let window = written(block.record_bytes(), |slot| block.write(slot));
        let read = read_all(&window).unwrap();
        let [Record::Block(read)] = read[..] else { panic!("{read:?}") };
        assert_eq!(read.segments, segments);
        assert!(read.distributed && matches!(read.timestamps, BlockTimestamps::All(77)));
        let Values::F64(values) = read.values else { panic!("{read:?}") };
        assert!(values[1].is_nan());
    }

    #[test]
    fn damaged_bytes_are_an_error_never_a_panic() {
        let segments = [BlockSegment::new(EnvNo(1), 2, false, 4, 5)];
        let block = Block {
            metric: MetricNo(3),
            distributed: false,
            rl_step: 6,
            segments: &segments,
            timestamps: BlockTimestamps::Each(&[1, 2]),
            values: Values::F64(&[1.5, 2.5]),
        };
        let window = written(block.record_bytes(), |slot| block.write(slot));
        for bit in 0..window.len() * 64 {
            let mut damaged = window.clone();
            damaged[bit / 64] ^= 1 << (bit % 64);
            for raw in records(&damaged, Lsn(0)).flatten() {
                let _ = read(&raw);
            }
        }
    }

    #[test]
    fn a_split_segment_goes_on_where_it_stopped() {
        let (head, tail) = BlockSegment::new(EnvNo(1), 5, true, 7, 10).split(2, false);
        assert_eq!(head, BlockSegment::new(EnvNo(1), 2, true, 7, 10));
        assert_eq!(tail, BlockSegment::new(EnvNo(1), 3, true, 7, 12));
        let (_, tail) = BlockSegment::new(EnvNo(1), 5, false, 7, -1).split(2, true);
        assert_eq!(tail, BlockSegment::new(EnvNo(1), 3, false, 9, -1));
    }
}
