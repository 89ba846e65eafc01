//! Renderings on their way into the spool: `docs/decisions/004-renderings.md`.
//!
//! ```text
//! <writer>/renderings/<rendering_id>.json   what it is, written before the first frame
//!                     <rendering_id>.part   being encoded: a fragment a frame
//!                     <rendering_id>.tmp    being written anew as a plain file
//!                     <rendering_id>.mp4    finished: waits to be sealed, and is deleted then
//! ```
//!
//! The folder is the queue: it outlives the process as the ring does. A living writer seals what its
//! encoders say is finished, a piece at a time and only while no points wait; recovery seals what is
//! left when the writer is dead. A rendering that was interrupted is sealed again from its beginning,
//! with new seqs: a piece says where it belongs, so a server may get it twice.

mod file;
mod folder;
mod fragments;
mod queue;
mod sidecar;
mod writer;

pub use file::{OpenRendering, RenderingError, SealedPiece};
pub use folder::{LeftRenderings, has_left, left, renderings_folder};
pub(crate) use folder::{list, remove, remove_rest, video_count};
pub(crate) use queue::RenderingQueue;

#[cfg(test)]
pub(crate) mod tests;
