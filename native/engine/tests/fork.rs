//! `fork` in the middle of logging: the parent goes on, the child writes on its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![cfg(target_os = "linux")]

mod common;

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{close, config, open, read, wait_until};
use metrana_engine::calls::Point;
use metrana_engine::config::BackpressureStrategy;
use metrana_engine::engine::Engine;
use metrana_engine::error::LogError;
use metrana_engine::types::Scale;

fn log(engine: &Engine, count: u32) -> Result<(), LogError> {
    let metric = engine.metric("loss", Scale::MlStep, &[])?;
    for i in 0..count {
        let value = f64::from(i);
        let point = Point { metric, step: None, timestamp_ms: None, value, distributed: false };
        engine.log_point(point)?.settle(&mut || false)?;
    }
    Ok(())
}

/// The child's exit code says what went wrong.
fn in_child(engine: &Engine) -> i32 {
    engine.fork_in_child();
    if !matches!(log(engine, 1), Err(LogError::Closed | LogError::Invalid(_))) {
        return 2;
    }
    let Ok(own) = Engine::open(engine.child_config(), &mut || false) else { return 3 };
    if own.identity().run_id != engine.identity().run_id || log(&own, 10).is_err() {
        return 4;
    }
    close(&own);
    0
}

#[test]
fn test_parent_and_child_both_log_to_the_run_after_a_fork() {
    const FORKS: i32 = 5;
    let folder = common::folder();
    let mut config = config(folder.path());
    config.queue.strategy = BackpressureStrategy::Block;
    let engine = open(config);
    let is_over = AtomicBool::new(false);
    let mut total = 0;
    std::thread::scope(|scope| {
        // Another thread logs all the while.
        let logger = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                log(&engine, 100).unwrap();
                count += 100;
            }
            count
        });
        for _ in 0..FORKS {
            engine.fork_prepare();
            // SAFETY: the child calls nothing but the engine, whose locks this thread holds, and
            // then leaves without running anything of the parent's.
            match unsafe { libc::fork() } {
                0 => {
                    let code = in_child(&engine);
                    // SAFETY: ends the process at once.
                    unsafe { libc::_exit(code) }
                }
                child => {
                    engine.fork_in_parent();
                    let mut status = 0;
                    // SAFETY: waits for the child just made.
                    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                    assert_eq!(status, 0);
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        total = logger.join().unwrap();
    });
    close(&engine);
    let run = std::fs::read_dir(folder.path().join("spool")).unwrap().next().unwrap().unwrap();
    assert_eq!(read(&run.path().join("000001")).points.len(), total);
    for writer in 2..=FORKS + 1 {
        assert_eq!(read(&run.path().join(format!("{writer:06}"))).points.len(), 10);
    }
}

#[test]
fn test_a_fork_does_not_wait_for_a_disk_on_which_the_folder_is_made_anew() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    log(&engine, 10).unwrap();
    engine.flush(None, &mut || false).unwrap();
    let run = common::writer_folder(folder.path(), 1).parent().unwrap().to_owned();
    let text = std::fs::read(run.join("run.json")).unwrap();
    let (slow, old) = (folder.path().join("slow"), folder.path().join("old"));
    std::fs::create_dir(&slow).unwrap();
    let pipe = std::ffi::CString::new(slow.join("run.json").as_os_str().as_bytes()).unwrap();
    // SAFETY: makes a file with this name; whoever reads it waits for what somebody writes.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    std::fs::rename(&run, &old).unwrap();
    std::fs::rename(&slow, &run).unwrap();
    std::fs::remove_dir_all(&old).unwrap();
    let mut options = std::fs::File::options();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    std::thread::scope(|scope| {
        let mut disk = None;
        wait_until("the drain thread", || {
            disk = options.open(run.join("run.json")).ok();
            disk.is_some()
        });
        let fork = scope.spawn(|| {
            engine.fork_prepare();
            engine.fork_in_parent();
        });
        wait_until("a fork", || fork.is_finished());
        disk.unwrap().write_all(&text).unwrap();
    });
    log(&engine, 1).unwrap();
    close(&engine);
    assert_eq!(common::contents(folder.path(), 1).points.len(), 11);
}
