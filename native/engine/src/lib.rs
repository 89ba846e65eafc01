//! The engine of metrana: takes points in a fraction of a microsecond, keeps them through
//! `kill -9`, and hands sealed batches to a transport.
//!
//! It knows no Python. The path of a point is
//! ring (memory that survives the process) → sealed batch in the spool (disk) → transport;
//! `docs/decisions/001-frame-and-batch.md` draws every byte of it.

pub mod attributes;
pub mod batch;
pub mod calls;
pub mod config;
pub mod counters;
pub mod declarations;
pub mod engine;
pub mod error;
pub mod platform;
mod intake;
pub mod record;
pub mod recovery;
pub mod ring;
pub mod run_folder;
pub mod seal;
pub mod sender;
pub mod series;
pub mod server_state;
pub mod spool;
pub mod status;
pub mod steps;
pub mod transport;
pub mod types;

/// The version of the engine, which is that of the Python package too.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
