//! Writers that die at any moment, and recoveries that die too: every record that was committed to
//! the ring is in the spool once, and nothing else is.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::attributes::{AttributeOperation, AttributeUpdate, AttributeValue, decode_attributes};
use crate::batch::{PointColumns, decode_points};
use crate::config::FsyncPolicy;
use crate::declarations::encode_metric;
use crate::record::{
    attributes_bytes, declare_bytes, write_attributes, write_declare_metric, write_point,
};
use crate::ring::{Producer, RingOptions, RingPlace, RingStart};
use crate::run_folder::{
    Liveness, ResumeStrategy, RunFolder, RunNames, RunRequest, SenderKind, WriterFolder,
    WriterOptions, write_acked,
};
use crate::spool::faults::{Fault, FaultyDisk};
use crate::spool::{Frame, FrameKind, SpoolEvent, SpoolReader};
use crate::types::{Compression, Lsn, MetricNo, Position, RunId, Scale, WriterId};

const METRICS: u32 = 3;

fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(platform::shared_memory_folder().unwrap()).unwrap()
}

fn seal_settings() -> SealSettings {
    SealSettings { compression: Compression::None, payload_bytes: 300 }
}

fn options(disk: &FaultyDisk) -> RecoveryOptions {
    let files = Arc::new(disk.clone());
    let spool = SpoolOptions { segment_bytes: 700, fsync: FsyncPolicy::Never, files };
    RecoveryOptions { spool, seal: seal_settings() }
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

fn info(folder: &WriterFolder, writer_id: WriterId, ring: &Ring) -> WriterInfo {
    let path = ring.kind().path().map(Path::to_owned);
    WriterInfo {
        version: 1,
        writer_id,
        run_id: RunId([1; 16]),
        number: folder.number(),
        logger_id: String::new(),
        host: platform::host_name(),
        pid: std::process::id(),
        machine_id: platform::machine_id(),
        boot_id: platform::boot_id(),
        ring_device: path.as_deref().and_then(|path| platform::device(path).unwrap()),
        ring: path,
        ring_capacity: ring.capacity(),
        sender: SenderKind::None,
        client_version: "0".to_owned(),
        opened_at_ms: 0,
        options: WriterOptions::default(),
        ended: None,
    }
}

/// A writer as the engine puts it together, without threads.
struct Life {
    folder: WriterFolder,
    info: WriterInfo,
    ring: Ring,
    producer: Producer,
    consumer: Consumer,
    spool: SpoolWriter,
    sealer: Sealer,
    state: SealState,
    disk: FaultyDisk,
    declared: Vec<u32>,
    logged: Contents,
}

/// What a writer logged, or what a spool holds: values by metric, in order, and attributes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Contents {
    points: BTreeMap<u32, Vec<f64>>,
    attributes: Vec<String>,
}

impl Life {
    fn begin(data_dir: &Path, place: RingPlace, disk: FaultyDisk) -> Self {
        let writer_id = WriterId(platform::random_bytes().unwrap());
        let folder = run_folder(data_dir).claim_writer().unwrap();
        let ring_options = RingOptions { capacity_bytes: 4096, place };
        let (ring, producer, consumer) =
            Ring::create(&ring_options, writer_id, RingStart::ORIGIN).unwrap();
        let info = info(&folder, writer_id, &ring);
        folder.write_info(&info).unwrap();
        let spool = SpoolWriter::create(folder.path(), writer_id, options(&disk).spool);
        Self {
            folder,
            info,
            ring,
            producer,
            consumer,
            spool,
            sealer: Sealer::new(seal_settings()),
            state: SealState::at(Lsn(0), Seq(1)),
            disk,
            declared: Vec::new(),
            logged: Contents::default(),
        }
    }

    fn log_point(&mut self, metric: u32, value: f64) {
        if !self.declared.contains(&metric) && !self.declare(metric) {
            return;
        }
        let no = MetricNo(metric);
        let step = self.logged.points.get(&metric).map_or(0, Vec::len) as i64;
        let Some(mut slot) = self.producer.reserve(POINT_BYTES) else { return };
        write_point(&mut slot, no, 0, step, 5, value);
        self.producer.commit();
        self.logged.points.entry(metric).or_default().push(value);
    }

    fn declare(&mut self, metric: u32) -> bool {
        let mut declaration = Vec::new();
        encode_metric(
            MetricNo(metric),
            Scale::MlStep,
            &format!("m{metric}"),
            &[],
            &mut declaration,
        );
        let Some(mut slot) = self.producer.reserve(declare_bytes(&declaration)) else {
            return false;
        };
        write_declare_metric(&mut slot, &declaration);
        self.producer.commit();
        self.declared.push(metric);
        true
    }

    fn log_attribute(&mut self, path: String, bytes: usize) {
        let value = AttributeValue::Text("x".repeat(bytes));
        let operation = AttributeOperation::Set { path: path.clone(), value };
        let mut encoded = Vec::new();
        AttributeUpdate { operation, initial: false }.encode(&mut encoded);
        let Some(mut slot) = self.producer.reserve(attributes_bytes(&encoded)) else { return };
        write_attributes(&mut slot, 1, &encoded);
        self.producer.commit();
        self.logged.attributes.push(path);
    }

    fn seal(&mut self) -> Result<(), SealError> {
        let (tail, end) = (self.consumer.tail(), self.consumer.committed());
        let mut window = Vec::new();
        self.consumer.read(tail, end, &mut window).unwrap();
        let mut start = tail;
        while start < end {
            let words = &window[((start.0 - tail.0) / 8) as usize..];
            let piece =
                self.sealer.seal_piece(words, start, false, &mut self.state, &mut self.spool)?;
            assert_eq!(piece.problems, [""; 0]);
            self.consumer.release(piece.end, self.state.next_seq).unwrap();
            start = piece.end;
        }
        Ok(())
    }

    /// The process is gone: nothing is written, its lock is free.
    fn die(self) -> (PathBuf, Contents) {
        (self.folder.path().to_owned(), self.logged)
    }
}

fn frames(folder: &Path) -> Vec<Frame> {
    let mut reader = SpoolReader::open(folder, Seq(1)).unwrap();
    reader.writer_has_ended();
    let events = std::iter::from_fn(|| reader.next_event().unwrap());
    events
        .filter_map(|event| match event {
            SpoolEvent::Frame(frame) => Some(frame),
            // A recovery that died may leave a frame that never was one.
            SpoolEvent::Damage(damage) => {
                assert_eq!(damage.lost, None, "{}", damage.message);
                None
            }
        })
        .collect()
}

fn contents(frames: &[Frame]) -> Contents {
    let mut contents = Contents::default();
    for (frame, next) in frames.iter().filter(|frame| frame.seq > Seq(0)).zip(1..) {
        assert_eq!(frame.seq, Seq(next), "each number once, none left out");
        match frame.kind {
            FrameKind::Declarations => unreachable!("declarations have no number"),
            FrameKind::Points => {
                let mut columns = PointColumns::default();
                decode_points(&frame.payload, &mut columns).unwrap();
                for (metric, value) in columns.metric_no.iter().zip(&columns.value) {
                    contents.points.entry(*metric).or_default().push(*value);
                }
            }
            FrameKind::Attributes => {
                for update in decode_attributes(&frame.payload).unwrap() {
                    let AttributeOperation::Set { path, .. } = update.operation else {
                        panic!("not logged: {update:?}");
                    };
                    contents.attributes.push(path);
                }
            }
        }
    }
    contents
}

fn sound() -> FaultyDisk {
    FaultyDisk::sound()
}

fn recovered(folder: &Path) -> RecoveryReport {
    recover(&mut WriterLock::take(folder, false).unwrap(), &options(&sound())).unwrap()
}

#[test]
fn test_a_dead_writer_loses_nothing_and_doubles_nothing() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    for at in 0..20 {
        life.log_point(at % METRICS + 1, f64::from(at));
    }
    life.seal().unwrap();
    life.log_attribute("a".to_owned(), 5);
    life.log_point(1, -1.0);
    let ring = life.ring.kind().path().unwrap().to_owned();
    assert!(matches!(
        WriterLock::take(life.folder.path(), false),
        Err(RunFolderError::WriterLives(_))
    ));
    let (path, logged) = life.die();
    let report = recovered(&path);
    assert_eq!(report.ring, RingOutcome::Sealed { batch_count: 2 });
    assert!(report.is_complete());
    assert_eq!(report.problems, [""; 0]);
    assert!(!ring.exists());
    let frames = frames(&path);
    assert_eq!(contents(&frames), logged);
    assert_eq!((report.first_seq, report.last_seq), (Seq(1), frames.last().unwrap().seq));
    let again = recovered(&path);
    assert_eq!((again.ring, again.last_seq), (RingOutcome::Ended, report.last_seq));
}

#[test]
fn test_a_torn_tail_is_cut() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    life.seal().unwrap();
    let (path, logged) = life.die();
    let segment = segment_path(&path, 1);
    let whole = std::fs::read(&segment).unwrap();
    let torn = [&whole[..], b"MTRF and then the power went"].concat();
    std::fs::write(&segment, torn).unwrap();
    assert_eq!(recovered(&path).torn_bytes, 28);
    assert_eq!(std::fs::read(&segment).unwrap(), whole);
    assert_eq!(contents(&frames(&path)), logged);
}

#[test]
fn test_a_closed_writer_has_nothing_to_recover_and_its_ring_is_deleted() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    life.seal().unwrap();
    let info = WriterInfo { ended: Some(WriterEnd::Closed), ..life.info.clone() };
    life.folder.write_info(&info).unwrap();
    let ring = life.ring.kind().path().unwrap().to_owned();
    let (path, _) = life.die();
    assert_eq!(recovered(&path).ring, RingOutcome::Ended);
    assert!(!ring.exists(), "it died between writing that it ended and deleting its ring");
}

#[test]
fn test_rings_that_are_gone_are_told_from_rings_out_of_reach() {
    let folder = memory_folder();
    let outcome = |change: &dyn Fn(&mut WriterInfo)| {
        let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
        life.log_point(1, 1.0);
        let mut info = life.info.clone();
        change(&mut info);
        life.folder.write_info(&info).unwrap();
        let (path, _) = life.die();
        let report = recovered(&path);
        (report.ring.clone(), report.is_complete(), report.problems.join(" "))
    };
    let up_to_points = 4096 / 32;
    let lost = (RingOutcome::Lost { up_to_points }, true);
    let out_of_reach = (RingOutcome::OutOfReach { up_to_points }, false);
    let check = |change: &dyn Fn(&mut WriterInfo), expected: &(RingOutcome, bool), word: &str| {
        let (ring, is_complete, problems) = outcome(change);
        assert_eq!((ring, is_complete), *expected, "{problems}");
        assert!(problems.contains(word) && problems.contains("up to 128 points"), "{problems}");
    };
    let elsewhere = || Some(PathBuf::from("/nowhere/metrana-0"));
    check(&|info| info.ring = None, &lost, "memory of its process");
    check(&|info| info.boot_id = Some("another".repeat(6)), &lost, "restarted");
    check(&|info| info.ring = Some(folder.path().join("metrana-0")), &lost, "was deleted");
    check(&|info| info.ring = elsewhere(), &out_of_reach, "container's memory");
    check(
        &|info| {
            info.ring = Some(folder.path().join("metrana-0"));
            info.ring_device = Some(0);
        },
        &out_of_reach,
        "container's memory",
    );
}

#[test]
fn test_a_newer_ring_leaves_the_writer_open() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    let ring = life.ring.kind().path().unwrap().to_owned();
    let (path, logged) = life.die();
    let whole = std::fs::read(&ring).unwrap();
    let mut newer = whole.clone();
    newer[8] = 9;
    std::fs::write(&ring, newer).unwrap();
    let report = recovered(&path);
    assert!(!report.is_complete());
    assert!(report.problems[0].contains("upgrade metrana"), "{:?}", report.problems);
    std::fs::write(&ring, whole).unwrap();
    assert!(recovered(&path).is_complete());
    assert_eq!(contents(&frames(&path)), logged);
}

#[test]
fn test_sequence_numbers_go_on_from_the_greatest_known_anywhere() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    write_acked(life.folder.path(), Seq(41)).unwrap();
    let (path, _) = life.die();
    assert_eq!(recovered(&path).last_seq, Seq(42));
}

#[test]
fn test_positions_of_a_dead_writer_are_read_back_from_its_spool() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    for at in 0..30 {
        life.log_point(at % 2 + 1, f64::from(at));
    }
    let (path, _) = life.die();
    let mut lock = WriterLock::take(&path, false).unwrap();
    recover(&mut lock, &options(&sound())).unwrap();
    let (mut cursors, problems) = cursors_of(&lock).unwrap();
    assert_eq!(problems, [""; 0]);
    cursors.series.sort_by(|one, other| one.name.cmp(&other.name));
    let found: Vec<_> =
        cursors.series.iter().map(|series| (series.name.as_str(), series.position.step)).collect();
    assert_eq!(found, [("m1", 14), ("m2", 14)]);
    let run = run_folder(folder.path());
    assert!(!run.has_cursors(1));
    lock.write_cursors(&cursors).unwrap();
    assert!(run.has_cursors(1));
    assert_eq!(run.cursors().0.series.len(), 2);
    lock.remove_delivered().unwrap();
    assert!(run.writers().unwrap().is_empty());
    assert_eq!(run.claim_writer().unwrap().number(), 2, "numbers with cursors are not used again");
}

#[test]
fn test_episode_points_end_their_episode() {
    let mut environment = positions::nowhere("e");
    positions::go_on(
        &mut environment,
        Scale::EnvironmentStep,
        Position { rl_step: 7, episode: 4, step: 9 },
    );
    positions::go_on(
        &mut environment,
        Scale::Episode,
        Position { rl_step: 6, episode: 3, step: -1 },
    );
    assert_eq!((environment.rl_step, environment.episode, environment.ended_episode), (7, 4, 3));
}

// ── The model ───────────────────────────────────────────────────────────────────────────────────

#[derive(Clone, Debug)]
enum Operation {
    Point {
        metric: u32,
    },
    Attribute {
        bytes: usize,
    },
    Seal,
    /// All that is sealed is acknowledged, and whole segments of it are deleted.
    Acknowledge,
    /// The process dies, recoveries die at these operations, and another writer begins.
    Reopen {
        attempts: Vec<(u64, Fault)>,
    },
}

fn death() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::DiesBefore), Just(Fault::DiesWithin), Just(Fault::DiesAfter)]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => death(),
        1 => Just(Fault::ShortWrite),
        1 => Just(Fault::Interrupted),
        1 => Just(Fault::Full),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        20 => (1..=METRICS).prop_map(|metric| Operation::Point { metric }),
        6 => (0usize..400).prop_map(|bytes| Operation::Attribute { bytes }),
        4 => Just(Operation::Seal),
        1 => Just(Operation::Acknowledge),
        1 => prop::collection::vec((0u64..30, fault()), 0..4)
            .prop_map(|attempts| Operation::Reopen { attempts }),
    ]
}

/// A run of a model: lives one after the other in one data directory.
struct Model<'a> {
    folder: &'a Path,
    fault: (u64, Fault),
    life: Option<Life>,
    /// Frames that a server has, by number.
    delivered: BTreeMap<Seq, Frame>,
    next: u32,
}

impl Model<'_> {
    fn life(&mut self) -> &mut Life {
        let (folder, (at, fault)) = (self.folder, self.fault);
        self.life.get_or_insert_with(|| {
            Life::begin(folder, RingPlace::Folder(folder.into()), FaultyDisk::new(at, fault))
        })
    }

    fn run(&mut self, operation: Operation) {
        self.next += 1;
        let next = self.next;
        match operation {
            Operation::Point { metric } => self.life().log_point(metric, f64::from(next)),
            Operation::Attribute { bytes } => self.life().log_attribute(format!("a{next}"), bytes),
            Operation::Seal => {
                if self.life().seal().is_err() && self.life().disk.is_dead() {
                    self.reopen(&[]);
                }
            }
            Operation::Acknowledge => self.acknowledge(),
            Operation::Reopen { attempts } => self.reopen(&attempts),
        }
    }

    fn acknowledge(&mut self) {
        let path = self.life().folder.path().to_owned();
        let frames = frames(&path).into_iter().filter(|frame| frame.seq > Seq(0));
        self.delivered.extend(frames.map(|frame| (frame.seq, frame)));
        let acked = self.delivered.last_key_value().map_or(Seq(0), |(seq, _)| *seq);
        let deleted = self.life().spool.delete_acked(acked);
        if deleted.is_err() && self.life().disk.is_dead() {
            self.reopen(&[]);
        }
    }

    fn reopen(&mut self, attempts: &[(u64, Fault)]) {
        let Some(life) = self.life.take() else { return };
        let ring = life.ring.kind().path().unwrap().to_owned();
        let (path, logged) = life.die();
        for (at, fault) in attempts {
            let disk = FaultyDisk::new(*at, *fault);
            let done = recover(&mut WriterLock::take(&path, false).unwrap(), &options(&disk));
            assert!(done.is_ok() || disk.is_dead() || *fault == Fault::Full, "{done:?}");
        }
        let report = recovered(&path);
        assert!(report.is_complete() && report.problems.is_empty(), "{report:?}");
        assert!(!ring.exists());
        let mut all = std::mem::take(&mut self.delivered);
        for frame in frames(&path).into_iter().filter(|frame| frame.seq > Seq(0)) {
            let earlier = all.insert(frame.seq, frame.clone());
            assert!(earlier.is_none_or(|earlier| earlier == frame), "a batch never changes");
        }
        let all: Vec<_> = all.into_values().collect();
        assert_eq!(contents(&all), logged);
        assert_eq!(report.last_seq.0, all.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_ring_and_spool_behave_as_their_model(
        operations in prop::collection::vec(operation(), 1..150),
        fault in (0u64..120, fault()),
    ) {
        let folder = memory_folder();
        let path = folder.path();
        let mut model = Model { folder: path, fault, life: None, delivered: BTreeMap::new(), next: 0 };
        for operation in operations {
            model.run(operation);
        }
        model.reopen(&[]);
    }
}

/// Every pair of deaths: of the writer's sealing, and of the recovery after it.
#[test]
fn test_writer_and_recovery_may_both_die_at_every_operation() {
    let run = |life_at: u64, fault: Fault, recovery: &[(u64, Fault)]| {
        let folder = memory_folder();
        let path = folder.path();
        let fault = (life_at, fault);
        let mut model =
            Model { folder: path, fault, life: None, delivered: BTreeMap::new(), next: 0 };
        for at in 0..24 {
            model.run(match at % 8 {
                7 => Operation::Seal,
                3 => Operation::Attribute { bytes: 100 },
                metric => Operation::Point { metric: metric % METRICS + 1 },
            });
            if model.life.is_none() {
                // The writer died in its seal and was recovered in one go.
                return false;
            }
        }
        model.run(Operation::Point { metric: 1 });
        model.run(Operation::Attribute { bytes: 10 });
        model.reopen(recovery);
        true
    };
    for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
        let mut at = 0;
        while !run(at, fault, &[]) {
            at += 1;
        }
        assert!(at > 10, "the writer's operations are counted");
        for at in 0..20 {
            run(u64::MAX, fault, &[(at, fault), (at / 2, fault)]);
        }
    }
}

// ── Real processes ──────────────────────────────────────────────────────────────────────────────

const CHILD: &str = "METRANA_TEST_WRITER";

/// Not a test of its own: the writer that the tests below start and kill.
#[test]
fn child_writer() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let mut life = Life::begin(&folder, RingPlace::Folder(folder.clone()), sound());
    // On a line of its own, whatever the test harness has printed.
    println!("\nbegun {}", life.folder.path().display());
    for next in 0.. {
        let before = life.logged.points.values().map(Vec::len).sum::<usize>();
        life.log_point(next % METRICS + 1, f64::from(next));
        let is_full = life.logged.points.values().map(Vec::len).sum::<usize>() == before;
        if is_full {
            life.seal().unwrap();
            life.log_point(next % METRICS + 1, f64::from(next));
        }
        println!("logged {next}");
    }
}

fn start_writer(folder: &Path) -> (Child, BufReader<std::process::ChildStdout>, PathBuf) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["recovery::tests::child_writer", "--exact", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("begun ") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the child ended");
    }
    let path = PathBuf::from(line["begun ".len()..].trim_end());
    (child, output, path)
}

#[test]
fn test_a_killed_process_is_dead_and_loses_no_point_it_told_of() {
    let folder = memory_folder();
    let run = run_folder(folder.path());
    for round in 0..8u32 {
        let (mut child, mut output, path) = start_writer(folder.path());
        let mut last = String::new();
        for _ in 0..=round * 100 {
            last.clear();
            output.read_line(&mut last).unwrap();
        }
        let entry = run.writers().unwrap().pop().unwrap();
        assert_eq!((&entry.path, entry.liveness), (&path, Liveness::Live));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it told of before it was killed; the last line may be half of one.
        let rest: Vec<_> = output.split(b'\n').map(Result::unwrap).collect();
        let told = rest
            .iter()
            .rev()
            .skip(1)
            .find_map(|line| number(line))
            .or(number(last.trim_end().as_bytes()));
        let entry = run.writers().unwrap().pop().unwrap();
        assert_eq!((entry.liveness, entry.is_undelivered), (Liveness::Dead, true));
        let mut lock = WriterLock::take(&path, false).unwrap();
        assert!(recover(&mut lock, &options(&sound())).unwrap().is_complete());
        let found = contents(&frames(&path));
        let mut values: Vec<_> = found.points.into_values().flatten().collect();
        values.sort_by(f64::total_cmp);
        let expected: Vec<_> = (0..values.len()).map(|value| value as f64).collect();
        assert_eq!(values, expected, "each once, none left out");
        assert!(told.is_none_or(|told| values.len() > told), "{told:?} of {}", values.len());
        lock.remove_delivered().unwrap();
    }
}

fn number(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line).ok()?.strip_prefix("logged ")?.parse().ok()
}

#[test]
fn test_processes_that_start_at_once_get_numbers_of_their_own() {
    let folder = memory_folder();
    let children: Vec<_> = (0..4).map(|_| start_writer(folder.path())).collect();
    let numbers: Vec<_> =
        run_folder(folder.path()).writers().unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for (mut child, ..) in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
