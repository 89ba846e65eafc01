//! Collects points and seals them as a points payload.

use super::error::EncodeError;
use crate::types::{Compression, EnvNo, MetricNo, Position};

/// What points of a batch are grouped by: a series, and which of the two kinds of logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// The metric, from 1.
    pub metric: MetricNo,
    /// The environment, or [`EnvNo::NONE`].
    pub env: EnvNo,
    /// Logged by `log_distributed`: the store keeps the logger in its key.
    pub distributed: bool,
}

/// Which coordinate grows by one from point to point of a [`Segment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// `step`: ML steps and steps of an environment.
    Step,
    /// `episode`.
    Episode,
}

/// Points of one series at consecutive positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first point's position.
    pub start: Position,
    /// What grows by one.
    pub axis: Axis,
    /// Points; 0 is allowed and logs nothing.
    pub count: u32,
    /// None of the points is above the writer's greatest position of the series.
    pub rewound: bool,
}

/// Times of a segment's points, in Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Timestamps<'a> {
    /// One for all.
    All(i64),
    /// One per point.
    Each(&'a [i64]),
}

/// Values of a segment's points.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Logged as float32.
    F32(&'a [f32]),
    /// Logged as float64; stored as float32 where nothing is lost by it.
    F64(&'a [f64]),
}

/// How many points a batch has of each kind that `get_metrics()` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointsSummary {
    /// Points of `log` and `log_distributed`.
    pub float_points: u64,
    /// Points of `log_rl_episode` and `log_rl_environment_step`.
    pub rl_points: u64,
}

/// A place to go back to: see [`PointsEncoder::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark;

/// Collects the points of one batch. Its buffers are kept from batch to batch.
#[derive(Debug, Default)]
pub struct PointsEncoder {}

impl PointsEncoder {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a segment to its series. Values and timestamps are copied.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Full`] if the batch would hold more points, or more repeats of a position,
    /// than the format allows: nothing of the segment was taken, [`Self::encode`] and push again.
    /// [`EncodeError::Mismatch`] and [`EncodeError::OutOfRange`] for a caller's mistake.
    pub fn push(
        &mut self,
        key: SeriesKey,
        segment: &Segment,
        timestamps: Timestamps<'_>,
        values: Values<'_>,
        is_rl: bool,
    ) -> Result<(), EncodeError> {
        let _ = (key, segment, timestamps, values, is_rl);
        todo!()
    }

    /// Points pushed since the last [`Self::encode`].
    #[must_use]
    pub fn point_count(&self) -> usize {
        todo!()
    }

    /// Whether the batch has no points.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.point_count() == 0
    }

    /// The series of the batch, in order of first appearance: what must be declared before it.
    pub fn series(&self) -> impl Iterator<Item = SeriesKey> + '_ {
        std::iter::empty()
    }

    /// No payload that [`Self::encode`] could now make is longer than this many bytes.
    ///
    /// It assumes that nothing compresses, so real payloads are a quarter smaller and more.
    #[must_use]
    pub fn payload_bound(&self) -> usize {
        todo!()
    }

    /// The present state, for [`Self::roll_back`].
    ///
    /// A caller that must keep the segments of one record together takes a mark before the first,
    /// and when a later one is refused rolls back, seals, and pushes the record into the empty batch.
    /// There it fits unless it has more than 1,000,000 points or 65,536 segments of one series.
    #[must_use]
    pub fn mark(&self) -> Mark {
        todo!()
    }

    /// Forgets what was pushed since `mark`, which must be of this batch.
    pub fn roll_back(&mut self, mark: &Mark) {
        let _ = mark;
        todo!()
    }

    /// Appends the payload of all that was pushed to `out` and starts an empty batch.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Compression`]: `out` and the batch are as they were.
    pub fn encode(
        &mut self,
        compression: Compression,
        out: &mut Vec<u8>,
    ) -> Result<PointsSummary, EncodeError> {
        let _ = (compression, out);
        todo!()
    }
}
