//! Sections: a codec byte, then the bytes of a column as they are or compressed.
//!
//! ```text
//! absent   0
//! raw      1, length varint, bytes
//! zstd     2, raw length varint, stored length varint, bytes
//! ```
//!
//! The timestamps have two encodings and mark the second by codecs 3 (raw) and 4 (zstd).

use std::fmt;

use super::error::{DecodeError, EncodeError};
use super::varint::{Reader, put_varint, varint_len};
use crate::types::Compression;

/// No bytes: what that means is each section's own.
pub const ABSENT: u8 = 0;
/// Stored as it is.
pub const RAW: u8 = 1;
/// Compressed by zstd.
pub const ZSTD: u8 = 2;
/// Added to [`RAW`] or [`ZSTD`] by timestamps in their second encoding.
pub const SECOND_ENCODING: u8 = 2;

/// Sections below this many bytes are not worth a try.
const MIN_COMPRESSED_BYTES: usize = 64;
/// Higher levels gain about one percent on noisy planes and cost several times the time.
const ZSTD_LEVEL: i32 = 1;

/// Writes sections, keeping zstd's state and buffer from one to the next.
#[derive(Default)]
pub struct SectionWriter {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    stored: Vec<u8>,
}

impl fmt::Debug for SectionWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectionWriter").finish_non_exhaustive()
    }
}

impl SectionWriter {
    /// Appends a section with `raw`, compressed where that makes it smaller. `encoding` is 0 or
    /// [`SECOND_ENCODING`].
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        raw: &[u8],
        encoding: u8,
        compression: Compression,
    ) -> Result<(), EncodeError> {
        if compression == Compression::Zstd && raw.len() >= MIN_COMPRESSED_BYTES {
            self.compress(raw).map_err(EncodeError::Compression)?;
            // A stored length of its own must pay for itself.
            let stored_bytes = self.stored.len() + varint_len(self.stored.len() as u64);
            if stored_bytes < raw.len() {
                out.push(ZSTD + encoding);
                put_varint(out, raw.len() as u64);
                put_varint(out, self.stored.len() as u64);
                out.extend_from_slice(&self.stored);
                return Ok(());
            }
        }
        out.push(RAW + encoding);
        put_varint(out, raw.len() as u64);
        out.extend_from_slice(raw);
        Ok(())
    }

    fn compress(&mut self, raw: &[u8]) -> std::io::Result<()> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        self.stored.clear();
        self.stored.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        zstd.compress_to_buffer(raw, &mut self.stored)?;
        Ok(())
    }
}

/// Reads sections, keeping zstd's state from one to the next.
#[derive(Default)]
pub struct SectionReader {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for SectionReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectionReader").finish_non_exhaustive()
    }
}

impl SectionReader {
    /// The next section's encoding (0 or [`SECOND_ENCODING`]) and bytes, None if it is absent.
    /// What zstd unpacks goes to `buffer`; more than `max_bytes` is refused before it is unpacked.
    pub fn read<'buffer, 'payload: 'buffer>(
        &mut self,
        reader: &mut Reader<'payload>,
        max_bytes: usize,
        buffer: &'buffer mut Vec<u8>,
    ) -> Result<Option<(u8, &'buffer [u8])>, DecodeError> {
        let codec = reader.u8("a section")?;
        let encoding = match codec {
            ABSENT => return Ok(None),
            RAW | ZSTD => 0,
            3 | 4 => SECOND_ENCODING,
            found => return Err(DecodeError::Unknown { what: "codec", found }),
        };
        let length = reader.length(max_bytes, "a section's length")?;
        if codec - encoding == RAW {
            return Ok(Some((encoding, reader.bytes(length, "a section")?)));
        }
        let stored_length = reader.length(reader.remaining(), "a section's stored length")?;
        let stored = reader.bytes(stored_length, "a section")?;
        self.decompress(stored, length, buffer)?;
        Ok(Some((encoding, buffer)))
    }

    fn decompress(
        &mut self,
        stored: &[u8],
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        const BROKEN: DecodeError = DecodeError::Malformed("a section does not decompress");
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(|_| BROKEN)?),
        };
        buffer.clear();
        buffer.reserve_exact(length);
        // zstd never writes past the buffer's capacity, so a bomb ends here.
        zstd.decompress_to_buffer(stored, buffer).map_err(|_| BROKEN)?;
        if buffer.len() == length {
            Ok(())
        } else {
            Err(DecodeError::Malformed("a section is not as long as it says"))
        }
    }
}
