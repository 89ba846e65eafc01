//! The one who appends to a spool.

mod rescue;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::files::{Disk, SpoolFile, SpoolFiles, write_all};
use super::frame::{FrameHeader, FrameKind, MAX_PAYLOAD_BYTES};
use super::numbers::{DeclarationSource, NumberSet, Numbers};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use super::summary::SpoolSummary;
use super::{FsyncPolicy, SpoolError};
use crate::clock::now_ms;
use crate::types::{BatchKind, Lsn, Seq, WriterId};

pub use rescue::Rescued;

/// A segment is ended before it grows beyond this, unless the settings say otherwise.
pub const DEFAULT_SEGMENT_BYTES: u64 = 32 << 20;

/// A declarations frame is split above this: it travels as one message, and those are limited.
const DECLARATIONS_BYTES: usize = 256 << 10;
/// Declarations tried as one frame at first; a typical one takes 40 bytes.
const DECLARATIONS_PER_FRAME: usize = 4096;

/// How a spool is written.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// A segment is ended before it grows beyond this.
    pub segment_bytes: u64,
    /// When written bytes are forced to the disk.
    pub fsync: FsyncPolicy,
    /// What files are made with; tests put a failing disk here.
    pub files: Arc<dyn SpoolFiles>,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self {
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            fsync: FsyncPolicy::default(),
            files: Arc::new(Disk),
        }
    }
}

/// A batch to be written: its bytes never change from here on.
#[derive(Clone, Copy, Debug)]
pub struct SealedBatch<'a> {
    /// Points or attributes.
    pub kind: BatchKind,
    /// Somebody waits for it (flush, close).
    pub urgent: bool,
    /// One above the last batch's.
    pub seq: Seq,
    /// First byte of the ring's stream it was sealed from.
    pub lsn_first: Lsn,
    /// Last byte of the ring's stream it was sealed from.
    pub lsn_last: Lsn,
    /// The encoded batch.
    pub payload: &'a [u8],
    /// Every number the payload uses.
    pub uses: &'a Numbers,
}

/// What an append did.
#[derive(Debug)]
#[must_use = "a failed fsync is reported here and nowhere else"]
pub struct Appended {
    /// By how much the spool grew, declarations and headers included.
    pub bytes: u64,
    /// With [`FsyncPolicy::Always`]: the frame is written, but not known to be on the disk. It is
    /// not taken back: a reader may have seen it, and its seq must not stand for other bytes.
    pub sync_problem: Option<io::Error>,
}

/// Appends to a writer's spool. There is one: the drain thread's, or that of whoever recovers.
#[derive(Debug)]
pub struct SpoolWriter {
    folder: PathBuf,
    /// See [`set_moved`](Self::set_moved).
    is_in_place: bool,
    writer_id: WriterId,
    options: SpoolOptions,
    /// Ended segments, oldest first.
    ended: VecDeque<EndedSegment>,
    current: Option<CurrentSegment>,
    next_number: u64,
    /// Declared in the current segment: everything ever declared, once it has begun.
    declared: NumberSet,
    /// When the oldest byte that is not forced to the disk was written.
    unsynced_since: Option<Instant>,
    payload: Vec<u8>,
}

#[derive(Debug)]
struct EndedSegment {
    number: u64,
    bytes: u64,
    last_seq: Seq,
}

#[derive(Debug)]
struct CurrentSegment {
    file: Box<dyn SpoolFile>,
    number: u64,
    /// Behind the last whole frame.
    bytes: u64,
    /// Bytes behind `bytes` may be there, left by a write that failed.
    is_torn: bool,
    /// The last batch in it, or the one before the segment.
    last_seq: Seq,
    has_batch: bool,
    /// It stands for a file that somebody deleted, which readers may have open still: nothing that
    /// is appended here would reach them, but a segment behind it does.
    is_copy: bool,
}

impl SpoolWriter {
    /// For a new writer, whose folder has no segments yet. Nothing is written before the first
    /// batch.
    pub fn create(folder: &Path, writer_id: WriterId, options: SpoolOptions) -> Self {
        Self {
            folder: folder.to_owned(),
            is_in_place: true,
            writer_id,
            options,
            ended: VecDeque::new(),
            current: None,
            next_number: 1,
            declared: NumberSet::default(),
            unsynced_since: None,
            payload: Vec::new(),
        }
    }

    /// For a dead writer's folder: goes on in a new segment behind what was found there.
    pub fn resume(
        folder: &Path,
        writer_id: WriterId,
        options: SpoolOptions,
        found: &SpoolSummary,
    ) -> Self {
        let mut writer = Self::create(folder, writer_id, options);
        writer.next_number = found.segments.last().map_or(1, |segment| segment.number + 1);
        writer.ended = found
            .segments
            .iter()
            .map(|segment| EndedSegment {
                number: segment.number,
                bytes: segment.bytes,
                last_seq: segment.last_seq,
            })
            .collect();
        writer
    }

    /// What its files are made with.
    pub fn files(&self) -> &dyn SpoolFiles {
        self.options.files.as_ref()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |segment| segment.bytes);
        self.ended.iter().map(|segment| segment.bytes).sum::<u64>() + current
    }

    /// Writes a batch, and before it the declarations its numbers still need. When this returns
    /// `Ok`, readers may see it. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Nothing of the batch stays then, and the same call may be made again.
    pub fn append(
        &mut self,
        batch: &SealedBatch<'_>,
        source: &mut dyn DeclarationSource,
    ) -> Result<Appended, SpoolError> {
        if batch.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(SpoolError::PayloadTooLarge(batch.payload.len()));
        }
        let before = self.bytes();
        let header = self.header(batch);
        self.make_room(header.frame_len(), batch.seq, source)?;
        self.write_whole(|writer| {
            writer.write_declarations(batch.uses, source)?;
            writer.write_frame(&header, batch.payload)
        })?;
        if let Some(segment) = &mut self.current {
            segment.last_seq = batch.seq;
            segment.has_batch = true;
        }
        let sync_problem = match self.options.fsync {
            FsyncPolicy::Always => self.sync().err(),
            FsyncPolicy::Never | FsyncPolicy::Interval(_) => None,
        };
        Ok(Appended { bytes: self.bytes() - before, sync_problem })
    }

    /// Writes the declarations of these numbers that the spool does not hold yet. Due before the
    /// ring's records that declared them are released, or a crash would lose the names of points
    /// that are still in the ring. `next_seq` is that of the next batch. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Nothing of it stays then, and the same call may be made again.
    pub fn declare(
        &mut self,
        numbers: &Numbers,
        next_seq: Seq,
        source: &mut dyn DeclarationSource,
    ) -> Result<(), SpoolError> {
        if self.declared.missing(numbers).is_empty() {
            return Ok(());
        }
        self.make_room(0, next_seq, source)?;
        self.write_whole(|writer| writer.write_declarations(numbers, source))
    }

    /// Deletes the segments all of whose batches are acknowledged, but never the one being written;
    /// returns how many bytes that freed. The cursors must have been written before.
    ///
    /// # Errors
    ///
    /// A file that cannot be deleted; it and those behind it are tried again by the next call.
    pub fn delete_acked(&mut self, acked: Seq) -> Result<u64, SpoolError> {
        let mut freed = 0;
        while self.has_acked_segments(acked)
            && let Some(oldest) = self.ended.front()
        {
            let path = segment_path(&self.folder, oldest.number);
            match self.options.files.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SpoolError::io("deleting", &path)(error));
                }
                _ => freed += oldest.bytes,
            }
            self.ended.pop_front();
        }
        Ok(freed)
    }

    /// Ends the segment being written if all its batches are acknowledged, so that
    /// [`delete_acked`](Self::delete_acked) frees it too. For when there is no room for another; the
    /// next batch begins a new one, with all declarations.
    pub fn end_acked_segment(&mut self, acked: Seq) {
        let is_acked =
            |segment: &mut CurrentSegment| segment.has_batch && segment.last_seq <= acked;
        if self.is_in_place
            && let Some(segment) = self.current.take_if(is_acked)
        {
            let CurrentSegment { number, bytes, last_seq, .. } = segment;
            self.ended.push_back(EndedSegment { number, bytes, last_seq });
            // Nobody needs its bytes after a crash.
            self.unsynced_since = None;
        }
    }

    /// Whether [`delete_acked`](Self::delete_acked) would delete something: the cursors are due.
    pub fn has_acked_segments(&self, acked: Seq) -> bool {
        self.is_in_place && self.ended.front().is_some_and(|segment| segment.last_seq <= acked)
    }

    /// Forces everything written to the disk, whatever the policy. Blocks.
    ///
    /// # Errors
    ///
    /// As `fdatasync(2)`. What was written may be lost with the machine's power then; a second
    /// call that succeeds does not change that.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced_since.take().is_some()
            && let Some(segment) = &mut self.current
        {
            segment.file.sync()?;
        }
        Ok(())
    }

    /// Forces what was written to the disk if the policy's interval is over. To be called now and
    /// then by whoever appends. Blocks when it is.
    ///
    /// # Errors
    ///
    /// See [`sync`](Self::sync).
    pub fn sync_if_due(&mut self) -> io::Result<()> {
        let FsyncPolicy::Interval(interval) = self.options.fsync else { return Ok(()) };
        match self.unsynced_since {
            Some(since) if since.elapsed() >= interval => self.sync(),
            _ => Ok(()),
        }
    }

    fn header(&self, batch: &SealedBatch<'_>) -> FrameHeader {
        FrameHeader {
            kind: batch.kind.into(),
            urgent: batch.urgent,
            writer_id: self.writer_id,
            seq: batch.seq,
            lsn_first: batch.lsn_first,
            lsn_last: batch.lsn_last,
            payload_len: batch.payload.len() as u32,
            payload_crc32c: crc32c::crc32c(batch.payload),
        }
    }

    /// Sees to it that there is a current segment with nothing torn in it and room for a frame.
    fn make_room(
        &mut self,
        frame_len: u64,
        next_seq: Seq,
        source: &mut dyn DeclarationSource,
    ) -> Result<(), SpoolError> {
        self.cut_torn()?;
        let has_room = self.current.as_ref().is_some_and(|segment| {
            let fits = segment.bytes + frame_len <= self.options.segment_bytes;
            !self.is_in_place || !segment.is_copy && (fits || !segment.has_batch)
        });
        if has_room { Ok(()) } else { self.begin_segment(next_seq, source) }
    }

    /// Starts the next segment with its header and everything declared so far. Until that is done
    /// the one before stays current, so a full disk changes nothing.
    fn begin_segment(
        &mut self,
        first_seq: Seq,
        source: &mut dyn DeclarationSource,
    ) -> Result<(), SpoolError> {
        // What fsync promised covers the old segment's end too.
        if self.options.fsync != FsyncPolicy::Never {
            let folder = self.current_path();
            self.sync().map_err(SpoolError::io("syncing", &folder))?;
        }
        let (number, file) = self.create_segment()?;
        let path = segment_path(&self.folder, number);
        let last_seq = Seq(first_seq.0.saturating_sub(1));
        let next = CurrentSegment {
            file,
            number,
            bytes: 0,
            is_torn: false,
            last_seq,
            has_batch: false,
            is_copy: false,
        };
        let previous = self.current.replace(next);
        let declared = std::mem::take(&mut self.declared);
        let begun = self.write_beginning(number, first_seq, &declared.numbers(), source);
        match begun {
            Ok(()) => {
                self.next_number = number + 1;
                self.ended.extend(previous.map(|segment| EndedSegment {
                    number: segment.number,
                    bytes: segment.bytes,
                    last_seq: segment.last_seq,
                }));
                Ok(())
            }
            Err(error) => {
                self.current = previous;
                self.declared = declared;
                // A stub that cannot be deleted keeps its number; readers step over it.
                if self.options.files.remove(&path).is_err() {
                    self.next_number = number + 1;
                }
                Err(error)
            }
        }
    }

    fn write_beginning(
        &mut self,
        number: u64,
        first_seq: Seq,
        declared: &Numbers,
        source: &mut dyn DeclarationSource,
    ) -> Result<(), SpoolError> {
        let created_ms = now_ms();
        let header = SegmentHeader { writer_id: self.writer_id, number, first_seq, created_ms };
        self.write(&header.encode())?;
        self.write_declarations(declared, source)?;
        if self.options.fsync != FsyncPolicy::Never {
            let folder = &self.folder;
            let synced = self.options.files.sync_folder(folder);
            synced.map_err(SpoolError::io("syncing", folder))?;
        }
        Ok(())
    }

    /// Runs what writes frames; if it fails, cuts the segment back to where it was.
    fn write_whole(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        let bytes = self.current.as_ref().map_or(0, |segment| segment.bytes);
        let declared = self.declared.clone();
        let written = write(self);
        if written.is_err() {
            self.declared = declared;
            if let Some(segment) = &mut self.current {
                segment.bytes = bytes;
                segment.is_torn = true;
            }
            // If this fails too, the next append tries again before it writes.
            let _ = self.cut_torn();
        }
        written
    }

    fn cut_torn(&mut self) -> Result<(), SpoolError> {
        let path = self.current_path();
        match &mut self.current {
            Some(segment) if segment.is_torn => {
                segment.file.truncate(segment.bytes).map_err(SpoolError::io("cutting", &path))?;
                segment.is_torn = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes those of `numbers` that this segment has not declared, in as many frames as their
    /// size asks for.
    fn write_declarations(
        &mut self,
        numbers: &Numbers,
        source: &mut dyn DeclarationSource,
    ) -> Result<(), SpoolError> {
        let missing = self.declared.missing(numbers);
        let (mut metrics, mut envs) = (missing.metrics.as_slice(), missing.envs.as_slice());
        let mut most = DECLARATIONS_PER_FRAME;
        let mut payload = std::mem::take(&mut self.payload);
        while !metrics.is_empty() || !envs.is_empty() {
            let metric_count = metrics.len().min(most);
            let env_count = envs.len().min(most - metric_count);
            payload.clear();
            source.encode_declarations(
                &metrics[..metric_count],
                &envs[..env_count],
                &mut payload,
            )?;
            if payload.len() > DECLARATIONS_BYTES && metric_count + env_count > 1 {
                most = usize::midpoint(metric_count, env_count);
                continue;
            }
            // Twice: without the names, every batch behind them would be worthless.
            for _ in 0..2 {
                self.write_frame(&self.declarations_header(&payload), &payload)?;
            }
            (metrics, envs) = (&metrics[metric_count..], &envs[env_count..]);
        }
        self.payload = payload;
        self.declared.insert(&missing);
        Ok(())
    }

    fn declarations_header(&self, payload: &[u8]) -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Declarations,
            urgent: false,
            writer_id: self.writer_id,
            seq: Seq(0),
            lsn_first: Lsn(0),
            lsn_last: Lsn(0),
            payload_len: payload.len() as u32,
            payload_crc32c: crc32c::crc32c(payload),
        }
    }

    fn write_frame(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), SpoolError> {
        self.write(&header.encode())?;
        self.write(payload)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let path = self.current_path();
        let Some(segment) = &mut self.current else { return Ok(()) };
        write_all(segment.file.as_mut(), bytes).map_err(SpoolError::io("writing", &path))?;
        segment.bytes += bytes.len() as u64;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn current_path(&self) -> PathBuf {
        let number = self.current.as_ref().map_or(self.next_number, |segment| segment.number);
        segment_path(&self.folder, number)
    }
}

const _: () = assert!(DEFAULT_SEGMENT_BYTES > SEGMENT_HEADER_BYTES as u64);
