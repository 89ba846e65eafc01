//! Pieces of renderings: `docs/decisions/001-frame-and-batch.md` draws the bytes.
//!
//! A piece says where it belongs, so it may be taken twice. The last one says what the whole is.

use super::error::DecodeError;
use super::varint::{Reader, put_str, put_varint, put_zigzag};
use super::{PAYLOAD_VERSION, read_header};
use crate::types::{BatchKind, MAX_ENV_ID_BYTES, MAX_EPISODE, MAX_RL_STEP, RenderingId};

/// Flag: the piece is the last one.
pub(super) const LAST: u8 = 1;

/// A stretch of a rendering's file.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderingPiece<'a> {
    pub rendering_id: RenderingId,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// What the whole is; `None`: more pieces follow.
    pub last: Option<RenderingEnd>,
    pub data: &'a [u8],
}

/// What the last piece of a rendering says of the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderingEnd {
    pub env_id: String,
    pub episode: i64,
    /// That of the first frame.
    pub rl_step: i64,
    /// Its place among the videos of the episode, from 1.
    pub part: u32,
    pub width: u32,
    pub height: u32,
    /// Frames a second.
    pub fps: f64,
    pub frame_count: u64,
    /// Bytes of the file.
    pub size: u64,
    pub sha256: [u8; 32],
}

impl RenderingEnd {
    /// Whether everything but size and checksum is in its range.
    ///
    /// # Errors
    ///
    /// What is not.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.env_id.is_empty() || self.env_id.len() > MAX_ENV_ID_BYTES {
            return Err("an env_id has 1 to 128 bytes");
        }
        if !(0..=MAX_EPISODE).contains(&self.episode) {
            return Err("an episode is 0 to 2^40 - 1");
        }
        if !(0..=MAX_RL_STEP).contains(&self.rl_step) {
            return Err("an rl_step is 0 to 2^48 - 1");
        }
        if self.part == 0 || self.width == 0 || self.height == 0 {
            return Err("part, width and height are at least 1");
        }
        if !self.fps.is_finite() || self.fps <= 0.0 {
            return Err("fps is a number above 0");
        }
        Ok(())
    }
}

/// Appends a piece's payload to `out`.
pub fn encode_piece(piece: &RenderingPiece<'_>, out: &mut Vec<u8>) {
    let RenderingPiece { rendering_id, offset, last, data } = piece;
    out.extend_from_slice(&PAYLOAD_VERSION.to_le_bytes());
    out.extend_from_slice(&[BatchKind::Renderings as u8, last.as_ref().map_or(0, |_| LAST)]);
    out.extend_from_slice(&rendering_id.0);
    out.extend_from_slice(&offset.to_le_bytes());
    if let Some(end) = last {
        put_str(out, &end.env_id);
        put_zigzag(out, end.episode);
        put_zigzag(out, end.rl_step);
        put_varint(out, u64::from(end.part));
        put_varint(out, u64::from(end.width));
        put_varint(out, u64::from(end.height));
        out.extend_from_slice(&end.fps.to_le_bytes());
        put_varint(out, end.frame_count);
        out.extend_from_slice(&end.size.to_le_bytes());
        out.extend_from_slice(&end.sha256);
    }
    out.extend_from_slice(data);
}

/// Bytes of a payload before the stretch of the file.
pub fn piece_head_len(last: Option<&RenderingEnd>) -> usize {
    let mut head = Vec::new();
    let (rendering_id, last) = (RenderingId([0; 16]), last.cloned());
    encode_piece(&RenderingPiece { rendering_id, offset: 0, last, data: &[] }, &mut head);
    head.len()
}

/// Reads a piece.
///
/// # Errors
///
/// [`DecodeError`] for bytes that are no piece of a rendering.
pub fn decode_piece(payload: &[u8]) -> Result<RenderingPiece<'_>, DecodeError> {
    const WHAT: &str = "a piece of a rendering";
    let mut reader = Reader::new(payload);
    let info = read_header(&mut reader)?;
    if info.kind != BatchKind::Renderings {
        return Err(DecodeError::Malformed("it is no piece of a rendering"));
    }
    // The header was whole, and its flags are known.
    let is_last = payload.get(3).is_some_and(|flags| flags & LAST != 0);
    let rendering_id = RenderingId(reader.array(WHAT)?);
    let offset = u64::from_le_bytes(reader.array(WHAT)?);
    let last = if is_last { Some(read_end(&mut reader)?) } else { None };
    let data = reader.bytes(reader.remaining(), WHAT)?;
    let behind = offset.checked_add(data.len() as u64).ok_or(DecodeError::Limit("an offset"))?;
    if last.as_ref().is_some_and(|end| end.size != behind) {
        return Err(DecodeError::Malformed("the last piece does not end where the rendering does"));
    }
    Ok(RenderingPiece { rendering_id, offset, last, data })
}

fn read_end(reader: &mut Reader<'_>) -> Result<RenderingEnd, DecodeError> {
    const WHAT: &str = "what a rendering is";
    let end = RenderingEnd {
        env_id: reader.str(MAX_ENV_ID_BYTES, WHAT)?.to_owned(),
        episode: reader.zigzag(WHAT)?,
        rl_step: reader.zigzag(WHAT)?,
        part: reader.varint_u32(WHAT)?,
        width: reader.varint_u32(WHAT)?,
        height: reader.varint_u32(WHAT)?,
        fps: f64::from_le_bytes(reader.array(WHAT)?),
        frame_count: reader.varint(WHAT)?,
        size: u64::from_le_bytes(reader.array(WHAT)?),
        sha256: reader.array(WHAT)?,
    };
    end.check().map_err(DecodeError::Malformed)?;
    Ok(end)
}
