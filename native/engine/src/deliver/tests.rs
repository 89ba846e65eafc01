//! Dead writers on a real disk, delivered to the in-memory server.

mod claims;
mod gone;
mod missing;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::attributes::{AttributeOperation, AttributeUpdate, AttributesEncoder, CloseStatus};
use crate::platform;
use crate::recovery::{RecoveryOptions, recover};
use crate::run_folder::{
    ResumeStrategy as FolderResume, RunNames, RunRequest, SenderKind, WriterFolder, WriterOptions,
};
use crate::seal::SealSettings;
use crate::spool::{Numbers, SealedBatch, SpoolOptions, SpoolWriter, UnknownNumber};
use crate::transport::memory::{Action, Event, MemoryServer, MemoryTransport, refusal};
use crate::transport::{Batch, RefusalCode};
use crate::types::{BatchKind, Compression, EnvNo, Lsn, MetricNo, WriterId};

const SEGMENT_BYTES: u64 = 600;

fn run_folder(data_dir: &Path, destination: &str, run_name: &str) -> RunFolder {
    let names =
        RunNames { destination, workspace_name: "default", project_name: "default", run_name };
    let request = RunRequest {
        names,
        experiment_name: "",
        orchestration_id: "job",
        resume: FolderResume::Never,
        run_id: None,
    };
    RunFolder::claim(data_dir, &request).unwrap().0
}

fn recovery_options() -> RecoveryOptions {
    RecoveryOptions {
        spool: spool_options(),
        seal: SealSettings { compression: Compression::None, payload_bytes: 1000 },
    }
}

fn spool_options() -> SpoolOptions {
    SpoolOptions { segment_bytes: SEGMENT_BYTES, ..SpoolOptions::default() }
}

/// A writer of `count` attribute batches, the last of which is its close record if it was closed.
fn write(run: &RunFolder, count: u64, ended: Option<WriterEnd>) -> (WriterFolder, WriterInfo) {
    let folder = run.claim_writer().unwrap();
    let writer_id = WriterId(platform::random_bytes().unwrap());
    let info = WriterInfo {
        version: 1,
        writer_id,
        run_id: run.run().run_id,
        number: folder.number(),
        logger_id: String::new(),
        host: platform::host_name(),
        pid: 7,
        machine_id: platform::machine_id(),
        boot_id: platform::boot_id(),
        ring: None,
        ring_capacity: 0,
        ring_device: None,
        sender: SenderKind::None,
        client_version: "0".to_owned(),
        opened_at_ms: 5,
        options: WriterOptions { create_project_if_missing: true, ..WriterOptions::default() },
        ended,
        last_seq: None,
        acked: None,
    };
    folder.write_info(&info).unwrap();
    let mut spool = SpoolWriter::create(folder.path(), writer_id, spool_options());
    for seq in 1..=count {
        let payload = attributes(seq, seq == count && ended == Some(WriterEnd::Closed));
        let batch = SealedBatch {
            kind: BatchKind::Attributes,
            urgent: false,
            seq: Seq(seq),
            lsn_first: Lsn(seq * 8),
            lsn_last: Lsn(seq * 8 + 7),
            payload: &payload,
            uses: &Numbers::default(),
        };
        let _ = spool.append(&batch, &mut Nameless).unwrap();
    }
    (folder, info)
}

/// A writer that is dead: its lock is free.
fn dead(run: &RunFolder, count: u64) -> WriterInfo {
    write(run, count, None).1
}

fn attributes(seq: u64, is_close: bool) -> Vec<u8> {
    let operation = if is_close {
        AttributeOperation::Close { status: CloseStatus::Finished, timestamp_ms: 5 }
    } else {
        AttributeOperation::SetDescription(seq.to_string().repeat(100))
    };
    let mut encoder = AttributesEncoder::new();
    encoder.push(&AttributeUpdate { operation, initial: false });
    let mut payload = Vec::new();
    encoder.encode(&mut payload);
    payload
}

struct Nameless;

impl crate::spool::DeclarationSource for Nameless {
    fn encode_declarations(
        &mut self,
        _metrics: &[MetricNo],
        _envs: &[EnvNo],
        _out: &mut Vec<u8>,
    ) -> Result<(), UnknownNumber> {
        Ok(())
    }
}

fn options(server: &Arc<MemoryServer>, destination: &str) -> DeliveryOptions {
    let mut options =
        DeliveryOptions::new(Arc::new(MemoryTransport(Arc::clone(server))), destination);
    options.settings.initial_backoff = std::time::Duration::from_millis(1);
    options.settings.max_backoff = std::time::Duration::from_millis(2);
    options
}

fn deliver_first(run: &RunFolder, options: &DeliveryOptions) -> Result<Delivered, DeliverError> {
    let entry = &run.writers().unwrap()[0];
    let mut lock = WriterLock::take(&entry.path, false).unwrap();
    let recovered = recover(&mut lock, &recovery_options()).unwrap();
    deliver(run, lock, &recovered, options, &Cancel::never(), Arc::new(|_, _| {}))
}

fn seqs(range: std::ops::RangeInclusive<u64>) -> Vec<Seq> {
    range.map(Seq).collect()
}

#[test]
fn test_a_dead_writer_is_opened_delivered_ended_and_removed() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let info = dead(&run, 20);
    let server = MemoryServer::new();
    let delivered = deliver_first(&run, &options(&server, "local")).unwrap();
    assert!(delivered.is_removed && delivered.opened.created);
    assert_eq!(delivered.last_seq, Seq(20));
    assert_eq!(server.applied(info.writer_id), seqs(1..=20));
    let records = server.records();
    assert!(records.writers[&info.writer_id].end.unwrap().died);
    let opened = &records.opened[0];
    assert_eq!(opened.name_conflict, NameConflict::Rename);
    assert_eq!((opened.run_id, opened.run_name.as_str()), (run.run().run_id, "run"));
    assert_eq!(opened.writer, WriterIdentity::of(&info, Liveness::Dead));
    assert_eq!(run.writers().unwrap(), []);
    assert!(run.has_cursors(info.number), "they outlive the folder");
}

#[test]
fn test_a_closed_writer_is_not_ended_as_one_that_died() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, info) = write(&run, 3, Some(WriterEnd::Closed));
    drop(folder);
    let server = MemoryServer::new();
    deliver_first(&run, &options(&server, "local")).unwrap();
    assert!(!server.records().writers[&info.writer_id].end.unwrap().died);
}

#[test]
fn test_a_broken_delivery_keeps_the_rest_and_goes_on_there() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "https://own", "run");
    let info = dead(&run, 20);
    let server = MemoryServer::with_script(|event| match event {
        Event::Message { attempt: 1, index: 8.., .. } | Event::Stream { attempt: 2.., .. } => {
            Action::Drop
        }
        _ => Action::Serve,
    });
    let mut options = options(&server, "https://own");
    let retries = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&retries);
    options.on_retry = Arc::new(move |error| heard.lock().push(error.to_owned()));
    let error = deliver_first(&run, &options).unwrap_err();
    // The last failure is the delivery's own.
    assert_eq!(retries.lock().len(), 10);
    assert!(error.to_string().contains(&retries.lock()[9]), "{error}");
    let DeliverError::Incomplete { acked: Seq(7), last: Seq(20), .. } = error else {
        panic!("{error}");
    };
    assert!(error.is_for_all());
    assert!(run.writers().unwrap()[0].is_undelivered);
    server.script(|_| Action::Serve);
    assert!(deliver_first(&run, &options).unwrap().is_removed);
    assert_eq!(server.applied(info.writer_id), seqs(1..=20));
    assert_eq!(server.records().hellos.last().unwrap().first_seq, Seq(8));
}

#[test]
fn test_another_server_gets_everything_whatever_the_runs_own_has() {
    // Copied to another machine, its spool meets another local one.
    for destination in ["https://elsewhere", "local"] {
        let data_dir = tempfile::tempdir().unwrap();
        let run = run_folder(data_dir.path(), "local", "run");
        let info = dead(&run, 9);
        write_acked(&run.writers().unwrap()[0].path, Seq(5)).unwrap();
        let server = MemoryServer::new();
        deliver_first(&run, &options(&server, destination)).unwrap();
        assert_eq!(server.applied(info.writer_id), seqs(1..=9));
    }
}

#[test]
fn test_a_damaged_batch_is_reported_and_the_rest_delivered() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let info = dead(&run, 9);
    let path = crate::spool::segment_path(&run.writers().unwrap()[0].path, 2);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let server = MemoryServer::new();
    let delivered = deliver_first(&run, &options(&server, "local")).unwrap();
    assert!(delivered.is_removed);
    assert_eq!(delivered.problems.len(), 1);
    assert_eq!(server.applied(info.writer_id).len(), 8);
    assert_eq!(server.records().hellos.last().unwrap().lost.len(), 1);
}

#[test]
fn test_a_writer_whose_ring_may_turn_up_is_left_open_where_it_is() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "https://own", "run");
    let (folder, info) = write(&run, 4, None);
    let elsewhere = Path::new("/dev/shm/of-another-container/ring").to_owned();
    let info =
        WriterInfo { ring: Some(elsewhere), ring_capacity: 4096, ring_device: Some(0), ..info };
    folder.write_info(&info).unwrap();
    drop(folder);
    let server = MemoryServer::new();
    let delivered = deliver_first(&run, &options(&server, "https://own")).unwrap();
    assert!(!delivered.is_removed);
    assert_eq!(server.applied(info.writer_id), seqs(1..=4));
    assert_eq!(server.records().writers[&info.writer_id].end, None);
    // What was delivered is not delivered again.
    deliver_first(&run, &options(&server, "https://own")).unwrap();
    assert_eq!(server.records().writers[&info.writer_id].arrivals.len(), 4);
}

// ── All dead writers ───────────────────────────────────────────────────────────────────────────

type Seen = Arc<Mutex<Vec<String>>>;

fn watch() -> (Seen, OnEvent) {
    let seen = Seen::default();
    let events = Arc::clone(&seen);
    let on_event = move |event: DeliveryEvent<'_>| {
        events.lock().push(match event {
            DeliveryEvent::Progress { .. } => return,
            DeliveryEvent::Delivered { run, number, .. } => {
                format!("{} {number}", run.run().run_name)
            }
            DeliveryEvent::Failed { run, number, .. } => {
                format!("failed {} {number}", run.run().run_name)
            }
            DeliveryEvent::Unreadable(_)
            | DeliveryEvent::Lost { .. }
            | DeliveryEvent::Kept { .. } => event.problems().join(" "),
        });
    };
    (seen, Arc::new(on_event))
}

fn dead_writers(data_dir: &Path, server: &Arc<MemoryServer>) -> DeadWriters {
    DeadWriters {
        data_dir: data_dir.to_owned(),
        of_destination: Some("local".to_owned()),
        options: options(server, "local"),
        recovery: recovery_options(),
        force: false,
    }
}

#[test]
fn test_all_dead_writers_of_a_destination_are_delivered_in_their_order() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (first, living, empty) = (dead(&run, 3), write(&run, 3, None), dead(&run, 0));
    let last = dead(&run, 2);
    let other = run_folder(data_dir.path(), "https://elsewhere", "other");
    dead(&other, 3);
    let server = MemoryServer::new();
    let (seen, on_event) = watch();
    dead_writers(data_dir.path(), &server).deliver(&Cancel::never(), &on_event);
    assert_eq!(*seen.lock(), ["run 1", "run 4"]);
    let records = server.records();
    let order: Vec<_> = records.opened.iter().map(|request| request.writer.writer_id).collect();
    assert_eq!(order, [first.writer_id, last.writer_id]);
    let earlier = &records.opened[1].earlier_writers;
    let earlier: Vec<_> = earlier.iter().map(|w| (w.number, w.dead)).collect();
    assert_eq!(earlier, [(2, false)], "the living one began before");
    let left: Vec<_> = run.writers().unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(left, [living.1.number]);
    assert!(!left.contains(&empty.number), "one that never logged leaves nothing");
    assert_eq!(other.writers().unwrap().len(), 1);
}

/// What a sweep tells, and what the one after it does.
fn sweep_twice(data_dir: &Path) -> (Vec<String>, Vec<String>) {
    let server = MemoryServer::new();
    let told = || {
        let (seen, on_event) = watch();
        dead_writers(data_dir, &server).deliver(&Cancel::never(), &on_event);
        let seen = seen.lock();
        seen.clone()
    };
    (told(), told())
}

#[test]
fn test_a_spool_that_cannot_be_read_is_told_of_once_and_kept() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, info) = write(&run, 3, Some(WriterEnd::Closed));
    let path = folder.path().join("00000001.spool");
    drop(folder);
    let bytes = std::fs::metadata(&path).unwrap().len();
    std::fs::write(&path, vec![0; bytes as usize]).unwrap();
    let (told, again) = sweep_twice(data_dir.path());
    assert!(told.len() == 1 && told[0].contains("the spool is damaged"), "{told:?}");
    assert_eq!(again, [""; 0]);
    assert!(run.writers().unwrap().is_empty());
    let aside = run.path().join(format!("000001-{}.unreadable", info.writer_id));
    assert_eq!(std::fs::read(aside.join("00000001.spool")).unwrap().len() as u64, bytes);
}

#[test]
fn test_the_unreadable_end_of_a_spool_is_told_of_and_kept() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, info) = write(&run, 20, None);
    let last = (1..).map(|at| folder.path().join(format!("{at:08}.spool")));
    let last = last.take_while(|path| path.exists()).last().unwrap();
    drop(folder);
    std::fs::write(&last, vec![0; 500]).unwrap();
    let server = MemoryServer::new();
    let problems = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&problems);
    let on_event: OnEvent = Arc::new(move |event| heard.lock().extend(event.problems()));
    dead_writers(data_dir.path(), &server).deliver(&Cancel::never(), &on_event);
    let problems = problems.lock().join(" ");
    assert!(problems.contains("are lost, the spool is damaged"), "{problems}");
    assert!(server.applied(info.writer_id).len() > 3);
    assert!(run.path().join(format!("000001-{}.unreadable", info.writer_id)).exists());
}

#[test]
fn test_an_empty_spool_of_a_closed_writer_is_told_of() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, _) = write(&run, 3, Some(WriterEnd::Closed));
    std::fs::write(folder.path().join("00000001.spool"), "").unwrap();
    drop(folder);
    let (told, again) = sweep_twice(data_dir.path());
    assert!(told.len() == 1 && told[0].contains("the spool is damaged"), "{told:?}");
    assert_eq!(again, [""; 0]);
}

#[test]
fn test_a_ring_that_was_lost_before_its_first_batch_is_told_of_once() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, info) = write(&run, 0, None);
    let boot_id = Some("0".repeat(32));
    let ring = Some(Path::new("/dev/shm/metrana-gone").to_owned());
    let info = WriterInfo { boot_id, ring, ring_capacity: 4096, ..info };
    folder.write_info(&info).unwrap();
    drop(folder);
    let entry = run.writers().unwrap().remove(0);
    assert!(entry.is_undelivered);
    assert!(entry.problem.unwrap().contains("is lost: the machine was restarted"));
    let (told, again) = sweep_twice(data_dir.path());
    assert!(told.len() == 1 && told[0].contains("up to 4096 bytes of points, is lost"), "{told:?}");
    assert_eq!(again, [""; 0]);
}

#[test]
fn test_folders_that_cannot_be_read_are_told_of() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let (folder, _) = write(&run, 3, None);
    std::fs::write(folder.path().join("writer.json"), "").unwrap();
    drop(folder);
    let (told, _) = sweep_twice(data_dir.path());
    assert!(told.len() == 1 && told[0].contains("writer.json cannot be read"), "{told:?}");
    std::fs::remove_file(run.path().join("000001/writer.json")).unwrap();
    let (told, _) = sweep_twice(data_dir.path());
    assert!(told.len() == 1 && told[0].contains("writer.json"), "{told:?}");
    std::fs::remove_file(run.path().join("run.json")).unwrap();
    let (told, _) = sweep_twice(data_dir.path());
    assert!(told.len() == 1 && told[0].contains("run.json"), "{told:?}");
}

#[test]
fn test_a_refused_writer_does_not_keep_the_next_from_its_server() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    dead(&run, 3);
    dead(&run, 3);
    let server = MemoryServer::with_script(|event| match event {
        Event::OpenRun(request) if request.writer.number == 1 => {
            Action::Refuse(refusal(RefusalCode::RunDeleted, "deleted"))
        }
        _ => Action::Serve,
    });
    let (seen, on_event) = watch();
    dead_writers(data_dir.path(), &server).deliver(&Cancel::never(), &on_event);
    assert_eq!(*seen.lock(), ["failed run 1", "run 2"]);
}

#[test]
fn test_without_a_server_the_first_failure_is_the_last() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    dead(&run, 3);
    dead(&run, 3);
    let (seen, on_event) = watch();
    let server = MemoryServer::with_script(|_| Action::Drop);
    dead_writers(data_dir.path(), &server).deliver(&Cancel::never(), &on_event);
    assert_eq!(*seen.lock(), ["failed run 1"]);
    assert_eq!(run.writers().unwrap().len(), 2);
}

#[test]
fn test_a_cancelled_sweep_ends_and_keeps_everything() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    dead(&run, 3);
    let (canceller, cancel) = Cancel::pair();
    let canceller = Mutex::new(Some(canceller));
    // The server never answers, and the user loses patience.
    let server = MemoryServer::with_script(move |event| {
        if matches!(event, Event::Stream { .. }) {
            canceller.lock().take();
        }
        Action::FallSilent
    });
    let (seen, on_event) = watch();
    dead_writers(data_dir.path(), &server).deliver(&cancel, &on_event);
    assert_eq!(*seen.lock(), [""; 0]);
    assert!(run.writers().unwrap()[0].is_undelivered);
}

#[test]
fn test_progress_rises_to_the_last_batch() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    dead(&run, 12);
    let greatest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&greatest);
    let on_event: OnEvent = Arc::new(move |event| {
        if let DeliveryEvent::Progress { acked, last, .. } = event {
            assert_eq!(last, Seq(12));
            assert!(seen.swap(acked.0, Ordering::SeqCst) < acked.0);
        }
    });
    dead_writers(data_dir.path(), &MemoryServer::new()).deliver(&Cancel::never(), &on_event);
    assert_eq!(greatest.load(Ordering::SeqCst), 12);
}
