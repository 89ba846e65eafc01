//! Closing and flushing when something is in the way: a disk that takes nothing, an interrupt, a
//! timeout beyond every clock, a drain thread that died, a disk that never answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::gate::Gate;
use common::{close, config, open};
use metrana_engine::attributes::CloseStatus;
use metrana_engine::batch::peek;
use metrana_engine::calls::Point;
use metrana_engine::config::{BackpressureStrategy, Connect, EngineConfig, ServerConfig};
use metrana_engine::engine::Engine;
use metrana_engine::error::{FlushError, LogError};
use metrana_engine::ring::RingPlace;
use metrana_engine::run_folder::{Liveness, RunFolder, WriterEntry};
use metrana_engine::spool::{Disk, segment_path};
use metrana_engine::transport::memory::{Action, Event, MemoryServer, MemoryTransport};
use metrana_engine::types::Scale;

const HOUR: Duration = Duration::from_secs(3600);

fn log(engine: &Engine) -> Result<(), LogError> {
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let point = Point { metric, step: None, timestamp_ms: None, value: 1.0, distributed: false };
    engine.log_point(point)?.settle(&mut || false)
}

/// An engine before a disk that takes nothing.
fn behind_shut_gate(data_dir: &Path) -> Engine {
    let gate = Gate::default();
    gate.shut();
    let mut config = config(data_dir);
    config.spool.options.files = Arc::new(gate);
    config.queue.strategy = BackpressureStrategy::DropNew;
    config.queue.enqueue_timeout = Duration::ZERO;
    open(config)
}

fn online(data_dir: &Path, server: &Arc<MemoryServer>) -> EngineConfig {
    let mut config = config(data_dir);
    let mut server = ServerConfig::new(Arc::new(MemoryTransport(Arc::clone(server))));
    server.connect = Connect::Required(Duration::from_secs(20));
    config.server = Some(server);
    config
}

#[test]
fn test_a_close_asks_for_interrupts_outside_its_locks() {
    let folder = common::folder();
    let engine = behind_shut_gate(folder.path());
    while engine.counters().dropped.points() == 0 {
        log(&engine).unwrap();
    }
    // The ring is full, so there is no room for the close record. What is asked takes the locks, as
    // another thread's fork would while it holds what the asking waits for.
    let mut asked = 0;
    let closed = engine.close(Duration::ZERO, CloseStatus::Finished, &mut || {
        asked += 1;
        engine.counters().added.points() == 0
    });
    assert!(matches!(closed, Err(FlushError::Timeout { .. })), "{closed:?}");
    assert!(asked > 0);
}

#[test]
fn test_an_interrupt_ends_a_close_that_waits_for_the_disk() {
    let folder = common::folder();
    let engine = behind_shut_gate(folder.path());
    log(&engine).unwrap();
    let closed = engine.close(HOUR, CloseStatus::Finished, &mut || true);
    assert_eq!(closed, Err(FlushError::Interrupted));
    assert!(engine.is_closed());
}

#[test]
fn test_an_interrupt_while_a_close_waits_for_room_is_not_forgotten() {
    let folder = common::folder();
    let engine = behind_shut_gate(folder.path());
    while engine.counters().dropped.points() == 0 {
        log(&engine).unwrap();
    }
    let mut asked = 0;
    let closed = engine.close(HOUR, CloseStatus::Finished, &mut || {
        asked += 1;
        asked == 1
    });
    assert_eq!(closed, Err(FlushError::Interrupted));
}

#[test]
fn test_what_an_interrupted_close_could_not_seal_is_sent_by_the_next_process() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let gate = Gate::default();
    let mut online = online(folder.path(), &server);
    online.spool.options.files = Arc::new(gate.clone());
    let engine = open(online);
    log(&engine).unwrap();
    engine.flush(None, &mut || false).unwrap();
    gate.shut();
    log(&engine).unwrap();
    let closed = engine.close(HOUR, CloseStatus::Finished, &mut || true);
    assert_eq!(closed, Err(FlushError::Interrupted));
    assert_eq!(engine.counters().pending.points(), 1);
    assert!(server.records().writers.values().all(|writer| writer.end.is_none()));
    let mut next = engine.child_config();
    next.spool.options.files = Arc::new(Disk);
    drop(engine);
    let engine = open(next);
    common::wait_until("the rest", || {
        let records = server.records();
        let batches = records.writers.values().flat_map(|writer| writer.batches.values());
        let points = batches.filter_map(|batch| peek(&batch.payload).ok());
        points.map(|points| points.float_point_count).sum::<u64>() == 2
    });
    close(&engine);
}

#[test]
fn test_what_a_close_could_not_seal_is_lost_without_shared_memory_and_counts_as_that() {
    let folder = common::folder();
    let gate = Gate::default();
    let mut config = config(folder.path());
    config.ring.place = RingPlace::Memory;
    config.spool.options.files = Arc::new(gate.clone());
    let engine = open(config);
    log(&engine).unwrap();
    engine.flush(None, &mut || false).unwrap();
    gate.shut();
    log(&engine).unwrap();
    log(&engine).unwrap();
    let closed = engine.close(Duration::ZERO, CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Lost { lost: 2, .. })), "{closed:?}");
    let counters = engine.counters();
    assert_eq!((counters.dropped.points(), counters.pending.points()), (2, 1));
    // What is lost does not wait in the ring any more.
    assert_eq!((counters.lost.points(), counters.unsealed.points()), (2, 0));
}

#[test]
fn test_a_close_before_a_full_disk_tries_again_in_steps() {
    let folder = common::folder();
    let gate = Gate::default();
    let mut config = config(folder.path());
    config.spool.options.files = Arc::new(gate.clone());
    let engine = open(config);
    log(&engine).unwrap();
    engine.flush(None, &mut || false).unwrap();
    gate.shut();
    // Writing it anew takes as long as it is large, so it is not tried all the time either.
    std::fs::remove_file(segment_path(&common::writer_folder(folder.path(), 1), 1)).unwrap();
    log(&engine).unwrap();
    let closed = engine.close(Duration::from_secs(2), CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { .. })), "{closed:?}");
    let tried = gate.refused();
    assert!((2..100).contains(&tried), "{tried}");
}

#[test]
fn test_a_close_before_a_full_disk_ends_well_once_there_is_room() {
    let folder = common::folder();
    let gate = Gate::default();
    let mut config = config(folder.path());
    config.spool.options.files = Arc::new(gate.clone());
    let engine = open(config);
    gate.shut();
    log(&engine).unwrap();
    let closed = engine.close(HOUR, CloseStatus::Finished, &mut || {
        if gate.refused() > 3 {
            gate.open();
        }
        false
    });
    assert_eq!(closed, Ok(()));
    assert_eq!(common::contents(folder.path(), 1).points.len(), 1);
}

#[test]
fn test_a_timeout_beyond_every_clock_is_as_long_as_it_takes() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    log(&engine).unwrap();
    engine.flush(Some(Duration::MAX), &mut || false).unwrap();
    engine.close(Duration::MAX, CloseStatus::Finished, &mut || false).unwrap();
    assert_eq!(common::contents(folder.path(), 1).points.len(), 1);
}

#[test]
fn test_nobody_waits_for_a_drain_thread_that_died() {
    let folder = common::folder();
    let gate = Gate::default();
    gate.break_down();
    let mut broken = config(folder.path());
    broken.spool.options.files = Arc::new(gate);
    broken.queue.strategy = BackpressureStrategy::Block;
    let engine = open(broken);
    log(&engine).unwrap();
    assert_eq!(engine.flush(None, &mut || false), Err(FlushError::Closed));
    let mut accepted = 1;
    while log(&engine).is_ok() {
        accepted += 1;
    }
    assert!(engine.close(HOUR, CloseStatus::Finished, &mut || false).is_err());
    drop(engine);
    // The ring has it all.
    close(&open(config(folder.path())));
    assert_eq!(common::contents(folder.path(), 1).points.len(), accepted);
}

/// An engine before a disk that forces nothing to itself any more, with `count` points.
fn before_stuck_disk(mut config: EngineConfig, count: u32) -> (Engine, Gate) {
    let gate = Gate::default();
    config.spool.options.files = Arc::new(gate.clone());
    let engine = open(config);
    for _ in 0..count {
        log(&engine).unwrap();
    }
    gate.get_stuck();
    (engine, gate)
}

fn writer(data_dir: &Path) -> WriterEntry {
    let folder = common::writer_folder(data_dir, 1);
    let run = RunFolder::open(folder.parent().unwrap()).unwrap();
    run.writers().unwrap().remove(0)
}

fn rings(data_dir: &Path) -> usize {
    let files = std::fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).count()
}

#[test]
fn test_a_close_before_a_disk_that_does_not_answer_ends_in_time_and_finishes_once_it_does() {
    let folder = common::folder();
    let (engine, gate) = before_stuck_disk(config(folder.path()), 3);
    let begun = Instant::now();
    let closed = engine.close(Duration::from_secs(1), CloseStatus::Finished, &mut || false);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(matches!(closed, Err(FlushError::Timeout { pending: 3, .. })), "{closed:?}");
    assert!(engine.is_closed());
    // Somebody works on it still, and a fork does not wait for that.
    engine.fork_prepare();
    engine.fork_in_parent();
    drop(engine);
    let left = writer(folder.path());
    assert_eq!((left.liveness, left.info.unwrap().ended), (Liveness::Live, None));
    assert_eq!(rings(folder.path()), 1);
    gate.open();
    common::wait_until("the end", || writer(folder.path()).liveness == Liveness::Dead);
    assert!(writer(folder.path()).info.unwrap().ended.is_some());
    assert_eq!(rings(folder.path()), 0);
    assert_eq!(common::contents(folder.path(), 1).points.len(), 3);
}

#[test]
#[cfg(target_os = "linux")]
fn test_a_process_that_ends_before_its_disk_answered_leaves_each_point_to_recovery_once() {
    let folder = common::folder();
    // SAFETY: the child uses nothing of its parent's but the folder's name, and ends at once.
    let child = match unsafe { libc::fork() } {
        0 => {
            let (engine, _gate) = before_stuck_disk(config(folder.path()), 3);
            let closed = engine.close(Duration::ZERO, CloseStatus::Finished, &mut || false);
            let is_late = matches!(closed, Err(FlushError::Timeout { pending: 3, .. }));
            // SAFETY: ends the process, whatever its threads do.
            unsafe { libc::_exit(i32::from(!is_late)) }
        }
        child => child,
    };
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!((rings(folder.path()), writer(folder.path()).liveness), (1, Liveness::Dead));
    close(&open(config(folder.path())));
    assert_eq!(common::contents(folder.path(), 1).points.len(), 3);
    assert!(writer(folder.path()).info.unwrap().ended.is_some());
    assert_eq!(rings(folder.path()), 0);
}

#[test]
fn test_a_close_whose_disk_does_not_answer_says_that_the_server_has_everything() {
    let folder = common::folder();
    let server = MemoryServer::new();
    let (engine, gate) = before_stuck_disk(online(folder.path(), &server), 3);
    let closed = engine.close(Duration::from_secs(1), CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { pending: 0, .. })), "{closed:?}");
    assert!(closed.unwrap_err().to_string().starts_with("nothing is undelivered, but"));
    assert!(server.records().writers.values().all(|writer| writer.end.is_some()));
    check_is_withdrawn(folder.path(), &gate);
}

#[test]
fn test_a_close_whose_disk_does_not_answer_drops_what_it_was_to_drop() {
    let folder = common::folder();
    let server = MemoryServer::with_script(|event| match event {
        Event::Message { .. } => Action::FallSilent,
        _ => Action::Serve,
    });
    let (engine, gate) = before_stuck_disk(online(folder.path(), &server), 3);
    let closed = engine.close(Duration::ZERO, CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { pending: 0, .. })), "{closed:?}");
    assert_eq!(engine.counters().dropped.points(), 3);
    check_is_withdrawn(folder.path(), &gate);
}

/// What is over is over at once: nobody finds it who comes before the disk has answered.
fn check_is_withdrawn(data_dir: &Path, gate: &Gate) {
    let run = common::writer_folder(data_dir, 1).parent().map(RunFolder::open).unwrap().unwrap();
    assert!(run.writers().unwrap().is_empty());
    assert!(!run.has_cursors(1));
    gate.open();
    common::wait_until("the end", || run.has_cursors(1));
}

/// As [`before_stuck_disk`], on a disk that also takes nothing any more.
fn before_dead_disk(config: EngineConfig, count: u32) -> (Engine, Gate) {
    let (engine, gate) = before_stuck_disk(config, count);
    engine.flush(None, &mut || false).unwrap();
    gate.get_stuck_for_good();
    log(&engine).unwrap();
    (engine, gate)
}

#[test]
fn test_a_writer_whose_disk_took_nothing_ends_once_it_does() {
    let folder = common::folder();
    let (engine, gate) = before_dead_disk(config(folder.path()), 3);
    let closed = engine.close(Duration::ZERO, CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { .. })), "{closed:?}");
    assert_eq!(writer(folder.path()).liveness, Liveness::Live);
    gate.open();
    // Though its owner keeps the engine.
    common::wait_until("the end", || writer(folder.path()).liveness == Liveness::Dead);
    assert!(writer(folder.path()).info.unwrap().ended.is_some());
    assert_eq!(rings(folder.path()), 0);
    assert_eq!(common::contents(folder.path(), 1).points.len(), 4);
    drop(engine);
}

#[test]
fn test_steps_go_on_behind_a_writer_of_this_process_that_a_disk_keeps_from_ending() {
    let folder = common::folder();
    let (engine, gate) = before_dead_disk(config(folder.path()), 3);
    let mut next = engine.child_config();
    next.spool.options.files = Arc::new(Disk);
    engine.close(Duration::ZERO, CloseStatus::Finished, &mut || false).unwrap_err();
    let again = open(next);
    assert_eq!(common::greatest_step(&again, "loss"), Some(3));
    close(&again);
    gate.open();
    common::wait_until("the end", || writer(folder.path()).liveness == Liveness::Dead);
}

#[test]
fn test_what_a_close_could_not_seal_is_there_for_recovery_though_the_engine_is_kept() {
    let folder = common::folder();
    let engine = behind_shut_gate(folder.path());
    log(&engine).unwrap();
    let closed = engine.close(Duration::ZERO, CloseStatus::Finished, &mut || false);
    assert!(matches!(closed, Err(FlushError::Timeout { .. })), "{closed:?}");
    let mut next = engine.child_config();
    next.spool.options.files = Arc::new(Disk);
    let again = open(next);
    assert_eq!(common::greatest_step(&again, "loss"), Some(0));
    close(&again);
    assert_eq!(common::contents(folder.path(), 1).points.len(), 1);
    assert_eq!(rings(folder.path()), 0);
    drop(engine);
}

#[test]
fn test_an_interrupt_ends_a_close_whose_disk_does_not_answer() {
    let folder = common::folder();
    let (engine, gate) = before_stuck_disk(config(folder.path()), 1);
    let closed = engine.close(HOUR, CloseStatus::Finished, &mut || {
        // Not before the points are in the spool, and the disk's last work has begun.
        engine.counters().spooled == engine.counters().added
    });
    assert_eq!(closed, Err(FlushError::Interrupted));
    gate.open();
}
