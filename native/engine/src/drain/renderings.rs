//! Finished renderings become batches: a piece at a time, and only while no points wait for it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Drain, DrainError, FIRST_RETRY, LAST_RETRY, LAST_RETRY_OF_END, Retry};
use crate::counters::Tally;
use crate::renderings::{self, OpenRendering, RenderingError};
use crate::seal::SealError;
use crate::shared::DrainRequest;
use crate::types::{RenderingId, Seq};

/// How far a writer is with its renderings.
#[derive(Debug, Default)]
pub(super) struct OwnRenderings {
    /// The one that is being sealed: the first of the queue.
    open: Option<OpenRendering>,
    retry: Option<Retry>,
    /// Somebody waits for all that are finished.
    is_urgent: bool,
    /// How many videos lie in the folder though the writer has ended.
    left: u64,
}

impl Drain {
    /// Seals the next piece of the oldest finished rendering, if there is one. A rendering that cannot
    /// be read is reported and stays where it is. `Err`: the spool takes nothing.
    pub(super) fn seal_rendering(
        &mut self,
        request: &DrainRequest,
        now: Instant,
    ) -> Result<(), ()> {
        let Some(id) = self.first_rendering() else {
            self.renderings.is_urgent = false;
            return Ok(());
        };
        let is_awaited = request.flush_to.is_some() || request.end_by.is_some();
        self.renderings.is_urgent |= is_awaited;
        // Nothing of a window whose other half is not in the spool yet is passed over.
        let has_to_wait = self.renderings.retry.as_ref().is_some_and(|retry| now < retry.at);
        if self.retry.is_some() || has_to_wait && !is_awaited {
            return Err(());
        }
        match self.seal_piece_of(id) {
            Ok(()) => {
                if self.renderings.retry.take().is_some() {
                    self.shared.note("renderings can be written to the spool again".to_owned());
                }
                Ok(())
            }
            Err(error) => {
                let is_ending = request.end_by.is_some();
                let longest = if is_ending { LAST_RETRY_OF_END } else { LAST_RETRY };
                let delay = if let Some(retry) = &self.renderings.retry {
                    (retry.delay * 2).min(longest)
                } else {
                    self.shared.report(format!(
                        "renderings cannot be written to the spool and wait in {}: {error}",
                        self.renderings_folder()
                    ));
                    FIRST_RETRY
                };
                self.renderings.retry = Some(Retry { at: Instant::now() + delay, delay });
                Err(())
            }
        }
    }

    /// How long the thread may sleep for the renderings that wait.
    pub(super) fn rendering_pause(&self) -> Duration {
        match &self.renderings.retry {
            _ if self.first_rendering().is_none() => Duration::MAX,
            Some(retry) => retry.at.saturating_duration_since(Instant::now()),
            None => Duration::ZERO,
        }
    }

    pub(super) fn first_rendering(&self) -> Option<RenderingId> {
        self.shared.renderings.lock().first()
    }

    fn renderings_folder(&self) -> String {
        renderings::renderings_folder(self.folder.place.path()).display().to_string()
    }

    fn seal_piece_of(&mut self, id: RenderingId) -> Result<(), DrainError> {
        self.check_folder()?;
        self.check_space()?;
        let mut rendering = match self.read_piece_of(id) {
            Ok(rendering) => rendering,
            Err(error) => {
                self.shared.report(format!("rendering {id} cannot be sealed: {error}"));
                self.done_with(None);
                return Ok(());
            }
        };
        let (seq, urgent) = (self.state.next_seq, self.renderings.is_urgent);
        let names = &mut self.sealer.declarations;
        let sealed = rendering.seal(seq, urgent, &mut self.spool, names);
        // If nothing was written, the same piece is the next.
        self.renderings.open = Some(rendering);
        let sealed = sealed.map_err(SealError::from)?;
        if let Some(error) = sealed.sync_problem {
            self.shared.report(format!("the spool could not be forced to the disk: {error}"));
        }
        self.state.next_seq = Seq(seq.0 + 1);
        self.consumer.release(self.consumer.tail(), self.state.next_seq)?;
        self.publish_piece(id, seq);
        if sealed.is_last {
            let (folder, files) = (self.folder.place.path(), self.spool.files());
            if let Err(error) = renderings::remove(folder, id, files) {
                self.shared.report(format!(
                    "rendering {id} is in the spool, but cannot be deleted where it was: {error}"
                ));
            }
            self.done_with(Some(seq));
        }
        Ok(())
    }

    /// The rendering, with its next piece read.
    fn read_piece_of(&mut self, id: RenderingId) -> Result<OpenRendering, RenderingError> {
        let mut rendering = match self.renderings.open.take() {
            Some(open) => open,
            None => OpenRendering::whole(self.folder.place.path(), id)?,
        };
        rendering.read(self.sealer.payload_bytes())?;
        Ok(rendering)
    }

    fn publish_piece(&mut self, id: RenderingId, seq: Seq) {
        self.shared.log.debug(format_args!("sealed batch {seq}: a piece of rendering {id}"));
        // It counts nothing, but the ledger knows which batches there are.
        self.shared.ledger.lock().sealed(seq, Tally::default());
        self.shared.spooled_bytes.store(self.spool.bytes(), Ordering::Relaxed);
        self.shared.advance(|progress| progress.last_seq = seq);
        if let Some(sender) = &self.sender {
            sender.notify(seq);
        }
    }

    fn done_with(&mut self, last: Option<Seq>) {
        self.renderings.open = None;
        self.shared.renderings.lock().pop(last);
        self.shared.advance(|progress| progress.renderings += 1);
    }

    /// At the thread's end: whatever lies there still is for recovery.
    pub(super) fn count_left_renderings(&mut self) {
        let waiting = u64::from(self.first_rendering().is_some());
        let in_folder = match renderings::video_count(self.folder.place.path()) {
            // What is in its place is another's.
            _ if !self.folder.place.is_kept() => 0,
            Ok(count) => count,
            // Not knowing counts as yes.
            Err(_) => 1,
        };
        self.renderings.left = waiting.max(in_folder);
        self.shared.renderings.lock().has_ended(self.renderings.left);
    }

    /// Says that recovery is left something, if it is.
    pub fn report_left_renderings(&self) {
        let (count, folder) = (self.renderings.left, self.renderings_folder());
        if count > 0 {
            let (are, they) = if count == 1 { (" is", "it") } else { ("s are", "them") };
            self.shared.report(format!(
                "{count} rendering{are} not in the spool yet; whoever delivers the run takes {they} \
                 from {folder}"
            ));
        }
    }

    pub(super) fn has_left_renderings(&self) -> bool {
        self.renderings.left > 0
    }
}
