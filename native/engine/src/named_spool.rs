//! A spool whose batches can all be read: one that uses names whose declarations are damaged is
//! damage itself. Its bytes are right, but a server would refuse it, and with it all behind it.
//!
//! Declarations are written twice, so it takes more than a flipped bit. Batches are decoded only
//! once damage was met.

use std::path::Path;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use crate::attributes::{AttributeOperation, decode_attributes};
use crate::batch::{PointColumns, decode_points};
use crate::declarations::{Declaration, decode_declarations};
use crate::spool::{Damage, Frame, FrameKind, SpoolError, SpoolEvent, SpoolReader};
use crate::types::{Seq, WriterId};

/// Reads a writer's frames as [`SpoolReader`] does.
#[derive(Debug)]
pub struct NamedSpoolReader {
    reader: SpoolReader,
    metrics: HashSet<u32, FixedState>,
    envs: HashSet<u32, FixedState>,
    is_damaged: bool,
    columns: PointColumns,
}

impl NamedSpoolReader {
    /// See [`SpoolReader::open`].
    ///
    /// # Errors
    ///
    /// See there.
    pub fn open(folder: &Path, from: Seq) -> Result<Self, SpoolError> {
        Ok(Self::new(SpoolReader::open(folder, from)?))
    }

    fn new(reader: SpoolReader) -> Self {
        Self {
            reader,
            metrics: HashSet::default(),
            envs: HashSet::default(),
            is_damaged: false,
            columns: PointColumns::default(),
        }
    }

    /// See [`SpoolReader::writer_has_ended`].
    pub fn writer_has_ended(&mut self) {
        self.reader.writer_has_ended();
    }

    /// See [`SpoolReader::only_of`].
    pub fn only_of(&mut self, owner: WriterId) {
        self.reader.only_of(owner);
    }

    /// See [`SpoolReader::go_on_in`].
    pub fn go_on_in(&mut self, folder: &Path) {
        self.reader.go_on_in(folder);
    }

    /// See [`SpoolReader::next_event`].
    ///
    /// # Errors
    ///
    /// See there.
    pub fn next_event(&mut self) -> Result<Option<SpoolEvent>, SpoolError> {
        let event = self.reader.next_event()?;
        let Some(SpoolEvent::Frame(frame)) = &event else {
            self.is_damaged |= event.is_some();
            return Ok(event);
        };
        if frame.kind == FrameKind::Declarations {
            self.declare(frame);
        } else if self.is_damaged
            && let Some((what, no)) = self.nameless(frame)
        {
            let seq = frame.seq;
            let message = format!(
                "batch {seq} cannot be read: its {what} {no} was declared in damaged bytes"
            );
            return Ok(Some(SpoolEvent::Damage(Damage { lost: Some((seq, seq)), message })));
        }
        Ok(event)
    }

    fn declare(&mut self, frame: &Frame) {
        for declaration in decode_declarations(&frame.payload).unwrap_or_default() {
            match declaration {
                Declaration::Metric { no, .. } => self.metrics.insert(no.0),
                Declaration::Environment { no, .. } => self.envs.insert(no.0),
            };
        }
    }

    /// A number that the batch uses and that was not declared. What cannot be decoded at all is the
    /// server's to refuse.
    fn nameless(&mut self, frame: &Frame) -> Option<(&'static str, u32)> {
        if frame.kind == FrameKind::Renderings {
            // It says itself which environment it shows.
            return None;
        }
        if frame.kind == FrameKind::Attributes {
            let updates = decode_attributes(&frame.payload).ok()?;
            let mut envs = updates.iter().filter_map(|update| match &update.operation {
                AttributeOperation::SetEnvironment { env, .. } => Some(env.0),
                _ => None,
            });
            return envs.find(|no| !self.envs.contains(no)).map(|no| ("environment", no));
        }
        self.columns.truncate(0);
        decode_points(&frame.payload, &mut self.columns).ok()?;
        let mut metrics = self.columns.metric_no.iter().copied();
        let mut envs = self.columns.env_no.iter().copied().filter(|no| *no != 0);
        let metric = metrics.find(|no| !self.metrics.contains(no)).map(|no| ("metric", no));
        metric.or_else(|| envs.find(|no| !self.envs.contains(no)).map(|no| ("environment", no)))
    }
}

/// Whether a spool of a writer that has ended holds batches whose bytes are right and that cannot be
/// read all the same. Decodes every batch.
///
/// # Errors
///
/// When the spool cannot be read.
pub fn has_nameless(folder: &Path) -> Result<bool, SpoolError> {
    let mut reader = NamedSpoolReader::new(SpoolReader::open_oldest(folder)?);
    while let Some(event) = reader.reader.next_event()? {
        let SpoolEvent::Frame(frame) = event else { continue };
        if frame.kind == FrameKind::Declarations {
            reader.declare(&frame);
        } else if reader.nameless(&frame).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
