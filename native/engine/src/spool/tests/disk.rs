//! A disk that is full, short of breath, or gone from one operation to the next.

use super::*;
use crate::platform::Durability;

const FAULT_BATCHES: u64 = 12;
const FAULT_SEGMENT: u64 = 500;

/// Writes all batches to a disk that fails at operation `at`, repeating what failed.
fn write_with(at: u64, fault: Fault) -> (tempfile::TempDir, FaultyDisk, u64) {
    let folder = memory_folder();
    let disk = FaultyDisk::new(at, fault);
    let mut writer = SpoolWriter::create(folder.path(), ID, options(FAULT_SEGMENT, &disk));
    let mut done = 0;
    let mut failures = 0;
    while done < FAULT_BATCHES && !disk.is_dead() {
        match append(&mut writer, done + 1) {
            Ok(()) => done += 1,
            Err(error) => {
                failures += 1;
                assert!(disk.is_dead() || error.is_out_of_space(), "{error}");
                if failures == 5 {
                    disk.repair();
                }
            }
        }
        assert!(failures < 10);
    }
    (folder, disk, done)
}

fn operation_count() -> u64 {
    write_with(u64::MAX, Fault::ShortWrite).1.count()
}

#[test]
fn test_every_operation_may_be_short_interrupted_or_out_of_space() {
    for fault in [Fault::ShortWrite, Fault::Interrupted, Fault::Full, Fault::FullFromHere] {
        for at in 0..operation_count() {
            let (folder, _, done) = write_with(at, fault);
            assert_eq!(done, FAULT_BATCHES);
            let events = all_events(folder.path());
            assert_eq!(
                batches(&events),
                (1..=FAULT_BATCHES).collect::<Vec<_>>(),
                "{fault:?} at {at}"
            );
            assert!(!has_damage(&events), "{fault:?} at {at}: {events:?}");
        }
    }
}

#[test]
fn test_what_a_failed_write_left_is_cut_at_once() {
    let folder = memory_folder();
    // create, header, declarations (2, twice), batch (2), those of batch 2: a header, its payload.
    let disk = FaultyDisk::new(9, Fault::Full);
    let mut writer = SpoolWriter::create(folder.path(), ID, options(10_000, &disk));
    append(&mut writer, 1).unwrap();
    let bytes = writer.bytes();
    let error = append(&mut writer, 2).unwrap_err();
    assert!(error.is_out_of_space(), "{error}");
    assert_eq!(segment_path(folder.path(), 1).metadata().unwrap().len(), bytes);
    assert_eq!(writer.bytes(), bytes);
}

#[test]
fn test_the_process_may_die_at_every_operation() {
    for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
        for at in 0..operation_count() {
            let (folder, disk, done) = write_with(at, fault);
            assert!(disk.is_dead());
            let read = batches(&all_events(folder.path()));
            // The last append may have gone through without anybody knowing.
            assert!(
                read.len() as u64 == done || read.len() as u64 == done + 1,
                "{fault:?} at {at}"
            );
            assert_eq!(read, (1..=read.len() as u64).collect::<Vec<_>>());
            assert!(lost(&all_events(folder.path())).is_empty());
        }
    }
}

#[test]
fn test_acknowledged_segments_can_be_deleted_while_the_disk_is_full() {
    let folder = memory_folder();
    let disk = FaultyDisk::new(40, Fault::FullFromHere);
    let mut writer = SpoolWriter::create(folder.path(), ID, options(FAULT_SEGMENT, &disk));
    let mut done = 0;
    while append(&mut writer, done + 1).is_ok() {
        done += 1;
    }
    assert!(writer.delete_acked(Seq(done)).unwrap() > 0);
    disk.repair();
    append(&mut writer, done + 1).unwrap();
    assert_eq!(batches(&all_events(folder.path())).last(), Some(&(done + 1)));
}

#[test]
fn test_a_replaced_file_is_the_old_or_the_new_at_every_operation() {
    let faults = [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter];
    for fault in faults.into_iter().chain([Fault::ShortWrite, Fault::Interrupted, Fault::Full]) {
        for at in 0.. {
            let folder = memory_folder();
            let path = folder.path().join("file");
            std::fs::write(&path, "the old one").unwrap();
            let disk = FaultyDisk::new(at, fault);
            let replaced = replace_file(&disk, &path, Durability::Durable, b"the new one");
            let found = std::fs::read(&path).unwrap();
            let is_old = found == b"the old one";
            assert!(is_old || found == b"the new one", "{fault:?} at {at}: {found:?}");
            assert!(replaced.is_err() || !is_old, "{fault:?} at {at}");
            if !disk.is_dead() {
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{fault:?} {at}");
            }
            if disk.count() <= at {
                break;
            }
        }
    }
}
