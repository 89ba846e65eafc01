//! Writers in processes of their own, killed: they are known to be dead, and nothing that they
//! committed to their ring is lost or doubled.
//!
//! A binary of its own, because a process that starts others holds every lock of its own in the
//! child, too, until the child has become another program.

#![allow(clippy::unwrap_used, reason = "a test fails where its writer does")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use metrana_engine::batch::{PointColumns, decode_points};
use metrana_engine::declarations::encode_metric;
use metrana_engine::platform;
use metrana_engine::record::{declare_bytes, write_declare_metric, write_point};
use metrana_engine::recovery::{RecoveryOptions, recover};
use metrana_engine::ring::{
    Consumer, POINT_BYTES, Producer, Ring, RingOptions, RingPlace, RingStart,
};
use metrana_engine::run_folder::{
    Liveness, ResumeStrategy, RunFolder, RunNames, RunRequest, SenderKind, WriterInfo, WriterLock,
    WriterOptions,
};
use metrana_engine::seal::{SealSettings, SealState, Sealer};
use metrana_engine::spool::{FrameKind, SpoolEvent, SpoolOptions, SpoolReader, SpoolWriter};
use metrana_engine::types::{Compression, Lsn, MetricNo, RunId, Scale, Seq, WriterId};

const CHILD: &str = "METRANA_TEST_WRITER";
const METRIC: MetricNo = MetricNo(1);

fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(platform::shared_memory_folder().unwrap()).unwrap()
}

fn seal_settings() -> SealSettings {
    SealSettings { compression: Compression::Zstd, payload_bytes: 1000 }
}

fn run_folder(data_dir: &Path) -> RunFolder {
    let names = RunNames {
        destination: "local",
        workspace_name: "default",
        project_name: "default",
        run_name: "run",
    };
    let request = RunRequest {
        names,
        experiment_name: "",
        orchestration_id: "job",
        resume: ResumeStrategy::Never,
        run_id: None,
    };
    RunFolder::claim(data_dir, &request).unwrap().0
}

/// Not a test of its own: the writer that the tests below start and kill.
#[test]
fn child_writer() {
    let Some(data_dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let folder = run_folder(&data_dir).claim_writer().unwrap();
    let writer_id = WriterId(platform::random_bytes().unwrap());
    let options = RingOptions { capacity_bytes: 4096, place: RingPlace::Folder(data_dir) };
    let (ring, mut producer, mut consumer) =
        Ring::create(&options, writer_id, RingStart::ORIGIN).unwrap();
    folder.write_info(&info(folder.number(), writer_id, &ring)).unwrap();
    let mut spool = SpoolWriter::create(folder.path(), writer_id, SpoolOptions::default());
    let mut sealer = Sealer::new(seal_settings());
    let mut state = SealState::at(Lsn(0), Seq(1));
    declare(&mut producer);
    // On a line of its own, whatever the test harness has printed.
    println!("\nbegun {}", folder.path().display());
    for next in 0.. {
        while !log(&mut producer, next) {
            seal(&mut consumer, &mut sealer, &mut state, &mut spool);
        }
        println!("logged {next}");
    }
}

fn info(number: u32, writer_id: WriterId, ring: &Ring) -> WriterInfo {
    let path = ring.kind().path().unwrap();
    WriterInfo {
        version: 1,
        writer_id,
        run_id: RunId([1; 16]),
        number,
        logger_id: String::new(),
        host: platform::host_name(),
        pid: std::process::id(),
        machine_id: platform::machine_id(),
        boot_id: platform::boot_id(),
        ring: Some(path.to_owned()),
        ring_capacity: ring.capacity(),
        ring_device: platform::device(path).unwrap(),
        sender: SenderKind::None,
        client_version: "0".to_owned(),
        opened_at_ms: 0,
        options: WriterOptions::default(),
        ended: None,
        last_seq: None,
        acked: None,
    }
}

fn declare(producer: &mut Producer) {
    let mut declaration = Vec::new();
    encode_metric(METRIC, Scale::MlStep, "loss", &[], &mut declaration);
    let mut slot = producer.reserve(declare_bytes(&declaration)).unwrap();
    write_declare_metric(&mut slot, &declaration);
    producer.commit();
}

fn log(producer: &mut Producer, next: i64) -> bool {
    let Some(mut slot) = producer.reserve(POINT_BYTES) else { return false };
    write_point(&mut slot, METRIC, 0, next, 5, next as f64);
    producer.commit();
    true
}

fn seal(
    consumer: &mut Consumer,
    sealer: &mut Sealer,
    state: &mut SealState,
    spool: &mut SpoolWriter,
) {
    let (mut start, end) = (consumer.tail(), consumer.committed());
    let mut window = Vec::new();
    while start < end {
        consumer.read(start, end, &mut window).unwrap();
        let piece = sealer.seal_piece(&window, start, false, state, spool).unwrap();
        consumer.release(piece.end, state.next_seq).unwrap();
        start = piece.end;
    }
}

struct Started {
    child: Child,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
}

fn start_writer(data_dir: &Path) -> Started {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_writer", "--exact", "--nocapture"])
        .env(CHILD, data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("begun ") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the child ended");
    }
    let folder = PathBuf::from(line["begun ".len()..].trim_end());
    Started { child, output, folder }
}

impl Started {
    /// Lets it log so many points, kills it, and returns the last that it told of.
    fn kill_after(&mut self, lines: u32) -> Option<usize> {
        let mut told = None;
        for _ in 0..lines {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            told = number(line.as_bytes());
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest: Vec<_> = self.output.by_ref().split(b'\n').map(Result::unwrap).collect();
        // The last line may be half of one.
        rest.pop();
        rest.iter().rev().find_map(|line| number(line)).or(told)
    }
}

fn number(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line).ok()?.trim_end().strip_prefix("logged ")?.parse().ok()
}

fn values(folder: &Path) -> Vec<f64> {
    let mut reader = SpoolReader::open(folder, Seq(1)).unwrap();
    reader.writer_has_ended();
    let mut columns = PointColumns::default();
    while let Some(event) = reader.next_event().unwrap() {
        let SpoolEvent::Frame(frame) = event else { panic!("{event:?}") };
        if frame.kind == FrameKind::Points {
            decode_points(&frame.payload, &mut columns).unwrap();
        }
    }
    columns.value
}

#[test]
fn test_a_killed_process_is_dead_and_loses_no_point_it_told_of() {
    let data_dir = memory_folder();
    let run = run_folder(data_dir.path());
    let options = RecoveryOptions { spool: SpoolOptions::default(), seal: seal_settings() };
    for round in 0..8 {
        let mut started = start_writer(data_dir.path());
        let entry = run.writers().unwrap().pop().unwrap();
        assert_eq!((&entry.path, entry.liveness), (&started.folder, Liveness::Live));
        let told = started.kill_after(round * 100);
        let entry = run.writers().unwrap().pop().unwrap();
        assert_eq!((entry.liveness, entry.is_undelivered), (Liveness::Dead, true));
        let mut lock = WriterLock::take(&started.folder, false).unwrap();
        assert!(recover(&mut lock, &options).unwrap().is_complete());
        let found = values(&started.folder);
        let expected: Vec<_> = (0..found.len()).map(|value| value as f64).collect();
        assert_eq!(found, expected, "each once, none left out");
        assert!(told.is_none_or(|told| found.len() > told), "{told:?} of {}", found.len());
        lock.remove_delivered().unwrap();
    }
    assert_eq!(rings(data_dir.path()), 0);
}

fn rings(data_dir: &Path) -> usize {
    let names = std::fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("metrana-")).count()
}

#[test]
fn test_processes_that_start_at_once_get_numbers_of_their_own() {
    let data_dir = memory_folder();
    let path = data_dir.path();
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| start_writer(path))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let entries = run_folder(path).writers().unwrap();
    let numbers: Vec<_> = entries.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(entries.iter().all(|entry| entry.liveness == Liveness::Live));
    for started in &mut all {
        started.kill_after(0);
    }
    let entries = run_folder(path).writers().unwrap();
    assert!(entries.iter().all(|entry| entry.liveness == Liveness::Dead));
}
