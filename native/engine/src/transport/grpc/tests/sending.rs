//! The sender in its thread, over the real transport.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::proto::client_message::Body;
use super::*;
use crate::engine_log::EngineLog;
use crate::sender::{
    Connector, Destination, FrameSource, Sender, SenderConfig, SenderHost, SenderProblem,
    SenderSettings, Spool, SpoolItem,
};
use crate::server_state::ServerState;

/// Batches 1 to `count`, made when asked for.
struct Made {
    count: u64,
    next: u64,
}

struct MadeSpool(u64);

impl Spool for MadeSpool {
    fn open(&self, first: Seq) -> io::Result<Box<dyn FrameSource>> {
        Ok(Box::new(Made { count: self.0, next: first.0 }))
    }
}

impl FrameSource for Made {
    fn next(&mut self) -> io::Result<Option<SpoolItem>> {
        if self.next > self.count {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(SpoolItem::Batch(batch(self.next - 1, 1000))))
    }
}

#[derive(Default)]
struct Host {
    acked: AtomicU64,
}

impl SenderHost for Host {
    fn on_acked(&self, seq: Seq) {
        self.acked.store(seq.0, Ordering::SeqCst);
    }

    fn on_problem(&self, problem: SenderProblem) {
        panic!("{problem}");
    }
}

fn start(destination: Destination, count: u64) -> (Sender, Arc<Host>) {
    let host = Arc::new(Host::default());
    let config = SenderConfig {
        connector: Arc::new(destination),
        spool: Box::new(MadeSpool(count)),
        host: Arc::clone(&host) as Arc<dyn SenderHost>,
        run_id: RUN,
        writer_id: WRITER,
        first_seq: Seq(1),
        oldest_seq: None,
        open: Some(open_run()),
        log: Arc::new(EngineLog::off()),
        settings: SenderSettings {
            max_send_retries: None,
            max_backoff: Duration::from_millis(100),
            ..SenderSettings::default()
        },
        background: None,
    };
    (Sender::start(config, Seq(count)).unwrap(), host)
}

fn at(url: &str) -> Destination {
    Destination::Server { url: url.to_owned(), token: None }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Closes the sender while the server goes on in this thread's runtime.
async fn close(sender: &Sender) {
    sender.close();
    until("the sender ends", || sender.wait(Duration::ZERO).is_some()).await;
    let report = sender.wait(Duration::ZERO).unwrap();
    assert!(report.ended, "{report:?}");
}

#[tokio::test]
async fn test_a_sender_opens_the_run_and_delivers_everything() {
    let server = Running::start(Manners::good());
    let (sender, host) = start(at(&server.url), 500);
    close(&sender).await;
    assert_eq!(host.acked.load(Ordering::SeqCst), 500);
    let seen = server.seen.lock();
    assert_eq!((seen.opened.len(), seen.streams, seen.watermark), (1, 1, 500));
    assert!(matches!(seen.messages.last(), Some(Body::End(end)) if end.last_seq == 500));
    assert_eq!(sender.counters().send_errors, 0);
}

#[tokio::test]
async fn test_a_sender_outlives_its_server_and_finds_the_next_one() {
    let mut server = Running::start(Manners::good());
    let (url, seen) = (server.url.clone(), Arc::clone(&server.seen));
    let address = url.trim_start_matches("http://").to_owned();
    let (sender, host) = start(at(&url), 4_000);
    until("half is delivered", || host.acked.load(Ordering::SeqCst) > 500).await;
    server.kill();
    until("it is noticed", || sender.counters().send_errors > 0).await;
    let again = Running::start_at(&address, Manners::good(), Arc::clone(&seen));
    close(&sender).await;
    assert_eq!(seen.lock().watermark, 4_000);
    assert_eq!(host.acked.load(Ordering::SeqCst), 4_000);
    drop(again);
}

#[tokio::test]
async fn test_a_server_that_sends_its_writers_away_is_obeyed() {
    let manners = Manners { sends_away: true, ..Manners::good() };
    let server = Running::start(manners);
    let (sender, _host) = start(at(&server.url), 50);
    // The first stream is never acknowledged; after the grace a second one is.
    close(&sender).await;
    assert_eq!(server.seen.lock().streams, 2);
    assert_eq!(sender.counters().send_errors, 0, "to be asked is no error");
}

#[tokio::test]
async fn test_a_stopped_sender_lets_go_of_a_mute_server() {
    let manners = Manners { is_mute: true, ..Manners::good() };
    let server = Running::start(manners);
    let (sender, host) = start(at(&server.url), 50);
    until("the run is opened", || !server.seen.lock().opened.is_empty()).await;
    sender.stop();
    until("the sender ends", || sender.wait(Duration::ZERO).is_some()).await;
    assert_eq!(host.acked.load(Ordering::SeqCst), 0);
}

// ── The local server ───────────────────────────────────────────────────────────────────────────

fn write_state(data_dir: &Path, url: &str, token: &str) {
    let path = ServerState::path(data_dir);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let state = format!(
        r#"{{"version": 1, "http_url": "", "grpc_url": "{url}", "token": "{token}", "pid": 1,
            "started_at_ms": 0}}"#
    );
    std::fs::write(path, state).unwrap();
}

#[tokio::test]
async fn test_a_local_server_is_found_again_at_another_port_with_another_token() {
    let data_dir = tempfile::tempdir().unwrap();
    let with = |token: &str| Manners { token: Some(token.to_owned()), ..Manners::good() };
    let mut first = Running::start(with("one"));
    let seen = Arc::clone(&first.seen);
    write_state(data_dir.path(), &first.url, "one");
    let destination = Destination::Local { data_dir: data_dir.path().to_owned() };
    assert_eq!(
        (destination.describe(), destination.url()),
        ("the local server".to_owned(), first.url.clone())
    );
    let (sender, host) = start(destination, 4_000);
    until("some is delivered", || host.acked.load(Ordering::SeqCst) > 500).await;
    first.kill();
    let second = Running::start_at("127.0.0.1:0", with("two"), Arc::clone(&seen));
    // Between the two a wrong token may be tried: that is no reason to give up here.
    write_state(data_dir.path(), &second.url, "one");
    until("the old token is refused", || sender.counters().send_errors > 2).await;
    write_state(data_dir.path(), &second.url, "two");
    close(&sender).await;
    assert_eq!(seen.lock().watermark, 4_000);
}

#[test]
fn test_no_local_server_is_unreachable() {
    let data_dir = tempfile::tempdir().unwrap();
    let destination = Destination::Local { data_dir: data_dir.path().to_owned() };
    let Err(error) = destination.transport() else { panic!("there is none") };
    assert_eq!(error, TransportError::Unreachable("no local server is running".to_owned()));
    assert_eq!(destination.url(), "the local server");
}
