//! A folder that somebody deletes or moves while its writer lives.

use std::sync::atomic::Ordering;

use super::{Drain, DrainError};
use crate::run_folder::{Fate, WriterFolder, WriterInfo, WriterPlace, write_acked};
use crate::seal::SealError;
use crate::spool_source::SpoolPlace;
use crate::types::Seq;

/// A writer's folder as its drain thread knows it.
#[derive(Debug)]
pub(crate) struct OwnFolder {
    pub place: WriterPlace,
    /// The same for the sender.
    spool_place: SpoolPlace,
    /// Whether it was somewhere else at the last look.
    is_moved: bool,
    /// Whether `writer.json` was written since it was claimed.
    is_announced: bool,
}

impl OwnFolder {
    /// One that is claimed and announced.
    pub fn new(place: WriterPlace, spool_place: SpoolPlace) -> Self {
        Self { place, spool_place, is_moved: false, is_announced: true }
    }
}

impl Drain {
    /// Somebody deleted the folder, or files in it: what is written there would vanish unseen, so it
    /// is made anew with all that can still be read. What was only moved is whole, and written on.
    pub(super) fn check_folder(&mut self) -> Result<(), DrainError> {
        let path = self.folder.place.path().display().to_string();
        let fate = self.fate();
        let is_moved = fate == Fate::Moved;
        if is_moved && !self.folder.is_moved {
            self.shared.report(format!(
                "the folder {path} was moved by somebody; what is logged goes along with it, into \
                 the file that is open"
            ));
        }
        self.folder.is_moved = is_moved;
        self.spool.set_moved(is_moved);
        if is_moved {
            return Ok(());
        }
        if fate == Fate::Deleted {
            self.claim_again()?;
        }
        let was_deleted = !self.folder.is_announced;
        let acked = Seq(self.shared.acked.load(Ordering::Acquire));
        if was_deleted {
            // Whoever follows would miss what has been acknowledged.
            if acked > Seq(0) {
                write_acked(self.folder.place.path(), acked)?;
            }
            self.folder.place.write_info(&self.info(), self.spool.files())?;
            self.folder.is_announced = true;
        }
        let rescued = self.spool.rescue(acked).map_err(SealError::from)?;
        if !was_deleted && rescued.is_none() {
            return Ok(());
        }
        let rescued = rescued.unwrap_or_default();
        let place = match self.folder.place.path().display().to_string() {
            new if new == path => String::new(),
            new => format!(" in {new}, because {path} is another writer's now"),
        };
        self.shared.report(match rescued.lost_bytes {
            0 => format!("files in {path} were deleted by somebody; they were written anew{place}"),
            bytes => format!(
                "files in {path} were deleted by somebody; {} bytes could be written anew{place}, \
                 {bytes} bytes of sealed batches are lost",
                rescued.bytes
            ),
        });
        self.shared.spooled_bytes.store(self.spool.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn fate(&self) -> Fate {
        if self.folder.place.is_kept() {
            return Fate::Kept;
        }
        self.shared.folder.lock().as_ref().map_or(Fate::Kept, WriterFolder::fate)
    }

    /// Makes the folder anew. If another writer has come by its number, this one takes the next,
    /// rather than to keep what it seals in a file that has no name and goes with the process.
    /// The spool is this writer's by the id in each of its segments, not by the number.
    fn claim_again(&mut self) -> Result<(), DrainError> {
        let run = self.folder.place.restore_run(&self.settings.run)?;
        if let Some(folder) = &mut *self.shared.folder.lock() {
            folder.claim_again(&run, self.settings.writer_id)?;
            self.folder.place = folder.place().clone();
        }
        self.shared.writer_number.store(self.folder.place.number(), Ordering::Relaxed);
        self.folder.is_announced = false;
        self.spool.go_on_in(self.folder.place.path());
        self.folder.spool_place.set(self.folder.place.path());
        self.shared.ring.lock().set_folder(self.folder.place.path());
        Ok(())
    }

    /// What `writer.json` is to say: number and ring may be others than at the start.
    pub fn info(&self) -> WriterInfo {
        let ring = self.shared.ring.lock().kind().path().map(ToOwned::to_owned);
        WriterInfo { ring, number: self.folder.place.number(), ..self.settings.info.clone() }
    }
}
