//! Segments that somebody deletes or moves under the one who writes them.

use super::*;

const BATCHES: u64 = 3;

/// A spool whose open segment was deleted, on a disk that does `fault` at its `at`th operation from
/// then on.
fn deleted(at: u64, fault: Fault) -> (tempfile::TempDir, SpoolWriter, FaultyDisk) {
    let folder = memory_folder();
    let sound = FaultyDisk::sound();
    let write = |disk: &FaultyDisk| {
        let mut writer = SpoolWriter::create(folder.path(), ID, options(10_000, disk));
        (1..=BATCHES).for_each(|seq| append(&mut writer, seq).unwrap());
        writer
    };
    drop(write(&sound));
    std::fs::remove_file(segment_path(folder.path(), 1)).unwrap();
    let disk = FaultyDisk::new(sound.count() + at, fault);
    let writer = write(&disk);
    std::fs::remove_file(segment_path(folder.path(), 1)).unwrap();
    (folder, writer, disk)
}

#[test]
fn test_a_rescue_that_fails_anywhere_leaves_no_half_segment_and_is_made_again() {
    for fault in [Fault::ShortWrite, Fault::Full, Fault::FullFromHere] {
        for at in 0.. {
            let (folder, mut writer, disk) = deleted(at, fault);
            let begun = disk.count();
            let rescued = writer.rescue(Seq(0));
            if disk.count() <= begun + at {
                break;
            }
            if let Err(error) = rescued {
                assert!(error.is_out_of_space(), "{error}");
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{fault:?} {at}");
                disk.repair();
                let rescued = writer.rescue(Seq(0)).unwrap().unwrap();
                assert_eq!((rescued.bytes, rescued.lost_bytes), (writer.bytes(), 0));
            }
            append(&mut writer, BATCHES + 1).unwrap();
            let events = all_events(folder.path());
            assert_eq!(batches(&events), [1, 2, 3, 4], "{fault:?} {at}");
            assert!(!has_damage(&events), "{fault:?} {at}: {events:?}");
        }
    }
}

#[test]
fn test_the_process_may_die_anywhere_in_a_rescue() {
    for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
        for at in 0.. {
            let (folder, mut writer, disk) = deleted(at, fault);
            let _ = writer.rescue(Seq(0));
            let events = all_events(folder.path());
            let read = batches(&events);
            assert!(read.is_empty() || read == [1, 2, 3], "{fault:?} {at}: {read:?}");
            assert!(!has_damage(&events), "{fault:?} {at}: {events:?}");
            if !disk.is_dead() {
                break;
            }
        }
    }
}

#[test]
fn test_a_reader_follows_a_writer_into_another_folder() {
    let (folder, other) = (memory_folder(), memory_folder());
    let mut writer = spool(folder.path(), 2, 10_000);
    let mut reader = SpoolReader::open(folder.path(), Seq(1)).unwrap();
    let mut read = events(&mut reader);
    std::fs::remove_file(segment_path(folder.path(), 1)).unwrap();
    // Another writer's, in the place of ours.
    drop(SpoolWriter::create(folder.path(), WriterId([8; 16]), options(700, &FaultyDisk::sound())));
    writer.go_on_in(other.path());
    writer.rescue(Seq(0)).unwrap().unwrap();
    reader.go_on_in(other.path());
    for seq in 3..=5 {
        append(&mut writer, seq).unwrap();
        read.extend(events(&mut reader));
    }
    assert_eq!(batches(&read), [1, 2, 3, 4, 5]);
    assert_eq!(batches(&all_events(other.path())), [1, 2, 3, 4, 5]);
}

#[test]
fn test_a_spool_that_was_moved_grows_in_its_open_file_and_deletes_nothing() {
    let (folder, elsewhere) = (memory_folder(), memory_folder());
    let mut writer = spool(folder.path(), 5, 500);
    let first = segment_path(folder.path(), 1);
    std::fs::rename(folder.path(), elsewhere.path().join("moved")).unwrap();
    std::fs::create_dir(folder.path()).unwrap();
    std::fs::write(&first, "another's").unwrap();
    writer.set_moved(true);
    for seq in 6..=20 {
        append(&mut writer, seq).unwrap();
    }
    writer.end_acked_segment(Seq(20));
    assert_eq!(writer.delete_acked(Seq(20)).unwrap(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(&first).unwrap(), b"another's");
    let moved = all_events(&elsewhere.path().join("moved"));
    assert_eq!(batches(&moved), (1..=20).collect::<Vec<_>>());
}

#[test]
fn test_a_reader_goes_on_in_a_segment_whose_folder_was_moved_and_not_made_anew() {
    let (folder, elsewhere) = (memory_folder(), memory_folder());
    let mut writer = spool(folder.path(), 5, 10_000);
    let mut reader = SpoolReader::open(folder.path(), Seq(1)).unwrap();
    let mut read = events(&mut reader);
    std::fs::rename(folder.path(), elsewhere.path().join("moved")).unwrap();
    writer.set_moved(true);
    assert_eq!(reader.next_event().unwrap(), None);
    (6..=8).for_each(|seq| append(&mut writer, seq).unwrap());
    read.extend(events(&mut reader));
    assert_eq!(batches(&read), (1..=8).collect::<Vec<_>>());
    // Of a writer that is gone the rest may be in another segment, which nobody can look for.
    reader.writer_has_ended();
    assert!(reader.next_event().is_err());
}

#[test]
fn test_a_new_segment_steps_over_files_that_nobody_here_wrote() {
    let folder = memory_folder();
    let mut writer = spool(folder.path(), 1, 300);
    std::fs::write(segment_path(folder.path(), 2), "").unwrap();
    for seq in 2..=6 {
        append(&mut writer, seq).unwrap();
    }
    let events = all_events(folder.path());
    assert_eq!(batches(&events), [1, 2, 3, 4, 5, 6]);
    assert!(!has_damage(&events), "{events:?}");
}
