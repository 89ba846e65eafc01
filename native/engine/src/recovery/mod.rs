//! Taking over what a dead writer left: after this its spool is all there is, and can be delivered.
//!
//! In order, each step safe to be cut off and begun again:
//!
//! 1. The torn tail of the last segment is cut.
//! 2. What the ring still holds is sealed into new segments. Each kind of batch goes on from
//!    `max(tail, its own last lsn_last + 1)` and the sequence numbers from the greatest that is
//!    known anywhere, so nothing is lost or doubled however often this is interrupted.
//! 3. The renderings that it left are sealed behind that, and deleted.
//! 4. Where the writer's series and environments stood is written to `cursors/<number>`: once its
//!    spool is delivered, nobody could find it out any more.
//! 5. `writer.json` says that the writer was recovered.
//! 6. The ring's file is deleted.
//!
//! A ring that cannot be reached (another container's memory, another machine's) leaves the writer
//! open: its spool is delivered, its tail is not declared to be the end.

mod find_ring;
mod positions;
mod renderings;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use find_ring::{Found, remove_half_made};

use crate::declarations::decode_declarations;
use crate::ring::{Consumer, OutsideRing, Ring, RingError};
use crate::run_folder::{RunFolderError, SenderKind, Watermark, WriterEnd, WriterInfo, WriterLock};
use crate::seal::{SealError, SealSettings, SealState, Sealer};
use crate::spool::{
    CursorSet, CursorsError, SegmentSummary, SpoolError, SpoolFiles, SpoolOptions, SpoolSummary,
    SpoolWriter, first_seq, last_seq, segment_path, summarize,
};
use crate::types::{Lsn, Seq};

/// What became of batches that are missing without a trace.
const GONE: &str = "they were sealed, and the spool has them no more";

/// How a ring's rest is sealed.
#[derive(Clone, Debug)]
pub struct RecoveryOptions {
    /// Of the segments that are written.
    pub spool: SpoolOptions,
    /// Of the batches.
    pub seal: SealSettings,
}

/// What was found and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// What became of the ring.
    pub ring: RingOutcome,
    /// Bytes of a frame that was never whole and was cut.
    pub torn_bytes: u64,
    /// The first batch that may be delivered: the first on the disk, or the first before it that
    /// nobody acknowledged and that is missing.
    pub first_seq: Seq,
    /// The last batch there ever was; 0: none.
    pub last_seq: Seq,
    /// Renderings lie in the folder that somebody may still seal.
    pub has_unsealed_renderings: bool,
    /// For the user: what was lost, what could not be done.
    pub problems: Vec<String>,
    /// Why some positions could not be found out, so that steps may start anew there. A damaged
    /// batch is among it, and told once more by whoever delivers the rest.
    pub unknown_positions: Vec<String>,
}

/// What became of a dead writer's ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingOutcome {
    /// The writer was closed, or somebody recovered it before: nothing was in a ring.
    Ended,
    /// All that was in it is in the spool now.
    Sealed {
        /// In so many batches.
        batch_count: u64,
    },
    /// It is gone: the machine was restarted, or it was memory of the process.
    Lost {
        /// So many bytes of points may have been in it.
        up_to_bytes: u64,
    },
    /// It may still be there, but not for us: the writer stays open for its tail.
    OutOfReach {
        /// So many bytes of points may be in it.
        up_to_bytes: u64,
    },
}

impl RecoveryReport {
    /// Whether the spool holds all there will ever be, so that the writer may be ended and its
    /// folder deleted once it is delivered.
    pub fn is_complete(&self) -> bool {
        !matches!(self.ring, RingOutcome::OutOfReach { .. }) && !self.has_unsealed_renderings
    }
}

/// Why a writer could not be recovered; trying again later is safe.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Its spool cannot be read or written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Its folder cannot be read or written.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// Its positions cannot be written.
    #[error(transparent)]
    Cursors(#[from] CursorsError),
    /// Its ring cannot be deleted.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The ring changed while it was sealed: its writer lives.
    #[error(transparent)]
    Changed(#[from] OutsideRing),
    /// What is in the ring cannot be sealed.
    #[error(transparent)]
    Seal(SealError),
}

impl From<SealError> for RecoveryError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Spool(error) => Self::Spool(error),
            error @ SealError::Encode(_) => Self::Seal(error),
        }
    }
}

/// Seals and cuts what a dead writer left. Blocks on the disk.
///
/// # Errors
///
/// Whatever was done until then stays, and the call may be made again.
pub fn recover(
    lock: &mut WriterLock,
    options: &RecoveryOptions,
) -> Result<RecoveryReport, RecoveryError> {
    recover_with(lock, options, true)
}

/// The same but for renderings, which stay where they are: there may be much of them, and whoever
/// opens a run waits. Blocks on the disk.
///
/// # Errors
///
/// See [`recover`].
pub fn recover_ring(
    lock: &mut WriterLock,
    options: &RecoveryOptions,
) -> Result<RecoveryReport, RecoveryError> {
    recover_with(lock, options, false)
}

fn recover_with(
    lock: &mut WriterLock,
    options: &RecoveryOptions,
    with_renderings: bool,
) -> Result<RecoveryReport, RecoveryError> {
    let folder = lock.path().to_owned();
    let mut sealer = Sealer::new(options.seal);
    let mut problems = Vec::new();
    let mut summary =
        summarize(&folder, lock.info().writer_id, |payload| match decode_declarations(payload) {
            Ok(all) => all.iter().for_each(|one| sealer.declarations.insert(one)),
            Err(error) => problems.push(format!("declarations that cannot be read: {error}")),
        })?;
    let torn_bytes = cut_torn_tail(&folder, &mut summary, options.spool.files.as_ref())?;
    let watermark = Watermark::of(&folder, lock.info())?;
    let mut recovery = Recovery {
        lock,
        options,
        summary: &summary,
        sealer,
        problems,
        unknown_positions: Vec::new(),
        watermark,
        next_seq: Seq(0),
        missing: None,
        spool: None,
        consumer: None,
        piece_count: 0,
    };
    recovery.next_seq = recovery.next_seq_on_disk();
    let ring = recovery.ring()?;
    let has_unsealed_renderings = recovery.leaves_renderings(&ring, with_renderings)?;
    let first_seq = recovery.first_seq()?;
    recovery.tell_unread(&ring, first_seq);
    recovery.tell_unread_start();
    let unknown_positions = recovery.keep_cursors(first_seq)?;
    if !matches!(ring, RingOutcome::OutOfReach { .. }) {
        recovery.end(first_seq)?;
    }
    let Recovery { next_seq, problems, .. } = recovery;
    let last_seq = Seq(next_seq.0 - 1);
    Ok(RecoveryReport {
        ring,
        torn_bytes,
        first_seq,
        last_seq,
        has_unsealed_renderings,
        problems,
        unknown_positions,
    })
}

/// Where a dead writer stood whose lock somebody else has, because it is being delivered: read from
/// its ring and its spool, of which nothing is changed. What was in neither, because all of it is
/// delivered, is in the cursors beside its folder by then. Also gives what could not be read.
/// Blocks on the disk.
pub fn look(folder: &Path, info: &WriterInfo) -> (CursorSet, Vec<String>) {
    let mut problems = Vec::new();
    // The ring before the spool: what leaves the one is in the other by then.
    let (window, start) = match info.ring.as_deref().filter(|_| info.ended.is_none()) {
        None => (Vec::new(), Lsn(0)),
        Some(path) => match Ring::look(path, info.writer_id) {
            Ok(found) => found,
            Err(error) => {
                if !error.is_missing() {
                    problems.push(error.to_string());
                }
                (Vec::new(), Lsn(0))
            }
        },
    };
    match positions::of_spool_and_ring(folder, &window, start) {
        Ok((cursors, unread)) => {
            problems.extend(unread);
            (cursors, problems)
        }
        // It went with everything delivered.
        Err(_) if !folder.exists() => (CursorSet::default(), problems),
        Err(error) => {
            problems.push(error.to_string());
            (CursorSet::default(), problems)
        }
    }
}

struct Recovery<'a> {
    lock: &'a mut WriterLock,
    options: &'a RecoveryOptions,
    summary: &'a SpoolSummary,
    sealer: Sealer,
    problems: Vec<String>,
    unknown_positions: Vec<String>,
    /// Before this recovery changed anything.
    watermark: Watermark,
    next_seq: Seq,
    /// Batches that were sealed and that nobody has any more.
    missing: Option<RangeInclusive<u64>>,
    /// What was sealed is in it.
    spool: Option<SpoolWriter>,
    /// Of the ring, once it is sealed.
    consumer: Option<Consumer>,
    /// So many pieces of renderings were sealed.
    piece_count: u64,
}

impl Recovery<'_> {
    fn ring(&mut self) -> Result<RingOutcome, RecoveryError> {
        if self.lock.info().ended.is_some() {
            if let Some(last_seq) = self.lock.info().last_seq {
                self.find_missing(Seq(last_seq.saturating_add(1)));
            }
            return Ok(RingOutcome::Ended);
        }
        let up_to_bytes = self.lock.info().ring_capacity;
        if up_to_bytes == 0 {
            // It died while it made its ring, so it never logged.
            return Ok(RingOutcome::Lost { up_to_bytes });
        }
        match self.find_ring() {
            Found::Ring(ring, consumer) => self.seal(&ring, consumer),
            Found::Gone(why) => {
                self.problems.push(self.lock.info().about_ring("is lost", &why));
                Ok(RingOutcome::Lost { up_to_bytes })
            }
            Found::OutOfReach(why) => {
                self.problems.push(self.lock.info().about_ring("cannot be reached", &why));
                Ok(RingOutcome::OutOfReach { up_to_bytes })
            }
        }
    }

    /// The end of the spool, as far as it is no batch. What a kill tears off is still in the ring,
    /// so it is lost only without one.
    fn tell_unread(&mut self, ring: &RingOutcome, first_seq: Seq) {
        let is_torn_lost = self.missing.is_some()
            || match ring {
                RingOutcome::Lost { .. } => true,
                RingOutcome::Ended => self.lock.info().ended == Some(WriterEnd::Closed),
                RingOutcome::Sealed { .. } | RingOutcome::OutOfReach { .. } => false,
            };
        let torn = self.summary.torn.iter().filter(|_| is_torn_lost);
        let reasons: Vec<_> = self.summary.unread.iter().chain(torn).cloned().collect();
        // Whoever reads from the first batch on comes to those that were sealed behind the gap, and
        // tells of it.
        let is_sealed_behind =
            matches!(ring, RingOutcome::Sealed { batch_count } if *batch_count > 0);
        let is_followed = (is_sealed_behind || self.piece_count > 0)
            && self.missing.as_ref().is_none_or(|lost| first_seq <= Seq(*lost.start()));
        let is_begin_known =
            self.summary.last_seq > Seq(0) || matches!(self.watermark, Watermark::Known(_));
        let which = match self.missing.take() {
            _ if is_followed => return,
            Some(lost) if is_begin_known => {
                format!("batches {} to {} are lost", lost.start(), lost.end())
            }
            Some(lost) => {
                format!("batches up to {} are lost that were not acknowledged", lost.end())
            }
            None if reasons.is_empty() => return,
            None => {
                // What was cut off, by a power cut say, may have been sent before.
                let is_sender = self.lock.info().sender == SenderKind::Grpc
                    && !matches!(self.watermark, Watermark::Known(_));
                let which = if is_sender { " that were not acknowledged" } else { "" };
                format!("batches behind {} are lost{which}", self.summary.last_seq)
            }
        };
        self.problems.push(if reasons.is_empty() {
            format!("{which}: {GONE}")
        } else {
            format!("{which}, the spool is damaged: {}", reasons.join("; "))
        });
    }

    /// The beginning of the spool, if it is not known how far the writer had deleted it: then no gap
    /// shows it to whoever reads from the first batch on.
    fn tell_unread_start(&mut self) {
        let SpoolSummary { first_seq, unread_start: reasons, .. } = self.summary;
        let is_told = matches!(self.watermark, Watermark::Known(_)) || *first_seq == Seq(0);
        if !is_told && !reasons.is_empty() {
            self.problems.push(format!(
                "batches up to {} are lost that were not acknowledged, the spool is damaged: {}",
                first_seq.0 - 1,
                reasons.join("; ")
            ));
        }
    }

    fn seal(&mut self, ring: &Ring, mut consumer: Consumer) -> Result<RingOutcome, RecoveryError> {
        let unsealed_bytes = ring.unsealed_bytes();
        let WriterInfo { writer_id, host, .. } = self.lock.info();
        if unsealed_bytes > 0 {
            self.problems.push(format!(
                "up to {unsealed_bytes} bytes of points of writer {writer_id} on host {host} are lost: \
                 its ring was deleted, and it died before they were sealed"
            ));
        }
        self.find_missing(ring.next_seq());
        let mut spool = self.take_spool();
        let (tail, end) = (consumer.tail(), consumer.committed());
        let mut state = SealState {
            points_done: tail.max(self.summary.points_end),
            attributes_done: tail.max(self.summary.attributes_end),
            ..SealState::at(tail, ring.next_seq().max(self.next_seq))
        };
        let mut window = Vec::new();
        consumer.read(tail, end, &mut window)?;
        let (mut start, mut batch_count) = (tail, 0);
        while start < end {
            let words = &window[((start.0 - tail.0) / 8) as usize..];
            let piece = self.sealer.seal_piece(words, start, true, &mut state, &mut spool)?;
            consumer.release(piece.end, state.next_seq)?;
            start = piece.end;
            batch_count += piece.batches.len() as u64;
            self.problems.extend(piece.problems);
        }
        // The memory that was safe from everything but a restart is about to go.
        if let Err(error) = spool.sync() {
            self.problems.push(format!("the spool could not be forced to the disk: {error}"));
        }
        self.next_seq = state.next_seq;
        (self.spool, self.consumer) = (Some(spool), Some(consumer));
        Ok(RingOutcome::Sealed { batch_count })
    }

    /// Notes batches that were sealed, as the ring or the writer's end says, and that nobody has.
    fn find_missing(&mut self, next_seq: Seq) {
        if next_seq <= self.next_seq {
            return;
        }
        // A writer deletes from the oldest segment on: what lay behind one that is there is lost.
        let may_be_acked = matches!(self.watermark, Watermark::AtLeast(_));
        if !may_be_acked || !self.summary.segments.is_empty() {
            let lost = self.next_seq.0..=next_seq.0 - 1;
            self.unknown_positions.push(format!(
                "batches {} to {} are lost: {GONE}",
                lost.start(),
                lost.end()
            ));
            self.missing = Some(lost);
        }
    }

    /// See [`RecoveryReport::first_seq`].
    fn first_seq(&self) -> Result<Seq, RecoveryError> {
        let on_disk = match first_seq(self.lock.path())? {
            Seq(0) => self.next_seq,
            first => first,
        };
        Ok(match self.watermark {
            Watermark::Known(acked) => on_disk.min(Seq(acked.0 + 1)),
            Watermark::AtLeast(_) => on_disk,
        })
    }

    /// The next sequence number as the folder knows it.
    fn next_seq_on_disk(&self) -> Seq {
        let (Watermark::Known(acked) | Watermark::AtLeast(acked)) = self.watermark;
        Seq(self.summary.last_seq.max(acked).0 + 1)
    }

    /// Writes the greatest positions, as the writer would have done at its close: those in its spool
    /// on top of those it wrote before it deleted acknowledged segments. Decodes every batch of a
    /// writer that was not closed: a second or so a gigabyte.
    fn keep_cursors(&mut self, first_seq: Seq) -> Result<Vec<String>, RecoveryError> {
        let mut unknown = std::mem::take(&mut self.unknown_positions);
        let earlier = match self.lock.read_cursors() {
            // There is nothing in it to keep.
            Err(error @ CursorsError::Damaged(_)) => {
                unknown.push(error.to_string());
                None
            }
            read => read?,
        };
        let is_done = self.lock.info().ended.is_some() && earlier.is_some();
        if is_done || self.next_seq <= Seq(1) {
            return Ok(unknown);
        }
        let (mut cursors, unread) = positions::of_spool(self.lock.path(), first_seq)?;
        unknown.extend(unread);
        cursors.merge(earlier.unwrap_or_default());
        self.lock.write_cursors(&cursors, self.options.spool.files.as_ref())?;
        Ok(unknown)
    }

    /// Writes down that nothing is left outside the spool, and then sees to it.
    fn end(&mut self, first_seq: Seq) -> Result<(), RecoveryError> {
        // The ring can be had by one at a time.
        self.consumer = None;
        let WriterInfo { writer_id, ended, acked, .. } = *self.lock.info();
        if ended.is_none() || self.piece_count > 0 {
            let last_seq = last_seq(self.lock.path(), writer_id)?;
            let info = WriterInfo {
                ended: ended.or(Some(WriterEnd::Recovered)),
                last_seq: Some(last_seq.0),
                acked: if ended.is_some() { acked } else { Some(first_seq.0 - 1) },
                ..self.lock.info().clone()
            };
            self.lock.write_info(info, self.options.spool.files.as_ref())?;
        }
        let info = self.lock.info();
        if info.ring_capacity == 0 && !self.lock.is_forced() {
            return remove_half_made(info);
        }
        // Not a ring of this writer, or not there: nothing of ours to delete.
        if let Some(path) = info.ring.as_deref().filter(|_| !self.lock.is_forced())
            && let Ok((ring, _)) = Ring::open_existing(path, info.writer_id)
        {
            ring.unlink()?;
        }
        Ok(())
    }
}

/// Cuts a frame that the end of the last segment cuts off; returns how many bytes went.
fn cut_torn_tail(
    folder: &Path,
    summary: &mut SpoolSummary,
    files: &dyn SpoolFiles,
) -> Result<u64, RecoveryError> {
    let Some(last) = summary.segments.last_mut() else { return Ok(0) };
    let SegmentSummary { number, bytes, torn_at: Some(torn_at), .. } = *last else { return Ok(0) };
    let path: PathBuf = segment_path(folder, number);
    files.truncate(&path, torn_at).map_err(|source| SpoolError::Io {
        doing: "cutting",
        path,
        source,
    })?;
    (last.bytes, last.torn_at) = (torn_at, None);
    Ok(bytes - torn_at)
}

#[cfg(test)]
mod tests;
