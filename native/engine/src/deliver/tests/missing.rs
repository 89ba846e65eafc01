//! Spools of which somebody deleted or cut files.

use std::path::PathBuf;

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
    let is_lost = |told: &str| told.contains("up to 4096 bytes of points, is lost");
    let told = sweep(data_dir.path(), &MemoryServer::with_script(|_| Action::Drop));
    assert_eq!((told.len(), told.iter().filter(|told| is_lost(told)).count()), (2, 1), "{told:?}");
    assert_eq!(sweep(data_dir.path(), &MemoryServer::new()), [""; 0]);
}

/// The segments that a writer left whose server had the first one, which is deleted. Nothing says so.
fn behind_acknowledged(run: &RunFolder) -> (WriterInfo, Vec<PathBuf>) {
    let (folder, info) = write(run, 20, None);
    folder.write_info(&WriterInfo { sender: SenderKind::Grpc, ..info.clone() }).unwrap();
    folder.place().write_cursors(&CursorSet::default(), &Disk).unwrap();
    let numbers = segment_numbers(folder.path()).unwrap();
    let mut paths: Vec<_> = numbers.iter().map(|no| segment_path(folder.path(), *no)).collect();
    std::fs::remove_file(paths.remove(0)).unwrap();
    (info, paths)
}

/// Where the frames of a segment begin, its end included, behind the header's 64 bytes.
fn borders(segment: &[u8]) -> Vec<usize> {
    let magics = (0..segment.len()).filter(|at| segment[*at..].starts_with(b"MTRF"));
    magics.chain([segment.len()]).collect()
}

#[test]
fn test_a_beginning_that_cannot_be_read_is_told_though_nothing_says_where_it_began() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    for frames in 0.. {
        let (info, paths) = behind_acknowledged(&run);
        let mut bytes = std::fs::read(&paths[0]).unwrap();
        let borders = borders(&bytes);
        let Some(end) = borders.get(frames) else { break };
        bytes[..*end].fill(0);
        std::fs::write(&paths[0], bytes).unwrap();
        let server = MemoryServer::new();
        let told = sweep(data_dir.path(), &server);
        let applied = server.applied(info.writer_id);
        assert_eq!(applied, seqs(applied[0].0..=20), "{frames}");
        if frames == 0 {
            // The header alone is no loss: what it says, the first frame says too.
            assert_eq!(told, [""; 0]);
        } else {
            let lost = format!(
                "batches up to {} are lost that were not acknowledged, the spool is damaged: ",
                applied[0].0 - 1
            );
            assert!(told.len() == 1 && told[0].contains(&lost), "{frames}: {told:?}");
        }
        assert!(run.writers().unwrap().is_empty());
    }
}

#[test]
fn test_a_beginning_that_cannot_be_read_is_missed_from_where_it_began_if_that_is_known() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    for is_header_whole in [true, false] {
        let (info, paths) = behind_acknowledged(&run);
        let mut bytes = std::fs::read(&paths[0]).unwrap();
        let begin = if is_header_whole { 64 } else { 0 };
        let first = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
        let second_frame = borders(&bytes)[1];
        bytes[begin..second_frame].fill(0);
        std::fs::write(&paths[0], bytes).unwrap();
        if !is_header_whole {
            let folder = paths[0].parent().unwrap();
            // A writer that sent nothing itself, and whoever delivered it wrote down how far.
            let info = WriterInfo { sender: SenderKind::None, ..info.clone() };
            WriterLock::take(folder, false).unwrap().write_info(info, &Disk).unwrap();
            write_acked(folder, Seq(first - 1)).unwrap();
        }
        let server = MemoryServer::new();
        let told = sweep(data_dir.path(), &server);
        assert_eq!(server.applied(info.writer_id), seqs(first + 1..=20));
        let lost = format!("batches {first} to {first} are lost");
        assert!(told.len() == 1 && told[0].contains(&lost), "{told:?}");
    }
}
