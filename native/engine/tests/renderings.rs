//! Renderings of a writer that lives, and of writers that others deliver.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::gate::Gate;
use common::{Renderings, close, config, contents, open, wait_until, writer_folder};
use metrana_engine::attributes::CloseStatus;
use metrana_engine::calls::Point;
use metrana_engine::config::{Connect, EngineConfig, ServerConfig};
use metrana_engine::deliver::{DeadWriters, DeliveryEvent, DeliveryOptions, OnEvent};
use metrana_engine::engine::Engine;
use metrana_engine::error::{FlushError, LogError};
use metrana_engine::recovery::RecoveryOptions;
use metrana_engine::renderings::has_left;
use metrana_engine::run_folder::{Liveness, RunFolder, WriterEnd};
use metrana_engine::seal::SealSettings;
use metrana_engine::sender::Cancel;
use metrana_engine::spool::SpoolOptions;
use metrana_engine::sync::Mutex;
use metrana_engine::transport::memory::{MemoryServer, MemoryTransport};
use metrana_engine::types::{BatchKind, Compression, RenderingId, Scale};

const PATIENCE: Duration = Duration::from_secs(60);

fn id(number: u8) -> RenderingId {
    RenderingId([number; 16])
}

fn video(number: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| number.wrapping_add((at / 3) as u8)).collect()
}

/// Leaves a finished rendering in the folder, as an encoder does.
fn encode(engine: &Engine, number: u8, bytes: usize) -> PathBuf {
    let folder = engine.rendering_folder().unwrap().unwrap();
    let sidecar = format!(
        "{{\"version\": 1, \"env_id\": \"e\", \"episode\": {number}, \"rl_step\": 7, \"part\": 1, \
         \"width\": 64, \"height\": 48, \"fps\": 30.0, \"frame_count\": 5}}"
    );
    std::fs::write(folder.join(format!("{}.json", id(number))), sidecar).unwrap();
    std::fs::write(folder.join(format!("{}.mp4", id(number))), video(number, bytes)).unwrap();
    folder
}

fn finish(engine: &Engine, number: u8, bytes: usize) {
    encode(engine, number, bytes);
    engine.rendering_finished(id(number)).unwrap();
}

fn log(engine: &Engine) {
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let point = Point { metric, step: None, timestamp_ms: None, value: 1.0, distributed: false };
    engine.log_point(point).unwrap().settle(&mut || false).unwrap();
}

fn flush(engine: &Engine) {
    engine.flush(Some(PATIENCE), &mut || false).unwrap();
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

fn online(data_dir: &Path, server: &Arc<MemoryServer>) -> EngineConfig {
    let mut config = config(data_dir);
    let mut server = ServerConfig::new(Arc::new(MemoryTransport(Arc::clone(server))));
    server.connect = Connect::Required(Duration::from_secs(20));
    config.server = Some(server);
    config
}

fn at_server(server: &MemoryServer) -> Renderings {
    let mut renderings = Renderings::default();
    for writer in server.records().writers.values() {
        for batch in writer.batches.values().filter(|batch| batch.kind == BatchKind::Renderings) {
            renderings.take(&batch.payload);
        }
    }
    renderings
}

/// Delivers every dead writer; gives what was said.
fn deliver(data_dir: &Path, server: &Arc<MemoryServer>) -> Vec<String> {
    let connector = Arc::new(MemoryTransport(Arc::clone(server)));
    let dead = DeadWriters {
        data_dir: data_dir.to_owned(),
        of_destination: None,
        options: DeliveryOptions::new(connector, "local"),
        recovery: RecoveryOptions {
            spool: SpoolOptions::default(),
            seal: SealSettings { compression: Compression::None, payload_bytes: 5000 },
        },
        force: false,
    };
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&said);
    let on_event: OnEvent =
        Arc::new(move |event: DeliveryEvent<'_>| heard.lock().extend(event.problems()));
    dead.deliver(&Cancel::never(), &on_event);
    said.lock().clone()
}

#[test]
fn test_a_flush_waits_for_renderings_and_their_files_are_gone_then() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    let renderings = encode(&engine, 1, 3_000_000);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = renderings.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    engine.rendering_finished(id(1)).unwrap();
    finish(&engine, 2, 10);
    flush(&engine);
    assert!(is_empty(&renderings));
    log(&engine);
    close(&engine);
    let contents = contents(folder.path(), 1);
    assert_eq!(contents.renderings.whole[&id(1)].1, video(1, 3_000_000));
    assert_eq!(contents.renderings.whole[&id(2)].1, video(2, 10));
    let (end, _) = &contents.renderings.whole[&id(1)];
    assert_eq!((end.episode, end.frame_count, end.width), (1, 5, 64));
    assert_eq!((contents.points.len(), contents.problems.len()), (1, 0));
    let most = engine.child_config().batch.max_msg_size;
    assert!(contents.payload_bytes.iter().all(|bytes| *bytes < most));
    assert!(matches!(engine.rendering_finished(id(3)), Err(LogError::Closed)));
    assert!(engine.rendering_folder().unwrap().is_none());
}

#[test]
fn test_points_do_not_wait_for_a_large_rendering() {
    let folder = common::folder();
    let mut config = config(folder.path());
    config.batch.max_age = Duration::from_millis(1);
    config.batch.max_msg_size = 16 * 1024;
    let engine = open(config);
    finish(&engine, 1, 20_000_000);
    let mut logged = 0;
    while engine.counters().spooled.points() < 20 {
        log(&engine);
        logged += 1;
        let sealed = || engine.counters().spooled.points() == logged;
        wait_until("the point is sealed", sealed);
    }
    assert!(has_left(&writer_folder(folder.path(), 1)).unwrap(), "the rendering took less");
    close(&engine);
    let contents = contents(folder.path(), 1);
    assert_eq!((contents.points.len(), contents.renderings.whole.len()), (logged as usize, 1));
}

#[test]
fn test_a_rendering_that_cannot_be_read_is_told_once_and_does_not_stop_others() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    let renderings = encode(&engine, 1, 100);
    std::fs::write(renderings.join(format!("{}.json", id(1))), "{}").unwrap();
    engine.rendering_finished(id(1)).unwrap();
    engine.rendering_finished(id(9)).unwrap();
    finish(&engine, 2, 100);
    flush(&engine);
    let errors = engine.take_errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains(&id(1).to_string()) && errors[0].contains("version"), "{errors:?}");
    assert!(errors[1].contains(&id(9).to_string()), "{errors:?}");
    flush(&engine);
    assert_eq!(engine.take_errors(), [""; 0]);
    assert!(renderings.join(format!("{}.mp4", id(1))).exists());
    // It is not lost. No server has the other one either.
    let closed = engine.close(PATIENCE, CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { renderings: 2, .. })), "{closed:?}");
    assert_eq!(contents(folder.path(), 1).renderings.whole.len(), 1);
}

#[test]
fn test_renderings_wait_for_room_as_points_do() {
    let folder = common::folder();
    let mut config = config(folder.path());
    config.spool.max_bytes = Some(1 << 20);
    let engine = open(config);
    finish(&engine, 1, 5_000_000);
    let is_full = |problem: &String| problem.contains("spool_max_bytes");
    wait_until("the spool is full", || engine.status().problems.iter().any(is_full));
    let flushed = engine.flush(Some(Duration::from_millis(100)), &mut || false);
    let waits = matches!(flushed, Err(FlushError::Timeout { pending: 0, renderings: 1, .. }));
    assert!(waits, "{flushed:?}");
    assert!(flushed.unwrap_err().to_string().starts_with("1 rendering is still undelivered"));
    let errors = engine.take_errors();
    assert!(errors.len() == 1 && errors[0].contains("spool_max_bytes"), "{errors:?}");
    let closed = engine.close(Duration::from_millis(10), CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { renderings: 1, .. })), "{closed:?}");
    let errors = engine.take_errors().join(" ");
    assert!(errors.contains("1 rendering is not in the spool yet"), "{errors}");
    let writer = &RunFolder::list(folder.path()).unwrap()[0].writers().unwrap()[0];
    assert!(writer.is_undelivered);
    let server = MemoryServer::new();
    assert_eq!(deliver(folder.path(), &server), [""; 0]);
    assert_eq!(at_server(&server).whole[&id(1)].1, video(1, 5_000_000));
    assert!(!writer.path.exists());
}

#[test]
fn test_a_disk_that_takes_nothing_for_a_while_costs_no_piece() {
    let folder = common::folder();
    let gate = Gate::default();
    let mut config = config(folder.path());
    config.spool.options.files = Arc::new(gate.clone());
    let engine = open(config);
    gate.shut();
    finish(&engine, 1, 3_000_000);
    wait_until("a piece is refused", || gate.refused() > 2);
    gate.open();
    flush(&engine);
    assert_eq!(engine.take_errors().len(), 1, "it is told once");
    close(&engine);
    let contents = contents(folder.path(), 1);
    assert_eq!(contents.renderings.whole[&id(1)].1, video(1, 3_000_000));
    assert_eq!(contents.problems, [""; 0]);
}

#[test]
fn test_the_server_has_all_when_a_flush_returns_and_the_folder_goes_with_the_close() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let engine = open(online(folder.path(), &server));
    finish(&engine, 1, 3_000_000);
    log(&engine);
    flush(&engine);
    assert_eq!(at_server(&server).whole[&id(1)].1, video(1, 3_000_000));
    assert_eq!(engine.counters().sent.points(), 1);
    finish(&engine, 2, 100);
    close(&engine);
    assert_eq!(at_server(&server).whole.len(), 2);
    assert!(!writer_folder(folder.path(), 1).exists());
}

#[test]
fn test_what_is_being_encoded_at_a_close_is_delivered_by_the_next_process() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let engine = open(online(folder.path(), &server));
    log(&engine);
    let renderings = encode(&engine, 1, 100);
    // Its encoder has not said that it is finished.
    let closed = engine.close(PATIENCE, CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { renderings: 1, .. })), "{closed:?}");
    assert!(renderings.join(format!("{}.mp4", id(1))).exists());
    let writer = &RunFolder::list(folder.path()).unwrap()[0].writers().unwrap()[0];
    assert_eq!(writer.info.as_ref().unwrap().ended, Some(WriterEnd::Closed), "its ring is sealed");
    assert!(writer.is_undelivered);
    let ended = |server: &MemoryServer| server.records().writers.values().any(|w| w.end.is_some());
    assert!(!ended(&server), "more will come");
    let mut next = engine.child_config();
    next.run.orchestration_id = "job".to_owned();
    drop(engine);
    let engine = open(next);
    wait_until("the rest", || at_server(&server).whole.len() == 1);
    close(&engine);
    assert!(ended(&server) && !renderings.exists());
}

#[test]
fn test_a_run_that_goes_on_leaves_renderings_of_a_dead_writer_to_whoever_delivers() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    log(&engine);
    let renderings = encode(&engine, 1, 100);
    drop(engine);
    let writer = || RunFolder::list(folder.path()).unwrap()[0].writers().unwrap().swap_remove(0);
    wait_until("the writer is dead", || writer().liveness == Liveness::Dead);
    close(&open(config(folder.path())));
    assert!(!is_empty(&renderings) && writer().is_undelivered);
    let server = MemoryServer::new();
    assert_eq!(deliver(folder.path(), &server), [""; 0]);
    assert_eq!(at_server(&server).whole.len(), 1);
    assert!(!renderings.exists());
}

#[test]
fn test_a_close_without_patience_drops_renderings_with_the_rest() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let mut config = online(folder.path(), &server);
    // One that never has room again, so that nobody is in time.
    config.spool.max_bytes = Some(1 << 20);
    let engine = open(config);
    log(&engine);
    flush(&engine);
    encode(&engine, 1, 50);
    let _ = engine.close(Duration::ZERO, CloseStatus::Finished, &mut || false);
    assert!(!writer_folder(folder.path(), 1).exists());
    assert!(at_server(&server).whole.is_empty());
}
