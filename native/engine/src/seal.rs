//! Sealing: records of the ring become batches in the spool.
//!
//! The same code seals for a writer that lives and for one that died, so what recovery makes of a
//! ring is what the writer would have made of it, but for where one batch ends and the next begins.
//! A **window** (all that is committed) is sealed in **pieces**, each at most one points batch and one
//! attributes batch of one message's size, which carry the piece's range of lsns. Each kind remembers
//! how far it has got: when the second batch of a piece could not be written, only that one is made
//! again.

mod room;
mod table;

use std::mem;

use crate::attributes::AttributesEncoder;
use crate::batch::{
    Axis, EncodeError, Mark, PointsEncoder, PointsSummary, Segment, SeriesKey, Timestamps, Values,
};
use crate::calls::Values as BlockValues;
use crate::counters::{Kind, Tally};
use crate::declarations::Declaration;
use crate::record::{self, Block, BlockTimestamps, Record, value_count};
use crate::ring::{RawRecord, records};
use crate::spool::{Numbers, SealedBatch, SpoolError, SpoolWriter, UnknownNumber};
use crate::types::{BatchKind, Compression, EnvNo, Lsn, Position, Scale, Seq, UNUSED};

use room::Room;
pub use table::{DeclarationTable, MetricParts};

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub struct SealSettings {
    pub compression: Compression,
    /// Largest payload, as long as one record does not need more.
    pub payload_bytes: usize,
}

/// How far sealing has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealState {
    /// The lsn before which all points are in the spool.
    pub points_done: Lsn,
    /// The lsn before which all attribute operations are in the spool.
    pub attributes_done: Lsn,
    /// The seq of the next batch.
    pub next_seq: Seq,
}

impl SealState {
    /// For a ring whose records before `tail` are sealed.
    pub const fn at(tail: Lsn, next_seq: Seq) -> Self {
        Self { points_done: tail, attributes_done: tail, next_seq }
    }
}

/// What became of a piece.
#[derive(Debug, Default)]
pub struct Piece {
    /// The lsn behind it: all before it is in the spool and may be released.
    pub end: Lsn,
    /// The batches that are in the spool and that no earlier piece told of, and what each holds.
    pub batches: Vec<(Seq, Tally)>,
    /// Points that could not be sealed; `problems` says why.
    pub lost: Tally,
    pub problems: Vec<String>,
}

/// Why a piece could not be sealed; what was already written of it is in the [`SealState`].
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Makes batches of records. Its buffers are kept from piece to piece.
#[derive(Debug)]
pub struct Sealer {
    compression: Compression,
    room: Room,
    points: PointsEncoder,
    attributes: AttributesEncoder,
    /// What numbers stand for. Recovery fills it from the spool first.
    pub declarations: DeclarationTable,
    /// Declared in the piece.
    declared: Numbers,
    used: Numbers,
    payload: Vec<u8>,
    /// Batches in the spool whose piece could not be finished yet.
    untold: Vec<(Seq, Tally)>,
}

impl Sealer {
    pub fn new(settings: SealSettings) -> Self {
        Self {
            compression: settings.compression,
            room: Room::new(settings.payload_bytes),
            points: PointsEncoder::new(),
            attributes: AttributesEncoder::new(),
            declarations: DeclarationTable::default(),
            declared: Numbers::default(),
            used: Numbers::default(),
            payload: Vec::new(),
            untold: Vec::new(),
        }
    }

    /// Largest payload, as long as one record does not need more.
    pub const fn payload_bytes(&self) -> usize {
        self.room.message_bytes()
    }

    /// Seals the first piece of a window: `words` are the ring's from `start` on. Blocks on the
    /// disk. The caller then stores the next seq and releases the ring up to the piece's end.
    ///
    /// # Errors
    ///
    /// [`SealError`]; the same call (with the same or a longer window) may be made again.
    pub fn seal_piece(
        &mut self,
        words: &[u64],
        start: Lsn,
        urgent: bool,
        state: &mut SealState,
        spool: &mut SpoolWriter,
    ) -> Result<Piece, SealError> {
        let (mut piece, summary) = loop {
            let piece = self.collect(words, start, state);
            if let Some(summary) = self.encode_points()? {
                break (piece, summary);
            }
        };
        self.write_points(summary, start, urgent, state, spool, &mut piece)?;
        self.write_attributes(start, urgent, state, spool, &mut piece)?;
        spool.declare(&self.declared, state.next_seq, &mut self.declarations)?;
        piece.batches = mem::take(&mut self.untold);
        Ok(piece)
    }

    // ── Collecting ─────────────────────────────────────────────────────────────────────────────

    /// Takes records until the window or the room of a message ends.
    fn collect(&mut self, words: &[u64], start: Lsn, state: &SealState) -> Piece {
        self.points.clear();
        self.attributes.clear();
        self.declared.clear();
        let mut piece = Piece { end: Lsn(start.0 + 8 * words.len() as u64), ..Piece::default() };
        for raw in records(words, start) {
            let raw = match raw {
                Ok(raw) => raw,
                Err(bad) => {
                    piece.problems.push(bad.to_string());
                    break;
                }
            };
            match self.take(&raw, state, &mut piece) {
                Taken::Yes => {}
                Taken::No => {
                    piece.end = raw.lsn;
                    break;
                }
            }
        }
        piece
    }

    fn take(&mut self, raw: &RawRecord<'_>, state: &SealState, piece: &mut Piece) -> Taken {
        let record = match record::read(raw) {
            Ok(record) => record,
            Err(bad) => {
                piece.problems.push(bad.to_string());
                return Taken::Yes;
            }
        };
        match record {
            Record::DeclareMetric(bytes) | Record::DeclareEnvironment(bytes) => {
                self.take_declaration(bytes, piece)
            }
            Record::Attributes { count, operations } if raw.lsn >= state.attributes_done => {
                self.take_attributes(count, operations, piece)
            }
            Record::Point { .. } | Record::Block(_) if raw.lsn >= state.points_done => {
                self.take_points(&record, piece)
            }
            // An earlier attempt has written it.
            _ => Taken::Yes,
        }
    }

    fn take_declaration(&mut self, bytes: &[u8], piece: &mut Piece) -> Taken {
        match Declaration::decode(bytes) {
            Ok((declaration, _)) => {
                self.declarations.insert(&declaration);
                match declaration {
                    Declaration::Metric { no, .. } => self.declared.metrics.push(no),
                    Declaration::Environment { no, .. } => self.declared.envs.push(no),
                }
            }
            Err(error) => piece.problems.push(format!("a declaration cannot be read: {error}")),
        }
        Taken::Yes
    }

    fn take_attributes(&mut self, count: u32, operations: &[u8], piece: &mut Piece) -> Taken {
        let bound = self.attributes.payload_bound() + operations.len();
        if bound > self.payload_bytes() && !self.attributes.is_empty() {
            return Taken::No;
        }
        if let Err(error) = self.attributes.push_encoded(operations, count) {
            piece.problems.push(format!("{count} attributes cannot be read: {error}"));
            piece.lost += Tally::of(Kind::Attribute, u64::from(count));
        }
        Taken::Yes
    }

    /// A record's points go into one batch: all of them or none.
    fn take_points(&mut self, record: &Record<'_>, piece: &mut Piece) -> Taken {
        let is_first = self.points.is_empty();
        let mark = self.points.mark();
        match self.push(record) {
            Ok(()) if is_first || self.room.has(self.points.payload_bound()) => Taken::Yes,
            Ok(()) => self.leave(&mark),
            Err(PushError::Encode(error)) if error.is_full() && !is_first => self.leave(&mark),
            Err(error) => {
                self.points.roll_back(&mark);
                let tally = tally_of(record);
                piece.problems.push(format!("{} points cannot be sealed: {error}", tally.points()));
                piece.lost += tally;
                Taken::Yes
            }
        }
    }

    fn leave(&mut self, mark: &Mark) -> Taken {
        self.points.roll_back(mark);
        Taken::No
    }

    fn push(&mut self, record: &Record<'_>) -> Result<(), PushError> {
        match record {
            Record::Point { metric, distributed, rewound, step, timestamp_ms, value } => {
                let scale = self.declarations.scale(*metric);
                let scale = scale.ok_or(UnknownNumber::Metric(*metric))?;
                let (start, axis) = match scale {
                    Scale::Episode => {
                        (Position { episode: *step, ..Position::NONE }, Axis::Episode)
                    }
                    Scale::MlStep | Scale::EnvironmentStep => {
                        (Position { step: *step, ..Position::NONE }, Axis::Step)
                    }
                };
                let key =
                    SeriesKey { metric: *metric, env: EnvNo::NONE, distributed: *distributed };
                let segment = Segment { start, axis, count: 1, rewound: *rewound };
                let (at, values) = (Timestamps::All(*timestamp_ms), [*value]);
                Ok(self.points.push(key, &segment, at, Values::F64(&values), false)?)
            }
            Record::Block(block) => self.push_block(block),
            _ => Ok(()),
        }
    }

    fn push_block(&mut self, block: &Block<'_>) -> Result<(), PushError> {
        let scale = self.declarations.scale(block.metric);
        let axis = match scale.ok_or(UnknownNumber::Metric(block.metric))? {
            Scale::Episode => Axis::Episode,
            Scale::MlStep | Scale::EnvironmentStep => Axis::Step,
        };
        let mut at = 0;
        for part in block.segments {
            if !self.declarations.knows_env(part.env()) {
                return Err(UnknownNumber::Env(part.env()).into());
            }
            let range = at..at + part.count() as usize;
            at = range.end;
            let key =
                SeriesKey { metric: block.metric, env: part.env(), distributed: block.distributed };
            let start = Position { rl_step: block.rl_step, episode: part.episode, step: part.step };
            let segment = Segment { start, axis, count: part.count(), rewound: part.rewound() };
            let timestamps = match block.timestamps {
                BlockTimestamps::All(timestamp_ms) => Timestamps::All(timestamp_ms),
                BlockTimestamps::Each(each) => Timestamps::Each(&each[range.clone()]),
                BlockTimestamps::Rows { rows, .. } => Timestamps::Each(rows),
            };
            let values = match block.values {
                BlockValues::F32(values) => Values::F32(&values[range]),
                BlockValues::F64(values) => Values::F64(&values[range]),
            };
            self.points.push(key, &segment, timestamps, values, block.rl_step != UNUSED)?;
        }
        Ok(())
    }

    // ── Writing ────────────────────────────────────────────────────────────────────────────────

    /// Makes the payload of the points; None if it is too long and fewer have to be collected.
    fn encode_points(&mut self) -> Result<Option<PointsSummary>, EncodeError> {
        self.payload.clear();
        self.used.clear();
        if self.points.is_empty() {
            return Ok(Some(PointsSummary::default()));
        }
        for series in self.points.series() {
            // Blocks repeat their metric for each environment.
            if self.used.metrics.last() != Some(&series.metric) {
                self.used.metrics.push(series.metric);
            }
            self.used.envs.push(series.env);
        }
        let bound = self.points.payload_bound();
        let summary = self.points.encode(self.compression, &mut self.payload)?;
        let is_too_long = self.room.learn(bound, self.payload.len());
        Ok((!is_too_long).then_some(summary))
    }

    fn write_points(
        &mut self,
        summary: PointsSummary,
        start: Lsn,
        urgent: bool,
        state: &mut SealState,
        spool: &mut SpoolWriter,
        piece: &mut Piece,
    ) -> Result<(), SealError> {
        if self.payload.is_empty() {
            return Ok(());
        }
        let payload = mem::take(&mut self.payload);
        let from = start.max(state.points_done);
        let written = self.append(BatchKind::Points, &payload, from, urgent, state, spool, piece);
        self.payload = payload;
        written?;
        state.points_done = piece.end;
        let PointsSummary { float_points, rl_points } = summary;
        self.note(state, Tally([float_points, rl_points, 0, 0]));
        Ok(())
    }

    fn write_attributes(
        &mut self,
        start: Lsn,
        urgent: bool,
        state: &mut SealState,
        spool: &mut SpoolWriter,
        piece: &mut Piece,
    ) -> Result<(), SealError> {
        if self.attributes.is_empty() {
            return Ok(());
        }
        self.used.clear();
        self.used.envs.extend(self.attributes.environments());
        let mut payload = mem::take(&mut self.payload);
        payload.clear();
        let summary = self.attributes.encode(&mut payload);
        let from = start.max(state.attributes_done);
        let written =
            self.append(BatchKind::Attributes, &payload, from, urgent, state, spool, piece);
        self.payload = payload;
        written?;
        state.attributes_done = piece.end;
        self.note(state, Tally([0, 0, summary.attributes, summary.env_attributes]));
        Ok(())
    }

    fn note(&mut self, state: &mut SealState, tally: Tally) {
        self.untold.push((state.next_seq, tally));
        state.next_seq.0 += 1;
    }

    #[expect(clippy::too_many_arguments, reason = "what a frame is made of")]
    fn append(
        &mut self,
        kind: BatchKind,
        payload: &[u8],
        from: Lsn,
        urgent: bool,
        state: &SealState,
        spool: &mut SpoolWriter,
        piece: &mut Piece,
    ) -> Result<(), SpoolError> {
        let batch = SealedBatch {
            kind,
            urgent,
            seq: state.next_seq,
            lsn_first: from,
            lsn_last: Lsn(piece.end.0 - 1),
            payload,
            uses: &self.used,
        };
        let appended = spool.append(&batch, &mut self.declarations)?;
        if let Some(error) = appended.sync_problem {
            piece.problems.push(format!("the spool could not be forced to the disk: {error}"));
        }
        Ok(())
    }
}

/// Whether a record is in the piece.
enum Taken {
    Yes,
    /// It begins the next one.
    No,
}

/// Why a record's points do not go into a batch.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error(transparent)]
    Unknown(#[from] UnknownNumber),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

fn tally_of(record: &Record<'_>) -> Tally {
    match record {
        Record::Point { .. } => Tally::of(Kind::Float, 1),
        Record::Block(block) => {
            let kind = if block.rl_step == UNUSED { Kind::Float } else { Kind::Rl };
            Tally::of(kind, value_count(&block.values) as u64)
        }
        _ => Tally::default(),
    }
}
