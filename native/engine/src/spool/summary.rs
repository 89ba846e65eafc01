//! Summing up a whole spool.

use std::io;
use std::path::Path;

use super::SpoolError;
use super::frame::{FrameHeader, FrameKind};
use super::scanner::{DamagedBytes, Scanner, Step};
use super::segment::{segment_numbers, segment_path};
use crate::types::{BatchKind, Lsn, Seq, WriterId};

/// What a spool holds, read from headers alone; payloads of batches are not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolSummary {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentSummary>,
    /// The first batch there is, or was before it was damaged; 0: none.
    pub first_seq: Seq,
    /// The last batch there is, or the one before the last segment; 0: none.
    pub last_seq: Seq,
    /// Where the sealed points end in the ring's stream.
    pub points_end: Lsn,
    /// Where the sealed attributes end in the ring's stream.
    pub attributes_end: Lsn,
    /// What lies behind the last batch and cannot be read, a sentence each. What is damaged before a
    /// batch is told by whoever reads the batches: there the gap shows what it cost.
    pub unread: Vec<String>,
    /// What lies before the first batch and cannot be read, a sentence each, if nothing tells with
    /// which batch the spool began: those before are deleted when they are acknowledged.
    pub unread_start: Vec<String>,
    /// Segments that are empty or end inside a frame, a sentence each: a killed process leaves such,
    /// and so does a power cut.
    pub torn: Vec<String>,
    /// Whether something is damaged that may have been declarations.
    pub has_damaged_declarations: bool,
}

/// One segment of a [`SpoolSummary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its number.
    pub number: u64,
    /// Its length, a torn tail included.
    pub bytes: u64,
    /// The last batch in it, or before it.
    pub last_seq: Seq,
    /// Where a frame begins that the file's end cuts off.
    pub torn_at: Option<u64>,
}

impl SpoolSummary {
    /// Where the sealed records of this kind end in the ring's stream; renderings are from no ring.
    pub fn end(&self, kind: BatchKind) -> Lsn {
        match kind {
            BatchKind::Points => self.points_end,
            BatchKind::Attributes => self.attributes_end,
            BatchKind::Renderings => Lsn(0),
        }
    }

    /// `begins_at`: the first batch there was, as far as that is known.
    fn add(&mut self, header: &FrameHeader, begins_at: Seq) {
        if self.first_seq == Seq(0) {
            self.first_seq = header.seq.min(begins_at);
        }
        self.last_seq = self.last_seq.max(header.seq);
        let end = match header.kind.batch() {
            Some(BatchKind::Points) => Some(&mut self.points_end),
            Some(BatchKind::Attributes) => Some(&mut self.attributes_end),
            // From no ring.
            Some(BatchKind::Renderings) => None,
            None => return,
        };
        if let Some(end) = end {
            *end = (*end).max(Lsn(header.lsn_last.0 + 1));
        }
        self.unread.clear();
        self.torn.clear();
    }
}

/// Sums a spool up; `declared` gets the payload of every declarations frame, in order.
///
/// # Errors
///
/// When the folder cannot be read, or a newer engine wrote something in it.
pub fn summarize(
    folder: &Path,
    writer_id: WriterId,
    mut declared: impl FnMut(&[u8]),
) -> Result<SpoolSummary, SpoolError> {
    let mut summary = SpoolSummary::default();
    let numbers = segment_numbers(folder).map_err(SpoolError::io("listing", folder))?;
    let mut begins_at = None;
    for number in numbers {
        let path = segment_path(folder, number);
        let mut scanner = Scanner::open(&path)?;
        scanner.expect_writer(writer_id);
        let header = scanner.header()?;
        if number == 1 && header.is_none() {
            begins_at = Some(Seq(1));
        }
        if let Some(header) = header {
            begins_at.get_or_insert(header.first_seq);
            // Known even if every frame in it is damaged.
            summary.last_seq = summary.last_seq.max(Seq(header.first_seq.0.saturating_sub(1)));
        }
        let torn_at = loop {
            match scanner.next(|header| header.kind == FrameKind::Declarations)? {
                Step::Frame(header) if header.kind == FrameKind::Declarations => {
                    declared(&scanner.payload);
                }
                Step::Frame(header) => summary.add(&header, *begins_at.get_or_insert(header.seq)),
                Step::Damaged(damaged) if scanner.has_twin(&damaged)? => {}
                Step::Damaged(DamagedBytes { offset, bytes, .. }) => {
                    // The payloads of batches are not checked here.
                    summary.has_damaged_declarations = true;
                    let text = format!("{}: no frame in {bytes} bytes at {offset}", path.display());
                    if begins_at.is_none() {
                        summary.unread_start.push(text.clone());
                    }
                    summary.unread.push(text);
                }
                Step::Partial { offset, bytes } => {
                    let what = if offset == 0 { "no whole segment" } else { "no whole frame" };
                    let text = format!("{}: {what} in {bytes} bytes at {offset}", path.display());
                    summary.torn.push(text);
                    break Some(offset);
                }
                Step::End => break None,
            }
        };
        summary.segments.push(SegmentSummary {
            number,
            bytes: scanner.len(),
            last_seq: summary.last_seq,
            torn_at,
        });
    }
    Ok(summary)
}

/// The first batch of a spool, 0 if there is none: that with which its first segment begins, even if
/// it is damaged.
///
/// # Errors
///
/// When the folder cannot be read, or a newer engine wrote something in it.
pub fn first_seq(folder: &Path) -> Result<Seq, SpoolError> {
    for number in segment_numbers(folder).map_err(SpoolError::io("listing", folder))? {
        let mut scanner = match Scanner::open(&segment_path(folder, number)) {
            Ok(scanner) => scanner,
            // Deleted since it was listed: all in it is acknowledged.
            Err(SpoolError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(header) = scanner.header()? {
            return Ok(header.first_seq);
        }
        // Nothing was ever deleted before the first.
        if number == 1 {
            return Ok(Seq(1));
        }
        loop {
            match scanner.next(|_| false)? {
                Step::Frame(header) if header.kind != FrameKind::Declarations => {
                    return Ok(header.seq);
                }
                Step::Frame(_) | Step::Damaged(_) => {}
                Step::Partial { .. } | Step::End => break,
            }
        }
    }
    Ok(Seq(0))
}

/// The last batch of a spool, 0 if there never was one: read from as few segments as needed.
///
/// # Errors
///
/// See [`summarize`].
pub fn last_seq(folder: &Path, writer_id: WriterId) -> Result<Seq, SpoolError> {
    let numbers = segment_numbers(folder).map_err(SpoolError::io("listing", folder))?;
    for number in numbers.into_iter().rev() {
        let mut scanner = Scanner::open(&segment_path(folder, number))?;
        scanner.expect_writer(writer_id);
        let before = scanner.header()?.map(|header| Seq(header.first_seq.0.saturating_sub(1)));
        let mut last = before.unwrap_or(Seq(0));
        loop {
            match scanner.next(|_| false)? {
                Step::Frame(header) => last = last.max(header.seq),
                Step::Damaged(_) => {}
                Step::Partial { .. } | Step::End => break,
            }
        }
        if last > Seq(0) {
            return Ok(last);
        }
    }
    Ok(Seq(0))
}

/// Whether a folder holds no segments.
///
/// # Errors
///
/// When it cannot be read.
pub fn is_empty(folder: &Path) -> Result<bool, SpoolError> {
    Ok(segment_numbers(folder).map_err(SpoolError::io("listing", folder))?.is_empty())
}
