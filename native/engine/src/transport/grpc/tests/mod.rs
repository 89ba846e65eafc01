//! The real transport against a real tonic server on loopback.

mod sending;
mod server;

use std::sync::Arc;
use std::time::Duration;

use self::server::{Manners, Running};
use super::*;
use crate::transport::{
    Batch, EnvironmentCursor, Heartbeat, NameConflict, ResumeStrategy, SeriesCursor, WriterEnd,
    WriterIdentity,
};
use crate::types::{BatchKind, Position, RunId, Scale, Seq, WriterId};

const RUN: RunId = RunId([1; 16]);
const WRITER: WriterId = WriterId([2; 16]);
const LONG: Duration = Duration::from_secs(60);

// ── Messages ───────────────────────────────────────────────────────────────────────────────────

fn open_run() -> OpenRun {
    OpenRun {
        run_id: RUN,
        workspace_name: "w".to_owned(),
        project_name: "p".to_owned(),
        run_name: "r".to_owned(),
        experiment_name: "e".to_owned(),
        orchestration_id: "o".to_owned(),
        resume_strategy: ResumeStrategy::Allow,
        name_conflict: NameConflict::Rename,
        create_project_if_missing: true,
        by_run_id: false,
        created_at_ms: 5,
        writer: writer(2),
        earlier_writers: vec![writer(1)],
        want_cursors: true,
    }
}

fn writer(number: u32) -> WriterIdentity {
    WriterIdentity {
        writer_id: WRITER,
        number,
        logger_id: "l".to_owned(),
        host: "h".to_owned(),
        pid: 9,
        client_version: "v".to_owned(),
        opened_at_ms: 6,
        dead: number == 1,
    }
}

fn hello() -> Hello {
    Hello { run_id: RUN, writer_id: WRITER, first_seq: Seq(3), lost: vec![(Seq(4), Seq(5))] }
}

fn batch(seq: u64, bytes: usize) -> Batch {
    let payload = vec![7; bytes];
    let payload_crc32c = crc32c::crc32c(&payload);
    Batch { seq: Seq(seq), kind: BatchKind::Attributes, payload, payload_crc32c, urgent: true }
}

async fn next(stream: &mut BatchStream) -> Option<Result<ServerMessage, TransportError>> {
    tokio::time::timeout(LONG, stream.incoming.recv()).await.expect("the server answers")
}

// ── Opening ────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn test_opening_a_run_carries_every_field_and_brings_all_pages_of_cursors() {
    let server = Running::start(Manners::good());
    let opened = server.transport().open_run(open_run()).await.unwrap();
    assert_eq!(opened.run_id, Some(RUN));
    assert_eq!((opened.run_name.as_str(), opened.requested_name.as_str()), ("r-0a1b2c", "r"));
    assert!(opened.renamed().is_some_and(|warning| warning.contains("stored as \"r-0a1b2c\"")));
    assert!(opened.created);
    let labels = vec![("a".to_owned(), "2".to_owned()), ("z".to_owned(), "1".to_owned())];
    let series = |name: &str| SeriesCursor {
        metric_name: name.to_owned(),
        scale: Scale::Episode,
        labels: labels.clone(),
        env_id: "env".to_owned(),
        position: Position { rl_step: -1, episode: 7, step: -1 },
    };
    assert_eq!(opened.series_cursors, [series("a"), series("b")], "an unknown scale is left out");
    let environment = |name: &str| EnvironmentCursor {
        env_id: name.to_owned(),
        rl_step: 1,
        episode: 2,
        ended_episode: -1,
    };
    assert_eq!(opened.environment_cursors, [environment("a"), environment("b")]);
    let seen = server.seen.lock();
    assert_eq!(seen.opened, [proto::OpenRunRequest::from(open_run())]);
    assert_eq!(seen.opened[0].earlier_writers[0].number, 1);
    assert!(seen.user_agents[0].starts_with(concat!("metrana/", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn test_a_refused_run_says_why() {
    let refused = proto::Refused {
        code: proto::RefusalCode::OrchestrationMismatch.into(),
        message: "held by job 7".to_owned(),
        retryable: false,
    };
    let manners = Manners { refusal: Some(refused), ..Manners::good() };
    let server = Running::start(manners);
    let error = server.transport().open_run(open_run()).await.unwrap_err();
    let TransportError::Refused(refusal) = &error else { panic!("{error}") };
    assert_eq!(refusal.code, RefusalCode::OrchestrationMismatch);
    assert_eq!(error.to_string(), "held by job 7");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn test_a_server_of_another_version_is_refused_by_the_client() {
    let server = Running::start(Manners { version: 9, ..Manners::good() });
    let error = server.transport().open_run(open_run()).await.unwrap_err();
    assert!(error.to_string().contains("speaks version 9"), "{error}");
    let mut stream = server.transport().stream(hello()).await.unwrap();
    let Some(Err(TransportError::Refused(refusal))) = next(&mut stream).await else { panic!() };
    assert_eq!(refusal.code, RefusalCode::Version);
}

// ── Streaming ──────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn test_a_stream_carries_every_message_in_order_both_ways() {
    let server = Running::start(Manners { stored: Some(0), ..Manners::good() });
    let mut stream = server.transport().stream(hello()).await.unwrap();
    let welcome =
        ServerMessage::Welcome { server_version: "test".to_owned(), stored: Some(Seq(0)) };
    assert_eq!(next(&mut stream).await, Some(Ok(welcome)));
    let declarations = ClientMessage::Declarations { payload: vec![1, 2], payload_crc32c: 3 };
    let heartbeat =
        Heartbeat { points_added: 1, points_dropped: 2, points_pending: 3, spooled_bytes: 4 };
    let end = WriterEnd { last_seq: Seq(1), died: true };
    let messages = [
        declarations.clone(),
        ClientMessage::Batch(batch(1, 2_000_000)),
        ClientMessage::Heartbeat(heartbeat),
        ClientMessage::End(end),
    ];
    for message in messages.clone() {
        stream.outgoing.send(message).await.unwrap();
    }
    assert_eq!(next(&mut stream).await, Some(Ok(ServerMessage::Ack(Seq(1)))));
    assert_eq!(next(&mut stream).await, Some(Ok(ServerMessage::Ended)));
    drop(stream.outgoing);
    assert_eq!(stream.incoming.recv().await, None, "the server ends the stream after the client");
    let expected: Vec<_> = std::iter::once(ClientMessage::Hello(hello()))
        .chain(messages)
        .map(|message| proto::ClientMessage::from(message).body.unwrap())
        .collect();
    assert_eq!(server.seen.lock().messages, expected);
}

#[test]
fn test_a_welcome_is_read_with_and_without_what_is_stored() {
    for (bytes, stored) in
        [(&b"\x08\x01\x12\x01v\x18\x00"[..], Some(Seq(0))), (b"\x08\x01\x12\x01v", None)]
    {
        let welcome = <proto::Welcome as prost::Message>::decode(bytes).unwrap();
        let body = Some(proto::server_message::Body::Welcome(welcome));
        let read = wire::server_message(proto::ServerMessage { body }).unwrap();
        let server_version = "v".to_owned();
        assert_eq!(read, Some(ServerMessage::Welcome { server_version, stored }));
    }
}

#[tokio::test]
async fn test_the_token_travels_with_every_call_and_a_wrong_one_is_final() {
    let manners = Manners { token: Some("secret".to_owned()), ..Manners::good() };
    let server = Running::start(manners);
    let good = GrpcTransport::new(&server.url, Some("secret")).unwrap();
    good.open_run(open_run()).await.unwrap();
    let mut stream = good.stream(hello()).await.unwrap();
    assert!(next(&mut stream).await.unwrap().is_ok());
    assert!(!format!("{good:?}").contains("secret"));
    for token in [None, Some("wrong")] {
        let bad = GrpcTransport::new(&server.url, token).unwrap();
        let mut stream = bad.stream(hello()).await.unwrap();
        let streamed = next(&mut stream).await.unwrap().unwrap_err();
        for error in [bad.open_run(open_run()).await.unwrap_err(), streamed] {
            let TransportError::Refused(refusal) = &error else { panic!("{error}") };
            assert_eq!(refusal.code, RefusalCode::Unauthenticated);
            assert!(!error.is_retryable());
        }
    }
}

#[tokio::test]
async fn test_a_server_that_holds_its_headers_back_does_not_hold_up_the_caller() {
    let manners = Manners { header_delay: Duration::from_millis(200), ..Manners::good() };
    let server = Running::start(manners);
    let mut stream = server.transport().stream(hello()).await.unwrap();
    assert!(stream.incoming.try_recv().is_err(), "there is a stream before there are headers");
    // Its welcome is one of before it could say what it has.
    let welcome = next(&mut stream).await;
    assert!(
        matches!(welcome, Some(Ok(ServerMessage::Welcome { stored: None, .. }))),
        "{welcome:?}"
    );
}

#[tokio::test]
async fn test_a_full_server_holds_the_sender_back() {
    // Nobody reads, so windows and buffers fill up and the stream takes no more.
    let server = Running::start(Manners { is_mute: true, ..Manners::good() });
    let stream = server.transport().stream(hello()).await.unwrap();
    let fill = async {
        for seq in 1.. {
            stream.outgoing.send(ClientMessage::Batch(batch(seq, 1_000_000))).await.unwrap();
            assert!(seq < 100, "a hundred megabytes without a reader");
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), fill).await.is_err());
}

#[tokio::test]
async fn test_dropping_a_stream_ends_the_call_at_the_server() {
    let server = Running::start(Manners::good());
    let mut stream = server.transport().stream(hello()).await.unwrap();
    assert!(next(&mut stream).await.unwrap().is_ok());
    drop(stream);
    // The service and the running server hold two; the call's copy goes.
    let deadline = tokio::time::Instant::now() + LONG;
    while Arc::strong_count(&server.seen) > 2 {
        assert!(tokio::time::Instant::now() < deadline, "the call goes on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn test_no_server_is_unreachable_with_the_reason() {
    let mut server = Running::start(Manners::good());
    let transport = server.transport();
    let mut stream = transport.stream(hello()).await.unwrap();
    assert!(next(&mut stream).await.unwrap().is_ok());
    let url = server.url.clone();
    server.kill();
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert!(matches!(error, TransportError::Unreachable(_)), "{error}");
    let fresh = GrpcTransport::new(&url, None).unwrap();
    let error = fresh.open_run(open_run()).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(error.to_string().starts_with(&format!("cannot reach {url}/: ")), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn test_what_is_no_ingestion_server_is_named_as_such_and_tried_again() {
    let error = failure(&Status::unimplemented("unknown service"));
    assert_eq!(
        error.to_string(),
        "what answers there is no metrana ingestion server (unknown service)"
    );
    assert!(error.is_retryable(), "its load balancer may be about to replace it");
}

#[test]
fn test_destinations_of_a_wrong_form_are_refused_at_once() {
    for url in ["", "h:1", "ftp://h", "http://", "not a url"] {
        let error = GrpcTransport::new(url, None).unwrap_err();
        assert!(matches!(error, DestinationError::Url { .. }), "{url:?}: {error}");
    }
    let error = GrpcTransport::new("http://h", Some("line\nbreak")).unwrap_err();
    assert!(matches!(error, DestinationError::Token));
    assert!(GrpcTransport::new("https://example.org", Some("key")).is_ok(), "roots are found");
}
