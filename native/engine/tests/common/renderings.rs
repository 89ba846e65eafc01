//! Renderings as a server keeps them: pieces at their offsets, verified when the last one comes.

use std::collections::BTreeMap;

use metrana_engine::batch::{RenderingEnd, decode_piece};
use metrana_engine::types::RenderingId;
use sha2::{Digest as _, Sha256};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Renderings {
    begun: BTreeMap<RenderingId, Vec<u8>>,
    pub whole: BTreeMap<RenderingId, (RenderingEnd, Vec<u8>)>,
}

impl Renderings {
    pub fn take(&mut self, payload: &[u8]) {
        let piece = decode_piece(payload).unwrap();
        if self.whole.contains_key(&piece.rendering_id) {
            return;
        }
        let bytes = self.begun.entry(piece.rendering_id).or_default();
        let (from, to) = (piece.offset as usize, piece.offset as usize + piece.data.len());
        bytes.resize(bytes.len().max(to), 0);
        bytes[from..to].copy_from_slice(piece.data);
        if let Some(end) = piece.last {
            let bytes = self.begun.remove(&piece.rendering_id).unwrap();
            assert_eq!((end.size, end.sha256), (bytes.len() as u64, Sha256::digest(&bytes).into()));
            self.whole.insert(piece.rendering_id, (end, bytes));
        }
    }
}
