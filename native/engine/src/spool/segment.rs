//! Segments: the files a spool is cut into.
//!
//! ```text
//! 0 magic "METRSPOL"   8 version u16, 0 u16, header length u32 (64)   16 writer_id   32 segment number u64
//! 40 first seq u64     48 created_ms i64     56 0 u32                 60 CRC32C of bytes 0..60
//! 64 frames
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::frame::array;
use crate::types::{Seq, WriterId};

/// The version of the layout above.
pub const SEGMENT_VERSION: u16 = 1;
/// Bytes before the first frame.
pub const SEGMENT_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"METRSPOL";
const SUFFIX: &str = ".spool";

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose it is.
    pub writer_id: WriterId,
    /// Its place among the writer's segments, from 1; also its file's name.
    pub number: u64,
    /// The seq of its first batch; all before are in earlier segments.
    pub first_seq: Seq,
    /// When it was made, Unix milliseconds.
    pub created_ms: i64,
}

/// Why 64 bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentHeaderError {
    /// No magic, a wrong checksum, or fields that no engine writes.
    #[error("no segment header, or a damaged one")]
    Damaged,
    /// A newer engine wrote it.
    #[error(
        "segment version {0}, and this metrana reads up to {SEGMENT_VERSION}: upgrade metrana to read it"
    )]
    Newer(u16),
}

impl SegmentHeader {
    /// The 64 bytes before the first frame.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.writer_id.0);
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_seq.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// See [`SegmentHeaderError`].
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, SegmentHeaderError> {
        let crc = u32::from_le_bytes(array(bytes, 60));
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != crc {
            return Err(SegmentHeaderError::Damaged);
        }
        let version = u16::from_le_bytes(array(bytes, 8));
        if version > SEGMENT_VERSION {
            return Err(SegmentHeaderError::Newer(version));
        }
        if version == 0 || u32::from_le_bytes(array(bytes, 12)) != SEGMENT_HEADER_BYTES as u32 {
            return Err(SegmentHeaderError::Damaged);
        }
        Ok(Self {
            writer_id: WriterId(array(bytes, 16)),
            number: u64::from_le_bytes(array(bytes, 32)),
            first_seq: Seq(u64::from_le_bytes(array(bytes, 40))),
            created_ms: i64::from_le_bytes(array(bytes, 48)),
        })
    }
}

/// Where the segment with this number lies.
pub fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}{SUFFIX}"))
}

/// The numbers of the segments in a writer's folder, ascending.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn segment_numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::golden::hex;

    fn header() -> SegmentHeader {
        SegmentHeader {
            writer_id: WriterId(*b"0123456789abcdef"),
            number: 7,
            first_seq: Seq(258),
            created_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn test_segment_header_bytes_are_those_of_version_1() {
        let golden = concat!(
            "4d45545253504f4c",                 // magic
            "0100",                             // version
            "0000",                             //
            "40000000",                         // header length
            "30313233343536373839616263646566", // writer_id
            "0700000000000000",                 // number
            "0201000000000000",                 // first seq
            "0068e5cf8b010000",                 // created_ms
            "00000000",
        );
        let bytes = header().encode();
        assert_eq!(hex(&bytes[..60]), golden);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn test_every_flipped_bit_of_a_header_is_noticed() {
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let decoded = SegmentHeader::decode(&bytes);
            assert_eq!(decoded, Err(SegmentHeaderError::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn test_a_newer_segment_is_refused_by_name() {
        let mut bytes = header().encode();
        bytes[8] = 3;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentHeaderError::Newer(3)));
    }

    #[test]
    fn test_only_segments_are_listed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["00000010.spool", "00000002.spool", "lock", "x.spool", "acked"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(segment_numbers(folder.path()).unwrap(), [2, 10]);
        assert!(segment_path(folder.path(), 2).ends_with("00000002.spool"));
    }
}
