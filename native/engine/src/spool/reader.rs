//! Following a spool, in the writer's process or in another.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::SpoolError;
use super::frame::{FrameHeader, FrameKind};
use super::scanner::{DamagedBytes, Scanner, Step};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_numbers, segment_path};
use crate::platform::{self, Filesystem};
use crate::types::{Lsn, Seq, WriterId};

/// A frame that is whole and right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// Somebody waits for it.
    pub urgent: bool,
    /// 0 for declarations.
    pub seq: Seq,
    /// First byte of the ring's stream it was sealed from.
    pub lsn_first: Lsn,
    /// Last byte of the ring's stream it was sealed from.
    pub lsn_last: Lsn,
    /// The batch, or the declarations.
    pub payload: Vec<u8>,
    /// The checksum it was sealed with.
    pub payload_crc32c: u32,
}

/// Something in the spool that cannot be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Batches that will never come, both ends included. `None`: none is missing (damaged
    /// declarations or a segment's header), or nothing behind tells how many.
    pub lost: Option<(Seq, Seq)>,
    /// Where and what, for the user.
    pub message: String,
}

/// What a reader comes upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolEvent {
    /// The next frame.
    Frame(Frame),
    /// What lies before the next frame is damaged.
    Damage(Damage),
}

/// Reads a writer's frames in order, from a batch on, and follows the file while it grows.
///
/// It begins with the declarations of the segment that holds the first batch asked for. Segments
/// may be deleted behind it. It is a reader only: a torn tail is "not yet" until
/// [`writer_has_ended`](Self::writer_has_ended), and then damage.
#[derive(Debug)]
pub struct SpoolReader {
    folder: PathBuf,
    /// See [`only_of`](Self::only_of).
    owner: Option<WriterId>,
    writer_id: Option<WriterId>,
    segment: Option<OpenSegment>,
    /// The next segment, once it is seen: then the current one grows no more.
    successor: Option<u64>,
    /// The next batch to be given out.
    next_seq: Seq,
    /// Whether a missing `next_seq` is a loss; else it may have been deleted long ago.
    is_contiguous: bool,
    /// Damage that is not reported yet: what it cost shows at the next batch.
    pending: Vec<PendingDamage>,
    ready: VecDeque<SpoolEvent>,
    has_writer_ended: bool,
    /// Bytes that another machine wrote show when a file is opened, and not all at once.
    is_network: bool,
    doubted: Option<u64>,
}

#[derive(Debug)]
struct OpenSegment {
    number: u64,
    scanner: Scanner,
    /// Its torn tail has been noted.
    is_torn: bool,
}

#[derive(Debug)]
struct PendingDamage {
    message: String,
    seq: Option<Seq>,
}

impl SpoolReader {
    /// Reads the spool in `folder` from batch `from` on, which nobody has acknowledged: if it is
    /// not there, it is lost.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, or a newer engine wrote the segments.
    pub fn open(folder: &Path, from: Seq) -> Result<Self, SpoolError> {
        let mut reader = Self::open_oldest(folder)?;
        reader.next_seq = from.max(Seq(1));
        reader.is_contiguous = true;
        reader.successor = reader.first_segment()?;
        Ok(reader)
    }

    /// Reads all that is there. What lay before it may have been acknowledged and deleted.
    ///
    /// # Errors
    ///
    /// See [`open`](Self::open).
    pub fn open_oldest(folder: &Path) -> Result<Self, SpoolError> {
        let kind = platform::filesystem(folder).map_err(SpoolError::io("examining", folder))?;
        let mut reader = Self {
            folder: folder.to_owned(),
            owner: None,
            writer_id: None,
            segment: None,
            successor: None,
            next_seq: Seq(1),
            is_contiguous: false,
            pending: Vec::new(),
            ready: VecDeque::new(),
            has_writer_ended: false,
            is_network: kind == Filesystem::Network,
            doubted: None,
        };
        reader.successor = reader.first_segment()?;
        Ok(reader)
    }

    /// The writer is dead or closed, so what is torn now stays torn.
    pub fn writer_has_ended(&mut self) {
        self.has_writer_ended = true;
    }

    /// While the owner's folder is somewhere else, another writer's may be in its place: its
    /// segments do not follow the owner's, and to begin with one is an error. To be called before
    /// anything is read.
    pub fn only_of(&mut self, owner: WriterId) {
        self.owner = Some(owner);
    }

    fn is_foreign(&self, header: Option<&SegmentHeader>) -> bool {
        self.owner.zip(header).is_some_and(|(owner, header)| owner != header.writer_id)
    }

    /// Finds the next segment in another folder: the writer goes on there, and has copied the
    /// segment that it was writing.
    pub fn go_on_in(&mut self, folder: &Path) {
        if self.folder != folder {
            folder.clone_into(&mut self.folder);
        }
    }

    /// The next event, or `None` if there is none *yet*: asked again later, there may be one.
    /// Touches the disk, never waits for the writer.
    ///
    /// # Errors
    ///
    /// When a file cannot be read (asking again goes on at the same place), or a newer engine
    /// wrote what comes next.
    pub fn next_event(&mut self) -> Result<Option<SpoolEvent>, SpoolError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.segment.is_none() && !self.enter_segment()? {
                return Ok(self.end());
            }
            if !self.step()? {
                return Ok(self.end());
            }
        }
    }

    /// One step in the open segment; `false`: there is nothing more for now.
    fn step(&mut self) -> Result<bool, SpoolError> {
        let next_seq = self.next_seq;
        let Some(segment) = &mut self.segment else { return Ok(true) };
        let before = segment.scanner.offset();
        let is_wanted =
            |header: &FrameHeader| header.kind == FrameKind::Declarations || header.seq >= next_seq;
        match segment.scanner.next(is_wanted)? {
            Step::Frame(header) => self.take_frame(header),
            Step::Damaged(damaged) => {
                if self.is_doubtful(before, &damaged)? {
                    return Ok(!damaged.is_last || self.successor.is_some());
                }
                self.note(&damaged);
            }
            Step::Partial { offset, bytes } => return self.end_segment(Some((offset, bytes))),
            Step::End => return self.end_segment(None),
        }
        Ok(true)
    }

    fn take_frame(&mut self, header: FrameHeader) {
        let Some(segment) = &mut self.segment else { return };
        self.writer_id.get_or_insert(header.writer_id);
        segment.scanner.expect_writer(header.writer_id);
        let is_batch = header.kind != FrameKind::Declarations;
        if is_batch && header.seq < self.next_seq {
            return;
        }
        let payload = std::mem::take(&mut segment.scanner.payload);
        if is_batch {
            self.report(header.seq);
            self.next_seq = Seq(header.seq.0 + 1);
            self.is_contiguous = true;
        }
        self.ready.push_back(SpoolEvent::Frame(frame(&header, payload)));
    }

    /// Reports what was damaged or is missing before batch `seq`.
    fn report(&mut self, seq: Seq) {
        let is_gap = self.is_contiguous && seq > self.next_seq;
        // A damaged batch that was asked for is lost even if nothing was given out before it.
        let first_damaged = self.pending.iter().filter_map(|damage| damage.seq).min();
        let first = if is_gap { Some(self.next_seq) } else { first_damaged };
        let lost = first.filter(|first| *first < seq).map(|first| (first, Seq(seq.0 - 1)));
        if lost.is_none() && self.pending.is_empty() {
            return;
        }
        let mut message = self.take_messages();
        if message.is_empty() {
            message = format!("{}: a segment is missing", self.folder.display());
        }
        self.ready.push_back(SpoolEvent::Damage(Damage { lost, message }));
    }

    /// Nothing more is there. Of an ended writer, what is damaged at the very end is reported.
    fn end(&mut self) -> Option<SpoolEvent> {
        if !self.has_writer_ended || self.pending.is_empty() {
            return None;
        }
        let known = || self.pending.iter().filter_map(|damage| damage.seq);
        let first = if self.is_contiguous { Some(self.next_seq) } else { known().min() };
        let lost = first.zip(known().max()).filter(|(first, last)| first <= last);
        if let Some((_, last)) = lost {
            self.next_seq = Seq(last.0 + 1);
            self.is_contiguous = true;
        }
        Some(SpoolEvent::Damage(Damage { lost, message: self.take_messages() }))
    }

    fn take_messages(&mut self) -> String {
        let messages: Vec<_> = self.pending.drain(..).map(|damage| damage.message).collect();
        messages.join("; ")
    }

    /// Damage that may be bytes still on their way: at the end of a live file, or seen for the
    /// first time on a network file system. Looked at again, from `before`.
    fn is_doubtful(&mut self, before: u64, damaged: &DamagedBytes) -> Result<bool, SpoolError> {
        let is_live_end = damaged.is_last && self.successor.is_none() && !self.has_writer_ended;
        let is_first_look = self.is_network && self.doubted.replace(before) != Some(before);
        if !is_live_end && !is_first_look {
            return Ok(false);
        }
        let Some(segment) = &mut self.segment else { return Ok(false) };
        segment.scanner.seek(before);
        if self.is_network {
            segment.scanner.reopen()?;
        }
        if is_live_end {
            // The writer may have gone on in a new segment, which would settle it.
            self.successor = self.next_segment()?;
        }
        Ok(true)
    }

    fn note(&mut self, damaged: &DamagedBytes) {
        let Some(segment) = &self.segment else { return };
        let place = segment.scanner.path().display();
        let DamagedBytes { offset, bytes, header, .. } = damaged;
        let (what, seq) = match header {
            None => ("no frame that can be read".to_owned(), None),
            Some(header) if header.kind == FrameKind::Declarations => {
                ("damaged declarations".to_owned(), None)
            }
            Some(header) => (format!("damaged batch {}", header.seq), Some(header.seq)),
        };
        let message = format!("{place}: {what} in {bytes} bytes at {offset}");
        self.pending.push(PendingDamage { message, seq });
    }

    /// The open segment has nothing more: goes on to its successor if there is one; `false`: there
    /// is none yet.
    fn end_segment(&mut self, torn: Option<(u64, u64)>) -> Result<bool, SpoolError> {
        if self.successor.is_none() {
            self.successor = self.next_segment()?;
            if self.successor.is_some() {
                // Between our reading and our listing the segment may have been completed.
                return Ok(true);
            }
            if self.is_network
                && let Some(segment) = &mut self.segment
            {
                segment.scanner.reopen()?;
            }
            if !self.has_writer_ended {
                return Ok(false);
            }
        }
        let Some(segment) = &mut self.segment else { return Ok(false) };
        if let Some((offset, bytes)) = torn
            && bytes > 0
            && !segment.is_torn
        {
            let place = segment.scanner.path().display();
            let message = format!("{place}: torn frame of {bytes} bytes at {offset}");
            self.pending.push(PendingDamage { message, seq: None });
            segment.is_torn = true;
        }
        if self.successor.is_none() {
            return Ok(false);
        }
        self.segment = None;
        Ok(true)
    }

    /// Opens the successor; `false`: there is none yet.
    fn enter_segment(&mut self) -> Result<bool, SpoolError> {
        if self.successor.is_none() {
            self.successor = self.first_segment()?;
        }
        let Some(number) = self.successor else { return Ok(false) };
        let path = segment_path(&self.folder, number);
        let mut scanner = match Scanner::open(&path) {
            Ok(scanner) => scanner,
            // Deleted since it was listed: all in it is acknowledged.
            Err(SpoolError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                self.is_contiguous = false;
                self.successor = self.segment_after(number)?;
                return Ok(self.successor.is_some());
            }
            Err(error) => return Err(error),
        };
        if let Some(writer_id) = self.writer_id {
            scanner.expect_writer(writer_id);
        }
        let header = scanner.header()?;
        if self.is_foreign(header.as_ref()) {
            let error = std::io::Error::other("it is another writer's");
            return Err(SpoolError::io("entering", &path)(error));
        }
        if let Some(header) = header {
            self.writer_id.get_or_insert(header.writer_id);
            scanner.expect_writer(header.writer_id);
            if !self.is_contiguous {
                // What came before lay in segments that were acknowledged and deleted.
                self.next_seq = self.next_seq.max(header.first_seq);
                self.is_contiguous = true;
            }
        } else {
            // Nothing was ever deleted before the first.
            self.is_contiguous |= number == 1;
            if scanner.len() >= SEGMENT_HEADER_BYTES as u64 {
                let message = format!("{}: damaged segment header", path.display());
                self.pending.push(PendingDamage { message, seq: None });
            }
        }
        self.segment = Some(OpenSegment { number, scanner, is_torn: false });
        self.successor = None;
        Ok(true)
    }

    /// The newest segment whose first batch is not behind `next_seq`'s, else the oldest.
    fn first_segment(&self) -> Result<Option<u64>, SpoolError> {
        let numbers = self.numbers()?;
        for &number in numbers.iter().rev() {
            if self.header(number)?.is_some_and(|header| header.first_seq <= self.next_seq) {
                return Ok(Some(number));
            }
        }
        Ok(numbers.first().copied())
    }

    /// `None` if it is damaged, or not there.
    fn header(&self, number: u64) -> Result<Option<SegmentHeader>, SpoolError> {
        match Scanner::open(&segment_path(&self.folder, number)) {
            Ok(mut scanner) => scanner.header(),
            Err(SpoolError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn next_segment(&mut self) -> Result<Option<u64>, SpoolError> {
        let Some(segment) = &self.segment else { return Ok(None) };
        let current = segment.number;
        let numbers = match self.numbers() {
            // The folder was moved, or it is about to be made anew. The open segment is there for
            // whoever has it open, and its writer may go on with it.
            Err(SpoolError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && !self.has_writer_ended =>
            {
                return Ok(None);
            }
            numbers => numbers?,
        };
        let next = numbers.iter().copied().find(|number| *number > current);
        if let (Some(next), Some(_)) = (next, self.owner)
            && self.is_foreign(self.header(next)?.as_ref())
        {
            return Ok(None);
        }
        // Deletion goes from the oldest on, so a hole behind a segment that is still there is not
        // the writer's doing, and what is missing is lost.
        if next.is_some_and(|next| next > current + 1) && !numbers.contains(&current) {
            self.is_contiguous = false;
        }
        Ok(next)
    }

    fn segment_after(&self, number: u64) -> Result<Option<u64>, SpoolError> {
        Ok(self.numbers()?.into_iter().find(|other| *other > number))
    }

    fn numbers(&self) -> Result<Vec<u64>, SpoolError> {
        segment_numbers(&self.folder).map_err(SpoolError::io("listing", &self.folder))
    }
}

fn frame(header: &FrameHeader, payload: Vec<u8>) -> Frame {
    Frame {
        kind: header.kind,
        urgent: header.urgent,
        seq: header.seq,
        lsn_first: header.lsn_first,
        lsn_last: header.lsn_last,
        payload,
        payload_crc32c: header.payload_crc32c,
    }
}
