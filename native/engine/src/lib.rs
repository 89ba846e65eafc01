//! The engine of metrana: takes points in a fraction of a microsecond, keeps them through
//! `kill -9`, and hands sealed batches to a transport.
//!
//! It knows no Python. The path of a point is
//! ring (memory that survives the process) → sealed batch in the spool (disk) → transport;
//! `docs/decisions/001-frame-and-batch.md` draws every byte of it.

// What tests inside and outside share names the crate.
#[cfg(test)]
extern crate self as metrana_engine;

mod admission;
pub mod attributes;
pub mod batch;
pub mod calls;
mod chunk;
mod clock;
mod closing;
pub mod config;
pub mod counters;
pub mod declarations;
pub mod deliver;
mod drain;
pub mod engine;
pub mod engine_log;
pub mod error;
mod first_contact;
mod intake;
pub mod named_spool;
mod opening;
pub mod platform;
mod problems;
pub mod record;
pub mod recovery;
pub mod renderings;
pub mod ring;
pub mod run_folder;
pub mod seal;
pub mod sender;
pub mod series;
pub mod server_state;
mod shapes;
mod shared;
pub mod spool;
pub mod spool_source;
pub mod status;
pub mod steps;
pub mod sync;
mod takeover;
pub mod transport;
pub mod types;

/// The version of the engine, which is that of the Python package too.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
