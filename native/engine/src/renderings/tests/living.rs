//! A writer that lives, and dies at any operation of its disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::calls::Point;
use crate::config::{EngineConfig, RunConfig};
use crate::engine::Engine;
use crate::platform;
use crate::recovery::{RecoveryOptions, RecoveryReport, recover};
use crate::ring::{Ring, RingOptions, RingPlace};
use crate::run_folder::WriterLock;
use crate::seal::SealSettings;
use crate::spool::faults::{Fault, FaultyDisk};
use crate::spool::{FrameKind, SpoolEvent, SpoolOptions, SpoolReader};
use crate::types::{Compression, Scale, Seq};

const VIDEO_BYTES: usize = 40_000;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(platform::shared_memory_folder().unwrap()).unwrap()
}

fn config(data_dir: &Path, disk: &FaultyDisk) -> EngineConfig {
    let mut config = EngineConfig::offline(data_dir, RunConfig::local("run", "job"));
    let place = RingPlace::Folder(data_dir.to_owned());
    config.ring = RingOptions { capacity_bytes: 1 << 20, place };
    config.batch.max_msg_size = 16 * 1024;
    config.spool.options.files = Arc::new(disk.clone());
    config
}

fn log(engine: &Engine) {
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let point = Point { metric, step: None, timestamp_ms: None, value: 1.0, distributed: false };
    let _ = engine.log_point(point).unwrap().settle(&mut || false);
}

/// Until the writer's thread has let go of its folder and its ring.
fn wait_for_end(writer: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_free = || {
        let Ok(lock) = WriterLock::take(writer, false) else { return false };
        let ring = lock.info().ring.clone().unwrap();
        Ring::open_existing(&ring, lock.info().writer_id).is_ok()
    };
    while !is_free() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

/// What the writer left is recovered with this disk.
fn recovered(writer: &Path, disk: &FaultyDisk) -> Option<RecoveryReport> {
    let mut lock = WriterLock::take(writer, false).unwrap();
    let options = RecoveryOptions {
        spool: SpoolOptions { files: Arc::new(disk.clone()), ..SpoolOptions::default() },
        seal: SealSettings { compression: Compression::None, payload_bytes: 9000 },
    };
    match recover(&mut lock, &options) {
        Ok(report) => Some(report),
        Err(error) => {
            assert!(disk.is_dead(), "{error}");
            None
        }
    }
}

/// Renderings and points in a spool whose numbers have no gaps.
fn delivered(writer: &Path) -> (Renderings, u64) {
    let mut reader = SpoolReader::open(writer, Seq(1)).unwrap();
    reader.writer_has_ended();
    let (mut renderings, mut points, mut last) = (Renderings::default(), 0, 0);
    while let Some(event) = reader.next_event().unwrap() {
        let frame = match event {
            SpoolEvent::Frame(frame) => frame,
            SpoolEvent::Damage(damage) => {
                assert_eq!(damage.lost, None, "{}", damage.message);
                continue;
            }
        };
        if frame.kind == FrameKind::Declarations {
            continue;
        }
        last += 1;
        assert_eq!(frame.seq, Seq(last));
        match frame.kind {
            FrameKind::Renderings => renderings.take(&frame.payload),
            FrameKind::Points => {
                points += crate::batch::peek(&frame.payload).unwrap().float_point_count;
            }
            _ => {}
        }
    }
    (renderings, points)
}

/// A writer with three renderings and points, whose disk fails as told; and where it was.
fn live(data_dir: &Path, disk: &FaultyDisk) -> PathBuf {
    let engine = Engine::open(config(data_dir, disk), &mut || false).unwrap();
    let renderings = engine.rendering_folder().unwrap().unwrap();
    let writer = renderings.parent().unwrap().to_owned();
    for number in 1..=3 {
        log(&engine);
        finish(&writer, number, VIDEO_BYTES / usize::from(number));
        engine.rendering_finished(id(number)).unwrap();
        let _ = engine.flush(None, &mut || disk.is_dead());
    }
    drop(engine);
    wait_for_end(&writer);
    writer
}

#[test]
fn test_a_writer_may_die_at_every_operation_between_pieces_and_deletions() {
    for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
        let mut at = 0;
        loop {
            let folder = folder();
            let disk = FaultyDisk::new(at, fault);
            let writer = live(folder.path(), &disk);
            let died = disk.is_dead();
            let sound = FaultyDisk::sound();
            let report = recovered(&writer, &sound).unwrap();
            assert!(
                report.is_complete() && report.problems.is_empty(),
                "{fault:?} {at}: {report:?}"
            );
            let (renderings, points) = delivered(&writer);
            assert_eq!(points, 3, "{fault:?} {at}");
            for number in 1..=3 {
                let (end, bytes) = &renderings.whole[&id(number)];
                assert_eq!(*bytes, video(number, VIDEO_BYTES / usize::from(number)));
                assert_eq!((end.episode, end.frame_count), (i64::from(number), 9));
            }
            assert_eq!(names(&writer), [""; 0], "{fault:?} {at}");
            if !died {
                break;
            }
            at += 1;
        }
        assert!(at > 15, "the writer's operations are counted: {at}");
    }
}

#[test]
fn test_a_recovery_may_die_at_every_operation_between_pieces_and_deletions() {
    for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
        for at in 0.. {
            let folder = folder();
            let disk = FaultyDisk::new(9, Fault::DiesWithin);
            let writer = live(folder.path(), &disk);
            write(&writer, &format!("{}.tmp", id(1)), b"half");
            write_sidecar(&writer, 5);
            write(&writer, &format!("{}.part", id(1)), b"it was finished");
            let dying = FaultyDisk::new(at, fault);
            let _ = recovered(&writer, &dying);
            let again = FaultyDisk::new(at / 2, fault);
            let _ = recovered(&writer, &again);
            let report = recovered(&writer, &FaultyDisk::sound()).unwrap();
            assert!(
                report.is_complete() && report.problems.is_empty(),
                "{fault:?} {at}: {report:?}"
            );
            let (renderings, points) = delivered(&writer);
            assert_eq!((points, renderings.whole.len()), (3, 3), "{fault:?} {at}");
            assert_eq!(renderings.whole[&id(1)].1, video(1, VIDEO_BYTES));
            assert_eq!(names(&writer), [""; 0], "{fault:?} {at}");
            if dying.count() <= at {
                break;
            }
        }
    }
}
