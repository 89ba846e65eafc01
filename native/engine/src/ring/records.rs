//! Walking the records of a window that was copied out of the ring.

use super::{PAD, POINT, POINT_BYTES};
use crate::types::Lsn;

/// A record as it lies in the ring: eight bytes of header, then its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Where it began in the stream.
    pub lsn: Lsn,
    /// What it is.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its length in bytes; for a POINT its metric number.
    pub word: u32,
    /// All of it, header included.
    pub words: &'a [u64],
}

/// The bytes at `lsn` are no record: all behind them is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring holds no whole record at {lsn}")]
pub struct BadRecord {
    /// Where.
    pub lsn: Lsn,
}

/// The records of a window, padding skipped. Ends after the first that is not whole.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    words: &'a [u64],
    lsn: Lsn,
}

/// The records of a window that [`Consumer::read`](super::Consumer::read) copied from `start`.
pub fn records(words: &[u64], start: Lsn) -> Records<'_> {
    Records { words, lsn: start }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RawRecord<'a>, BadRecord>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let header = u64::from_le(*self.words.first()?);
            let (kind, flags, word) = (header as u8, (header >> 8) as u8, (header >> 32) as u32);
            let bytes = if kind == POINT { POINT_BYTES } else { word as usize };
            let lsn = self.lsn;
            if bytes == 0 || bytes % 8 != 0 || bytes / 8 > self.words.len() {
                self.words = &[];
                return Some(Err(BadRecord { lsn }));
            }
            let (words, rest) = self.words.split_at(bytes / 8);
            self.words = rest;
            self.lsn = Lsn(lsn.0 + bytes as u64);
            if kind != PAD {
                return Some(Ok(RawRecord { lsn, kind, flags, word, words }));
            }
        }
    }
}
