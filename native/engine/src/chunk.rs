//! Pieces of a call, their steps assigned: what goes into the ring whole or not at all.

use std::collections::VecDeque;

use crate::calls::Values;
use crate::counters::{Kind, Tally};
use crate::record::{
    BLOCK_HEADER_BYTES, Block, BlockSegment, BlockTimestamps, SEGMENT_BYTES, value_count,
};
use crate::types::{EnvNo, MAX_BATCH_POINTS, MetricNo};

/// Most segments of one BLOCK, so that a batch can always hold it.
pub(crate) const MAX_SEGMENTS: usize = 65_000;

/// A piece of a call that goes into the ring whole or not at all.
#[derive(Debug)]
pub(crate) enum Chunk<'a> {
    Point(PointChunk),
    Block(BlockChunk<'a>),
    Attributes(AttributesChunk),
}

/// One point of `log`, its step assigned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PointChunk {
    pub metric: MetricNo,
    pub flags: u8,
    pub step: i64,
    pub timestamp_ms: i64,
    pub value: f64,
}

/// Points of an array, their steps assigned.
#[derive(Debug)]
pub(crate) struct BlockChunk<'a> {
    pub block: BlockParts<'a>,
    pub segments: Vec<BlockSegment>,
}

/// A block without its segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockParts<'a> {
    pub metric: MetricNo,
    pub kind: Kind,
    pub distributed: bool,
    pub rl_step: i64,
    pub timestamps: BlockTimestamps<'a>,
    pub values: Values<'a>,
}

/// Attribute operations, encoded.
#[derive(Debug)]
pub(crate) struct AttributesChunk {
    pub count: u32,
    pub operations: Vec<u8>,
    pub envs: Vec<EnvNo>,
    pub tally: Tally,
}

impl Chunk<'_> {
    pub fn tally(&self) -> Tally {
        match self {
            Self::Point(_) => Tally::of(Kind::Float, 1),
            Self::Block(chunk) => {
                Tally::of(chunk.block.kind, value_count(&chunk.block.values) as u64)
            }
            Self::Attributes(chunk) => chunk.tally,
        }
    }
}

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Most points that are accepted and not sealed.
    pub points: u64,
    /// Longest record, so that a message holds what is sealed from it.
    pub record_bytes: usize,
}

impl<'a> BlockParts<'a> {
    pub const fn with<'s>(&self, segments: &'s [BlockSegment]) -> Block<'s>
    where
        'a: 's,
    {
        Block {
            metric: self.metric,
            distributed: self.distributed,
            rl_step: self.rl_step,
            segments,
            timestamps: self.timestamps,
            values: self.values,
        }
    }

    /// The part of `count` points that begins behind the first `start`.
    fn part(&self, start: usize, count: usize) -> Self {
        let values = match self.values {
            Values::F32(values) => Values::F32(&values[start..start + count]),
            Values::F64(values) => Values::F64(&values[start..start + count]),
        };
        let timestamps = match self.timestamps {
            BlockTimestamps::All(timestamp_ms) => BlockTimestamps::All(timestamp_ms),
            BlockTimestamps::Each(each) => BlockTimestamps::Each(&each[start..start + count]),
            BlockTimestamps::Rows { rows, per_row, done } => {
                BlockTimestamps::Rows { rows, per_row, done: done + start }
            }
        };
        Self { timestamps, values, ..*self }
    }
}

/// Cuts a block that is too large for one record, or for the queue, into chunks that are not.
pub(crate) fn split<'a>(
    block: &BlockParts<'a>,
    segments: &[BlockSegment],
    episode_grows: bool,
    limits: QueueLimits,
) -> Vec<BlockChunk<'a>> {
    let most_points = (limits.points.div_ceil(4)).min(MAX_BATCH_POINTS as u64) as usize;
    // 16 bytes a point hold a value and its timestamp; segments take what they need.
    let most_bytes = limits.record_bytes - BLOCK_HEADER_BYTES;
    let mut chunks = Vec::new();
    let (mut start, mut count) = (0, 0);
    let mut own = Vec::new();
    let mut queue: VecDeque<BlockSegment> = segments.iter().copied().collect();
    while let Some(segment) = queue.pop_front() {
        let left = most_bytes.saturating_sub((own.len() + 1) * SEGMENT_BYTES + 16 * count);
        let room = (left / 16).min(most_points - count);
        if !own.is_empty() && (room == 0 || own.len() >= MAX_SEGMENTS) {
            queue.push_front(segment);
            chunks.push(BlockChunk { block: block.part(start, count), segments: own });
            (start, count, own) = (start + count, 0, Vec::new());
            continue;
        }
        let (taken, rest) = if segment.count() as usize > room.max(1) {
            let (taken, rest) = segment.split(room.max(1) as u32, episode_grows);
            (taken, Some(rest))
        } else {
            (segment, None)
        };
        count += taken.count() as usize;
        own.push(taken);
        if let Some(rest) = rest {
            queue.push_front(rest);
        }
    }
    if !own.is_empty() {
        chunks.push(BlockChunk { block: block.part(start, count), segments: own });
    }
    chunks
}
