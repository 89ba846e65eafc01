//! What the sender's thread and its owner both touch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::types::Seq;

/// What the owner wants of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Command {
    Run,
    /// Send what is left, end the writer, then end.
    Close,
    /// End now.
    Stop,
}

/// Counts since the sender began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    /// Streams that were tried, whether they came about or not.
    pub connection_attempts: u64,
    /// Batches sent, those sent again included.
    pub requests_sent: u64,
    /// Attempts and streams that failed.
    pub send_errors: u64,
}

/// How the sender is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    pub state: ConnectionState,
    /// Why the last attempt or stream failed; `None` once a later one has been acknowledged.
    pub last_error: Option<String>,
    /// When the last acknowledgement came.
    pub last_ack: Option<Instant>,
    /// Of the server that welcomed the last stream.
    pub server_version: Option<String>,
}

/// Where a sender is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// Never welcomed by a server so far.
    #[default]
    Connecting,
    /// A stream is open.
    Connected,
    /// Between two streams.
    Reconnecting,
    /// It has ended: closed, stopped, or refused for good.
    Over,
}

/// How a sender ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// The server has everything and has closed the writer.
    pub ended: bool,
    /// Everything up to here is durable at the server.
    pub acked: Seq,
    /// Why not everything was sent, if that is known.
    pub error: Option<String>,
}

/// One end of the sender; every method may be called from any thread and returns at once, except
/// [`Shared::wait`].
#[derive(Debug)]
pub(crate) struct Shared {
    /// Rung when there may be new frames.
    wake: Notify,
    sealed: AtomicU64,
    /// The last batch of a spool that grows no more.
    last: Seq,
    command: watch::Sender<Command>,
    connection_attempts: AtomicU64,
    requests_sent: AtomicU64,
    send_errors: AtomicU64,
    connection: Mutex<Connection>,
    report: Mutex<Option<CloseReport>>,
    reported: Condvar,
}

impl Shared {
    /// `sealed`: frames up to here may be sent.
    pub fn new(sealed: Seq) -> Arc<Self> {
        Self::with(sealed, Seq(u64::MAX))
    }

    /// Of a spool that grows no more: all that is in it may be sent. `last`: the last batch there
    /// ever was.
    pub fn of_ended(last: Seq) -> Arc<Self> {
        Self::with(Seq(u64::MAX), last)
    }

    fn with(sealed: Seq, last: Seq) -> Arc<Self> {
        Arc::new(Self {
            wake: Notify::new(),
            sealed: AtomicU64::new(sealed.0),
            last,
            command: watch::Sender::new(Command::Run),
            connection_attempts: AtomicU64::new(0),
            requests_sent: AtomicU64::new(0),
            send_errors: AtomicU64::new(0),
            connection: Mutex::default(),
            report: Mutex::default(),
            reported: Condvar::new(),
        })
    }

    /// Frames up to `seq` lie in the spool. A store and, if the sender sleeps, one wake-up.
    pub fn notify(&self, seq: Seq) {
        self.sealed.fetch_max(seq.0, Ordering::Release);
        self.wake.notify_one();
    }

    pub fn sealed(&self) -> Seq {
        Seq(self.sealed.load(Ordering::Acquire))
    }

    /// The last batch that a server can have.
    pub fn last(&self) -> Seq {
        self.sealed().min(self.last)
    }

    /// Whether it is a spool that grows no more.
    pub fn has_ended(&self) -> bool {
        self.last != Seq(u64::MAX)
    }

    /// Resolves when [`Shared::notify`] was called since the last time.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Gives a command; a weaker one than the last is ignored.
    pub(super) fn command(&self, command: Command) {
        self.command.send_if_modified(|current| {
            let stronger = command > *current;
            *current = command.max(*current);
            stronger
        });
    }

    pub fn close(&self) {
        self.command(Command::Close);
    }

    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    pub(super) fn commands(&self) -> watch::Receiver<Command> {
        self.command.subscribe()
    }

    /// Resolves once the owner wants the sender to end now.
    pub(super) async fn stopped(&self) {
        // The channel cannot close: its sending end is part of `self`.
        let _ = self.commands().wait_for(|command| *command == Command::Stop).await;
    }

    pub fn counters(&self) -> SenderCounters {
        SenderCounters {
            connection_attempts: self.connection_attempts.load(Ordering::Relaxed),
            requests_sent: self.requests_sent.load(Ordering::Relaxed),
            send_errors: self.send_errors.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count_attempt(&self) {
        self.connection_attempts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_request(&self) {
        self.requests_sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_failure(&self, error: String) {
        self.send_errors.fetch_add(1, Ordering::Relaxed);
        self.connection.lock().last_error = Some(error);
    }

    pub(super) fn note_welcome(&self, server_version: String) {
        let mut connection = self.connection.lock();
        connection.state = ConnectionState::Connected;
        connection.server_version = Some(server_version);
    }

    pub(super) fn note_ack(&self) {
        let mut connection = self.connection.lock();
        connection.last_ack = Some(Instant::now());
        connection.last_error = None;
    }

    pub(super) fn note_disconnected(&self) {
        let mut connection = self.connection.lock();
        if connection.state == ConnectionState::Connected {
            connection.state = ConnectionState::Reconnecting;
        }
    }

    pub fn connection(&self) -> Connection {
        self.connection.lock().clone()
    }

    pub(super) fn finish(&self, report: CloseReport) {
        self.connection.lock().state = ConnectionState::Over;
        self.report.lock().get_or_insert(report);
        self.reported.notify_all();
    }

    /// Waits at most `timeout` for the sender to end. Blocks.
    pub fn wait(&self, timeout: Duration) -> Option<CloseReport> {
        let begun = Instant::now();
        let mut report = self.report.lock();
        while report.is_none() {
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            report = self.reported.wait_for(report, left);
        }
        report.clone()
    }
}

/// Tells work in another thread to end soon.
#[derive(Clone, Debug)]
pub struct Cancel(Option<watch::Receiver<()>>);

/// Dropping it cancels.
#[derive(Debug)]
pub struct Canceller(#[allow(dead_code, reason = "it is the drop that counts")] watch::Sender<()>);

impl Cancel {
    /// For work that nobody cancels.
    pub fn never() -> Self {
        Self(None)
    }

    /// A cancellation and the hand that gives it.
    pub fn pair() -> (Canceller, Self) {
        let (sender, receiver) = watch::channel(());
        (Canceller(sender), Self(Some(receiver)))
    }

    /// Whether to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|receiver| receiver.has_changed().is_err())
    }

    /// Resolves when it is time to end.
    pub async fn cancelled(&self) {
        match &self.0 {
            // Nothing is ever sent: this waits for the other end to be dropped.
            Some(receiver) => while receiver.clone().changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_a_stronger_command_is_never_taken_back() {
        let shared = Shared::new(Seq(0));
        shared.stop();
        shared.close();
        assert_eq!(*shared.commands().borrow(), Command::Stop);
    }

    #[test]
    fn test_notify_never_lowers_what_is_sealed() {
        let shared = Shared::new(Seq(3));
        shared.notify(Seq(2));
        assert_eq!(shared.sealed(), Seq(3));
        shared.notify(Seq(8));
        assert_eq!(shared.sealed(), Seq(8));
    }

    #[test]
    fn test_wait_returns_the_first_report_and_nothing_before() {
        let shared = Shared::new(Seq(0));
        assert_eq!(shared.wait(Duration::ZERO), None);
        shared.finish(CloseReport { ended: true, acked: Seq(1), error: None });
        shared.finish(CloseReport::default());
        assert!(shared.wait(Duration::MAX).is_some_and(|report| report.ended));
    }

    #[test]
    fn test_cancel_follows_the_drop_of_its_canceller() {
        let (canceller, cancel) = Cancel::pair();
        assert!(!cancel.is_cancelled());
        drop(canceller);
        assert!(cancel.is_cancelled());
        assert!(!Cancel::never().is_cancelled());
    }
}
