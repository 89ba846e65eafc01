//! The seam between the engine and whoever delivers its batches: two small traits, so that the
//! engine starts and runs the same with a sender, without one, and in a test.

use std::time::Duration;

use crate::transport::{Heartbeat, OpenedRun, Refusal};
use crate::types::Seq;

/// What the engine asks of whoever delivers its batches. No method blocks but `stop`.
pub trait Delivery: Send + Sync {
    /// Frames up to `seq` are in the spool. `urgent`: somebody waits for them (flush, close).
    fn frames_available(&self, seq: Seq, urgent: bool);

    /// No frame follows `last_seq`: tell the server once all is acknowledged.
    fn finish(&self, last_seq: Seq);

    /// Ends the thread and waits for it at most this long; `false`: it still runs.
    fn stop(&self, timeout: Duration) -> bool;
}

/// What a deliverer tells the engine, from its own thread. No method blocks for long, and none
/// calls [`Delivery`] back.
pub trait DeliveryEvents: Send + Sync {
    /// An attempt to connect begins.
    fn on_connecting(&self);
    /// The server opened the run for this writer; with cursors the first time.
    fn on_opened(&self, opened: OpenedRun);
    /// A stream is open (`true`) or was lost.
    fn on_connected(&self, connected: bool);
    /// A message with a batch left.
    fn on_sent(&self);
    /// Everything up to `seq` is durable on the server.
    fn on_acked(&self, seq: Seq);
    /// The server has closed this writer: its answer to the end of the stream.
    fn on_ended(&self);
    /// The server will not have this run: nothing more is sent.
    fn on_refused(&self, refusal: Refusal);
    /// An attempt to connect or send failed and will be made again. `report`: the user should hear
    /// of it.
    fn on_failure(&self, problem: String, report: bool);
    /// The counters a heartbeat carries.
    fn heartbeat(&self) -> Heartbeat;
}
