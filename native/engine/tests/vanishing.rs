//! A folder that somebody moves or deletes under its writer, and another writer in its place.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::gate::Gate;
use common::{close, config, open, wait_until};
use metrana_engine::attributes::CloseStatus;
use metrana_engine::batch::peek;
use metrana_engine::calls::Point;
use metrana_engine::config::{Connect, EngineConfig, ServerConfig};
use metrana_engine::engine::Engine;
use metrana_engine::error::FlushError;
use metrana_engine::run_folder::{RunFolder, write_acked};
use metrana_engine::spool::segment_path;
use metrana_engine::transport::memory::{Action, Event, MemoryServer, MemoryTransport};
use metrana_engine::types::{Scale, Seq};

fn log(engine: &Engine, count: u32) {
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    for i in 0..count {
        let value = f64::from(i).sin();
        let point = Point { metric, step: None, timestamp_ms: None, value, distributed: false };
        engine.log_point(point).unwrap().settle(&mut || false).unwrap();
    }
    engine.flush(None, &mut || false).unwrap();
}

fn run_folder(data_dir: &Path) -> PathBuf {
    common::writer_folder(data_dir, 1).parent().unwrap().to_owned()
}

/// With segments of a few batches.
fn short_segments(data_dir: &Path) -> EngineConfig {
    let mut config = config(data_dir);
    config.spool.options.segment_bytes = 4000;
    config
}

fn online(mut config: EngineConfig, server: &Arc<MemoryServer>) -> EngineConfig {
    let mut server = ServerConfig::new(Arc::new(MemoryTransport(Arc::clone(server))));
    server.connect = Connect::Required(Duration::from_secs(20));
    server.settings.max_backoff = Duration::from_millis(50);
    config.server = Some(server);
    config
}

/// Another process's writer of the same run, in a folder that was made elsewhere and took the place
/// of `engine`'s. That one lies in the folder returned.
fn change_places(data_dir: &Path, engine: &Engine) -> common::Folder {
    let elsewhere = common::folder();
    let mut config = engine.child_config();
    elsewhere.path().clone_into(&mut config.data_dir);
    config.server = None;
    let other = open(config);
    for _ in 0..5 {
        log(&other, 7);
    }
    close(&other);
    let (ours, theirs) = (run_folder(data_dir), run_folder(elsewhere.path()));
    let moved = elsewhere.path().join("moved");
    std::fs::rename(&ours, moved).unwrap();
    std::fs::rename(theirs, ours).unwrap();
    elsewhere
}

/// All files with their lengths and checksums.
fn files(folder: &Path) -> BTreeMap<PathBuf, (usize, u32)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sum = |bytes: Vec<u8>| (bytes.len(), crc32c::crc32c(&bytes));
    entries.map(|path| (path.clone(), sum(std::fs::read(path).unwrap()))).collect()
}

#[test]
fn test_a_writer_that_was_moved_touches_nothing_of_the_one_in_its_place() {
    let folder = common::folder();
    let engine = open(short_segments(folder.path()));
    log(&engine, 100);
    let elsewhere = change_places(folder.path(), &engine);
    let theirs = common::writer_folder(folder.path(), 1);
    write_acked(&theirs, Seq(1_000_000)).unwrap();
    let (before, cursors) = (files(&theirs), files(&theirs.with_file_name("cursors")));
    for _ in 0..10 {
        log(&engine, 1000);
    }
    assert_eq!(engine.counters().pending, engine.counters().spooled, "nothing is acknowledged");
    close(&engine);
    assert_eq!(files(&theirs), before);
    assert_eq!(files(&theirs.with_file_name("cursors")), cursors);
    let moved = common::read(&elsewhere.path().join("moved/000001"));
    assert_eq!((moved.points.len(), moved.problems), (10_100, Vec::new()));
}

#[test]
fn test_a_writer_that_was_moved_deletes_nothing_in_its_place_when_the_server_has_all_it_sent() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let engine = open(online(short_segments(folder.path()), &server));
    log(&engine, 100);
    let _elsewhere = change_places(folder.path(), &engine);
    let theirs = common::writer_folder(folder.path(), 1);
    let before = files(&theirs);
    for _ in 0..10 {
        log(&engine, 1000);
    }
    close(&engine);
    assert_eq!(files(&theirs), before);
    assert_eq!(points_at(&server), 10_100);
}

#[test]
fn test_a_writer_that_was_moved_sends_nothing_of_the_one_in_its_place() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let engine = open(online(config(folder.path()), &server));
    log(&engine, 100);
    let _elsewhere = change_places(folder.path(), &engine);
    server.script(|event| match event {
        Event::Message { attempt: 1, .. } => Action::Drop,
        _ => Action::Serve,
    });
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let point = Point { metric, step: None, timestamp_ms: None, value: 1.0, distributed: false };
    engine.log_point(point).unwrap().settle(&mut || false).unwrap();
    let closed = engine.close(Duration::from_secs(1), CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { pending: 1, .. })), "{closed:?}");
    assert!(server.records().hellos.len() > 1);
    assert_eq!(points_at(&server), 100);
}

#[test]
fn test_a_writer_whose_number_was_taken_takes_the_next_with_all_that_is_open() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    assert_eq!(engine.identity().writer_number, 1);
    log(&engine, 100);
    drop(change_places(folder.path(), &engine));
    let theirs = common::writer_folder(folder.path(), 1);
    let before = files(&theirs);
    log(&engine, 10);
    assert!(engine.take_errors()[0].contains("is another writer's now"));
    assert_eq!(engine.identity().writer_number, 2);
    close(&engine);
    assert_eq!(files(&theirs), before);
    assert_eq!(common::contents(folder.path(), 2).points.len(), 110);
    let writers = RunFolder::open(&run_folder(folder.path())).unwrap().writers().unwrap();
    let numbers: Vec<_> =
        writers.iter().map(|writer| writer.info.as_ref().unwrap().number).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn test_what_a_writer_with_another_number_left_in_its_ring_is_recovered() {
    let folder = common::folder();
    let mut patient = config(folder.path());
    patient.batch.max_age = Duration::from_secs(3600);
    let engine = open(patient);
    log(&engine, 100);
    drop(change_places(folder.path(), &engine));
    log(&engine, 10);
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let point = Point { metric, step: None, timestamp_ms: None, value: 1.0, distributed: false };
    engine.log_point(point).unwrap().settle(&mut || false).unwrap();
    let child = engine.child_config();
    drop(engine);
    wait_until("recovery", || {
        close(&open(child.clone()));
        common::contents(folder.path(), 2).points.len() == 111
    });
}

#[test]
fn test_a_server_gets_all_of_a_writer_whose_number_was_taken_and_nothing_of_the_other() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|event| match event {
        // So that there are new streams, too.
        Event::Message { index, .. } if index % 5 == 0 => Action::ServeAndDrop,
        _ => Action::Serve,
    });
    let engine = open(online(config(folder.path()), &server));
    log(&engine, 100);
    drop(change_places(folder.path(), &engine));
    for _ in 0..10 {
        log(&engine, 10);
    }
    close(&engine);
    assert_eq!(points_at(&server), 200);
    assert_eq!(common::contents(folder.path(), 1).points.len(), 35);
    assert!(!common::writer_folder(folder.path(), 2).exists());
}

#[test]
fn test_a_segment_that_could_not_be_written_anew_is_tried_again_though_nothing_is_logged() {
    let folder = common::folder();
    let gate = Gate::default();
    let mut config = config(folder.path());
    config.spool.options.files = Arc::new(gate.clone());
    let engine = open(config);
    log(&engine, 100);
    gate.shut();
    let segment = segment_path(&common::writer_folder(folder.path(), 1), 1);
    std::fs::remove_file(&segment).unwrap();
    wait_until("a few attempts", || gate.refused() > 2);
    assert!(engine.take_errors()[0].contains("nothing can be written to the spool"));
    assert!(!segment.exists());
    gate.open();
    wait_until("the segment", || segment.exists());
    drop(engine);
    assert_eq!(common::contents(folder.path(), 1).points.len(), 100);
}

fn points_at(server: &MemoryServer) -> u64 {
    let records = server.records();
    let batches = records.writers.values().flat_map(|writer| writer.batches.values());
    batches.map(|batch| peek(&batch.payload).unwrap().float_point_count).sum()
}
