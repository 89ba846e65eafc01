//! Spools of which somebody deleted or cut files.

use super::*;
use crate::spool::{CursorSet, Disk, segment_numbers, segment_path};

#[test]
fn test_what_a_living_writer_saw_acknowledged_and_deleted_is_not_missed() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, info) = write(&run, 9, None);
    folder.write_info(&WriterInfo { sender: SenderKind::Grpc, ..info.clone() }).unwrap();
    folder.place().write_cursors(&CursorSet::default(), &Disk).unwrap();
    std::fs::remove_file(segment_path(folder.path(), 1)).unwrap();
    drop(folder);
    let server = MemoryServer::new();
    let delivered = deliver_first(&run, &options(&server, "local")).unwrap();
    assert_eq!(delivered.problems, [""; 0]);
    let applied = server.applied(info.writer_id);
    assert!(applied.first() > Some(&Seq(1)) && applied.last() == Some(&Seq(9)), "{applied:?}");
    assert_eq!(server.records().hellos[0].first_seq, applied[0]);
}

#[test]
fn test_a_first_segment_that_nobody_acknowledged_is_missed_and_the_rest_delivered() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    for (sender, acked) in [(SenderKind::None, 0), (SenderKind::None, 1), (SenderKind::Grpc, 0)] {
        let (folder, info) = write(&run, 9, None);
        folder.write_info(&WriterInfo { sender, ..info.clone() }).unwrap();
        if acked > 0 {
            write_acked(folder.path(), Seq(acked)).unwrap();
        }
        std::fs::remove_file(segment_path(folder.path(), 1)).unwrap();
        drop(folder);
        // Whoever went on with the run has recovered it already.
        let path = run.writers().unwrap()[0].path.clone();
        recover(&mut WriterLock::take(&path, false).unwrap(), &recovery_options()).unwrap();
        let server = MemoryServer::new();
        let delivered = deliver_first(&run, &options(&server, "local")).unwrap();
        let applied = server.applied(info.writer_id);
        let first = applied[0].0;
        assert!(first > acked + 1 && applied.last() == Some(&Seq(9)), "{applied:?}");
        let lost = format!("batches {} to {} are lost", acked + 1, first - 1);
        assert_eq!(delivered.problems.len(), 1);
        assert!(delivered.problems[0].contains(&lost), "{:?}", delivered.problems);
    }
}

/// A closed writer that sent what it logged, but for all of its batches.
fn closed_sender(run: &RunFolder, acked: Option<u64>) -> (WriterFolder, WriterInfo) {
    let (folder, info) = write(run, 20, Some(WriterEnd::Closed));
    let info = WriterInfo { sender: SenderKind::Grpc, last_seq: Some(20), acked, ..info };
    folder.write_info(&info).unwrap();
    folder.place().write_cursors(&CursorSet::default(), &Disk).unwrap();
    (folder, info)
}

/// Delivers all dead writers and gives what was told.
fn sweep(data_dir: &Path, server: &Arc<MemoryServer>) -> Vec<String> {
    let problems = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&problems);
    let on_event: OnEvent = Arc::new(move |event| heard.lock().extend(event.problems()));
    dead_writers(data_dir, server).deliver(&Cancel::never(), &on_event);
    std::mem::take(&mut *problems.lock())
}

#[test]
fn test_a_cut_end_of_a_closed_writer_that_sent_is_missed() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    for keep in [0, 40, 64, 300, usize::MAX] {
        // Older ones did not say how far they were acknowledged.
        for acked in [None, Some(0)] {
            let (folder, info) = closed_sender(&run, acked);
            let last = segment_numbers(folder.path()).unwrap().pop().unwrap();
            let path = segment_path(folder.path(), last);
            drop(folder);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..keep.min(bytes.len() - 1)]).unwrap();
            let server = MemoryServer::new();
            let told = sweep(data_dir.path(), &server);
            let there = server.applied(info.writer_id);
            assert_eq!(there, seqs(1..=there.len() as u64));
            let sentence = format!("batches {} to 20 are lost", there.len() + 1);
            assert!(told.len() == 1 && told[0].contains(&sentence), "{keep}, {acked:?}: {told:?}");
        }
    }
}

#[test]
fn test_a_spool_that_is_gone_is_missed_from_what_was_acknowledged_on() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, _) = closed_sender(&run, Some(11));
    for number in segment_numbers(folder.path()).unwrap() {
        std::fs::remove_file(segment_path(folder.path(), number)).unwrap();
    }
    drop(folder);
    let told = sweep(data_dir.path(), &MemoryServer::new());
    assert!(told.len() == 1 && told[0].contains("batches 12 to 20 are lost"), "{told:?}");
}

#[test]
fn test_what_a_recovery_left_is_missed_if_it_is_gone_before_the_delivery() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    dead(&run, 20);
    let path = run.writers().unwrap()[0].path.clone();
    recover(&mut WriterLock::take(&path, false).unwrap(), &recovery_options()).unwrap();
    let last = segment_numbers(&path).unwrap().pop().unwrap();
    std::fs::remove_file(segment_path(&path, last)).unwrap();
    let told = sweep(data_dir.path(), &MemoryServer::new());
    assert!(told.len() == 1 && told[0].contains(" to 20 are lost"), "{told:?}");
}

#[test]
fn test_a_lost_ring_is_told_though_the_rest_cannot_be_delivered_yet() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, info) = write(&run, 3, None);
    let ring = Some(Path::new("/dev/shm/metrana-gone").to_owned());
    let boot_id = Some("0".repeat(32));
    folder.write_info(&WriterInfo { boot_id, ring, ring_capacity: 4096, ..info }).unwrap();
    drop(folder);
    let is_lost = |told: &str| told.contains("up to 128 points, is lost");
    let told = sweep(data_dir.path(), &MemoryServer::with_script(|_| Action::Drop));
    assert_eq!((told.len(), told.iter().filter(|told| is_lost(told)).count()), (2, 1), "{told:?}");
    assert_eq!(sweep(data_dir.path(), &MemoryServer::new()), [""; 0]);
}
