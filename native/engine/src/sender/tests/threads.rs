//! The sender in its thread, in real time. Nothing here asserts how long something took, but that
//! it ends although the server never answers.

use std::sync::mpsc;

use super::*;
use crate::transport::memory::{Action, refusal};
use crate::transport::{RefusalCode, TransportError};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn test_a_closed_sender_reports_that_all_was_delivered() {
    let rig = Rig::new(MemoryServer::new(), 50);
    let sender = Sender::start(rig.config(), Seq(50)).unwrap();
    let report = sender.close_within(LONG);
    assert_eq!(report, CloseReport { ended: true, acked: Seq(50), error: None });
    rig.assert_delivered(50);
    assert_eq!(sender.connection().state, ConnectionState::Over);
}

#[test]
fn test_notifications_from_another_thread_reach_a_sleeping_sender() {
    let rig = Rig::new(MemoryServer::new(), 0);
    let sender = Arc::new(Sender::start(rig.config(), Seq(0)).unwrap());
    let (spool, handle) = (rig.spool.clone(), Arc::clone(&sender));
    let drain = std::thread::spawn(move || {
        for seq in 1..=1000 {
            spool.push(batch(seq));
            handle.notify(Seq(seq));
        }
    });
    drain.join().unwrap();
    assert!(sender.close_within(LONG).ended);
    rig.assert_delivered(1000);
}

#[test]
fn test_close_returns_within_its_time_from_a_server_that_never_answers() {
    for action in [Action::FallSilent, Action::Drop] {
        let rig = Rig::new(MemoryServer::with_script(move |_| action.clone()), 5);
        let sender = Sender::start(rig.config(), Seq(5)).unwrap();
        let report = sender.close_within(Duration::from_millis(50));
        assert!(!report.ended && report.error.is_some());
        let report = sender.wait(LONG).expect("a stopped sender ends");
        assert_eq!((report.ended, report.acked), (false, Seq(0)));
        assert!(rig.host.acked.lock().is_empty());
    }
}

#[test]
fn test_a_stopped_sender_ends_at_once() {
    let rig = Rig::new(MemoryServer::with_script(|_| Action::FallSilent), 5);
    let sender = Sender::start(rig.config(), Seq(5)).unwrap();
    assert_eq!(sender.wait(Duration::ZERO), None);
    sender.stop();
    assert!(sender.wait(LONG).is_some_and(|report| !report.ended));
}

#[test]
fn test_the_background_job_runs_after_the_first_welcome_and_is_cancelled_with_the_sender() {
    let rig = Rig::new(MemoryServer::new(), 1);
    let (told, tells) = mpsc::channel();
    let server = Arc::clone(&rig.server);
    let job: BackgroundJob = Box::new(move |cancel| {
        told.send(server.records().hellos.len()).unwrap();
        while !cancel.is_cancelled() {
            std::thread::yield_now();
        }
        told.send(0).unwrap();
    });
    let config = SenderConfig { background: Some(job), ..rig.config() };
    let sender = Sender::start(config, Seq(1)).unwrap();
    assert_eq!(tells.recv_timeout(LONG), Ok(1), "a stream had begun");
    assert!(sender.close_within(LONG).ended);
    assert_eq!(tells.recv_timeout(LONG), Ok(0));
}

#[test]
fn test_a_panic_in_the_host_is_reported_and_nobody_waits_for_ever() {
    struct Panics;
    impl SenderHost for Panics {
        fn on_acked(&self, _: Seq) {
            panic!("on purpose");
        }
        fn on_problem(&self, _: SenderProblem) {}
    }
    let rig = Rig::new(MemoryServer::new(), 1);
    let config = SenderConfig { host: Arc::new(Panics), ..rig.config() };
    let sender = Sender::start(config, Seq(1)).unwrap();
    let report = sender.wait(LONG).unwrap();
    assert_eq!(report.error.as_deref(), Some("the sender's thread ended unexpectedly"));
}

// ── Opening a run ──────────────────────────────────────────────────────────────────────────────

fn open(server: &Arc<MemoryServer>) -> PendingOpen {
    let connector = Arc::new(MemoryTransport(Arc::clone(server)));
    let log = Arc::new(EngineLog::off());
    PendingOpen::start(connector, open_run(), &SenderSettings::default(), log).unwrap()
}

#[test]
fn test_opening_asks_again_until_the_server_is_there() {
    let mut attempts = 0;
    let server = MemoryServer::with_script(move |_| {
        attempts += 1;
        if attempts < 4 { Action::Drop } else { Action::Serve }
    });
    let opened = open(&server).wait(LONG).unwrap().unwrap();
    assert!(opened.created);
    assert_eq!(opened.run_name, "run");
}

#[test]
fn test_opening_ends_with_a_final_refusal() {
    let no = refusal(RefusalCode::RunExists, "held by job 7");
    let answer = Action::Refuse(no.clone());
    let server = MemoryServer::with_script(move |_| answer.clone());
    assert_eq!(open(&server).wait(LONG), Some(Err(TransportError::Refused(no))));
}

#[test]
fn test_opening_tells_why_there_is_no_answer_yet() {
    let server = MemoryServer::with_script(|_| Action::Drop);
    let pending = open(&server);
    assert_eq!(pending.wait(Duration::from_millis(20)), None);
    assert!(pending.last_error().is_some_and(|error| error.is_retryable()));
}
