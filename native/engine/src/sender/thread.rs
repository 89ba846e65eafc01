//! The sender's thread: a tokio runtime of its own that no signal reaches.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::sync::Mutex;
use tokio::runtime::Runtime;

use super::backoff::{Backoff, random_fraction};
use super::session::Ending;
use super::shared::{Cancel, Canceller, CloseReport, Connection, SenderCounters, Shared};
use super::supervisor::Supervisor;
use super::{Connector, SenderConfig, SenderSettings, StartError};
use crate::engine_log::EngineLog;
use crate::platform::without_signals;
use crate::transport::{OpenRun, OpenedRun, TransportError};
use crate::types::Seq;

/// A running sender. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Sender {
    /// Starts the thread; nothing is connected yet when this returns.
    ///
    /// `sealed` is the greatest seq that the spool holds already.
    ///
    /// # Errors
    ///
    /// The system has no thread or no descriptors to spare.
    pub fn start(config: SenderConfig, sealed: Seq) -> Result<Self, StartError> {
        let shared = Shared::new(sealed);
        let supervisor = Supervisor::new(config, Arc::clone(&shared), Ending::Closed);
        let finish = Finish(Arc::clone(&shared));
        let thread = spawn("metrana-sender", async move {
            let finish = finish;
            finish.0.finish(supervisor.run().await);
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Says that frames up to `seq` lie in the spool. Cheap: a store and, if the sender sleeps, a wake-up.
    pub fn notify(&self, seq: Seq) {
        self.shared.notify(seq);
    }

    pub fn counters(&self) -> SenderCounters {
        self.shared.counters()
    }

    pub fn connection(&self) -> Connection {
        self.shared.connection()
    }

    /// Asks the sender to send what is left, end the writer at the server, and end. Everything must
    /// have been sealed and notified. Returns at once: see [`Sender::wait`].
    pub fn close(&self) {
        self.shared.close();
    }

    /// Asks the sender to end now, whatever is unacknowledged. Returns at once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits at most `timeout` for the end of a sender that was closed, stopped, or refused for
    /// good; `None`: it has not ended. Blocks.
    pub fn wait(&self, timeout: Duration) -> Option<CloseReport> {
        let report = self.shared.wait(timeout)?;
        if let Some(thread) = self.thread.lock().take_if(|thread| thread.is_finished()) {
            // A panic has been reported already: the thread ended without a report of its own.
            drop(thread.join());
        }
        Some(report)
    }

    /// [`Sender::close`], [`Sender::wait`], and when that was in vain [`Sender::stop`]. Returns
    /// within `timeout`, whatever the server does. Blocks.
    pub fn close_within(&self, timeout: Duration) -> CloseReport {
        self.close();
        self.wait(timeout).unwrap_or_else(|| {
            self.stop();
            let error = self.connection().last_error;
            CloseReport {
                error: Some(error.unwrap_or_else(|| "there was not enough time".to_owned())),
                ..CloseReport::default()
            }
        })
    }

    /// For a forked child, where the thread does not exist: frees nothing and touches nothing.
    pub fn forget_after_fork(self) {
        std::mem::forget(self);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Leaves a report behind even if the sender panics, so that nobody waits for ever.
struct Finish(Arc<Shared>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish(CloseReport {
            error: Some("the sender's thread ended unexpectedly".to_owned()),
            ..CloseReport::default()
        });
    }
}

/// Opens a run from a thread of its own, so that the caller can wait in slices and look for Ctrl-C
/// in between. Dropping it gives up.
#[derive(Debug)]
pub struct PendingOpen {
    answer: std::sync::mpsc::Receiver<Result<OpenedRun, TransportError>>,
    last_error: Arc<Mutex<Option<TransportError>>>,
    _canceller: Canceller,
}

impl PendingOpen {
    /// Starts asking. While the server cannot be reached it is asked again, with the backoff of
    /// `settings`, and `log` hears why; a refusal that waiting would not change ends it.
    ///
    /// # Errors
    ///
    /// The system has no thread or no descriptors to spare.
    pub fn start(
        connector: Arc<dyn Connector>,
        request: OpenRun,
        settings: &SenderSettings,
        log: Arc<EngineLog>,
    ) -> Result<Self, StartError> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let (canceller, cancel) = Cancel::pair();
        let backoff = Backoff::new(settings.initial_backoff, settings.max_backoff, None);
        let last_error = Arc::new(Mutex::new(None));
        let errors = Arc::clone(&last_error);
        spawn("metrana-open", async move {
            let destination = connector.describe();
            log.info(format_args!("opening the run at {destination}"));
            let note = |error: TransportError, delay: Duration| {
                log.warn(format_args!("{destination}: {error}; asking again in {delay:.1?}"));
                *errors.lock() = Some(error);
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                // Whoever asked may have gone.
                result = open_run(&*connector, &request, backoff, note) => drop(sender.send(result)),
            }
        })?;
        Ok(Self { answer, last_error, _canceller: canceller })
    }

    /// Waits at most `timeout` for the answer; `None`: there is none yet. Blocks.
    pub fn wait(&self, timeout: Duration) -> Option<Result<OpenedRun, TransportError>> {
        self.answer.recv_timeout(timeout).ok()
    }

    /// Why the last attempt failed, for whoever has waited long enough.
    pub fn last_error(&self) -> Option<TransportError> {
        self.last_error.lock().clone()
    }
}

async fn open_run(
    connector: &dyn Connector,
    request: &OpenRun,
    mut backoff: Backoff,
    note: impl Fn(TransportError, Duration),
) -> Result<OpenedRun, TransportError> {
    loop {
        let result = match connector.transport() {
            Ok(transport) => transport.open_run(request.clone()).await,
            Err(error) => Err(error),
        };
        match result {
            Err(error) if error.is_retryable() => {
                backoff.fail();
                let delay = backoff.delay(random_fraction());
                note(error, delay);
                tokio::time::sleep(delay).await;
            }
            result => return result,
        }
    }
}

/// Sends all that a finished spool holds, in this thread. `last` is the last batch there ever was:
/// a server that says it has more is not believed. Blocks.
///
/// # Errors
///
/// The system has no descriptors to spare.
pub(crate) fn send_all(
    config: SenderConfig,
    last: Seq,
    ending: Ending,
    cancel: &Cancel,
) -> io::Result<CloseReport> {
    let shared = Shared::of_ended(last);
    shared.close();
    let supervisor = Supervisor::new(config, Arc::clone(&shared), ending);
    let runtime = runtime()?;
    let report = runtime.block_on(async {
        let sending = supervisor.run();
        tokio::pin!(sending);
        tokio::select! {
            report = &mut sending => return report,
            () = cancel.cancelled() => shared.stop(),
        }
        sending.await
    });
    runtime.shutdown_background();
    Ok(report)
}

/// Runs `work` in a thread with a runtime of its own.
fn spawn(
    name: &str,
    work: impl Future<Output = ()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    without_signals(|| {
        Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(work);
            // A name look-up that hangs must not keep the thread.
            runtime.shutdown_background();
        })
    })
}

fn runtime() -> io::Result<Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Of those that look up names: it says whose they are.
    runtime.thread_name("metrana-lookup").enable_time();
    #[cfg(feature = "grpc")]
    runtime.enable_io();
    runtime.build()
}
