//! The frame around a sealed batch, or around declarations, in the spool.
//!
//! ```text
//! 0 magic "MTRF"   4 version u16   6 kind u8   7 flags u8   8 writer_id
//! 24 seq u64   32 lsn_first u64   40 lsn_last u64
//! 48 payload length u32   52 0 u32   56 CRC32C of the payload   60 CRC32C of bytes 0..60   64 payload
//! ```
//!
//! Whatever the version, the magic, the version and the header's checksum stay
//! where they are, so that a newer frame is told from a damaged one.

use crate::types::{BatchKind, Lsn, Seq, WriterId};

/// The version of the layout above.
pub const FRAME_VERSION: u16 = 1;
/// Bytes before the payload.
pub const FRAME_HEADER_BYTES: usize = 64;
/// What every frame begins with.
pub const FRAME_MAGIC: [u8; 4] = *b"MTRF";
/// Largest payload a frame may hold. Messages are a megabyte; this only bounds what a reader of
/// hostile bytes can be made to allocate.
pub const MAX_PAYLOAD_BYTES: usize = 256 << 20;

const FLAG_URGENT: u8 = 1;

/// What a frame holds. The numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Declarations; without a sequence number, repeated freely.
    Declarations = 1,
    /// A batch of points.
    Points = 2,
    /// A batch of attribute operations.
    Attributes = 3,
    /// A piece of a rendering.
    Renderings = 4,
}

impl FrameKind {
    /// The kind with this number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Declarations),
            2 => Some(Self::Points),
            3 => Some(Self::Attributes),
            4 => Some(Self::Renderings),
            _ => None,
        }
    }

    /// The kind of batch; declarations are none.
    pub const fn batch(self) -> Option<BatchKind> {
        match self {
            Self::Declarations => None,
            Self::Points => Some(BatchKind::Points),
            Self::Attributes => Some(BatchKind::Attributes),
            Self::Renderings => Some(BatchKind::Renderings),
        }
    }
}

impl From<BatchKind> for FrameKind {
    fn from(kind: BatchKind) -> Self {
        match kind {
            BatchKind::Points => Self::Points,
            BatchKind::Attributes => Self::Attributes,
            BatchKind::Renderings => Self::Renderings,
        }
    }
}

/// All that is known of a frame without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it holds.
    pub kind: FrameKind,
    /// Somebody waits for this batch.
    pub urgent: bool,
    /// Whose it is.
    pub writer_id: WriterId,
    /// Its place among the writer's batches; 0 for declarations.
    pub seq: Seq,
    /// First byte of the ring's stream that it was sealed from; 0 for declarations and renderings.
    pub lsn_first: Lsn,
    /// Last byte of the ring's stream that it was sealed from; 0 for declarations and renderings.
    pub lsn_last: Lsn,
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// CRC32C of the payload.
    pub payload_crc32c: u32,
}

/// Why 64 bytes are no frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameHeaderError {
    /// No magic, a wrong checksum, or fields that no engine writes.
    #[error("no frame header, or a damaged one")]
    Damaged,
    /// A newer engine wrote it.
    #[error(
        "frame version {0}, and this metrana reads up to {FRAME_VERSION}: upgrade metrana to read it"
    )]
    Newer(u16),
    /// A kind that this engine does not know.
    #[error("frame kind {0} is unknown to this metrana: upgrade metrana to read it")]
    UnknownKind(u8),
}

impl FrameHeader {
    /// Bytes of the frame, payload included.
    pub fn frame_len(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_len)
    }

    /// The 64 bytes before the payload.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4..6].copy_from_slice(&FRAME_VERSION.to_le_bytes());
        bytes[6] = self.kind as u8;
        bytes[7] = if self.urgent { FLAG_URGENT } else { 0 };
        bytes[8..24].copy_from_slice(&self.writer_id.0);
        bytes[24..32].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.lsn_first.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.lsn_last.0.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.payload_crc32c.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// See [`FrameHeaderError`]. A wrong checksum is damage whatever the version says.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameHeaderError> {
        let crc = u32::from_le_bytes(array(bytes, 60));
        if bytes[..4] != FRAME_MAGIC || crc32c::crc32c(&bytes[..60]) != crc {
            return Err(FrameHeaderError::Damaged);
        }
        let version = u16::from_le_bytes(array(bytes, 4));
        if version > FRAME_VERSION {
            return Err(FrameHeaderError::Newer(version));
        }
        let kind = FrameKind::from_u8(bytes[6]).ok_or(FrameHeaderError::UnknownKind(bytes[6]))?;
        let header = Self {
            kind,
            urgent: bytes[7] & FLAG_URGENT != 0,
            writer_id: WriterId(array(bytes, 8)),
            seq: Seq(u64::from_le_bytes(array(bytes, 24))),
            lsn_first: Lsn(u64::from_le_bytes(array(bytes, 32))),
            lsn_last: Lsn(u64::from_le_bytes(array(bytes, 40))),
            payload_len: u32::from_le_bytes(array(bytes, 48)),
            payload_crc32c: u32::from_le_bytes(array(bytes, 56)),
        };
        if version == 0 || !header.is_plausible() {
            return Err(FrameHeaderError::Damaged);
        }
        Ok(header)
    }

    fn is_plausible(&self) -> bool {
        (self.kind == FrameKind::Declarations) == (self.seq == Seq(0))
            && self.lsn_first <= self.lsn_last
            && self.payload_len as usize <= MAX_PAYLOAD_BYTES
    }
}

/// `N` bytes of a header; all offsets above are constants inside it.
pub(super) fn array<const N: usize>(bytes: &[u8; 64], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::golden::hex;

    fn header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Points,
            urgent: true,
            writer_id: WriterId(*b"0123456789abcdef"),
            seq: Seq(0x0102_0304),
            lsn_first: Lsn(4096),
            lsn_last: Lsn(8191),
            payload_len: 3,
            payload_crc32c: crc32c::crc32c(b"abc"),
        }
    }

    #[test]
    fn test_frame_header_bytes_are_those_of_version_1() {
        let golden = concat!(
            "4d545246",                         // magic
            "0100",                             // version
            "02",                               // kind
            "01",                               // flags
            "30313233343536373839616263646566", // writer_id
            "0403020100000000",                 // seq
            "0010000000000000",                 // lsn_first
            "ff1f000000000000",                 // lsn_last
            "03000000",                         // payload length
            "00000000",
            "b73f4b36", // CRC32C of "abc" = 0x364b3fb7
            "00000000", // CRC32C of the header
        );
        let bytes = header().encode();
        assert_eq!(hex(&bytes[..60]), golden[..120]);
        assert_eq!(crc32c::crc32c(&bytes[..60]), u32::from_le_bytes(array(&bytes, 60)));
        assert_eq!(FrameHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn test_checksum_is_crc32c_of_rfc_3720() {
        // RFC 3720, B.4.
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
        ] {
            assert_eq!(crc32c::crc32c(bytes), crc);
        }
    }

    fn with_checksum(change: impl FnOnce(&mut [u8; 64])) -> [u8; 64] {
        let mut bytes = header().encode();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn test_newer_and_unknown_frames_are_refused_by_name() {
        let newer = with_checksum(|bytes| bytes[4] = 2);
        assert_eq!(FrameHeader::decode(&newer), Err(FrameHeaderError::Newer(2)));
        assert!(FrameHeaderError::Newer(2).to_string().contains("upgrade metrana"));
        let unknown = with_checksum(|bytes| bytes[6] = 9);
        assert_eq!(FrameHeader::decode(&unknown), Err(FrameHeaderError::UnknownKind(9)));
    }

    #[test]
    fn test_fields_that_no_engine_writes_are_damage() {
        for bytes in [
            with_checksum(|bytes| bytes[4] = 0),
            with_checksum(|bytes| bytes[24..32].fill(0)),
            with_checksum(|bytes| bytes[40..48].fill(0)),
            with_checksum(|bytes| bytes[51] = 0xff),
        ] {
            assert_eq!(FrameHeader::decode(&bytes), Err(FrameHeaderError::Damaged));
        }
    }

    #[test]
    fn test_every_flipped_bit_of_a_header_is_noticed() {
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bytes), Err(FrameHeaderError::Damaged), "bit {bit}");
        }
    }
}
