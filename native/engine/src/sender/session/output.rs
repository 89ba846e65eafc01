//! What goes out: frames in the spool's order, and the end.

use tokio::time::Instant;

use super::super::SenderProblem;
use super::super::spool::SpoolItem;
use super::{Ending, Failure, Outcome, Phase, Sent, Session};
use crate::transport::{ClientMessage, WriterEnd};
use crate::types::Seq;

impl Session<'_> {
    pub(super) fn wants_frames(&self) -> bool {
        self.phase == Phase::Streaming && self.held.is_none() && self.window.has_room()
    }

    /// Reads until there is a message to send, or no more to read or no room.
    pub(super) fn fill(&mut self) -> Result<(), Failure> {
        while self.wants_frames() {
            let item = match self.early.take() {
                Some(item) => Some(item),
                None => self.frames.next().map_err(|error| Failure::Spool(error.to_string()))?,
            };
            self.exhausted = item.is_none();
            match item {
                None => break,
                Some(SpoolItem::Batch(batch)) if batch.seq > self.around.shared.sealed() => {
                    self.early = Some(SpoolItem::Batch(batch));
                    break;
                }
                Some(SpoolItem::Batch(batch)) if batch.seq.0 > self.window.last_read().0 + 1 => {
                    let first = Seq(self.window.last_read().0 + 1);
                    let last = Seq(batch.seq.0 - 1);
                    self.early = Some(SpoolItem::Batch(batch));
                    self.skip_lost(first, last, "the spool does not hold them".to_owned());
                }
                Some(SpoolItem::Batch(batch)) => {
                    if self.window.read_batch(batch.seq) {
                        let (seq, bytes) = (batch.seq, batch.payload.len());
                        self.around.log.trace(format_args!("sending batch {seq}: {bytes} bytes"));
                        self.held = Some(ClientMessage::Batch(batch));
                    } else {
                        self.note_acked();
                    }
                }
                Some(SpoolItem::Declarations { payload, payload_crc32c }) => {
                    self.held = Some(ClientMessage::Declarations { payload, payload_crc32c });
                }
                Some(SpoolItem::Lost { first, last, message }) => {
                    self.skip_lost(first, last, message);
                }
            }
        }
        Ok(())
    }

    /// Passes over a range that cannot be read. The server waits for it unless this stream's hello
    /// announced it: if not, a new stream will.
    fn skip_lost(&mut self, first: Seq, last: Seq, message: String) {
        if last <= self.window.last_read() {
            return;
        }
        let is_announced = self.carried.lost.iter().any(|(a, b)| *a <= first && last <= *b);
        if is_announced {
            self.window.read_lost(last);
            self.note_acked();
            return;
        }
        self.around.host.on_problem(SenderProblem::Damaged { first, last, message });
        self.carried.lost.push((first, last));
        self.phase = Phase::Draining { renew: true, until: None };
    }

    /// Whether nothing is left to send or to wait for.
    pub(super) fn is_complete(&self) -> bool {
        self.wants_frames() && self.exhausted && self.early.is_none() && self.window.is_empty()
    }

    /// Ends the writer, all of whose batches are acknowledged.
    pub(super) fn end(&mut self) -> Option<Outcome> {
        let last_read = self.window.last_read();
        let sealed = self.around.shared.sealed();
        if sealed > last_read && sealed != Seq(u64::MAX) {
            let message = "the spool ends before them".to_owned();
            self.skip_lost(Seq(last_read.0 + 1), sealed, message);
            return None;
        }
        let died = match self.around.ending {
            Ending::LeftOpen => return Some(Outcome::Complete),
            Ending::Died => true,
            Ending::Closed => false,
        };
        self.held = Some(ClientMessage::End(WriterEnd { last_seq: last_read, died }));
        self.phase = Phase::Ending;
        None
    }

    pub(super) fn note_sent(&mut self, sent: Sent) {
        self.last_sent = Instant::now();
        if sent != Sent::Heartbeat {
            // A transport that took data has moved: on a slow link that is all there is to see.
            self.waiting_since = None;
        }
        if sent == Sent::Batch {
            self.around.shared.count_request();
        }
    }
}
