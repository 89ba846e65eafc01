//! A rendering's file, read in pieces that become batches.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::folder::{part_path, renderings_folder, sidecar_path, whole_path};
use super::fragments;
use super::sidecar::Sidecar;
use crate::batch::{RenderingEnd, RenderingPiece, encode_piece, piece_head_len};
use crate::spool::{DeclarationSource, Numbers, SealedBatch, SpoolError, SpoolWriter};
use crate::types::{BatchKind, Lsn, RenderingId, Seq};

/// Why a rendering cannot be sealed. It stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum RenderingError {
    /// The system refused.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A newer engine wrote it.
    #[error(
        "{}: version {version} is newer than this metrana reads: upgrade metrana to deliver it",
        path.display()
    )]
    Newer {
        /// The sidecar.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// What it is cannot be told.
    #[error("{0}")]
    Malformed(String),
}

impl RenderingError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether trying again makes no sense.
    pub fn is_for_good(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }
}

/// A rendering that is being sealed.
#[derive(Debug)]
pub struct OpenRendering {
    id: RenderingId,
    path: PathBuf,
    file: File,
    /// How much was read.
    read: u64,
    sha256: Sha256,
    /// Complete with the last piece.
    end: RenderingEnd,
    /// A piece that is read and not in the spool yet; empty: none.
    payload: Vec<u8>,
    buffer: Vec<u8>,
}

/// What a piece in the spool says.
#[derive(Debug)]
#[must_use = "a failed fsync is reported here and nowhere else"]
pub struct SealedPiece {
    /// The rendering is wholly in the spool.
    pub is_last: bool,
    /// See [`Appended`](crate::spool::Appended).
    pub sync_problem: Option<io::Error>,
}

impl OpenRendering {
    /// A rendering that is finished.
    ///
    /// # Errors
    ///
    /// [`RenderingError`].
    pub fn whole(writer_folder: &Path, id: RenderingId) -> Result<Self, RenderingError> {
        let folder = renderings_folder(writer_folder);
        let sidecar = Sidecar::read(&sidecar_path(&folder, id))?;
        let path = whole_path(&folder, id);
        let mut file = File::open(&path).map_err(RenderingError::io("opening", &path))?;
        let size = file.metadata().map_err(RenderingError::io("reading", &path))?.len();
        if size == 0 {
            return Err(RenderingError::Malformed(format!("{}: it is empty", path.display())));
        }
        let frame_count = match sidecar.frame_count {
            Some(count) => count,
            None => {
                fragments::frame_count(&mut file).map_err(RenderingError::io("reading", &path))?
            }
        };
        let end = RenderingEnd { frame_count, size, ..sidecar.end };
        Self::new(id, path, file, end)
    }

    /// What was encoded of a rendering before its writer died; `None`: not even a frame.
    ///
    /// # Errors
    ///
    /// [`RenderingError`].
    pub fn part(writer_folder: &Path, id: RenderingId) -> Result<Option<Self>, RenderingError> {
        let folder = renderings_folder(writer_folder);
        let sidecar = Sidecar::read(&sidecar_path(&folder, id))?;
        let path = part_path(&folder, id);
        let mut file = File::open(&path).map_err(RenderingError::io("opening", &path))?;
        let whole = fragments::whole(&mut file).map_err(RenderingError::io("reading", &path))?;
        let Some(whole) = whole else { return Ok(None) };
        let (size, frame_count) = (whole.bytes, whole.frame_count);
        let end = RenderingEnd { frame_count, size, ..sidecar.end };
        Self::new(id, path, file, end).map(Some)
    }

    fn new(
        id: RenderingId,
        path: PathBuf,
        mut file: File,
        end: RenderingEnd,
    ) -> Result<Self, RenderingError> {
        io::Seek::rewind(&mut file).map_err(RenderingError::io("reading", &path))?;
        let (sha256, payload, buffer) = (Sha256::new(), Vec::new(), Vec::new());
        Ok(Self { id, path, file, read: 0, sha256, end, payload, buffer })
    }

    /// Which it is.
    pub fn id(&self) -> RenderingId {
        self.id
    }

    /// Reads the next piece, of at most `payload_bytes`, unless it was read and is not sealed yet.
    /// Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`RenderingError`]: the rest cannot be sealed.
    pub fn read(&mut self, payload_bytes: usize) -> Result<(), RenderingError> {
        if !self.payload.is_empty() {
            return Ok(());
        }
        let rest = self.end.size - self.read;
        let room = |head: usize| payload_bytes.saturating_sub(head).max(1) as u64;
        let is_last = rest <= room(piece_head_len(Some(&self.end)));
        // The last one is never without a byte of its own.
        let count = if is_last { rest } else { room(piece_head_len(None)).min(rest - 1) };
        self.buffer.resize(count as usize, 0);
        self.file
            .read_exact(&mut self.buffer)
            .map_err(RenderingError::io("reading", &self.path))?;
        self.sha256.update(&self.buffer);
        if is_last {
            self.end.sha256 = self.sha256.clone().finalize().into();
        }
        let piece = RenderingPiece {
            rendering_id: self.id,
            offset: self.read,
            last: is_last.then(|| self.end.clone()),
            data: &self.buffer,
        };
        encode_piece(&piece, &mut self.payload);
        self.read += count;
        Ok(())
    }

    /// Appends what was read to the spool. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Nothing of it stays then, and the same call may be made again.
    pub fn seal(
        &mut self,
        seq: Seq,
        urgent: bool,
        spool: &mut SpoolWriter,
        names: &mut dyn DeclarationSource,
    ) -> Result<SealedPiece, SpoolError> {
        let batch = SealedBatch {
            kind: BatchKind::Renderings,
            urgent,
            seq,
            // From no ring.
            lsn_first: Lsn(0),
            lsn_last: Lsn(0),
            payload: &self.payload,
            uses: &Numbers::default(),
        };
        let appended = spool.append(&batch, names)?;
        self.payload.clear();
        let is_last = self.read == self.end.size;
        Ok(SealedPiece { is_last, sync_problem: appended.sync_problem })
    }
}
