//! What a sender does when something breaks. The server applies batches by the rule of the wire
//! contract, so a batch that is left out, or out of order, ends a test.

use proptest::prelude::*;

use super::*;
use crate::transport::memory::{Action, Event, refusal};
use crate::transport::{RefusalCode, WriterEnd};

/// Does `action` at message `index` of the first stream.
fn at_message(wanted: usize, action: Action) -> Arc<MemoryServer> {
    MemoryServer::with_script(move |event| match event {
        Event::Message { attempt: 1, index, .. } if index == wanted => action.clone(),
        _ => Action::Serve,
    })
}

#[tokio::test(start_paused = true)]
async fn test_every_batch_arrives_once_when_the_stream_breaks_at_any_message() {
    let actions = [
        Action::Drop,
        Action::ServeAndDrop,
        Action::FallSilent,
        Action::Reconnect,
        Action::Withhold,
        Action::AckTwice,
        // An acknowledgement that goes back.
        Action::Claim(Seq(0)),
        Action::ServeAfter(Duration::from_secs(20)),
        Action::ServeAfter(Duration::from_secs(70)),
        Action::Refuse(Refusal { retryable: true, ..refusal(RefusalCode::Unavailable, "busy") }),
    ];
    // Declarations, eight batches, the end.
    for index in 1..=10 {
        for action in &actions {
            let mut rig = Rig::new(at_message(index, action.clone()), 8);
            rig.settings.max_pending_requests = 3;
            rig.deliver(8).await;
            assert!(rig.host.problems.lock().is_empty(), "{action:?} at {index}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn test_a_broken_stream_goes_on_behind_what_was_acknowledged() {
    let rig = Rig::new(at_message(6, Action::Drop), 8);
    rig.deliver(8).await;
    let records = rig.server.records();
    assert_eq!(records.hellos[1].first_seq, Seq(5), "declarations and four batches got through");
    assert_eq!(records.writers[&WRITER].declarations.len(), 2, "each stream declares");
    assert_eq!(rig.shared.counters().connection_attempts, 2);
    assert_eq!(rig.shared.counters().send_errors, 1);
}

#[tokio::test(start_paused = true)]
async fn test_lost_acknowledgements_cause_repeats_that_the_server_recognises() {
    let server = MemoryServer::with_script(|event| match event {
        Event::Message { attempt: 1, index: 5, .. } => Action::ServeAndDrop,
        Event::Message { attempt: 1, .. } => Action::Withhold,
        _ => Action::Serve,
    });
    let rig = Rig::new(server, 8);
    rig.deliver(8).await;
    let records = rig.server.records();
    let arrivals: Vec<_> = records.writers[&WRITER].arrivals.iter().map(|seq| seq.0).collect();
    assert_eq!(arrivals[..5], [1, 2, 3, 4, 1], "nothing was acknowledged, so all is sent again");
    assert_eq!(records.hellos[1].first_seq, Seq(1));
}

#[tokio::test(start_paused = true)]
async fn test_silence_ends_a_stream_after_the_ack_timeout_and_patience_grows() {
    let began = tokio::time::Instant::now();
    let streams = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&streams);
    let server = MemoryServer::with_script(move |event| match event {
        Event::Stream { attempt, .. } => {
            seen.lock().push(began.elapsed().as_secs());
            if attempt < 4 { Action::FallSilent } else { Action::Serve }
        }
        _ => Action::Serve,
    });
    let mut rig = Rig::new(server, 1);
    rig.settings.max_backoff = Duration::from_millis(50);
    rig.deliver(1).await;
    assert_eq!(*streams.lock(), [0, 30, 90, 210]);
}

#[tokio::test(start_paused = true)]
async fn test_spent_retries_are_reported_once_and_the_batch_is_kept_and_sent_later() {
    let server = MemoryServer::with_script(|event| match event {
        Event::Stream { attempt: ..=20, .. } => Action::Drop,
        _ => Action::Serve,
    });
    let mut rig = Rig::new(server, 4);
    rig.settings.max_send_retries = Some(5);
    let sender = rig.start();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let problems = rig.host.problems.lock().clone();
    let [SenderProblem::RetriesSpent { failures: 6, .. }] = &problems[..] else {
        panic!("{problems:?}");
    };
    assert!(rig.shared.connection().last_error.is_some());
    let report = rig.finish(sender).await;
    assert!(report.ended);
    rig.assert_delivered(4);
    assert_eq!(rig.host.problems.lock().len(), 1);
    assert_eq!(rig.shared.connection().last_error, None, "an acknowledgement heals");
    assert_eq!(rig.shared.counters().send_errors, 20);
}

#[tokio::test(start_paused = true)]
async fn test_a_delivery_gives_up_when_its_retries_are_spent() {
    let mut rig = Rig::new(MemoryServer::with_script(|_| Action::Drop), 4);
    rig.settings.max_send_retries = Some(2);
    rig.settings.when_spent = WhenSpent::GiveUp;
    let sender = rig.start();
    let report = rig.finish(sender).await;
    assert_eq!((report.ended, report.acked), (false, Seq(0)));
    assert!(report.error.is_some());
    assert_eq!(rig.shared.counters().connection_attempts, 3);
}

#[tokio::test(start_paused = true)]
async fn test_a_final_refusal_is_reported_once_and_nothing_more_is_sent() {
    for code in [RefusalCode::Version, RefusalCode::Unauthenticated, RefusalCode::RunDeleted] {
        let server = MemoryServer::with_script(move |event| match event {
            Event::Message { index: 4, .. } => Action::Refuse(refusal(code, "no")),
            _ => Action::Serve,
        });
        let rig = Rig::new(server, 8);
        let report = rig.start().await.unwrap();
        assert_eq!((report.ended, report.acked), (false, Seq(2)));
        assert_eq!(report.error.as_deref(), Some("no"));
        let problems = rig.host.problems.lock();
        let [SenderProblem::Refused { refusal, .. }] = &problems[..] else {
            panic!("{problems:?}");
        };
        assert_eq!(refusal.code, code);
        assert_eq!(rig.server.records().hellos.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn test_an_acknowledgement_of_what_does_not_exist_frees_nothing() {
    let server = MemoryServer::with_script(|event| match event {
        Event::Stream { attempt: 1, .. } => Action::Claim(Seq(9)),
        _ => Action::Serve,
    });
    let rig = Rig::new(server, 8);
    let sender = rig.start();
    rig.server.until(|records| records.hellos.len() == 1).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.host.last_acked(), Seq(0));
    rig.finish(sender).await;
    rig.assert_delivered(8);
    assert_eq!(rig.shared.counters().send_errors, 1);
}

#[tokio::test(start_paused = true)]
async fn test_a_server_that_always_sends_away_is_not_hammered() {
    let server = MemoryServer::with_script(|event| match event {
        Event::Stream { .. } => Action::Reconnect,
        _ => Action::Serve,
    });
    let rig = Rig::new(server, 0);
    let sender = rig.start();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let streams = rig.server.records().hellos.len();
    assert!(streams < 250, "{streams} streams in ten minutes");
    rig.shared.stop();
    assert!(!sender.await.unwrap().ended);
}

// ── Damage ─────────────────────────────────────────────────────────────────────────────────────

fn damaged(seqs: RangeInclusive<u64>) -> SpoolItem {
    let (first, last) = (Seq(*seqs.start()), Seq(*seqs.end()));
    SpoolItem::Lost { first, last, message: "bit rot".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn test_damaged_batches_are_reported_announced_and_passed_over() {
    // At the beginning, in the middle, at the very end; the second range by a gap alone.
    for (lost, gap) in [(1..=2, false), (4..=5, false), (4..=5, true), (7..=8, false)] {
        let rig = Rig::new(MemoryServer::new(), 0);
        for seq in (1..=8).filter(|seq| !lost.contains(seq)) {
            if !gap && seq == lost.end() + 1 {
                rig.spool.push(damaged(lost.clone()));
            }
            rig.spool.push(batch(seq));
        }
        if *lost.end() == 8 {
            rig.spool.push(damaged(lost.clone()));
        }
        rig.shared.notify(Seq(8));
        let sender = rig.start();
        let report = rig.finish(sender).await;
        assert_eq!((report.ended, report.acked), (true, Seq(8)), "{lost:?}");
        assert_eq!(rig.server.applied(WRITER).len(), 6);
        assert_eq!(rig.host.problems.lock().len(), 1);
        let range = (Seq(*lost.start()), Seq(*lost.end()));
        assert_eq!(rig.server.records().hellos.last().unwrap().lost, [range]);
        assert_eq!(rig.shared.counters().send_errors, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn test_batches_missing_at_the_spools_end_are_reported_at_the_close() {
    let rig = Rig::new(MemoryServer::new(), 5);
    rig.shared.notify(Seq(7));
    let sender = rig.start();
    let report = rig.finish(sender).await;
    assert_eq!((report.ended, report.acked), (true, Seq(7)));
    let problems = rig.host.problems.lock();
    let [SenderProblem::Damaged { first: Seq(6), last: Seq(7), .. }] = &problems[..] else {
        panic!("{problems:?}");
    };
    let end = rig.server.records().writers[&WRITER].end;
    assert_eq!(end, Some(WriterEnd { last_seq: Seq(7), died: false }));
}

#[tokio::test(start_paused = true)]
async fn test_a_spool_that_cannot_be_read_is_tried_again() {
    struct Flaky(Mutex<usize>, TestSpool);
    impl Spool for Flaky {
        fn open(&self, first: Seq) -> io::Result<Box<dyn FrameSource>> {
            let mut failures = self.0.lock();
            *failures += 1;
            if *failures <= 3 { Err(io::Error::other("stale handle")) } else { self.1.open(first) }
        }
    }
    let rig = Rig::new(MemoryServer::new(), 3);
    let spool = Box::new(Flaky(Mutex::default(), rig.spool.clone()));
    let config = SenderConfig { spool, ..rig.config() };
    let supervisor = Supervisor::new(config, Arc::clone(&rig.shared), Ending::Closed);
    rig.shared.close();
    assert!(supervisor.run().await.ended);
    rig.assert_delivered(3);
    assert_eq!(rig.shared.counters().send_errors, 3);
}

// ── Anything ───────────────────────────────────────────────────────────────────────────────────

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => Just(Action::Serve),
        3 => Just(Action::Withhold),
        1 => Just(Action::AckTwice),
        1 => Just(Action::Claim(Seq(0))),
        2 => Just(Action::Drop),
        2 => Just(Action::ServeAndDrop),
        1 => Just(Action::FallSilent),
        1 => Just(Action::Reconnect),
        1 => (1..60_000u64).prop_map(|ms| Action::ServeAfter(Duration::from_millis(ms))),
        1 => Just(Action::Refuse(Refusal {
            retryable: true,
            ..refusal(RefusalCode::Unavailable, "later")
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn test_every_batch_arrives_once_whatever_a_server_does_for_a_while(
        actions in prop::collection::vec(any_action(), 0..60),
        pending in 1..6usize,
        count in 0..30u64,
        lifetime_ms in 1..100_000u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut actions = actions.into_iter();
            let server = MemoryServer::with_script(move |_| actions.next().unwrap_or(Action::Serve));
            let mut rig = Rig::new(server, 0);
            rig.settings.max_pending_requests = pending;
            rig.settings.max_send_retries = None;
            let lifetime = Duration::from_millis(lifetime_ms);
            rig.settings.stream_lifetime = lifetime..=2 * lifetime;
            let sender = rig.start();
            for seq in 1..=count {
                rig.spool.push(batch(seq));
                rig.shared.notify(Seq(seq));
                tokio::time::sleep(Duration::from_millis(seq * 100)).await;
            }
            let report = rig.finish(sender).await;
            assert_eq!(report, CloseReport { ended: true, acked: Seq(count), error: None });
            if count > 0 {
                rig.assert_delivered(count);
            }
            assert!(rig.host.problems.lock().is_empty());
        });
    }
}

#[test]
fn test_the_messages_of_problems_say_what_becomes_of_the_data() {
    let spent = SenderProblem::RetriesSpent {
        destination: "http://h:1".to_owned(),
        failures: 61,
        error: "refused".to_owned(),
    };
    assert_eq!(
        spent.to_string(),
        "61 attempts in a row to send to http://h:1 failed, the last with: refused. \
         The data is kept in the spool and sending is retried"
    );
}
