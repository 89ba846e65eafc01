//! What a sender does when all goes well.

use super::*;
use crate::transport::ClientMessage;
use crate::transport::memory::{Action, Event};

#[tokio::test(start_paused = true)]
async fn test_batches_arrive_in_order_once_and_the_writer_is_ended() {
    let rig = Rig::new(MemoryServer::new(), 100);
    rig.deliver(100).await;
    let records = rig.server.records();
    let writer = &records.writers[&WRITER];
    assert_eq!(writer.arrivals, (1..=100).map(Seq).collect::<Vec<_>>());
    assert_eq!(writer.declarations, [b"declarations"]);
    assert!(writer.end.is_some_and(|end| !end.died));
    assert_eq!(rig.shared.counters().requests_sent, 100);
    assert_eq!(rig.shared.counters().send_errors, 0);
    assert_eq!(records.hellos.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn test_a_writer_that_died_is_ended_as_such() {
    let mut rig = Rig::new(MemoryServer::new(), 3);
    rig.ending = Ending::Died;
    rig.deliver(3).await;
    assert!(rig.server.records().writers[&WRITER].end.is_some_and(|end| end.died));
}

#[tokio::test(start_paused = true)]
async fn test_a_writer_left_open_is_not_ended() {
    let mut rig = Rig::new(MemoryServer::new(), 3);
    rig.ending = Ending::LeftOpen;
    let sender = rig.start();
    let report = rig.finish(sender).await;
    assert_eq!((report.ended, report.acked), (true, Seq(3)));
    assert_eq!(rig.server.records().writers[&WRITER].end, None);
}

#[tokio::test(start_paused = true)]
async fn test_frames_are_sent_as_they_are_sealed_and_none_before() {
    let rig = Rig::new(MemoryServer::new(), 0);
    let sender = rig.start();
    for seq in 1..=5 {
        rig.spool.push(batch(seq));
        rig.spool.push(batch(seq + 100));
        rig.spool.0.lock().pop();
        rig.shared.notify(Seq(seq));
        rig.server.until(|records| arrived(records) == seq as usize).await;
    }
    // Written, but the drain thread has not said so: the ring's tail may still be behind it.
    rig.spool.push(batch(6));
    rig.shared.notify(Seq(5));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(arrived(&rig.server.records()), 5);
    rig.shared.notify(Seq(6));
    rig.finish(sender).await;
    rig.assert_delivered(6);
}

#[tokio::test(start_paused = true)]
async fn test_no_more_than_max_pending_requests_are_unacknowledged() {
    // The server acknowledges every fourth batch; were a fifth sent before, it would see it.
    let unacked = Arc::new(Mutex::new((0, 0)));
    let seen = Arc::clone(&unacked);
    let server = MemoryServer::with_script(move |event| {
        let Event::Message { message: ClientMessage::Batch(batch), .. } = event else {
            return Action::Serve;
        };
        let mut seen = seen.lock();
        seen.0 += 1;
        seen.1 = seen.1.max(seen.0);
        if batch.seq.0.is_multiple_of(4) {
            seen.0 = 0;
            // Time enough for a sender that goes too far to do so.
            return Action::ServeAfter(Duration::from_secs(1));
        }
        Action::Withhold
    });
    let mut rig = Rig::new(server, 40);
    rig.settings.max_pending_requests = 4;
    rig.deliver(40).await;
    assert_eq!(unacked.lock().1, 4);
}

#[tokio::test(start_paused = true)]
async fn test_an_idle_sender_beats_with_its_hosts_numbers() {
    let rig = Rig::new(MemoryServer::new(), 1);
    let sender = rig.start();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let beats = rig.server.records().heartbeats.clone();
    assert_eq!(beats.len(), 6, "every 15 s");
    assert!(beats.iter().all(|beat| beat.points_added == 42));
    rig.finish(sender).await;
    assert_eq!(rig.shared.counters().send_errors, 0);
}

#[tokio::test(start_paused = true)]
async fn test_streams_are_replaced_under_load_without_loss_or_error() {
    let mut rig = Rig::new(MemoryServer::new(), 0);
    rig.settings.stream_lifetime = Duration::from_secs(1)..=Duration::from_secs(2);
    let sender = rig.start();
    for seq in 1..=600 {
        rig.spool.push(batch(seq));
        rig.shared.notify(Seq(seq));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.finish(sender).await;
    rig.assert_delivered(600);
    let records = rig.server.records();
    assert!((15..=31).contains(&records.hellos.len()), "{} streams in 30 s", records.hellos.len());
    assert_eq!(records.writers[&WRITER].arrivals.len(), 600, "nothing was sent twice");
    assert_eq!(rig.shared.counters().send_errors, 0);
}

#[tokio::test(start_paused = true)]
async fn test_a_run_that_is_not_open_is_opened_once_before_the_first_stream() {
    let server = MemoryServer::with_script(|event| match event {
        Event::Stream { attempt: 1, .. } => Action::Drop,
        Event::Stream { hello, .. } => {
            assert_eq!(hello.first_seq, Seq(1));
            Action::Serve
        }
        _ => Action::Serve,
    });
    let mut rig = Rig::new(server, 2);
    rig.open = Some(OpenRun { name_conflict: NameConflict::Refuse, ..open_run() });
    rig.deliver(2).await;
    assert_eq!(rig.server.records().opened, [open_run()]);
    assert_eq!(*rig.host.opened.lock(), 1);
}

#[tokio::test(start_paused = true)]
async fn test_batches_the_server_has_already_are_not_sent_again() {
    let server = MemoryServer::new();
    let rig = Rig::new(Arc::clone(&server), 10);
    rig.deliver(10).await;
    // The same writer in a new process that knows of no acknowledgement.
    server.script(|event| match event {
        Event::Stream { .. } => Action::Claim(Seq(10)),
        _ => Action::Serve,
    });
    let again = Rig { host: Arc::default(), shared: Shared::new(Seq(10)), ..rig };
    again.deliver(10).await;
    assert_eq!(again.shared.counters().requests_sent, 0);
}

#[tokio::test(start_paused = true)]
async fn test_a_sender_that_starts_behind_acknowledged_batches_says_so() {
    let rig = Rig::new(MemoryServer::new(), 9);
    let config = SenderConfig { first_seq: Seq(7), ..rig.config() };
    let supervisor = Supervisor::new(config, Arc::clone(&rig.shared), Ending::Closed);
    rig.shared.close();
    assert!(supervisor.run().await.ended);
    assert_eq!(rig.server.records().hellos[0].first_seq, Seq(7));
    assert_eq!(rig.server.applied(WRITER), [Seq(7), Seq(8), Seq(9)]);
    assert_eq!(rig.server.records().writers[&WRITER].declarations, [b"declarations"]);
}

fn arrived(records: &crate::transport::memory::Records) -> usize {
    records.writers.get(&WRITER).map_or(0, |writer| writer.arrivals.len())
}
