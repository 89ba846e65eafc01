//! Stream after stream until the writer is done: opens the run if need be, connects, waits between
//! failures, and stops where a server's no is final.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::backoff::{Backoff, random_fraction};
use super::session::{Carried, Ending, Failure, Outcome, Session, Surroundings};
use super::shared::{Cancel, Canceller, CloseReport, Command, Shared};
use super::{BackgroundJob, SenderConfig, SenderProblem, WhenSpent};
use crate::transport::{Hello, NameConflict, Refusal, RefusalCode, Transport, TransportError};
use crate::types::Seq;

/// A sender without its thread.
pub(crate) struct Supervisor {
    config: SenderConfig,
    shared: Arc<Shared>,
    ending: Ending,
    backoff: Backoff,
    carried: Carried,
    /// Cancels the background job when the sender ends.
    _canceller: Canceller,
}

impl Supervisor {
    pub fn new(mut config: SenderConfig, shared: Arc<Shared>, ending: Ending) -> Self {
        let settings = &config.settings;
        let backoff =
            Backoff::new(settings.initial_backoff, settings.max_backoff, settings.max_send_retries);
        if let Some(open) = &mut config.open {
            // Data exists by now, and steps are given out.
            open.name_conflict = NameConflict::Rename;
            open.want_cursors = false;
        }
        let (canceller, cancel) = Cancel::pair();
        let carried = Carried {
            acked: Seq(config.first_seq.0.saturating_sub(1)),
            lost: Vec::new(),
            on_welcome: config.background.take().map(|job| in_background(job, cancel)),
            disbelieved: None,
            silences: 0,
        };
        Self { config, shared, ending, backoff, carried, _canceller: canceller }
    }

    /// Runs until everything is sent and the writer ended, the owner stops it, or a refusal is
    /// final. What went wrong has been reported to the host by then.
    pub async fn run(mut self) -> CloseReport {
        let shared = Arc::clone(&self.shared);
        let error = tokio::select! {
            biased;
            () = shared.stopped() => self.shared.connection().last_error,
            end = self.attempts() => match end {
                Ok(()) => return self.report(true, None),
                Err(error) => Some(error),
            },
        };
        self.report(false, error)
    }

    fn report(&self, ended: bool, error: Option<String>) -> CloseReport {
        CloseReport { ended, acked: self.carried.acked, error }
    }

    async fn attempts(&mut self) -> Result<(), String> {
        loop {
            let acked_before = self.carried.acked;
            let began = Instant::now();
            let outcome = self.attempt().await;
            self.shared.note_disconnected();
            // A stream that carried something, or lasted, was no failure in a row.
            let lasted =
                began.elapsed() > self.config.settings.max_backoff.max(Duration::from_secs(1));
            if self.carried.acked > acked_before || (lasted && self.carried.silences == 0) {
                self.backoff.reset();
            }
            match outcome {
                Outcome::Complete => return Ok(()),
                Outcome::Renew => continue,
                Outcome::Reconnect => _ = self.backoff.fail(),
                Outcome::Failed(failure) => self.failed(failure)?,
            }
            self.pause().await;
        }
    }

    // ── One attempt ────────────────────────────────────────────────────────────────────────────

    async fn attempt(&mut self) -> Outcome {
        self.shared.count_attempt();
        let destination = self.config.connector.describe();
        self.config.log.info(format_args!("connecting to {destination}"));
        match self.connect().await {
            Ok(session) => session.run().await,
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn connect(&mut self) -> Result<Session<'_>, Failure> {
        let transport = self.config.connector.transport()?;
        self.open_run(&*transport).await?;
        let first = Seq(self.carried.acked.0 + 1);
        let frames =
            self.config.spool.open(first).map_err(|error| Failure::Spool(error.to_string()))?;
        let hello = Hello {
            run_id: self.config.run_id,
            writer_id: self.config.writer_id,
            first_seq: first,
            lost: self.carried.lost.clone(),
        };
        let patience = self.config.settings.ack_timeout;
        let stream = within(patience, transport.stream(hello)).await?;
        let around = Surroundings {
            settings: &self.config.settings,
            shared: &self.shared,
            host: &*self.config.host,
            ending: self.ending,
            oldest: self.config.oldest_seq,
            log: &self.config.log,
        };
        Ok(Session::new(around, &mut self.carried, frames, stream))
    }

    async fn open_run(&mut self, transport: &dyn Transport) -> Result<(), Failure> {
        if let Some(request) = self.config.open.clone() {
            let patience = self.config.settings.ack_timeout;
            let opened = within(patience, transport.open_run(request)).await?;
            self.config.host.on_opened(&opened);
            self.config.open = None;
        }
        Ok(())
    }

    // ── After a failure ────────────────────────────────────────────────────────────────────────

    /// Counts and reports a failure; an error if it is the last one.
    fn failed(&mut self, failure: Failure) -> Result<(), String> {
        let (text, refusal) = match failure {
            Failure::Transport(TransportError::Refused(refusal)) => {
                (refusal.to_string(), Some(refusal))
            }
            Failure::Transport(error @ TransportError::Unreachable(_)) => (error.to_string(), None),
            Failure::Spool(message) => (message, None),
        };
        self.config.log.warn(format_args!("sending failed: {text}"));
        self.shared.note_failure(text.clone());
        if let Some(refusal) = refusal
            && self.is_final(&refusal)
        {
            let destination = self.config.connector.describe();
            self.problem(SenderProblem::Refused { destination, refusal });
            return Err(text);
        }
        if self.backoff.fail() {
            self.problem(SenderProblem::RetriesSpent {
                destination: self.config.connector.describe(),
                failures: self.backoff.failures(),
                error: text.clone(),
            });
            if self.config.settings.when_spent == WhenSpent::GiveUp {
                return Err(text);
            }
        }
        self.config.host.on_retry(&text);
        Ok(())
    }

    fn is_final(&self, refusal: &Refusal) -> bool {
        match refusal.code {
            RefusalCode::Unauthenticated if self.config.connector.refreshes_token() => false,
            // The writer's lock leaves no other sender: it was a stream of our own, seen too late.
            RefusalCode::Superseded => false,
            _ => !refusal.retryable,
        }
    }

    fn problem(&self, problem: SenderProblem) {
        self.config.host.on_problem(problem);
    }

    /// Waits before the next attempt. A close cuts one wait short: its caller has little time.
    async fn pause(&mut self) {
        let mut commands = self.shared.commands();
        let was_closing = *commands.borrow_and_update() != Command::Run;
        let delay = self.backoff.delay(random_fraction());
        self.config.log.info(format_args!("the next attempt is made in {delay:.1?}"));
        tokio::select! {
            () = sleep(delay) => {}
            _ = commands.changed(), if !was_closing => {}
        }
    }
}

/// The call's result, if it comes in time.
async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    timeout(patience, call).await.unwrap_or_else(|_| {
        let text = format!("no answer from the server for {} s", patience.as_secs_f64());
        Err(TransportError::Unreachable(text))
    })
}

/// A thread for work beside the sender. It inherits the sender thread's signal mask.
fn in_background(job: BackgroundJob, cancel: Cancel) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        let thread = std::thread::Builder::new().name("metrana-deliver".to_owned());
        // Without a thread to spare, what earlier writers left waits for the next process.
        drop(thread.spawn(move || job(cancel)));
    })
}
