//! The integers and strings all payloads are made of, and a reader that trusts no byte.
//!
//! A varint is LEB128, seven bits a byte, least significant first. Zigzag maps small magnitudes of
//! either sign to small varints, as protobuf's `sint64` does.

use super::error::DecodeError;

/// Longest varint of a u64.
const MAX_VARINT_BYTES: usize = 10;

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` as a zigzag varint.
#[inline]
pub fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Appends the length of `text` and its bytes.
pub fn put_str(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// 0, −1, 1, −2, … become 0, 1, 2, 3, …
#[inline]
#[must_use]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[inline]
#[must_use]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bytes that [`put_varint`] appends.
#[inline]
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    // 9/64 is 1/7 rounded up for every bit count there is.
    ((u64::BITS - (value | 1).leading_zeros()) * 9 + 64) as usize / 64
}

/// Reads a payload from front to back; every length is checked against what is left.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes of `what`.
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes of `what`.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// The next byte of `what`.
    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(byte)
    }

    /// The next u16 of `what`.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// The next varint of `what`.
    #[inline]
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(what),
        }
    }

    fn long_varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(MAX_VARINT_BYTES).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                if index == MAX_VARINT_BYTES - 1 && byte > 1 {
                    return Err(DecodeError::Malformed("a varint is above 64 bits"));
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        if self.rest.len() < MAX_VARINT_BYTES {
            return Err(DecodeError::Truncated(what));
        }
        Err(DecodeError::Malformed("a varint is above 64 bits"))
    }

    /// The next zigzag varint of `what`.
    #[inline]
    pub fn zigzag(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.varint(what).map(unzigzag)
    }

    /// The next varint of `what`, which must fit a u32.
    #[inline]
    pub fn varint_u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.varint(what)?).map_err(|_| DecodeError::Limit(what))
    }

    /// The next length of `what`, at most `limit`.
    pub fn length(&mut self, limit: usize, what: &'static str) -> Result<usize, DecodeError> {
        match usize::try_from(self.varint(what)?) {
            Ok(length) if length <= limit => Ok(length),
            _ => Err(DecodeError::Limit(what)),
        }
    }

    /// The next string of `what`, at most `limit` bytes long.
    pub fn str(&mut self, limit: usize, what: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.length(limit, what)?;
        std::str::from_utf8(self.bytes(length, what)?)
            .map_err(|_| DecodeError::Malformed("a string is not UTF-8"))
    }

    /// Refuses bytes behind the end of `what`.
    pub fn finish(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Malformed(what)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_are_leb128() {
        let mut out = Vec::new();
        put_varint(&mut out, 0);
        put_varint(&mut out, 127);
        put_varint(&mut out, 300);
        put_zigzag(&mut out, -1);
        put_zigzag(&mut out, i64::MIN);
        assert_eq!(out[..5], [0, 127, 0xac, 2, 1]);
        assert_eq!(out[5..], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    }

    #[test]
    fn overlong_varints_are_refused() {
        let above = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(matches!(Reader::new(&above).varint("x"), Err(DecodeError::Malformed(_))));
        assert!(matches!(Reader::new(&[0x80; 11]).varint("x"), Err(DecodeError::Malformed(_))));
        assert_eq!(Reader::new(&[0x80; 9]).varint("x"), Err(DecodeError::Truncated("x")));
    }

    proptest! {
        #[test]
        fn integers_survive(values in prop::collection::vec(any::<i64>(), 0..50), shift in 0..64) {
            let values: Vec<i64> = values.iter().map(|value| value >> shift).collect();
            let mut out = Vec::new();
            let mut length = 0;
            for &value in &values {
                put_zigzag(&mut out, value);
                length += varint_len(zigzag(value));
            }
            prop_assert_eq!(out.len(), length);
            let mut reader = Reader::new(&out);
            for &value in &values {
                prop_assert_eq!(reader.zigzag("x")?, value);
            }
            prop_assert!(reader.finish("x").is_ok());
        }
    }
}
