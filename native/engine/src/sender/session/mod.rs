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

mod output;
mod time;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::shared::{Command, Shared};
use super::spool::{FrameSource, SpoolItem};
use super::window::Window;
use super::{SenderHost, SenderSettings, backoff};
use crate::engine_log::EngineLog;
use crate::transport::{BatchStream, ClientMessage, ServerMessage, TransportError};
use crate::types::Seq;

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
    /// What a server said to have that is not there: of a spool that a power cut has shortened that
    /// may well be so, and then it says so again.
    pub disbelieved: Option<Seq>,
    /// Streams in a row that were given up in silence: each doubles the patience with the next.
    pub silences: u32,
}

/// What a stream shares with its supervisor.
pub(super) struct Surroundings<'a> {
    pub settings: &'a SenderSettings,
    pub shared: &'a Shared,
    pub host: &'a dyn SenderHost,
    pub ending: Ending,
    /// See [`SenderConfig`](super::SenderConfig).
    pub oldest: Option<Seq>,
    pub log: &'a EngineLog,
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
        let closing = *commands.borrow_and_update() == Command::Close;
        self.fill()?;
        if closing && self.is_complete() {
            return Ok(self.end());
        }
        if let Phase::Draining { renew, .. } = self.phase
            && self.window.is_empty()
        {
            return Ok(Some(if renew { Outcome::Renew } else { Outcome::Reconnect }));
        }
        let deadline = self.next_deadline();
        if deadline <= Instant::now() {
            // Under load there is always something to send, and time passes all the same.
            return self.tick();
        }
        match self.next_input(commands, deadline).await {
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
    async fn next_input(
        &mut self,
        commands: &mut watch::Receiver<Command>,
        deadline: Instant,
    ) -> Input {
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

    /// Once more than there is is taken for a mistake, and the batches are sent again.
    fn check_exists(&mut self, acked: Seq) -> Result<(), Failure> {
        let shared = self.around.shared;
        if acked <= shared.last().max(self.window.last_read()) {
            return Ok(());
        }
        let text = format!("the server acknowledged batch {acked}, which does not exist");
        if shared.has_ended() && self.carried.disbelieved.is_some_and(|before| before <= acked) {
            self.around.log.warn(format_args!("{text} any more"));
            return Ok(());
        }
        self.carried.disbelieved = Some(acked);
        Err(unreachable(text).into())
    }

    fn receive(
        &mut self,
        message: Option<Result<ServerMessage, TransportError>>,
    ) -> Result<Option<Outcome>, Failure> {
        match message.ok_or_else(|| unreachable("the server ended the stream"))?? {
            ServerMessage::Welcome { server_version, stored } => {
                return Ok(self.welcome(server_version, stored));
            }
            ServerMessage::Ack(seq) => {
                self.check_exists(seq)?;
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
                self.around.log.info(format_args!("the server asks for a new stream"));
                let until = Some(Instant::now() + time::RECONNECT_GRACE);
                self.phase = Phase::Draining { renew: false, until };
            }
        }
        Ok(None)
    }

    fn welcome(&mut self, server_version: String, stored: Option<Seq>) -> Option<Outcome> {
        self.waiting_since = None;
        self.around.log.info(format_args!("the server (metrana {server_version}) took the stream"));
        self.around.shared.note_welcome(server_version);
        if let Some(job) = self.carried.on_welcome.take() {
            job();
        }
        if self.phase != Phase::Welcoming {
            return None;
        }
        self.phase = Phase::Streaming;
        self.around.host.on_welcome(Seq(self.carried.acked.0 + 1), stored);
        self.go_back(stored?)
    }

    /// Begins anew with what the server was believed to have, if it has not and the spool still has.
    fn go_back(&mut self, stored: Seq) -> Option<Outcome> {
        let begin = stored.max(Seq(self.around.oldest?.0.saturating_sub(1)));
        if begin >= self.carried.acked {
            return None;
        }
        let acked = self.carried.acked;
        self.around.log.warn(format_args!("the server has up to batch {stored}, not {acked}"));
        self.carried.acked = begin;
        Some(Outcome::Renew)
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
}

fn unreachable(text: impl Into<String>) -> TransportError {
    TransportError::Unreachable(text.into())
}
