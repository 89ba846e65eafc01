//! The renderings that a dead writer left: what is finished is sealed, and of what was being encoded
//! all that can be played.

use std::path::PathBuf;

use super::{Recovery, RecoveryError, RingOutcome};
use crate::renderings::{self, OpenRendering, RenderingError, renderings_folder};
use crate::run_folder::{SenderKind, Watermark, WriterEnd, WriterInfo};
use crate::spool::{SpoolError, SpoolWriter};
use crate::types::{RenderingId, Seq};

/// By so much the numbers of batches jump if nobody knows the last one.
const JUMP: u64 = 1 << 32;

impl Recovery<'_> {
    /// Seals them, by id, and deletes what was on its way, if that is wanted. Of a ring out of reach
    /// the next number is not known for sure, and whoever has it comes by here as well. `true`: some are
    /// left that may still be sealed.
    pub(super) fn leaves_renderings(
        &mut self,
        ring: &RingOutcome,
        is_wanted: bool,
    ) -> Result<bool, RecoveryError> {
        let folder = self.lock.path().to_owned();
        let failed = |path: PathBuf| RecoveryError::io("listing", renderings_folder(&path));
        let all = renderings::list(&folder).map_err(failed(folder.clone()))?;
        let videos: Vec<_> = all.into_iter().filter(|(_, found)| found.has_video()).collect();
        let is_out_of_reach = matches!(ring, RingOutcome::OutOfReach { .. });
        if is_out_of_reach && !videos.is_empty() {
            self.problems.push(format!("renderings that wait for that ring: {}", videos.len()));
        }
        if is_out_of_reach || !is_wanted {
            return Ok(!videos.is_empty());
        }
        let mut are_left = false;
        for (id, found) in videos {
            let sealed = if found.has_whole { self.whole(id) } else { self.part(id) };
            match sealed {
                Ok(()) => {}
                Err(NotSealed::Rendering(error)) => {
                    are_left |= !error.is_for_good();
                    self.problems.push(format!("rendering {id} cannot be sealed: {error}"));
                }
                // There is no room for it, say, and what was in the ring is worth more than to be given
                // up for it.
                Err(NotSealed::Spool(error)) => {
                    self.problems.push(format!("rendering {id} cannot be sealed: {error}"));
                    return Ok(true);
                }
                Err(NotSealed::Recovery(error)) => return Err(error),
            }
        }
        renderings::remove_rest(&folder, self.options.spool.files.as_ref())
            .map_err(failed(folder))?;
        Ok(are_left)
    }

    fn whole(&mut self, id: RenderingId) -> Result<(), NotSealed> {
        let rendering = OpenRendering::whole(self.lock.path(), id)?;
        self.seal_rendering(rendering)
    }

    fn part(&mut self, id: RenderingId) -> Result<(), NotSealed> {
        match OpenRendering::part(self.lock.path(), id)? {
            Some(rendering) => self.seal_rendering(rendering),
            None => self.remove_rendering(id),
        }
    }

    fn seal_rendering(&mut self, mut rendering: OpenRendering) -> Result<(), NotSealed> {
        self.skip_unknown_batches()?;
        let mut spool = self.take_spool();
        let sealed = self.seal_pieces(&mut rendering, &mut spool);
        self.spool = Some(spool);
        sealed?;
        self.remove_rendering(rendering.id())
    }

    fn seal_pieces(
        &mut self,
        rendering: &mut OpenRendering,
        spool: &mut SpoolWriter,
    ) -> Result<(), NotSealed> {
        let mut is_last = false;
        while !is_last {
            rendering.read(self.sealer.payload_bytes())?;
            let names = &mut self.sealer.declarations;
            let sealed = rendering.seal(self.next_seq, true, spool, names)?;
            is_last = sealed.is_last;
            self.problems.extend(sealed.sync_problem.as_ref().map(not_forced));
            self.next_seq.0 += 1;
            self.piece_count += 1;
            if let Some(consumer) = &mut self.consumer {
                let released = consumer.release(consumer.tail(), self.next_seq);
                released.map_err(RecoveryError::from)?;
            }
        }
        // The file is about to go.
        if let Err(error) = spool.sync() {
            self.problems.push(not_forced(&error));
        }
        Ok(())
    }

    fn remove_rendering(&self, id: RenderingId) -> Result<(), NotSealed> {
        let path = self.lock.path();
        let removed = renderings::remove(path, id, self.options.spool.files.as_ref());
        Ok(removed.map_err(RecoveryError::io("deleting from", renderings_folder(path)))?)
    }

    /// Goes on in new segments behind what was found.
    pub(super) fn take_spool(&mut self) -> SpoolWriter {
        self.spool.take().unwrap_or_else(|| {
            let WriterInfo { writer_id, .. } = *self.lock.info();
            let options = self.options.spool.clone();
            SpoolWriter::resume(self.lock.path(), writer_id, options, self.summary)
        })
    }

    /// A number that the server has seen must not stand for other bytes. Mostly the ring, the end that
    /// the writer wrote down or its last segment says which is the next. If it sent its batches itself,
    /// deleted all that were acknowledged, and lost its ring, nothing does: an earlier recovery wrote
    /// down only what it found.
    fn skip_unknown_batches(&mut self) -> Result<(), RecoveryError> {
        let info = self.lock.info();
        let last_seq = info.last_seq.unwrap_or(0);
        self.next_seq = self.next_seq.max(Seq(last_seq + 1));
        // Before a writer deletes anything it writes its positions.
        let is_known = self.consumer.is_some()
            || info.ended == Some(WriterEnd::Closed)
            || info.sender == SenderKind::None
            || last_seq > 0
            || !self.summary.segments.is_empty()
            || matches!(self.lock.read_cursors(), Ok(None));
        if is_known || self.piece_count > 0 {
            return Ok(());
        }
        // First of all, so that nobody takes the numbers between for batches that are lost.
        let skipped = self.next_seq.0 - 1 + JUMP;
        let info = WriterInfo {
            last_seq: Some(skipped),
            acked: Some(skipped),
            ..self.lock.info().clone()
        };
        self.lock.write_info(info, self.options.spool.files.as_ref())?;
        self.watermark = Watermark::Known(Seq(skipped));
        self.next_seq = Seq(skipped + 1);
        Ok(())
    }
}

/// Why a rendering is not in the spool.
enum NotSealed {
    /// It cannot be read.
    Rendering(RenderingError),
    /// The spool does not take it.
    Spool(SpoolError),
    Recovery(RecoveryError),
}

impl From<RenderingError> for NotSealed {
    fn from(error: RenderingError) -> Self {
        Self::Rendering(error)
    }
}

impl From<SpoolError> for NotSealed {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

impl From<RecoveryError> for NotSealed {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(error)
    }
}

impl RecoveryError {
    fn io(doing: &'static str, path: PathBuf) -> impl FnOnce(std::io::Error) -> Self {
        move |source| SpoolError::Io { doing, path, source }.into()
    }
}

fn not_forced(error: &std::io::Error) -> String {
    format!("the spool could not be forced to the disk: {error}")
}
