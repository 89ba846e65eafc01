//! Whether the ring of a dead writer can be had.

use std::io;
use std::path::Path;

use super::{Recovery, RecoveryError};
use crate::ring::{Consumer, Ring, RingError};
use crate::run_folder::{self, WriterInfo};

/// A ring, as far as it can be had.
pub(super) enum Found {
    Ring(Ring, Consumer),
    /// Gone for good.
    Gone(String),
    /// Perhaps still somewhere.
    OutOfReach(String),
}

impl Recovery<'_> {
    pub(super) fn find_ring(&self) -> Found {
        let info = self.lock.info();
        if self.lock.is_forced() && info.ring.is_some() {
            return Found::Gone("it was on another machine".to_owned());
        }
        if let Some(why) = info.ring_loss() {
            return Found::Gone(why);
        }
        let Some(path) = info.ring.as_deref() else { return Found::Gone(String::new()) };
        match Ring::open_existing(path, info.writer_id) {
            Ok((ring, consumer)) => match ring.folder() {
                Some(own) if self.is_copy_of(&own) => {
                    Found::OutOfReach(format!("it is that of {}", own.display()))
                }
                _ => Found::Ring(ring, consumer),
            },
            Err(error) if error.is_missing() => Found::OutOfReach(format!(
                "{} is not in this machine's or container's memory",
                path.display()
            )),
            Err(error) => Found::OutOfReach(error.to_string()),
        }
    }

    /// Whether the folder that a ring belongs to is there still, besides this one: what is in the ring
    /// goes on behind what is in that one's spool, and must not be taken away from it.
    fn is_copy_of(&self, own: &Path) -> bool {
        let is_other = match (own.canonicalize(), self.lock.path().canonicalize()) {
            (Ok(own), Ok(this)) => own != this,
            _ => false,
        };
        is_other && run_folder::is_of_writer(own, self.lock.info().writer_id)
    }
}

/// Deletes the file of a ring whose header may not be there yet; its name says whose it is.
pub(super) fn remove_half_made(info: &WriterInfo) -> Result<(), RecoveryError> {
    let Some(path) = info.ring.as_deref() else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !name.ends_with(&info.writer_id.to_string()) {
        return Ok(());
    }
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RingError::Io { doing: "deleting", path: path.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}
