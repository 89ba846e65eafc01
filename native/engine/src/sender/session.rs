//! One stream: from its hello to the moment when it is over, for whatever reason.
//!
//! ```text
//! Welcoming ── Welcome ──▶ Streaming ── all acked, owner closed ──▶ Ending ── Ended ──▶ over
//!                              │
//!                              └─ rotation, Reconnect, damage found ──▶ Draining ── acked ──▶ over
//! ```
//!
//! Any failure, refusal or silence ends it from every phase. Frames leave in the spool's order and
//! nothing is sent twice within a stream, so a server can be strict about the order.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::shared::{Command, Shared};
use super::spool::{FrameSource, SpoolItem};
use super::window::Window;
use super::{SenderHost, SenderProblem, SenderSettings, backoff};
use crate::transport::{BatchStream, ClientMessage, ServerMessage, TransportError, WriterEnd};
use crate::types::Seq;

/// Longest that a server which asked for a reconnect is given to acknowledge what it has.
const RECONNECT_GRACE: Duration = Duration::from_secs(5);

/// How a writer is left once all its batches are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By its own process.
    Closed,
    /// By a deliverer, for a process that died without a close record.
    Died,
    /// Open, because more of its data may turn up (a ring on another machine).
    LeftOpen,
}

/// Why a stream is over.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// All is at the server, the writer is ended or left open as it should be.
    Complete,
    /// Go on in a new stream at once: this one was old, or a gap has to be announced first.
    Renew,
    /// The server wants a new stream.
    Reconnect,
    Failed(Failure),
}

/// What went wrong.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    Transport(TransportError),
    Spool(String),
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

/// What outlives a stream.
pub(super) struct Carried {
    pub acked: Seq,
    /// Ranges that will never be sent.
    pub lost: Vec<(Seq, Seq)>,
    /// Run once, when a stream has been welcomed.
    pub on_welcome: Option<Box<dyn FnOnce() + Send>>,
    /// Streams in a row that were given up in silence: each doubles the patience with the next.
    pub silences: u32,
}

/// What a stream shares with its supervisor.
pub(super) struct Surroundings<'a> {
    pub settings: &'a SenderSettings,
    pub shared: &'a Shared,
    pub host: &'a dyn SenderHost,
    pub ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Welcoming,
    Streaming,
    /// Nothing new is sent; over when all is acknowledged.
    Draining {
        renew: bool,
        until: Option<Instant>,
    },
    Ending,
}

/// What kind of message went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Batch,
    Heartbeat,
    Other,
}

impl Sent {
    fn of(message: &ClientMessage) -> Self {
        match message {
            ClientMessage::Batch(_) => Self::Batch,
            ClientMessage::Heartbeat(_) => Self::Heartbeat,
            _ => Self::Other,
        }
    }
}

/// What a session waits for.
enum Input {
    Message(Option<Result<ServerMessage, TransportError>>),
    Sent(Sent),
    /// The transport takes no more messages.
    Broken,
    /// There may be frames, or a command.
    Woken,
    Time,
}

pub(super) struct Session<'a> {
    around: Surroundings<'a>,
    carried: &'a mut Carried,
    frames: Box<dyn FrameSource>,
    outgoing: mpsc::Sender<ClientMessage>,
    incoming: mpsc::Receiver<Result<ServerMessage, TransportError>>,
    window: Window,
    phase: Phase,
    /// The next message to go out.
    held: Option<ClientMessage>,
    /// Read from the spool before its owner said that it is sealed.
    early: Option<SpoolItem>,
    /// The spool had nothing more when it was last asked.
    exhausted: bool,
    /// The transport takes no more messages; `incoming` is about to say why.
    broken: bool,
    last_sent: Instant,
    waiting_since: Option<Instant>,
    rotate_at: Instant,
}

impl<'a> Session<'a> {
    pub fn new(
        around: Surroundings<'a>,
        carried: &'a mut Carried,
        frames: Box<dyn FrameSource>,
        stream: BatchStream,
    ) -> Self {
        let now = Instant::now();
        let lifetime = backoff::random_between(&around.settings.stream_lifetime);
        Self {
            window: Window::new(around.settings.max_pending_requests, carried.acked),
            around,
            carried,
            frames,
            outgoing: stream.outgoing,
            incoming: stream.incoming,
            phase: Phase::Welcoming,
            held: None,
            early: None,
            exhausted: false,
            broken: false,
            last_sent: now,
            waiting_since: None,
            rotate_at: now + lifetime,
        }
    }

    /// Runs the stream to its end.
    pub async fn run(mut self) -> Outcome {
        let mut commands = self.around.shared.commands();
        loop {
            match self.step(&mut commands).await {
                Ok(None) => {}
                Ok(Some(outcome)) => return outcome,
                Err(failure) => return Outcome::Failed(failure),
            }
        }
    }

    async fn step(
        &mut self,
        commands: &mut watch::Receiver<Command>,
    ) -> Result<Option<Outcome>, Failure> {
        // Looked at before the spool: what was sealed before the close is then surely seen.
        let closing = *commands.borrow_and_update() != Command::Run;
        self.fill()?;
        if closing && self.is_complete() {
            return Ok(self.end());
        }
        if let Phase::Draining { renew, .. } = self.phase
            && self.window.is_empty()
        {
            return Ok(Some(if renew { Outcome::Renew } else { Outcome::Reconnect }));
        }
        match self.next_input(commands).await {
            Input::Message(message) => self.receive(message),
            Input::Time => self.tick(),
            Input::Sent(sent) => {
                self.note_sent(sent);
                Ok(None)
            }
            Input::Broken => {
                self.broken = true;
                Ok(None)
            }
            Input::Woken => Ok(None),
        }
    }

    /// Waits for the next thing to happen, and sends what is held if it can be sent.
    async fn next_input(&mut self, commands: &mut watch::Receiver<Command>) -> Input {
        let deadline = self.next_deadline();
        tokio::select! {
            biased;
            message = self.incoming.recv() => Input::Message(message),
            permit = self.outgoing.reserve(), if self.held.is_some() && !self.broken => {
                match (permit, self.held.take()) {
                    (Ok(permit), Some(message)) => {
                        let sent = Sent::of(&message);
                        permit.send(message);
                        Input::Sent(sent)
                    }
                    _ => Input::Broken,
                }
            }
            () = self.around.shared.woken(), if self.wants_frames() => Input::Woken,
            _ = commands.changed() => Input::Woken,
            () = sleep_until(deadline) => Input::Time,
        }
    }

    // ── Out ────────────────────────────────────────────────────────────────────────────────────

    fn wants_frames(&self) -> bool {
        self.phase == Phase::Streaming && self.held.is_none() && self.window.has_room()
    }

    /// Reads until there is a message to send, or no more to read or no room.
    fn fill(&mut self) -> Result<(), Failure> {
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
        let announced = |seq| self.carried.lost.iter().any(|(a, b)| *a <= seq && seq <= *b);
        if announced(first) && announced(last) {
            self.window.read_lost(last);
            self.note_acked();
            return;
        }
        self.around.host.on_problem(SenderProblem::Damaged { first, last, message });
        self.carried.lost.push((first, last));
        self.phase = Phase::Draining { renew: true, until: None };
    }

    /// Whether nothing is left to send or to wait for.
    fn is_complete(&self) -> bool {
        self.wants_frames() && self.exhausted && self.early.is_none() && self.window.is_empty()
    }

    /// Ends the writer, all of whose batches are acknowledged.
    fn end(&mut self) -> Option<Outcome> {
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

    fn note_sent(&mut self, sent: Sent) {
        self.last_sent = Instant::now();
        if sent != Sent::Heartbeat {
            // A transport that took data has moved: on a slow link that is all there is to see.
            self.waiting_since = None;
        }
        if sent == Sent::Batch {
            self.around.shared.count_request();
        }
    }

    // ── In ─────────────────────────────────────────────────────────────────────────────────────

    fn receive(
        &mut self,
        message: Option<Result<ServerMessage, TransportError>>,
    ) -> Result<Option<Outcome>, Failure> {
        match message.ok_or_else(|| unreachable("the server ended the stream"))?? {
            ServerMessage::Welcome { server_version } => self.welcome(server_version),
            ServerMessage::Ack(seq) => {
                if seq > self.around.shared.sealed().max(self.window.last_read()) {
                    let text = format!("the server acknowledged batch {seq}, which does not exist");
                    return Err(unreachable(text).into());
                }
                if self.window.ack(seq) {
                    self.note_acked();
                }
            }
            ServerMessage::Ended if self.phase == Phase::Ending => {
                // Lost batches at the very end are acknowledged by nothing else.
                self.window.ack(self.window.last_read());
                self.note_acked();
                return Ok(Some(Outcome::Complete));
            }
            ServerMessage::Ended => {
                return Err(unreachable("the server ended a writer that has not ended").into());
            }
            ServerMessage::Refused(refusal) => {
                return Err(TransportError::Refused(refusal).into());
            }
            ServerMessage::Reconnect => {
                let until = Some(Instant::now() + RECONNECT_GRACE);
                self.phase = Phase::Draining { renew: false, until };
            }
        }
        Ok(None)
    }

    fn welcome(&mut self, server_version: String) {
        if self.phase == Phase::Welcoming {
            self.phase = Phase::Streaming;
        }
        self.waiting_since = None;
        self.around.shared.note_welcome(server_version);
        if let Some(job) = self.carried.on_welcome.take() {
            job();
        }
    }

    fn note_acked(&mut self) {
        if self.window.acked() > self.carried.acked {
            self.waiting_since = None;
            self.carried.silences = 0;
            self.carried.acked = self.window.acked();
            self.around.shared.note_ack();
            self.around.host.on_acked(self.carried.acked);
        }
    }

    // ── Time ───────────────────────────────────────────────────────────────────────────────────

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
        self.around.settings.ack_timeout * (1 << self.carried.silences.min(3))
    }

    fn next_deadline(&mut self) -> Instant {
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

    fn tick(&mut self) -> Result<Option<Outcome>, Failure> {
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
            self.phase = Phase::Draining { renew: true, until: None };
        }
        if self.can_beat() && now >= self.heartbeat_at() {
            self.held = Some(ClientMessage::Heartbeat(self.around.host.heartbeat()));
        }
        Ok(None)
    }
}

fn unreachable(text: impl Into<String>) -> TransportError {
    TransportError::Unreachable(text.into())
}
