//! What happens because time passes: heartbeats, rotation, and patience that runs out.

use std::time::Duration;

use tokio::time::Instant;

use super::{Failure, Outcome, Phase, Session, unreachable};
use crate::transport::ClientMessage;

/// Longest that a server which asked for a reconnect is given to acknowledge what it has.
pub(super) const RECONNECT_GRACE: Duration = Duration::from_secs(5);

/// Longest that a server is waited for, whatever the settings say: a year.
const MAX_PATIENCE: Duration = Duration::from_secs(365 * 86_400);

impl Session<'_> {
    /// Whether the server or the network owes something.
    fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Welcoming | Phase::Ending)
            || self.held.is_some()
            || self.broken
            || !self.window.is_empty()
    }

    /// How long the server may owe something: longer after each silence, or a link that takes
    /// longer for one batch would never get it through.
    fn patience(&self) -> Duration {
        let doubled =
            self.around.settings.ack_timeout.saturating_mul(1 << self.carried.silences.min(3));
        // A time beyond the reach of clocks would be none.
        doubled.min(MAX_PATIENCE)
    }

    pub(super) fn next_deadline(&mut self) -> Instant {
        let silent_at = if self.is_waiting() {
            Some(*self.waiting_since.get_or_insert_with(Instant::now) + self.patience())
        } else {
            self.waiting_since = None;
            None
        };
        let heartbeat_at = self.can_beat().then(|| self.heartbeat_at());
        let rotate_at = (self.phase == Phase::Streaming).then_some(self.rotate_at);
        let drained_at = match self.phase {
            Phase::Draining { until, .. } => until,
            _ => None,
        };
        [silent_at, heartbeat_at, rotate_at, drained_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + self.patience())
    }

    fn can_beat(&self) -> bool {
        self.phase != Phase::Welcoming && self.held.is_none() && !self.broken
    }

    fn heartbeat_at(&self) -> Instant {
        self.last_sent + self.around.settings.heartbeat_interval
    }

    pub(super) fn tick(&mut self) -> Result<Option<Outcome>, Failure> {
        let now = Instant::now();
        let patience = self.patience();
        if self.waiting_since.is_some_and(|since| now >= since + patience) {
            self.carried.silences += 1;
            let text = format!("no answer from the server for {} s", patience.as_secs_f64());
            return Err(unreachable(text).into());
        }
        if matches!(self.phase, Phase::Draining { until: Some(until), .. } if now >= until) {
            return Ok(Some(Outcome::Reconnect));
        }
        if self.phase == Phase::Streaming && now >= self.rotate_at {
            self.around.log.info(format_args!("the stream is old: a new one takes its place"));
            self.phase = Phase::Draining { renew: true, until: None };
        }
        if self.can_beat() && now >= self.heartbeat_at() {
            self.held = Some(ClientMessage::Heartbeat(self.around.host.heartbeat()));
        }
        Ok(None)
    }
}
