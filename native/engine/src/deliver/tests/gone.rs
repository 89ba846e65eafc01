//! Spools whose beginning is at another store than the one they are delivered to.

use super::*;
use crate::recovery::RingOutcome;
use crate::spool::{segment_numbers, segment_path};

/// A writer whose first segment somebody acknowledged, after which it was deleted; and the first
/// batch that is left.
fn without_beginning(run: &RunFolder) -> (WriterInfo, Seq) {
    let (folder, info) = write(run, 20, None);
    let numbers = segment_numbers(folder.path()).unwrap();
    let path = folder.path().to_owned();
    std::fs::remove_file(segment_path(&path, numbers[0])).unwrap();
    let first = crate::spool::first_seq(&path).unwrap();
    assert!(first > Seq(2));
    write_acked(&path, first).unwrap();
    (info, first)
}

/// A server that says what it has, as far as it was given that: a `prefix` of the writer's batches.
fn server_with(prefix: u64, writer_id: WriterId) -> Arc<MemoryServer> {
    let server = MemoryServer::new();
    let mut records = server.records();
    records.tells_stored = true;
    let writer = records.writers.entry(writer_id).or_default();
    for seq in (1..=prefix).map(Seq) {
        let payload = attributes(seq.0, false);
        let payload_crc32c = crc32c::crc32c(&payload);
        let kind = BatchKind::Attributes;
        let batch = Batch { seq, kind, payload, payload_crc32c, urgent: false };
        writer.batches.insert(seq, batch);
    }
    drop(records);
    server
}

/// Delivers all dead writers, and gives what a user hears and how many batches arrived meanwhile.
fn sweep(data_dir: &Path, server: &Arc<MemoryServer>) -> (Vec<String>, usize) {
    let arrived = || server.records().writers.values().map(|w| w.arrivals.len()).sum::<usize>();
    let before = arrived();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let on_event: OnEvent = Arc::new(move |event| heard.lock().extend(event.problems()));
    dead_writers(data_dir, server).deliver(&Cancel::never(), &on_event);
    let told = std::mem::take(&mut *told.lock());
    (told, arrived() - before)
}

#[test]
fn test_a_spool_whose_beginning_the_server_lacks_is_delivered_told_and_kept() {
    for stored in [0, 1] {
        let data_dir = tempfile::tempdir().unwrap();
        let run = run_folder(data_dir.path(), "local", "run");
        let (info, first) = without_beginning(&run);
        let server = server_with(stored, info.writer_id);
        let (told, count) = sweep(data_dir.path(), &server);
        assert_eq!(count as u64, 21 - first.0, "what there is");
        assert!(server.records().writers[&info.writer_id].end.unwrap().died);
        let (begin, end) = (stored + 1, first.0 - 1);
        let sentence = if begin == end {
            format!("writer 1 of run \"run\": batch {begin} is missing")
        } else {
            format!("writer 1 of run \"run\": batches {begin} to {end} are missing")
        };
        assert!(told.len() == 1 && told[0].starts_with(&sentence), "{told:?}");
        let entry = run.writers().unwrap().remove(0);
        assert!(told[0].ends_with(&entry.kept.unwrap()), "{told:?}");

        // The server would say by now that it has what is stored behind the gap.
        assert_eq!(sweep(data_dir.path(), &server_with(20, info.writer_id)), (told, 0));
        let lock = WriterLock::take(&entry.path, false).unwrap();
        lock.remove_delivered().unwrap();
        assert!(entry.path.join("kept").exists(), "nobody deletes it");
    }
}

#[test]
fn test_a_spool_whose_ring_may_turn_up_is_told_without_a_mark() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (info, first) = without_beginning(&run);
    let path = run.writers().unwrap().remove(0).path;
    let mut lock = WriterLock::take(&path, false).unwrap();
    let mut recovered = recover(&mut lock, &recovery_options()).unwrap();
    recovered.ring = RingOutcome::OutOfReach { up_to_bytes: 8 };
    let options = options(&server_with(0, info.writer_id), "local");
    let nobody: OnProgress = Arc::new(|_, _| {});
    let delivered = deliver(&run, lock, &recovered, &options, &Cancel::never(), nobody).unwrap();
    let told = delivered.kept.unwrap();
    assert!(told.starts_with(&format!("batches 1 to {} are missing", first.0 - 1)), "{told}");
    assert!(told.ends_with("there may be more to come"), "{told}");
    assert!(!path.join("kept").exists());
}

#[test]
fn test_a_spool_goes_where_its_beginning_is() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (info, first) = without_beginning(&run);
    let server = server_with(first.0 - 1, info.writer_id);
    assert_eq!(sweep(data_dir.path(), &server), (vec![], 21 - first.0 as usize));
    assert_eq!(run.writers().unwrap(), []);
    assert_eq!(server.applied(info.writer_id), seqs(1..=20));
}

#[test]
fn test_a_folder_that_is_marked_goes_on_its_way_once_the_mark_is_deleted() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (info, first) = without_beginning(&run);
    sweep(data_dir.path(), &server_with(0, info.writer_id));
    let path = run.writers().unwrap().remove(0).path;
    for damaged in ["", "\u{0}"] {
        std::fs::write(path.join("kept"), damaged).unwrap();
        assert_eq!(sweep(data_dir.path(), &server_with(20, info.writer_id)).1, 0, "{damaged:?}");
    }
    std::fs::remove_file(path.join("kept")).unwrap();
    let server = server_with(first.0 - 1, info.writer_id);
    assert_eq!(sweep(data_dir.path(), &server).0, [""; 0]);
    assert_eq!(server.applied(info.writer_id), seqs(1..=20));
    assert!(!path.exists());
}

#[test]
fn test_a_server_that_does_not_say_what_it_has_is_believed_to_have_the_beginning() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    without_beginning(&run);
    assert!(deliver_first(&run, &options(&MemoryServer::new(), "local")).unwrap().is_removed);
}

#[test]
fn test_a_broken_stream_does_not_make_the_gap_forgotten() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (info, first) = without_beginning(&run);
    let server = server_with(0, info.writer_id);
    server.script(|event| match event {
        Event::Message { attempt: 1, index: 3, .. } => Action::Drop,
        _ => Action::Serve,
    });
    let delivered = deliver_first(&run, &options(&server, "local")).unwrap();
    assert!(delivered.kept.unwrap().contains(&format!("batches 1 to {} are missing", first.0 - 1)));
    assert_eq!(server.records().hellos.len(), 2);
    assert_eq!(server.applied(info.writer_id), seqs(first.0..=20));
}

#[test]
fn test_what_another_server_lacks_is_told_and_the_runs_own_still_gets_it() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (info, first) = without_beginning(&run);
    let elsewhere = server_with(0, info.writer_id);
    let delivered = deliver_first(&run, &options(&elsewhere, "https://elsewhere")).unwrap();
    assert!(delivered.kept.unwrap().ends_with("is kept for the store it was logged for"));
    assert!(!delivered.is_removed);
    assert_eq!(run.writers().unwrap()[0].kept, None);
    let own = server_with(first.0 - 1, info.writer_id);
    assert_eq!(sweep(data_dir.path(), &own).0, [""; 0]);
    assert_eq!(own.applied(info.writer_id), seqs(1..=20));
    assert_eq!(run.writers().unwrap(), []);
}

#[test]
fn test_a_server_that_lost_what_it_acknowledged_gets_it_again_from_the_spool() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "https://own", "run");
    let info = dead(&run, 20);
    write_acked(&run.writers().unwrap()[0].path, Seq(15)).unwrap();
    let server = server_with(4, info.writer_id);
    let delivered = deliver_first(&run, &options(&server, "https://own")).unwrap();
    assert!(delivered.is_removed);
    assert_eq!(server.applied(info.writer_id), seqs(1..=20));
    let firsts: Vec<_> = server.records().hellos.iter().map(|hello| hello.first_seq).collect();
    assert_eq!(firsts, [Seq(16), Seq(5)]);
}
