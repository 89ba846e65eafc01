//! Renderings of writers that are dead.

use super::*;
use crate::renderings::has_left;
use crate::renderings::tests::{finish, id, names, video, write, write_sidecar};

fn closed(data_dir: &Path) -> (PathBuf, WriterInfo) {
    let mut life = Life::begin(data_dir, RingPlace::Folder(data_dir.into()), sound());
    life.log_point(1, 1.0);
    life.seal().unwrap();
    let info = WriterInfo {
        ended: Some(WriterEnd::Closed),
        last_seq: Some(1),
        acked: Some(1),
        ..life.info.clone()
    };
    life.folder.write_info(&info).unwrap();
    (life.die().0, info)
}

#[test]
fn test_renderings_come_behind_what_the_ring_held() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    life.seal().unwrap();
    life.log_point(1, 2.0);
    let (path, mut logged) = life.die();
    finish(&path, 1, 1000);
    let report = recovered(&path);
    assert!(report.is_complete() && report.problems.is_empty(), "{report:?}");
    assert_eq!(report.ring, RingOutcome::Sealed { batch_count: 1 });
    let frames = frames(&path);
    let kinds: Vec<_> =
        frames.iter().filter(|frame| frame.seq > Seq(0)).map(|frame| frame.kind).collect();
    assert_eq!(kinds[..3], [FrameKind::Points, FrameKind::Points, FrameKind::Renderings]);
    assert_eq!(report.last_seq.0, kinds.len() as u64);
    let found = contents(&frames);
    assert_eq!(found.renderings.whole[&id(1)].1, video(1, 1000));
    logged.renderings = found.renderings.clone();
    assert_eq!(found, logged);
    assert!(!has_left(&path).unwrap());
}

#[test]
fn test_a_closed_writer_is_undelivered_until_its_renderings_are() {
    let folder = memory_folder();
    let (path, info) = closed(folder.path());
    write_acked(&path, Seq(1)).unwrap();
    let run = run_folder(folder.path());
    assert!(!run.writers().unwrap()[0].is_undelivered);
    finish(&path, 1, 500);
    assert!(run.writers().unwrap()[0].is_undelivered);
    assert_eq!(run.undelivered_before(9).unwrap().len(), 1);
    // Who takes it for delivered leaves it what it has.
    WriterLock::take(&path, false).unwrap().remove_delivered().unwrap();
    let report = recovered(&path);
    assert_eq!((report.ring, report.first_seq), (RingOutcome::Ended, Seq(1)));
    let lock = WriterLock::take(&path, false).unwrap();
    assert_eq!(lock.info().ended, info.ended, "it was closed, whoever sealed the rest");
    assert_eq!(lock.info().last_seq, Some(report.last_seq.0));
    assert!(run.writers().unwrap()[0].is_undelivered);
    write_acked(&path, report.last_seq).unwrap();
    lock.remove_delivered().unwrap();
    assert!(!path.exists());
}

#[test]
fn test_numbers_go_on_behind_those_of_a_spool_that_was_delivered_and_deleted() {
    let folder = memory_folder();
    let (path, info) = closed(folder.path());
    std::fs::remove_file(segment_path(&path, 1)).unwrap();
    finish(&path, 1, 100);
    let report = recovered(&path);
    assert_eq!((report.first_seq, report.last_seq), (Seq(2), Seq(2)));
    assert_eq!(report.problems, [""; 0]);
    // A sender's writer that was killed and lost its ring says nowhere how far it was.
    let (path, _) = closed(folder.path());
    let info = WriterInfo {
        sender: SenderKind::Grpc,
        ring: None,
        ended: None,
        last_seq: None,
        acked: None,
        number: 2,
        ..info
    };
    std::fs::write(path.join("writer.json"), serde_json::to_vec(&info).unwrap()).unwrap();
    let lock = WriterLock::take(&path, false).unwrap();
    lock.write_cursors(&CursorSet::default(), &sound()).unwrap();
    drop(lock);
    std::fs::remove_file(segment_path(&path, 1)).unwrap();
    finish(&path, 1, 100);
    // Nor does one who goes on with the run find it out.
    let mut lock = WriterLock::take(&path, false).unwrap();
    assert_eq!(recover_ring(&mut lock, &options(&sound())).unwrap().last_seq, Seq(0));
    drop(lock);
    let report = recovered(&path);
    assert!(report.first_seq > Seq(1 << 32) && report.first_seq == report.last_seq, "{report:?}");
}

#[test]
fn test_what_cannot_be_read_stays_and_the_rest_is_sealed() {
    let folder = memory_folder();
    let (path, _) = closed(folder.path());
    write(&path, &format!("{}.mp4", id(1)), b"nobody knows what it shows");
    write_sidecar(&path, 2);
    write(&path, &format!("{}.part", id(2)), b"no frame was ever whole");
    finish(&path, 3, 700);
    write_sidecar(&path, 4);
    write(&path, &format!("{}.tmp", id(3)), b"half");
    let report = recovered(&path);
    assert!(report.is_complete());
    let problem = report.problems.join(" ");
    assert!(problem.contains(&id(1).to_string()) && problem.contains("missing"), "{problem}");
    assert_eq!(report.problems.len(), 1);
    assert_eq!(names(&path), [format!("{}.mp4", id(1))]);
    let renderings = contents(&frames(&path)).renderings;
    assert_eq!(renderings.whole.keys().collect::<Vec<_>>(), [&id(3)]);
    // Nobody deletes it.
    WriterLock::take(&path, false).unwrap().remove_delivered().unwrap();
    let aside = std::fs::read_dir(path.parent().unwrap()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|extension| extension == "unreadable").then_some(path)
    });
    assert_eq!(names(&aside.unwrap()), [format!("{}.mp4", id(1))]);
}

#[test]
fn test_one_by_a_newer_engine_keeps_its_writer_open() {
    let folder = memory_folder();
    let (path, _) = closed(folder.path());
    finish(&path, 1, 100);
    write(&path, &format!("{}.json", id(1)), b"{\"version\": 2}");
    let report = recovered(&path);
    assert!(!report.is_complete() && report.problems[0].contains("upgrade"), "{report:?}");
    WriterLock::take(&path, false).unwrap().remove_delivered().unwrap();
    assert_eq!(names(&path).len(), 2);
}

/// Whoever opens a run does not wait for them, nor does the ring for a disk that has no room for them.
#[test]
fn test_a_ring_is_recovered_whatever_becomes_of_the_renderings() {
    for is_full in [false, true] {
        let folder = memory_folder();
        let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
        life.log_point(1, 1.0);
        let (ring, number) = (life.ring.kind().path().unwrap().to_owned(), life.info.number);
        let (path, _) = life.die();
        finish(&path, 1, 1000);
        let mut lock = WriterLock::take(&path, false).unwrap();
        let report = if is_full {
            // Segment, its header, declarations (twice two writes), points (two writes), sync; then this.
            recover(&mut lock, &options(&FaultyDisk::new(9, Fault::Full)))
        } else {
            recover_ring(&mut lock, &options(&sound()))
        };
        let report = report.unwrap();
        assert!(!report.is_complete(), "{report:?}");
        assert_eq!(report.problems.len(), usize::from(is_full), "{report:?}");
        assert_eq!(report.ring, RingOutcome::Sealed { batch_count: 1 });
        assert_eq!(lock.info().ended, Some(WriterEnd::Recovered));
        assert!(!ring.exists() && run_folder(folder.path()).has_cursors(number));
        drop(lock);
        assert_eq!(names(&path).len(), 2);
        let report = recovered(&path);
        assert!(report.is_complete() && report.problems.is_empty(), "{report:?}");
        let contents = contents(&frames(&path));
        assert_eq!((contents.points[&1].len(), contents.renderings.whole.len()), (1, 1));
    }
}

#[test]
fn test_another_machines_renderings_are_sealed_by_whoever_is_told_to() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    life.seal().unwrap();
    let elsewhere = Some("elsewhere".to_owned());
    let info = WriterInfo {
        machine_id: elsewhere.clone(),
        boot_id: elsewhere,
        ring: Some("/nowhere/metrana-0".into()),
        ..life.info.clone()
    };
    life.folder.write_info(&info).unwrap();
    life.ring.unlink().unwrap();
    let (path, _) = life.die();
    finish(&path, 1, 1000);
    let refused = WriterLock::take(&path, false);
    assert!(matches!(refused, Err(RunFolderError::WriterIsForeign { .. })), "{refused:?}");
    assert_eq!(names(&path).len(), 2);
    let mut lock = WriterLock::take(&path, true).unwrap();
    let report = recover(&mut lock, &options(&sound())).unwrap();
    assert!(report.is_complete(), "its ring is given up: {report:?}");
    let contents = contents(&frames(&path));
    assert_eq!((contents.points[&1].len(), contents.renderings.whole.len()), (1, 1));
    assert_eq!(names(&path), [""; 0]);
}

/// The numbers of its pieces could be those that the ring's records get elsewhere.
#[test]
fn test_renderings_wait_for_a_ring_that_is_out_of_reach() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    let ring = life.ring.kind().path().unwrap().to_owned();
    let aside = folder.path().join("elsewhere");
    life.folder
        .write_info(&WriterInfo { ring: Some("/nowhere/metrana-0".into()), ..life.info.clone() })
        .unwrap();
    let info = life.info.clone();
    let (path, _) = life.die();
    finish(&path, 1, 100);
    let report = recovered(&path);
    assert!(!report.is_complete() && report.problems.len() == 2, "{report:?}");
    assert_eq!((report.last_seq, names(&path).len()), (Seq(0), 2));
    // It is back.
    assert!(ring.exists() && !aside.exists());
    std::fs::write(path.join("writer.json"), serde_json::to_vec(&info).unwrap()).unwrap();
    let report = recovered(&path);
    assert!(report.is_complete(), "{report:?}");
    let found = contents(&frames(&path));
    assert_eq!((found.points[&1].len(), found.renderings.whole.len()), (1, 1));
}
