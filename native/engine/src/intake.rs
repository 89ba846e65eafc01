//! What the callers' lock protects: names, steps, the ring's writing end, and the counts of what
//! was added, enqueued and dropped. Nothing here waits, allocates in the steady state, reads a
//! clock or calls the system.
//!
//! A call becomes **chunks**, each of which goes into the ring whole or not at all. Nearly every
//! call is one chunk; one that is larger than the queue, or than a record may be, is several. All
//! steps of a call are assigned before its first chunk is written, so a chunk that has to wait, or
//! is dropped, keeps its place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::calls::{EnvCall, Point, SeriesCall, Spread, Steps, Values};
use crate::chunk::{
    AttributesChunk, BlockChunk, BlockParts, Chunk, MAX_SEGMENTS, PointChunk, QueueLimits, split,
};
use crate::counters::{Kind, Tally};
use crate::error::{InvalidArgument, LogError};
use crate::record::{
    self, BlockSegment, BlockTimestamps, FLAG_DISTRIBUTED, FLAG_REWOUND, value_count,
};
use crate::ring::{POINT_BYTES, Producer};
use crate::series::Registry;
use crate::spool::{CursorSet, EnvironmentCursor, SeriesCursor};
use crate::steps::{EnvCursor, Episodes, StepTable};
use crate::types::{EnvNo, MAX_BATCH_POINTS, MetricNo, Scale, UNUSED};

/// See the module.
#[derive(Debug)]
pub(crate) struct Intake {
    producer: Producer,
    pub registry: Registry,
    pub steps: StepTable,
    limits: QueueLimits,
    /// Points sealed so far, by the drain thread.
    sealed_points: Arc<AtomicU64>,
    /// Enqueued points may not pass this; as old as the last look at `sealed_points`.
    points_limit: u64,
    /// The drain thread is to be woken when the ring's head or the points pass these.
    wake_at_lsn: u64,
    wake_at_points: u64,
    added: Tally,
    enqueued: Tally,
    dropped: Tally,
    is_closed: bool,
    /// Kept for their memory.
    segments: Vec<BlockSegment>,
    declaration: Vec<u8>,
}

impl Intake {
    pub fn new(producer: Producer, limits: QueueLimits, sealed_points: Arc<AtomicU64>) -> Self {
        let record_bytes = limits
            .record_bytes
            .min(producer.capacity() as usize / 4)
            .min(producer.max_record_bytes());
        let mut intake = Self {
            producer,
            registry: Registry::default(),
            steps: StepTable::default(),
            limits: QueueLimits { record_bytes, ..limits },
            sealed_points,
            points_limit: 0,
            wake_at_lsn: 0,
            wake_at_points: 0,
            added: Tally::default(),
            enqueued: Tally::default(),
            dropped: Tally::default(),
            is_closed: false,
            segments: Vec::new(),
            declaration: Vec::new(),
        };
        intake.wake_later();
        intake
    }

    // ── Names ──────────────────────────────────────────────────────────────────────────────────

    pub fn metric(
        &mut self,
        name: &str,
        scale: Scale,
        labels: &[(&str, &str)],
    ) -> Result<MetricNo, InvalidArgument> {
        let no = self.registry.metric(name, scale, labels)?;
        if no.0 as usize > self.steps.metric_count() {
            self.steps.add_metric(scale);
        }
        Ok(no)
    }

    pub fn env(&mut self, env_id: &str) -> Result<EnvNo, InvalidArgument> {
        let no = self.registry.env(env_id)?;
        if no.0 as usize > self.steps.env_count() {
            self.steps.add_env();
        }
        Ok(no)
    }

    /// Takes over where other writers left the run.
    pub fn seed(&mut self, cursors: &CursorSet) {
        for cursor in &cursors.series {
            self.seed_series(cursor);
        }
        for cursor in &cursors.environments {
            let EnvironmentCursor { env_id, rl_step, episode, ended_episode } = cursor;
            let (rl_step, episode, ended_episode) = (*rl_step, *episode, *ended_episode);
            if let Ok(env) = self.env(env_id) {
                self.steps.seed_env(env, EnvCursor { rl_step, episode, ended_episode });
            }
        }
    }

    /// A cursor whose names this engine would refuse is another version's: nothing can go on there.
    fn seed_series(&mut self, cursor: &SeriesCursor) {
        let labels: Vec<_> =
            cursor.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let Ok(metric) = self.metric(&cursor.name, cursor.scale, &labels) else { return };
        let env = cursor.env_id.as_ref().map_or(Ok(EnvNo::NONE), |env_id| self.env(env_id));
        let Ok(env) = env else { return };
        self.steps.seed_series(metric, env, cursor.position);
    }

    // ── Calls ──────────────────────────────────────────────────────────────────────────────────

    /// `None`: it is in the ring.
    #[inline]
    pub fn point(&mut self, point: &Point, now_ms: i64) -> Result<Option<PointChunk>, LogError> {
        let left = self.enter_point(point, now_ms)?;
        self.producer.commit();
        Ok(left)
    }

    /// The same without committing it.
    #[inline]
    fn enter_point(&mut self, point: &Point, now_ms: i64) -> Result<Option<PointChunk>, LogError> {
        self.check_open()?;
        if point.distributed && point.step.is_none() {
            return Err(distributed_needs_steps().into());
        }
        let (step, rewound) = self.steps.pass_point(point.metric, point.step)?;
        let flags = if point.distributed { FLAG_DISTRIBUTED } else { 0 }
            | if rewound { FLAG_REWOUND } else { 0 };
        let timestamp_ms = point.timestamp_ms.unwrap_or(now_ms);
        let chunk =
            PointChunk { metric: point.metric, flags, step, timestamp_ms, value: point.value };
        self.added.0[Kind::Float as usize] += 1;
        Ok(if self.reserve_point(&chunk) { None } else { Some(chunk) })
    }

    /// What is not in the ring; empty: nothing.
    pub fn points(
        &mut self,
        points: &[Point],
        now_ms: i64,
    ) -> Result<VecDeque<Chunk<'static>>, LogError> {
        self.check_open()?;
        for point in points {
            if point.distributed && point.step.is_none() {
                return Err(distributed_needs_steps().into());
            }
            self.steps.check_point(point.metric, point.step)?;
        }
        let mut left = VecDeque::new();
        let entered = points.iter().try_for_each(|point| {
            self.enter_point(point, now_ms).map(|chunk| left.extend(chunk.map(Chunk::Point)))
        });
        // Once for all: a process that dies within the call leaves all of it or nothing.
        self.producer.commit();
        entered.map(|()| left)
    }

    /// See [`Self::points`].
    pub fn series<'a>(
        &mut self,
        calls: &[SeriesCall<'a>],
        now_ms: i64,
    ) -> Result<VecDeque<Chunk<'a>>, LogError> {
        self.check_open()?;
        for call in calls {
            let count = value_count(&call.values);
            if call.distributed && matches!(call.steps, Steps::Next) {
                return Err(distributed_needs_steps().into());
            }
            if count > 0 {
                self.steps.check_series(call.metric, call.steps, count)?;
            }
        }
        let mut left = VecDeque::new();
        let mut segments = std::mem::take(&mut self.segments);
        for call in calls.iter().filter(|call| value_count(&call.values) > 0) {
            let (distributed, values) = (call.distributed, call.values);
            if let Some(point) = single(call) {
                left.extend(self.point(&point, now_ms)?.map(Chunk::Point));
                continue;
            }
            segments.clear();
            self.steps.pass_series(call.metric, call.steps, value_count(&values), &mut segments);
            let timestamps = match call.timestamps {
                None => BlockTimestamps::All(now_ms),
                Some(Spread::All(timestamp_ms)) => BlockTimestamps::All(timestamp_ms),
                Some(Spread::PerEnv(each) | Spread::Each(each)) => BlockTimestamps::Each(each),
            };
            let block = BlockParts {
                metric: call.metric,
                kind: Kind::Float,
                distributed,
                rl_step: UNUSED,
                timestamps,
                values,
            };
            self.block(block, &segments, &mut left);
        }
        self.segments = segments;
        Ok(left)
    }

    /// See [`Self::points`].
    pub fn env_block<'a>(
        &mut self,
        call: &EnvCall<'a>,
        episodes: &Episodes<'_>,
        scale: Scale,
        now_ms: i64,
    ) -> Result<VecDeque<Chunk<'a>>, LogError> {
        self.check_open()?;
        let found = self.steps.scale(call.metric)?;
        if found != scale {
            let message = format!("its scale is {}, not {}", found.name(), scale.name());
            return Err(InvalidArgument::new("metric_name", message).into());
        }
        let mut left = VecDeque::new();
        if value_count(&call.values) == 0 {
            return Ok(left);
        }
        self.steps.check_env_call(call)?;
        let mut segments = std::mem::take(&mut self.segments);
        segments.clear();
        self.steps.pass_env_call(call, episodes, &mut segments);
        let timestamps = match call.timestamps {
            None => BlockTimestamps::All(now_ms),
            Some(Spread::All(timestamp_ms)) => BlockTimestamps::All(timestamp_ms),
            Some(Spread::PerEnv(rows)) if call.per_env > 1 => {
                BlockTimestamps::Rows { rows, per_row: call.per_env, done: 0 }
            }
            Some(Spread::PerEnv(each) | Spread::Each(each)) => BlockTimestamps::Each(each),
        };
        let block = BlockParts {
            metric: call.metric,
            kind: Kind::Rl,
            distributed: false,
            rl_step: call.rl_step,
            timestamps,
            values: call.values,
        };
        self.block(block, &segments, &mut left);
        self.segments = segments;
        Ok(left)
    }

    /// Enqueues attribute operations, in order.
    pub fn attributes(
        &mut self,
        chunks: VecDeque<AttributesChunk>,
    ) -> Result<VecDeque<Chunk<'static>>, LogError> {
        self.check_open()?;
        let mut left = VecDeque::new();
        for chunk in chunks {
            self.added += chunk.tally;
            let chunk = Chunk::Attributes(chunk);
            // Operations must not overtake each other.
            if !left.is_empty() || !self.put(&chunk) {
                left.push_back(chunk);
            }
        }
        Ok(left)
    }

    // ── Chunks ─────────────────────────────────────────────────────────────────────────────────

    /// Puts a chunk that had no room before into the ring; `false`: there is still none.
    pub fn put(&mut self, chunk: &Chunk<'_>) -> bool {
        match chunk {
            Chunk::Point(point) => {
                let is_in = self.reserve_point(point);
                self.producer.commit();
                is_in
            }
            Chunk::Block(chunk) => self.put_block(&chunk.block, &chunk.segments),
            Chunk::Attributes(chunk) => self.put_attributes(chunk),
        }
    }

    pub fn drop_chunk(&mut self, chunk: &Chunk<'_>) {
        self.dropped += chunk.tally();
    }

    /// Writes a block whose steps are assigned, in as many chunks as it takes.
    fn block<'a>(
        &mut self,
        block: BlockParts<'a>,
        segments: &[BlockSegment],
        left: &mut VecDeque<Chunk<'a>>,
    ) {
        let count = value_count(&block.values);
        self.added += Tally::of(block.kind, count as u64);
        let is_one = segments.len() <= MAX_SEGMENTS
            && count <= MAX_BATCH_POINTS
            && count as u64 <= self.limits.points
            && block.with(segments).record_bytes() <= self.limits.record_bytes;
        if is_one && left.is_empty() && self.put_block(&block, segments) {
            return;
        }
        let episode_grows = self.steps.scale(block.metric) == Ok(Scale::Episode);
        let chunks = if is_one {
            vec![BlockChunk { block, segments: segments.to_vec() }]
        } else {
            split(&block, segments, episode_grows, self.limits)
        };
        for chunk in chunks.into_iter().map(Chunk::Block) {
            if !left.is_empty() || !self.put(&chunk) {
                left.push_back(chunk);
            }
        }
    }

    #[inline]
    fn reserve_point(&mut self, chunk: &PointChunk) -> bool {
        if !self.has_room_for(1) || !self.declare_metric(chunk.metric) {
            return false;
        }
        let Some(mut slot) = self.producer.reserve(POINT_BYTES) else { return false };
        let PointChunk { metric, flags, step, timestamp_ms, value } = *chunk;
        record::write_point(&mut slot, metric, flags, step, timestamp_ms, value);
        self.enqueued.0[Kind::Float as usize] += 1;
        true
    }

    fn put_block(&mut self, block: &BlockParts<'_>, segments: &[BlockSegment]) -> bool {
        let count = value_count(&block.values) as u64;
        if !self.has_room_for(count) || !self.declare_metric(block.metric) {
            return false;
        }
        if self.registry.has_undeclared_envs()
            && !segments.iter().all(|segment| self.declare_env(segment.env()))
        {
            return false;
        }
        let block_with = block.with(segments);
        let Some(mut slot) = self.producer.reserve(block_with.record_bytes()) else { return false };
        block_with.write(&mut slot);
        self.producer.commit();
        self.enqueued += Tally::of(block.kind, count);
        true
    }

    fn put_attributes(&mut self, chunk: &AttributesChunk) -> bool {
        if !chunk.envs.iter().all(|env| self.declare_env(*env)) {
            return false;
        }
        let bytes = record::attributes_bytes(&chunk.operations);
        let Some(mut slot) = self.producer.reserve(bytes) else { return false };
        record::write_attributes(&mut slot, chunk.count, &chunk.operations);
        self.producer.commit();
        self.enqueued += chunk.tally;
        true
    }

    /// A declaration is committed by itself: without its point it does no harm.
    #[inline]
    fn declare_metric(&mut self, no: MetricNo) -> bool {
        !self.registry.metric_is_undeclared(no) || self.declare_new_metric(no)
    }

    #[cold]
    fn declare_new_metric(&mut self, no: MetricNo) -> bool {
        self.declaration.clear();
        self.registry.encode_metric(no, &mut self.declaration);
        let Some(mut slot) = self.producer.reserve(record::declare_bytes(&self.declaration)) else {
            return false;
        };
        record::write_declare_metric(&mut slot, &self.declaration);
        self.producer.commit();
        self.registry.metric_was_declared(no);
        true
    }

    fn declare_env(&mut self, no: EnvNo) -> bool {
        if !self.registry.env_is_undeclared(no) {
            return true;
        }
        self.declaration.clear();
        self.registry.encode_env(no, &mut self.declaration);
        let Some(mut slot) = self.producer.reserve(record::declare_bytes(&self.declaration)) else {
            return false;
        };
        record::write_declare_environment(&mut slot, &self.declaration);
        self.producer.commit();
        self.registry.env_was_declared(no);
        true
    }

    #[inline]
    fn has_room_for(&mut self, points: u64) -> bool {
        self.enqueued.points() + points <= self.points_limit || self.look_for_room(points)
    }

    #[cold]
    fn look_for_room(&mut self, points: u64) -> bool {
        // Acquire: what was released in the ring before this store is free too.
        let sealed = self.sealed_points.load(Ordering::Acquire);
        self.points_limit = sealed.saturating_add(self.limits.points);
        self.enqueued.points() + points <= self.points_limit
    }

    // ── The drain thread ───────────────────────────────────────────────────────────────────────

    /// Whether a quarter of ring or queue has come in since the last time this was true.
    #[inline]
    pub fn is_wake_due(&mut self) -> bool {
        let due = self.producer.head().0 >= self.wake_at_lsn
            || self.enqueued.points() >= self.wake_at_points;
        if due {
            self.wake_later();
        }
        due
    }

    #[cold]
    fn wake_later(&mut self) {
        self.wake_at_lsn = self.producer.head().0 + self.producer.capacity() / 4;
        let quarter = self.limits.points.div_ceil(4);
        self.wake_at_points = self.enqueued.points().saturating_add(quarter);
    }

    /// The ring was lost and this one takes its place.
    pub fn replace_ring(&mut self, producer: Producer) {
        self.producer = producer;
        self.registry.declare_all_again();
        self.wake_later();
    }

    pub fn committed(&self) -> crate::types::Lsn {
        self.producer.head()
    }

    // ── State ──────────────────────────────────────────────────────────────────────────────────

    fn check_open(&self) -> Result<(), LogError> {
        if self.is_closed { Err(LogError::Closed) } else { Ok(()) }
    }

    /// Every later call says [`LogError::Closed`].
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub const fn added(&self) -> Tally {
        self.added
    }

    pub const fn enqueued(&self) -> Tally {
        self.enqueued
    }

    pub const fn dropped(&self) -> Tally {
        self.dropped
    }
}

/// A call of one value as the smaller record.
fn single(call: &SeriesCall<'_>) -> Option<Point> {
    let value = match call.values {
        Values::F32([value]) => f64::from(*value),
        Values::F64([value]) => *value,
        _ => return None,
    };
    let first = |spread| match spread {
        Spread::All(one) => Some(one),
        Spread::PerEnv(each) | Spread::Each(each) => each.first().copied(),
    };
    let step = match call.steps {
        Steps::Next => None,
        Steps::From(step) => Some(step),
        Steps::Each(each) => each.first().copied(),
    };
    let timestamp_ms = call.timestamps.and_then(first);
    Some(Point { metric: call.metric, step, timestamp_ms, value, distributed: call.distributed })
}

fn distributed_needs_steps() -> InvalidArgument {
    InvalidArgument::new("step", "None; log_distributed needs a step, the same on every process")
}
