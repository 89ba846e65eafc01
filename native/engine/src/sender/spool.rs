//! What a sender needs of a spool: frames in order from a seq on, following a live file.

use std::io;

use crate::transport::Batch;
use crate::types::Seq;

/// A writer's spool, seen by its sender.
pub trait Spool: Send {
    /// Begins reading where `first` lies. The frames start with the declarations of the segment
    /// that holds it; batches before it are left out.
    ///
    /// # Errors
    ///
    /// The spool cannot be read.
    fn open(&self, first: Seq) -> io::Result<Box<dyn FrameSource>>;
}

/// Frames in the spool's order. Reading may touch the disk.
pub trait FrameSource: Send {
    /// The next item; `None` if there is none *yet*: asked again later, there may be.
    ///
    /// # Errors
    ///
    /// The spool cannot be read.
    fn next(&mut self) -> io::Result<Option<SpoolItem>>;
}

/// What lies in a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolItem {
    Declarations {
        payload: Vec<u8>,
        payload_crc32c: u32,
    },
    Batch(Batch),
    /// Batches whose bytes are damaged; both ends included.
    Lost {
        first: Seq,
        last: Seq,
        message: String,
    },
}
