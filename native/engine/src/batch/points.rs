//! Collects points and seals them as a points payload.
//!
//! Segments are kept as they come, each with its series' index; values and times that are more than
//! one go to arenas. Sealing sorts the segments by series and writes one column after the other, so
//! the cost is per segment, except for values and for timestamps that came one per point.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::error::EncodeError;
use super::seal::Sealer;
use super::staged::{SeriesState, Staged, Totals};
use crate::types::{
    Compression, EnvNo, MAX_BATCH_POINTS, MAX_EPISODE, MAX_ML_STEP, MAX_ORDINAL, MAX_RL_STEP,
    MetricNo, Position, UNUSED,
};

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

impl Segment {
    /// The last point's position.
    #[must_use]
    pub const fn end(&self) -> Position {
        let distance = self.count.saturating_sub(1) as i64;
        let mut end = self.start;
        match self.axis {
            Axis::Step => end.step = end.step.saturating_add(distance),
            Axis::Episode => end.episode = end.episode.saturating_add(distance),
        }
        end
    }

    /// Refuses positions the store has no room for.
    fn check(&self) -> Result<(), EncodeError> {
        let (start, end) = (self.start, self.end());
        let along = match self.axis {
            Axis::Step => start.step,
            Axis::Episode => start.episode,
        };
        if !(UNUSED..=MAX_RL_STEP).contains(&start.rl_step) {
            return Err(EncodeError::OutOfRange("rl_step"));
        }
        if start.episode < UNUSED || end.episode > MAX_EPISODE {
            return Err(EncodeError::OutOfRange("episode"));
        }
        if start.step < UNUSED || end.step > MAX_ML_STEP {
            return Err(EncodeError::OutOfRange("step"));
        }
        if self.count > 1 && along == UNUSED {
            return Err(EncodeError::OutOfRange("a segment along an unused coordinate"));
        }
        Ok(())
    }
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
pub struct Mark {
    pieces: usize,
    series: usize,
    narrow: usize,
    wide: usize,
    times: usize,
    totals: Totals,
}

/// Collects the points of one batch. Its buffers are kept from batch to batch, so that nothing is
/// allocated once they are as large as the batches are.
#[derive(Debug, Default)]
pub struct PointsEncoder {
    staged: Staged,
    index: HashMap<SeriesKey, u32, RandomState>,
    /// The series pushed to last.
    last: u32,
    sealer: Sealer,
}

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
    /// [`EncodeError::Full`] if the batch would hold more points, or more segments that may repeat
    /// positions of one series, than the format allows: nothing of the segment was taken,
    /// [`Self::encode`] and push again. [`EncodeError::Mismatch`] and [`EncodeError::OutOfRange`]
    /// for a caller's mistake.
    pub fn push(
        &mut self,
        key: SeriesKey,
        segment: &Segment,
        timestamps: Timestamps<'_>,
        values: Values<'_>,
        is_rl: bool,
    ) -> Result<(), EncodeError> {
        check_lengths(segment.count, timestamps, values)?;
        if segment.count == 0 {
            return Ok(());
        }
        segment.check()?;
        if key.metric.0 == 0 {
            return Err(EncodeError::OutOfRange("metric number 0"));
        }
        if segment.count as usize > MAX_BATCH_POINTS - self.staged.totals.points {
            return Err(EncodeError::Full);
        }
        let series = self.find(key);
        let state = &self.staged.series[series as usize];
        let is_late = state.is_late(segment.start);
        // Within a segment positions only grow, so a position's repeats are at most the segments
        // that do not begin above all before them.
        if is_late && state.late == u32::from(MAX_ORDINAL) {
            return Err(EncodeError::Full);
        }
        self.staged.push(series, segment, timestamps, values, is_rl);
        Ok(())
    }

    /// The index of the series with this key.
    #[inline]
    fn find(&mut self, key: SeriesKey) -> u32 {
        // Callers come around in the same order again and again: what followed the last series
        // before most likely follows it now, which saves the hash.
        let series = &self.staged.series;
        let hint = series.get(self.last as usize).map_or(0, |last| last.next);
        self.last = match series.get(hint as usize) {
            Some(state) if state.key == key => hint,
            _ => self.look_up(key),
        };
        self.last
    }

    fn look_up(&mut self, key: SeriesKey) -> u32 {
        let series = &mut self.staged.series;
        let found = match self.index.entry(key) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                series.push(SeriesState::new(key));
                *entry.insert(series.len() as u32 - 1)
            }
        };
        series[self.last as usize].next = found;
        found
    }

    /// Points pushed since the last [`Self::encode`].
    #[must_use]
    pub fn point_count(&self) -> usize {
        self.staged.totals.points
    }

    /// Whether the batch has no points.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.point_count() == 0
    }

    /// The series of the batch, in order of first appearance: what must be declared before it.
    pub fn series(&self) -> impl Iterator<Item = SeriesKey> + '_ {
        self.staged.series.iter().map(|state| state.key)
    }

    /// No payload that [`Self::encode`] could now make is longer than this many bytes.
    ///
    /// It assumes that nothing compresses, so real payloads are a quarter smaller and more.
    #[must_use]
    pub fn payload_bound(&self) -> usize {
        self.staged.totals.payload_bound()
    }

    /// The present state, for [`Self::roll_back`].
    ///
    /// A caller that must keep the segments of one record together takes a mark before the first;
    /// when a later one is refused, or [`Self::payload_bound`] has grown too large, it rolls back,
    /// seals, and pushes the record into the empty batch. There every record fits that has at most
    /// 1,000,000 points, and at most 65,536 segments of one series.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let staged = &self.staged;
        Mark {
            pieces: staged.pieces.len(),
            series: staged.series.len(),
            narrow: staged.arenas.narrow.len(),
            wide: staged.arenas.wide.len(),
            times: staged.arenas.times.len(),
            totals: staged.totals,
        }
    }

    /// Forgets what was pushed since `mark`, which must be of this batch. Takes time proportional
    /// to the whole batch: meant for the one record that does not fit.
    pub fn roll_back(&mut self, mark: &Mark) {
        let staged = &mut self.staged;
        for state in staged.series.drain(mark.series..) {
            self.index.remove(&state.key);
        }
        staged.pieces.truncate(mark.pieces);
        staged.arenas.narrow.truncate(mark.narrow);
        staged.arenas.wide.truncate(mark.wide);
        staged.arenas.times.truncate(mark.times);
        staged.recount();
        staged.totals = mark.totals;
        self.last = 0;
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
        let start = out.len();
        let sealed = self.sealer.seal(&self.staged, compression, out);
        sealed.inspect_err(|_| out.truncate(start))?;
        let summary = self.staged.totals.summary;
        self.clear();
        Ok(summary)
    }

    /// Forgets all that was pushed.
    pub fn clear(&mut self) {
        self.staged.clear();
        self.index.clear();
        self.last = 0;
    }
}

fn check_lengths(
    count: u32,
    timestamps: Timestamps<'_>,
    values: Values<'_>,
) -> Result<(), EncodeError> {
    let count = count as usize;
    let values = match values {
        Values::F32(values) => values.len(),
        Values::F64(values) => values.len(),
    };
    let timestamps = match timestamps {
        Timestamps::All(_) => count,
        Timestamps::Each(timestamps) => timestamps.len(),
    };
    if values == count && timestamps == count {
        Ok(())
    } else {
        Err(EncodeError::Mismatch { count, values, timestamps })
    }
}
