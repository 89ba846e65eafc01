//! Writers: their numbers, their locks, who is alive, and what they left.

use super::*;
use crate::ring::{Ring, RingOptions, RingPlace, RingStart};
use crate::run_folder::liveness::is_free;
use crate::run_folder::writer_folder::LOCK;
use crate::spool::faults::{Fault, FaultyDisk};
use crate::spool::{self, Disk, SeriesCursor, SpoolOptions};
use crate::types::{BatchKind, EnvNo, Lsn, MetricNo, Position, Scale, Seq};

#[test]
fn test_numbers_rise_over_writers_and_cursors() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let first = writer(&run);
    let second = writer(&run);
    assert_eq!((first.number(), second.number()), (1, 2));
    assert!(second.path().ends_with("000002") && second.is_locked());
    second.place().write_cursors(&CursorSet::default(), &Disk).unwrap();
    let path = second.path().to_owned();
    drop(second);
    WriterLock::take(&path, false).unwrap().remove_delivered().unwrap();
    assert!(!path.exists());
    assert_eq!(writer(&run).number(), 3);
    let numbers: Vec<_> = run.writers().unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 3]);
}

#[test]
fn test_a_lock_tells_the_living_from_the_dead() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let alive = writer(&run);
    let path = alive.path().to_owned();
    let liveness = || run.writers().unwrap()[0].liveness;
    assert_eq!(liveness(), Liveness::Live);
    assert!(matches!(WriterLock::take(&path, true), Err(RunFolderError::WriterLives(_))));
    drop(alive);
    assert_eq!(liveness(), Liveness::Dead);
    let lock = WriterLock::take(&path, false).unwrap();
    assert!(lock.is_locked() && !lock.is_forced());
    assert_eq!(liveness(), Liveness::Live, "somebody delivers it");
    assert!(matches!(WriterLock::take(&path, false), Err(RunFolderError::WriterLives(_))));
    drop(lock);
    assert_eq!(liveness(), Liveness::Dead);
}

#[test]
fn test_missing_or_unreadable_is_never_dead() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let path = writer(&run).path().to_owned();
    let entry = || run.writers().unwrap().remove(0);
    assert_eq!(entry().liveness, Liveness::Dead);
    let whole = std::fs::read(path.join(WRITER_JSON)).unwrap();
    std::fs::write(path.join(WRITER_JSON), &whole[..40]).unwrap();
    assert_eq!(entry().liveness, Liveness::Live);
    assert!(entry().problem.unwrap().contains("cannot be read"));
    std::fs::remove_file(path.join(WRITER_JSON)).unwrap();
    assert_eq!(entry().liveness, Liveness::Live);
    assert!(WriterLock::take(&path, true).is_err());
    std::fs::write(path.join(WRITER_JSON), whole).unwrap();
    assert_eq!(entry().liveness, Liveness::Dead);
    std::fs::remove_file(path.join(LOCK)).unwrap();
    assert_eq!(entry().liveness, Liveness::Live);
    assert!(WriterLock::take(&path, false).is_err());
}

#[test]
fn test_a_writer_that_died_before_it_wrote_who_it_is_is_no_writer() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let (bare, locked) = (run.claim_writer().unwrap(), run.claim_writer().unwrap());
    std::fs::remove_file(bare.path().join(LOCK)).unwrap();
    let paths = [bare.path().to_owned(), locked.path().to_owned()];
    drop(bare);
    let listed = || run.writers().unwrap().iter().map(|entry| entry.number).collect::<Vec<_>>();
    assert_eq!(listed(), [1, 2], "they may be about to");
    for path in &paths {
        age(path);
    }
    assert_eq!(listed(), [2], "its lock is held");
    drop(locked);
    assert_eq!(listed(), [0; 0]);
    let spool = paths[1].join("00000001.spool");
    std::fs::write(&spool, "x").unwrap();
    age(&paths[1]);
    assert_eq!(listed(), [2], "it holds something");
    run.remove_stillborn().unwrap();
    assert_eq!(paths.map(|path| path.exists()), [false, true]);
    assert_eq!(writer(&run).number(), 3);
}

#[test]
fn test_a_writer_that_died_while_it_wrote_who_it_is_is_no_writer() {
    for fault in [Fault::DiesBefore, Fault::DiesWithin] {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path());
        for at in 0..4 {
            let writer = run.claim_writer().unwrap();
            let disk = FaultyDisk::new(at, fault);
            assert!(writer.place().write_info(&info(1), &disk).is_err());
            age(writer.path());
            drop(writer);
        }
        assert_eq!(run.writers().unwrap(), [], "{fault:?}");
        run.remove_stillborn().unwrap();
        assert_eq!(numbers(run.path()).unwrap(), [0; 0], "{fault:?}");
    }
}

#[test]
fn test_a_time_in_the_future_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::open(folder.path()).unwrap();
    let minute = Duration::from_secs(60);
    for (ahead, is_old) in [(minute / 2, false), (minute * 60, true)] {
        file.set_modified(std::time::SystemTime::now() + ahead).unwrap();
        assert_eq!(is_older(folder.path(), minute), is_old);
    }
}

#[test]
fn test_a_folder_that_was_deleted_is_claimed_again_by_its_number_until_another_writer_has_it() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run(data_dir.path());
    let mut writer = writer(&run);
    let claim_again = |writer: &mut WriterFolder| {
        assert_eq!(writer.fate(), Fate::Deleted);
        let restored = writer.place().restore_run(run.run()).unwrap();
        writer.claim_again(&restored, info(1).writer_id).unwrap();
        assert!(writer.is_locked() && writer.fate() == Fate::Kept);
        writer.number()
    };
    std::fs::remove_dir_all(run.path()).unwrap();
    assert_eq!(claim_again(&mut writer), 1);
    writer.write_info(&info(1)).unwrap();
    // The lock alone, and it was put back: it is as good as any.
    std::fs::remove_file(writer.path().join(LOCK)).unwrap();
    std::fs::write(writer.path().join(LOCK), "").unwrap();
    assert_eq!(claim_again(&mut writer), 1);
    // Somebody came by the number, who has not written who it is.
    std::fs::remove_dir_all(writer.path()).unwrap();
    let other = run.claim_writer().unwrap();
    assert_eq!((other.number(), claim_again(&mut writer)), (1, 2));
    assert!(!other.path().join(WRITER_JSON).exists());
}

#[test]
fn test_a_writer_that_was_moved_withdraws_nothing_that_is_in_its_place() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run(data_dir.path());
    let moved = writer(&run);
    std::fs::rename(moved.path(), data_dir.path().join("moved")).unwrap();
    let other = writer(&run);
    assert_eq!((moved.fate(), other.number()), (Fate::Moved, 1));
    moved.withdraw().unwrap();
    assert!(other.path().exists());
}

#[test]
fn test_a_claim_goes_on_with_the_next_number_while_somebody_looks_at_the_lock() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run(data_dir.path());
    let first = run.path().join("000001");
    std::thread::scope(|scope| {
        let claims = scope.spawn(|| {
            for _ in 0..500 {
                let claimed = run.claim_writer().unwrap();
                std::fs::remove_dir_all(claimed.path()).unwrap();
                let _ = std::fs::remove_dir_all(&first);
            }
        });
        // Whoever asks has the lock for an instant, and the claim finds it taken.
        while !claims.is_finished() {
            let _ = is_free(&first.join(LOCK));
        }
    });
}

#[test]
fn test_a_missing_lock_is_told_and_an_empty_one_lets_the_writer_be_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let path = writer(&run).path().to_owned();
    std::fs::remove_file(path.join(LOCK)).unwrap();
    let entry = run.writers().unwrap().remove(0);
    assert_eq!(entry.liveness, Liveness::Live);
    assert!(entry.problem.unwrap().contains("lock is missing"));
    std::fs::write(path.join(LOCK), "").unwrap();
    assert_eq!(run.writers().unwrap()[0].liveness, Liveness::Dead);
    WriterLock::take(&path, false).unwrap();
}

/// One row a rule of the table in [`liveness`].
#[test]
fn test_liveness_follows_machine_boot_and_file_system() {
    let folder = tempfile::tempdir_in(platform::shared_memory_folder().unwrap()).unwrap();
    let held = folder.path().join("held");
    let free = folder.path().join("free");
    std::fs::write(&free, "").unwrap();
    std::fs::write(&held, "").unwrap();
    let holder = std::fs::File::open(&held).unwrap();
    holder.lock().unwrap();
    let id = |text: &str| Some(text.to_owned());
    let here = |is_network| Here { machine_id: id("m"), boot_id: id("b"), is_network };
    let judge =
        |is_network, machine: &str, boot: &str, lock: &Path, change: &dyn Fn(&mut WriterInfo)| {
            let mut info = WriterInfo { machine_id: id(machine), boot_id: id(boot), ..info(1) };
            change(&mut info);
            here(is_network).judge(lock, Some(&info))
        };
    let as_is = |_: &mut WriterInfo| {};
    let closed = |info: &mut WriterInfo| info.ended = Some(WriterEnd::Closed);
    for is_network in [false, true] {
        // Another machine's.
        assert_eq!(judge(is_network, "x", "y", &free, &as_is), Liveness::Foreign);
        assert_eq!(judge(is_network, "x", "y", &held, &closed), Liveness::Dead);
        // The machine was started anew.
        assert_eq!(judge(is_network, "m", "y", &held, &as_is), Liveness::Dead);
    }
    for machine in ["m", "x"] {
        // The same kernel, be it in another container.
        assert_eq!(judge(false, machine, "b", &free, &as_is), Liveness::Dead);
        assert_eq!(judge(false, machine, "b", &held, &as_is), Liveness::Live);
        assert_eq!(judge(false, machine, "b", &held, &closed), Liveness::Live);
        let missing = folder.path().join("missing");
        assert_eq!(judge(false, machine, "b", &missing, &as_is), Liveness::Live);
        // Locks on a network file system prove nothing; one on a ring in memory does.
        assert_eq!(judge(true, machine, "b", &free, &as_is), Liveness::Live);
        assert_eq!(judge(true, machine, "b", &free, &closed), Liveness::Dead);
        let with_ring = |ring: &Path| {
            let ring = ring.to_owned();
            move |info: &mut WriterInfo| info.ring = Some(ring.clone())
        };
        assert_eq!(judge(true, machine, "b", &free, &with_ring(&free)), Liveness::Dead);
        assert_eq!(judge(true, machine, "b", &free, &with_ring(&held)), Liveness::Live);
        assert_eq!(judge(true, machine, "b", &free, &with_ring(&missing)), Liveness::Live);
    }
    // Nothing known is nothing proved.
    let unknown = WriterInfo { machine_id: None, boot_id: None, ..info(1) };
    let nobody = Here { machine_id: None, boot_id: None, is_network: false };
    assert_eq!(nobody.judge(&free, Some(&unknown)), Liveness::Foreign);
    assert_eq!(nobody.judge(&free, None), Liveness::Live);
}

#[test]
fn test_a_foreign_writer_is_taken_over_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let foreign = run.claim_writer().unwrap();
    let id = |text: &str| Some(text.to_owned());
    let foreign_info = WriterInfo { machine_id: id("x"), boot_id: id("y"), ..info(1) };
    foreign.write_info(&foreign_info).unwrap();
    let path = foreign.path().to_owned();
    drop(foreign);
    assert_eq!(run.writers().unwrap()[0].liveness, Liveness::Foreign);
    let error = WriterLock::take(&path, false).unwrap_err();
    assert!(error.to_string().contains("of host host"), "{error}");
    let lock = WriterLock::take(&path, true).unwrap();
    assert!(lock.is_forced());
    assert_eq!(lock.info(), &foreign_info);
}

struct Nothing;

impl spool::DeclarationSource for Nothing {
    fn encode_declarations(
        &mut self,
        _: &[MetricNo],
        _: &[EnvNo],
        _: &mut Vec<u8>,
    ) -> Result<(), spool::UnknownNumber> {
        Ok(())
    }
}

#[test]
fn test_undelivered_is_what_lies_behind_the_watermark() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let writer = writer(&run);
    let is_undelivered = || run.writers().unwrap()[0].is_undelivered;
    assert!(!is_undelivered());
    let mut spool =
        spool::SpoolWriter::create(writer.path(), info(1).writer_id, SpoolOptions::default());
    for seq in 1..=2 {
        let batch = spool::SealedBatch {
            kind: BatchKind::Attributes,
            urgent: false,
            seq: Seq(seq),
            lsn_first: Lsn(0),
            lsn_last: Lsn(7),
            payload: b"x",
            uses: &spool::Numbers::default(),
        };
        let _ = spool.append(&batch, &mut Nothing).unwrap();
    }
    assert!(is_undelivered());
    write_acked(writer.path(), Seq(1)).unwrap();
    assert!(is_undelivered());
    write_acked(writer.path(), Seq(2)).unwrap();
    assert!(!is_undelivered());
    assert_eq!(read_acked(writer.path()).unwrap(), Seq(2));
}

#[test]
fn test_a_ring_is_measured_whether_its_writer_lives_or_not() {
    let folder = tempfile::tempdir_in(platform::shared_memory_folder().unwrap()).unwrap();
    let place = RingPlace::Folder(folder.path().to_owned());
    let options = RingOptions { capacity_bytes: 4096, place };
    let (ring, mut producer, consumer) =
        Ring::create(&options, info(1).writer_id, RingStart::ORIGIN).unwrap();
    let path = ring.kind().path().unwrap().to_owned();
    let info = WriterInfo {
        ring: Some(path.clone()),
        ring_device: platform::device(folder.path()).unwrap(),
        ..info(1)
    };
    producer.reserve(64).unwrap().fill();
    producer.commit();
    assert_eq!(info.ring_bytes(Liveness::Live), Some(64));
    drop((ring, producer, consumer));
    assert_eq!(info.ring_bytes(Liveness::Dead), Some(64));
    let ended = WriterInfo { ended: Some(WriterEnd::Closed), ..info.clone() };
    assert_eq!(ended.ring_bytes(Liveness::Dead), Some(0));
    std::fs::remove_file(path).unwrap();
    assert_eq!(info.ring_bytes(Liveness::Dead), Some(0), "nothing is there any more");
    assert_eq!(info.ring_bytes(Liveness::Live), None, "another is about to take its place");
    let elsewhere = WriterInfo { ring_device: Some(0), ..info };
    assert_eq!(elsewhere.ring_bytes(Liveness::Foreign), None);
}

#[test]
fn test_every_cut_and_every_flipped_bit_of_a_watermark_counts_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acked");
    write_acked(folder.path(), Seq(123)).unwrap();
    let whole = std::fs::read(&file).unwrap();
    // CRC32C of 123 as a little-endian u64.
    assert_eq!(String::from_utf8(whole.clone()).unwrap(), "123 86219626\n");
    let is_none = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        read_acked(folder.path()).unwrap() == Seq(0)
    };
    assert!((0..whole.len()).all(|end| is_none(&whole[..end])));
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(is_none(&damaged), "bit {bit}");
    }
}

#[test]
fn test_cursors_of_all_writers_are_merged_and_damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let at = |step| CursorSet {
        series: vec![SeriesCursor {
            name: "loss".to_owned(),
            scale: Scale::MlStep,
            labels: Vec::new(),
            env_id: None,
            position: Position { step, ..Position::NONE },
        }],
        environments: Vec::new(),
    };
    for step in [7, 9, 8] {
        writer(&run).place().write_cursors(&at(step), &Disk).unwrap();
    }
    let (cursors, problems) = run.cursors();
    assert_eq!((cursors, problems.len()), (at(9), 0));
    std::fs::write(run.path().join("cursors/000002"), "nonsense").unwrap();
    let (cursors, problems) = run.cursors();
    assert_eq!((cursors, problems.len()), (at(8), 1));
    assert!(run.has_cursors(2) && !run.has_cursors(4));
}

#[test]
fn test_a_half_deleted_folder_is_in_no_listing() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let path = writer(&run).path().to_owned();
    let removed = platform::temporary_path(&path).unwrap();
    std::fs::rename(&path, removed.with_extension("removed")).unwrap();
    assert!(run.writers().unwrap().is_empty());
}

#[test]
fn test_what_is_left_of_deleted_folders_goes_with_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let left = run.path().join(".000001.0123456789abcdef.removed");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join(".nfs0001"), "").unwrap();
    writer(&run).withdraw().unwrap();
    let names = std::fs::read_dir(run.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["run.json"]);
}
