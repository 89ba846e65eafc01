//! The mark on a writer's folder that stays where it is though all in it is delivered, because what
//! it began with is at another store: whoever finds it neither delivers the folder again nor deletes
//! it. The file holds the reason, for people.

use std::io;
use std::path::Path;

use super::RunFolderError;
use crate::platform::Durability;
use crate::spool::{Disk, replace_file};
use crate::types::Seq;

const KEPT: &str = "kept";

/// Marks the folder, whose lock the caller holds: batches `first` to `last` are not in it, nor where
/// the others were delivered.
///
/// # Errors
///
/// When it cannot be written.
pub fn keep(writer_folder: &Path, first: Seq, last: Seq) -> Result<(), RunFolderError> {
    let path = writer_folder.join(KEPT);
    let text = format!("{}\n", missing(first, last));
    replace_file(&Disk, &path, Durability::Durable, text.as_bytes())
        .map_err(RunFolderError::io("writing", &path))
}

/// A sentence for the user on a folder that is marked so, or is about to be.
pub fn missing_batches(writer_folder: &Path, first: Seq, last: Seq) -> String {
    sentence(writer_folder, &missing(first, last))
}

/// The same on a folder of which there may be more to come: its writer lives, or its ring is out of
/// reach.
pub fn missing_so_far(first: Seq, last: Seq) -> String {
    format!("{}; its folder is kept, for there may be more to come", missing(first, last))
}

/// The same on a folder that is kept without a mark: its own store may still get it.
pub fn missing_elsewhere(first: Seq, last: Seq) -> String {
    format!("{}; its folder is kept for the store it was logged for", missing(first, last))
}

/// The first of them, if the folder is marked. A mark that cannot be read is one.
pub(super) fn read(writer_folder: &Path) -> Option<String> {
    match std::fs::read(writer_folder.join(KEPT)) {
        Ok(text) => Some(sentence(writer_folder, String::from_utf8_lossy(&text).trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(sentence(writer_folder, &format!("its mark cannot be read: {error}"))),
    }
}

fn missing(first: Seq, last: Seq) -> String {
    let which = if first == last {
        format!("batch {first} is")
    } else {
        format!("batches {first} to {last} are")
    };
    format!(
        "{which} missing, for they were acknowledged by another store, or by one that was here \
         before, and the spool has them no more"
    )
}

fn sentence(writer_folder: &Path, why: &str) -> String {
    let why = if why.is_empty() { "batches are missing that it began with" } else { why };
    format!(
        "{why}; its folder is kept and not delivered again: delete {}, or only the file {KEPT:?} in \
         it to have it delivered to the store that has them",
        writer_folder.display()
    )
}
