//! The engine with a server: what is acknowledged, what flush and close wait for.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{close, config, open, wait_until};
use metrana_engine::attributes::CloseStatus;
use metrana_engine::batch::peek;
use metrana_engine::calls::{Point, SeriesCall, Steps, Values};
use metrana_engine::config::{BackpressureStrategy, Connect, EngineConfig, ServerConfig};
use metrana_engine::engine::Engine;
use metrana_engine::error::{FlushError, OpenError, RefusalReason};
use metrana_engine::run_folder::{Liveness, RunFolder};
use metrana_engine::transport::memory::{Action, Event, MemoryServer, MemoryTransport, refusal};
use metrana_engine::transport::{OpenRun, RefusalCode, ResumeStrategy};
use metrana_engine::types::{RunId, Scale};

fn online(data_dir: &Path, server: &Arc<MemoryServer>) -> EngineConfig {
    let mut config = config(data_dir);
    let mut server = ServerConfig::new(Arc::new(MemoryTransport(Arc::clone(server))));
    server.connect = Connect::Required(Duration::from_secs(20));
    server.settings.max_backoff = Duration::from_millis(50);
    config.server = Some(server);
    config.batch.max_age = Duration::from_millis(20);
    config.queue.strategy = BackpressureStrategy::Block;
    config
}

fn log(engine: &Engine, count: u32) {
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    for i in 0..count {
        let value = f64::from(i);
        let point = Point { metric, step: None, timestamp_ms: None, value, distributed: false };
        engine.log_point(point).unwrap().settle(&mut || false).unwrap();
    }
}

fn points_at(server: &MemoryServer) -> u64 {
    let records = server.records();
    let batches = records.writers.values().flat_map(|writer| writer.batches.values());
    batches.map(|batch| peek(&batch.payload).unwrap().float_point_count).sum()
}

fn folders(data_dir: &Path) -> Vec<String> {
    let run = std::fs::read_dir(data_dir.join("spool")).unwrap().next().unwrap().unwrap().path();
    let names = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with('0')).collect()
}

#[test]
fn test_flush_waits_for_the_server_and_close_leaves_no_spool() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let engine = open(online(folder.path(), &server));
    log(&engine, 100);
    engine.flush(None, &mut || false).unwrap();
    assert_eq!(points_at(&server), 100);
    assert_eq!(engine.counters().sent.points(), 100);
    assert!(engine.status().connected && engine.status().last_ack_age.is_some());
    log(&engine, 50);
    close(&engine);
    assert_eq!(points_at(&server), 150);
    assert_eq!(engine.counters().pending.total(), 0);
    assert!(server.records().writers.values().all(|writer| writer.end.is_some()));
    assert_eq!(folders(folder.path()), Vec::<String>::new());
}

#[test]
fn test_an_engine_that_is_dropped_does_not_end_its_writer_at_the_server() {
    let server = MemoryServer::new();
    for _ in 0..100 {
        let folder = common::folder();
        let engine = open(online(folder.path(), &server));
        log(&engine, 1);
        engine.flush(None, &mut || false).unwrap();
        drop(engine);
    }
    assert!(server.records().writers.values().all(|writer| writer.end.is_none()));
}

#[test]
fn test_a_server_that_breaks_every_stream_gets_everything_once() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|event| match event {
        Event::Message { index, .. } if index % 5 == 0 => Action::ServeAndDrop,
        Event::Message { index, .. } if index % 7 == 0 => Action::Drop,
        _ => Action::Serve,
    });
    let engine = open(online(folder.path(), &server));
    for _ in 0..10 {
        log(&engine, 30);
        engine.flush(None, &mut || false).unwrap();
    }
    close(&engine);
    assert_eq!(points_at(&server), 300);
    assert_eq!(engine.counters().sent.points(), 300);
}

#[test]
fn test_flush_gives_up_at_its_timeout_and_close_leaves_the_rest_in_the_spool() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|event| match event {
        Event::Message { .. } => Action::FallSilent,
        _ => Action::Serve,
    });
    let engine = open(online(folder.path(), &server));
    wait_until("a stream", || engine.status().connected);
    log(&engine, 10);
    let error = engine.flush(Some(Duration::from_millis(50)), &mut || false).unwrap_err();
    assert!(matches!(error, FlushError::Timeout { pending: 10, .. }), "{error}");
    assert_eq!(engine.flush(None, &mut || true), Err(FlushError::Interrupted));
    let closed = engine.close(Duration::from_millis(50), CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { pending: 10, .. })), "{closed:?}");
    assert_eq!(common::contents(folder.path(), 1).points.len(), 10);
}

#[test]
fn test_close_without_patience_drops_what_is_unacked_and_counts_it() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|event| match event {
        Event::Message { .. } => Action::FallSilent,
        _ => Action::Serve,
    });
    let engine = open(online(folder.path(), &server));
    log(&engine, 10);
    engine.close(Duration::ZERO, CloseStatus::Failed, &mut || false).unwrap();
    let counters = engine.counters();
    assert_eq!((counters.dropped.points(), counters.pending.points()), (10, 0));
    assert_eq!(folders(folder.path()), Vec::<String>::new());
}

#[test]
fn test_close_without_patience_still_ends_the_run_at_a_server_that_answers() {
    let server = MemoryServer::new();
    // The server is given a moment, not as long as it takes: on a busy machine that may be missed.
    wait_until("an end in time", || {
        let folder = common::folder();
        let engine = open(online(folder.path(), &server));
        log(&engine, 10);
        engine.flush(None, &mut || false).unwrap();
        engine.close(Duration::ZERO, CloseStatus::Failed, &mut || false).unwrap();
        let writer_id = engine.identity().writer_id;
        let end = server.records().writers[&writer_id].end;
        assert_eq!(folders(folder.path()), Vec::<String>::new());
        end.is_some_and(|end| !end.died && end.last_seq.0 > 1)
    });
}

#[test]
fn test_a_run_that_never_reached_a_server_keeps_what_is_sealed() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|_| Action::Drop);
    let mut config = online(folder.path(), &server);
    if let Some(server) = &mut config.server {
        server.connect = Connect::Within(Duration::from_millis(10));
    }
    let engine = open(config);
    log(&engine, 10);
    engine.flush(None, &mut || false).unwrap();
    assert!(!engine.status().connected);
    engine.close(Duration::ZERO, CloseStatus::Finished, &mut || false).unwrap();
    assert_eq!(engine.counters().dropped.points(), 0);
    assert_eq!(common::contents(folder.path(), 1).points.len(), 10);
}

#[test]
fn test_a_server_that_comes_later_gets_what_was_logged_before() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|_| Action::Drop);
    let mut config = online(folder.path(), &server);
    if let Some(server) = &mut config.server {
        server.connect = Connect::Within(Duration::from_millis(10));
    }
    let engine = open(config);
    log(&engine, 10);
    engine.flush(None, &mut || false).unwrap();
    server.script(|_| Action::Serve);
    wait_until("the server to have the points", || engine.counters().sent.points() == 10);
    close(&engine);
    assert_eq!(points_at(&server), 10);
}

#[test]
fn test_a_refused_run_leaves_nothing_behind() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|event| match event {
        Event::OpenRun(_) => Action::Refuse(refusal(RefusalCode::RunExists, "it exists")),
        _ => Action::Serve,
    });
    let error = Engine::open(online(folder.path(), &server), &mut || false).unwrap_err();
    assert!(matches!(
        error,
        OpenError::Refused { reason: RefusalReason::RunExists, ref message } if message == "it exists"
    ));
    assert_eq!(std::fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
}

#[test]
fn test_a_run_id_resumes_where_nothing_but_its_server_knows_it() {
    let (here, there) = (common::folder(), common::folder());
    let server = MemoryServer::new();
    let first = open(online(here.path(), &server));
    let run_id = first.identity().run_id;
    close(&first);
    let mut resumed = online(there.path(), &server);
    resumed.run.orchestration_id = "another".to_owned();
    resumed.run.run_id = Some(run_id);
    let by_names = resumed.clone();
    resumed.run.run_name = None;
    let second = open(resumed.clone());
    let identity = second.identity();
    assert_eq!((identity.run_id, identity.run_name.as_str()), (run_id, "run"));
    close(&second);
    let names = common::folder();
    close(&open(EngineConfig { data_dir: names.path().to_owned(), ..by_names }));
    let opened = server.records().opened.clone();
    assert_eq!(opened[1].writer.writer_id, opened[2].writer.writer_id, "asked, then opened");
    let is_allowed = |request: &OpenRun| request.resume_strategy == ResumeStrategy::Allow;
    assert!(opened.iter().skip(1).all(is_allowed));
    resumed.run.run_id = Some(RunId([9; 16]));
    resumed.data_dir = names.path().to_owned();
    let error = Engine::open(resumed.clone(), &mut || false).unwrap_err();
    let code = RefusalReason::RunNotFound;
    assert!(matches!(error, OpenError::Refused { reason, .. } if reason == code), "{error}");
    resumed.server = None;
    let error = Engine::open(resumed, &mut || false).unwrap_err();
    assert!(matches!(error, OpenError::RunNotFound(_)), "{error}");
}

#[test]
fn test_a_small_spool_takes_any_number_of_points_if_the_server_does() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let mut config = online(folder.path(), &server);
    config.spool.max_bytes = Some(20_000);
    let engine = open(config);
    let metric = engine.metric("noise", Scale::MlStep, &[]).unwrap();
    let mut state = 1_u64;
    for _ in 0..20 {
        let values: Vec<_> = (0..1000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                f64::from_bits(state >> 2)
            })
            .collect();
        let values = Values::F64(&values);
        let call =
            SeriesCall { metric, steps: Steps::Next, timestamps: None, values, distributed: false };
        engine.log_series(&[call]).unwrap().settle(&mut || false).unwrap();
        engine.flush(Some(Duration::from_secs(20)), &mut || false).unwrap();
    }
    assert_eq!(points_at(&server), 20_000);
    close(&engine);
    assert_eq!(engine.counters().dropped.total(), 0);
}

#[test]
fn test_no_server_in_mode_online_is_an_error_that_names_it() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|_| Action::Drop);
    let mut config = online(folder.path(), &server);
    if let Some(server) = &mut config.server {
        server.connect = Connect::Required(Duration::from_millis(30));
    }
    let error = Engine::open(config.clone(), &mut || false).unwrap_err();
    let OpenError::NotConnected { url, problem, .. } = &error else { panic!("{error}") };
    assert_eq!((url.as_str(), problem.as_str()), ("memory://", "the connection was broken"));
    let error = Engine::open(config, &mut || true).unwrap_err();
    assert!(matches!(error, OpenError::Interrupted), "{error}");
    assert_eq!(std::fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
}

#[test]
fn test_acknowledged_segments_are_deleted_and_their_positions_kept() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let mut config = online(folder.path(), &server);
    config.spool.options.segment_bytes = 2048;
    let engine = open(config);
    for _ in 0..40 {
        log(&engine, 200);
        engine.flush(None, &mut || false).unwrap();
    }
    wait_until("old segments to go", || engine.status().spooled_bytes < 8 * 1024);
    drop(engine);
    let mut offline = common::config(folder.path());
    offline.batch.max_age = Duration::from_millis(10);
    wait_until("the positions", || {
        let next = open(offline.clone());
        let metric = next.metric("loss", Scale::MlStep, &[]).unwrap();
        let found = next.last_step(metric);
        close(&next);
        found == Some(40 * 200 - 1)
    });
}

#[test]
fn test_positions_written_before_segments_went_do_not_stand_in_for_later_ones() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let mut config = online(folder.path(), &server);
    config.spool.options.segment_bytes = 2048;
    let engine = open(config.clone());
    for _ in 0..40 {
        log(&engine, 200);
        engine.flush(None, &mut || false).unwrap();
    }
    wait_until("old segments to go", || engine.status().spooled_bytes < 8 * 1024);
    // What comes now is never acknowledged to it.
    server.script(|_| Action::Drop);
    log(&engine, 500);
    drop(engine);
    let runs = RunFolder::list(folder.path()).unwrap();
    wait_until("its end", || runs[0].writers().unwrap()[0].liveness == Liveness::Dead);
    server.script(|_| Action::Serve);
    config.run.run_name = Some("next".to_owned());
    let next = open(config);
    log(&next, 1);
    wait_until("the dead writer's points", || points_at(&server) == 40 * 200 + 500 + 1);
    close(&next);
    let offline = open(common::config(folder.path()));
    let metric = offline.metric("loss", Scale::MlStep, &[]).unwrap();
    assert_eq!(offline.last_step(metric), Some(40 * 200 + 500 - 1));
    close(&offline);
}

#[test]
fn test_what_an_earlier_process_left_is_delivered_beside_the_next() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|_| Action::Drop);
    let mut away = online(folder.path(), &server);
    if let Some(server) = &mut away.server {
        server.connect = Connect::Within(Duration::ZERO);
    }
    // One that closed without ever reaching the server, one that died.
    let closed = open(away.clone());
    log(&closed, 10);
    close(&closed);
    let died = open(away);
    log(&died, 20);
    drop(died);
    server.script(|_| Action::Serve);
    let engine = open(online(folder.path(), &server));
    log(&engine, 40);
    engine.flush(None, &mut || false).unwrap();
    wait_until("all writers' points", || {
        // The one that died lets go of its lock when its thread has ended, perhaps after the sweep.
        points_at(&server) == 70 || (points_at(&server) == 50 && folders(folder.path()).len() == 2)
    });
    close(&engine);
}
