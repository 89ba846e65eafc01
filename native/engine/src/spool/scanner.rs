//! Reading one segment frame by frame.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::SpoolError;
use super::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameHeaderError, FrameKind};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError};
use crate::types::WriterId;

const SEARCH_BYTES: usize = 64 << 10;

/// What lies next in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A whole frame that is right; its payload is in the scanner's buffer if it was wanted.
    Frame(FrameHeader),
    /// Bytes that are no frame, or one whose payload is damaged. They are passed over.
    Damaged(DamagedBytes),
    /// The file ends inside a frame (or inside what may become one): not passed over.
    Partial { offset: u64, bytes: u64 },
    /// The file ends behind a frame.
    End,
}

/// Bytes in a segment that cannot be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DamagedBytes {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// The frame's header, if only its payload is damaged.
    pub(super) header: Option<FrameHeader>,
    /// Nothing that is whole follows.
    pub(super) is_last: bool,
}

/// Walks one segment. Sees what is appended to the file while it walks.
#[derive(Debug)]
pub(super) struct Scanner {
    file: File,
    path: PathBuf,
    writer_id: Option<WriterId>,
    offset: u64,
    /// The file's length when last asked.
    len: u64,
    pub(super) payload: Vec<u8>,
    /// The last declarations given out, which are written twice.
    declarations: Option<FrameHeader>,
}

impl Scanner {
    /// Opens a segment. Its header is read by [`header`](Self::header).
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        let file = File::open(path).map_err(SpoolError::io("opening", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            writer_id: None,
            offset: SEGMENT_HEADER_BYTES as u64,
            len: 0,
            payload: Vec::new(),
            declarations: None,
        })
    }

    /// Frames of anybody else are damage from here on.
    pub(super) fn expect_writer(&mut self, writer_id: WriterId) {
        self.writer_id = Some(writer_id);
    }

    /// Opens the file anew at the same place: on network file systems that is what shows new bytes.
    pub(super) fn reopen(&mut self) -> Result<(), SpoolError> {
        match File::open(&self.path) {
            Ok(file) => self.file = file,
            // Deleted behind us: what is open is complete.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SpoolError::io("opening", &self.path)(error)),
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The segment's header: `None` when it is damaged, or not whole yet, which [`len`](Self::len)
    /// tells.
    pub(super) fn header(&mut self) -> Result<Option<SegmentHeader>, SpoolError> {
        self.measure()?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        if self.read_at(0, &mut bytes)? < bytes.len() {
            return Ok(None);
        }
        match SegmentHeader::decode(&bytes) {
            Ok(header) => Ok(Some(header)),
            Err(SegmentHeaderError::Damaged) => Ok(None),
            Err(error @ SegmentHeaderError::Newer(_)) => Err(self.newer(&error)),
        }
    }

    /// The next step. The payloads of frames that are not wanted are neither read nor checked. Of
    /// declarations that are there twice, the first that is right is given out.
    pub(super) fn next(
        &mut self,
        is_wanted: impl Fn(&FrameHeader) -> bool,
    ) -> Result<Step, SpoolError> {
        loop {
            let step = self.next_of_all(&is_wanted)?;
            match step {
                Step::Frame(header) if self.declarations == Some(header) => {}
                Step::Frame(header) => {
                    let is_read = header.kind == FrameKind::Declarations && is_wanted(&header);
                    self.declarations = is_read.then_some(header);
                    return Ok(step);
                }
                _ => return Ok(step),
            }
        }
    }

    /// Whether bytes that were passed over are one of two copies of declarations, and the other is
    /// right: then they cost nothing.
    pub(super) fn has_twin(&mut self, damaged: &DamagedBytes) -> Result<bool, SpoolError> {
        let DamagedBytes { offset, bytes, .. } = *damaged;
        // Copies come in pairs: one that has another neighbour like itself is that one's.
        Ok(self.is_twin(offset + bytes, offset + 2 * bytes, bytes)?
            || offset >= bytes
                && self.is_twin(offset - bytes, offset.saturating_sub(2 * bytes), bytes)?)
    }

    /// Whether declarations of so many bytes are at `offset`, and not the same at `beyond`.
    fn is_twin(&mut self, offset: u64, beyond: u64, bytes: u64) -> Result<bool, SpoolError> {
        let Some(header) = self.header_at(offset)? else { return Ok(false) };
        if header.kind != FrameKind::Declarations
            || header.frame_len() != bytes
            || self.header_at(beyond)? == Some(header)
        {
            return Ok(false);
        }
        let mut payload = vec![0; header.payload_len as usize];
        let count = self.read_at(offset + FRAME_HEADER_BYTES as u64, &mut payload)?;
        Ok(count == payload.len() && crc32c::crc32c(&payload) == header.payload_crc32c)
    }

    fn next_of_all(
        &mut self,
        is_wanted: impl Fn(&FrameHeader) -> bool,
    ) -> Result<Step, SpoolError> {
        self.measure()?;
        let offset = self.offset;
        let rest = self.len.saturating_sub(offset);
        if rest == 0 && self.len >= SEGMENT_HEADER_BYTES as u64 {
            return Ok(Step::End);
        }
        if rest < FRAME_HEADER_BYTES as u64 {
            // A segment without a whole header counts from its beginning.
            let begin = if self.len < SEGMENT_HEADER_BYTES as u64 { 0 } else { offset };
            return Ok(Step::Partial { offset: begin, bytes: self.len - begin });
        }
        match self.header_at(offset)? {
            Some(header) if header.frame_len() > rest => Ok(Step::Partial { offset, bytes: rest }),
            Some(header) => self.frame(header, is_wanted(&header)),
            None => self.resynchronise(),
        }
    }

    fn frame(&mut self, header: FrameHeader, is_wanted: bool) -> Result<Step, SpoolError> {
        let offset = self.offset;
        if is_wanted && !self.read_payload(&header)? {
            // The file was cut while we read: whatever is there now is looked at again.
            return Ok(Step::Partial { offset, bytes: self.len - offset });
        }
        self.offset += header.frame_len();
        if is_wanted && crc32c::crc32c(&self.payload) != header.payload_crc32c {
            return Ok(Step::Damaged(DamagedBytes {
                offset,
                bytes: header.frame_len(),
                header: Some(header),
                is_last: self.offset >= self.len,
            }));
        }
        Ok(Step::Frame(header))
    }

    fn read_payload(&mut self, header: &FrameHeader) -> Result<bool, SpoolError> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(header.payload_len as usize, 0);
        let count = self.read_at(self.offset + FRAME_HEADER_BYTES as u64, &mut payload)?;
        self.payload = payload;
        Ok(count == self.payload.len())
    }

    /// Passes over everything up to the next frame header that is right.
    fn resynchronise(&mut self) -> Result<Step, SpoolError> {
        let begin = self.offset;
        let mut bytes = vec![0; SEARCH_BYTES];
        let mut at = begin + 1;
        loop {
            let count = self.read_at(at, &mut bytes)?;
            let found = bytes[..count].windows(4).position(|window| window == FRAME_MAGIC);
            match found {
                Some(ahead) => {
                    at += ahead as u64;
                    if at + FRAME_HEADER_BYTES as u64 <= self.len && self.header_at(at)?.is_some() {
                        break;
                    }
                    at += 1;
                }
                None if count < bytes.len() => {
                    at = self.len;
                    break;
                }
                // A magic may lie across the border.
                None => at += count as u64 - 3,
            }
        }
        self.offset = at;
        Ok(Step::Damaged(DamagedBytes {
            offset: begin,
            bytes: at - begin,
            header: None,
            is_last: at >= self.len,
        }))
    }

    /// The frame header at an offset; `None` if there is none that is right.
    fn header_at(&mut self, offset: u64) -> Result<Option<FrameHeader>, SpoolError> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if self.read_at(offset, &mut bytes)? < bytes.len() {
            return Ok(None);
        }
        match FrameHeader::decode(&bytes) {
            Ok(header) if self.writer_id.is_some_and(|id| id != header.writer_id) => Ok(None),
            Ok(header) => Ok(Some(header)),
            Err(FrameHeaderError::Damaged) => Ok(None),
            Err(error) => Err(self.newer(&error)),
        }
    }

    fn measure(&mut self) -> Result<(), SpoolError> {
        let metadata = self.file.metadata().map_err(SpoolError::io("measuring", &self.path))?;
        self.len = metadata.len();
        Ok(())
    }

    /// Reads until the buffer is full or the file ends.
    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> Result<usize, SpoolError> {
        let failed = SpoolError::io("reading", &self.path);
        let mut read = || -> io::Result<usize> {
            self.file.seek(SeekFrom::Start(offset))?;
            let mut filled = 0;
            while filled < bytes.len() {
                match self.file.read(&mut bytes[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(filled)
        };
        read().map_err(failed)
    }

    fn newer(&self, error: &dyn std::error::Error) -> SpoolError {
        SpoolError::Newer { path: self.path.clone(), what: error.to_string() }
    }
}
