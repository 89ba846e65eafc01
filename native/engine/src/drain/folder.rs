//! A folder that somebody deletes or moves while its writer lives.

use std::sync::atomic::Ordering;

use super::{Drain, DrainError};
use crate::run_folder::{Fate, WriterFolder, WriterInfo};
use crate::seal::SealError;
use crate::types::Seq;

impl Drain {
    /// Somebody deleted the folder, or files in it: what is written there would vanish unseen, so it
    /// is made anew with all that can still be read. What was only moved is whole, and written on.
    pub(super) fn check_folder(&mut self) -> Result<(), DrainError> {
        let path = self.settings.folder.display();
        let fate = self.shared.folder.lock().as_ref().map_or(Fate::Kept, WriterFolder::fate);
        if fate == Fate::Moved && self.is_in_place {
            self.shared.report(format!(
                "the folder {path} was moved by somebody; what is logged goes along with it as long \
                 as no new file is due"
            ));
        }
        self.is_in_place = fate != Fate::Moved;
        if fate == Fate::Deleted {
            // The ring may be another one by now.
            let ring = self.shared.ring.lock().kind().path().map(ToOwned::to_owned);
            let info = WriterInfo { ring, ..self.settings.info.clone() };
            if let Some(folder) = &mut *self.shared.folder.lock() {
                folder.restore(&self.settings.run, &info)?;
            }
        }
        let acked = Seq(self.shared.acked.load(Ordering::Acquire));
        let rescued = self.spool.rescue(acked).map_err(SealError::from)?;
        if fate != Fate::Deleted && rescued.is_none() {
            return Ok(());
        }
        let rescued = rescued.unwrap_or_default();
        self.shared.report(match rescued.lost_bytes {
            0 => format!("files in {path} were deleted by somebody; they were written anew"),
            bytes => format!(
                "files in {path} were deleted by somebody; {} bytes could be written anew, {bytes} \
                 bytes of sealed batches are lost",
                rescued.bytes
            ),
        });
        self.shared.spooled_bytes.store(self.spool.bytes(), Ordering::Relaxed);
        Ok(())
    }
}
