//! Writers that die at any moment, and recoveries that die too: every record that was committed to
//! the ring is in the spool once, and nothing else is.

mod model;
mod positions;
mod renderings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::attributes::{AttributeOperation, AttributeUpdate, AttributeValue, decode_attributes};
use crate::batch::{PointColumns, decode_points};
use crate::config::FsyncPolicy;
use crate::declarations::encode_metric;
use crate::platform;
use crate::record::{
    attributes_bytes, declare_bytes, write_attributes, write_declare_metric, write_point,
};
use crate::renderings::tests::Renderings;
use crate::ring::{POINT_BYTES, Producer, RingOptions, RingPlace, RingStart};
use crate::run_folder::{
    ResumeStrategy, RunFolder, RunNames, RunRequest, SenderKind, WriterFolder, WriterOptions,
    write_acked,
};
use crate::spool::faults::{Fault, FaultyDisk};
use crate::spool::{
    CursorSet, EnvironmentCursor, Frame, FrameKind, SeriesCursor, SpoolEvent, SpoolReader,
};
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
        last_seq: None,
        acked: None,
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
    renderings: Renderings,
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
    read(SpoolReader::open_oldest(folder).unwrap())
}

/// The first batch that a follower asks for, and those that it gets.
fn undelivered(folder: &Path) -> (Seq, Vec<u64>) {
    let due = Watermark::read(folder).unwrap().first_due(folder).unwrap();
    let frames = read(SpoolReader::open(folder, due).unwrap());
    (due, frames.iter().map(|frame| frame.seq.0).filter(|seq| *seq > 0).collect())
}

fn read(mut reader: SpoolReader) -> Vec<Frame> {
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
            FrameKind::Renderings => contents.renderings.take(&frame.payload),
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
fn test_sealed_batches_that_are_gone_are_told_though_the_ring_is_there() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    life.seal().unwrap();
    life.log_point(1, 2.0);
    life.seal().unwrap();
    let (path, _) = life.die();
    std::fs::remove_file(segment_path(&path, 1)).unwrap();
    let report = recovered(&path);
    let lost = "batches 1 to 2 are lost: they were sealed, and the spool has them no more";
    assert_eq!(report.problems, [lost]);
    assert_eq!(report.unknown_positions, [lost]);
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
    let up_to_bytes = 4096;
    let lost = (RingOutcome::Lost { up_to_bytes }, true);
    let out_of_reach = (RingOutcome::OutOfReach { up_to_bytes }, false);
    let check = |change: &dyn Fn(&mut WriterInfo), expected: &(RingOutcome, bool), word: &str| {
        let (ring, is_complete, problems) = outcome(change);
        assert_eq!((ring, is_complete), *expected, "{problems}");
        assert!(
            problems.contains(word) && problems.contains("up to 4096 bytes of points"),
            "{problems}"
        );
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
fn test_a_writer_that_died_while_it_made_its_ring_leaves_neither_ring_nor_problem() {
    let folder = memory_folder();
    let life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.folder.announce(&WriterInfo { ring_capacity: 0, ..life.info.clone() }).unwrap();
    let ring = life.ring.kind().path().unwrap().to_owned();
    let (path, _) = life.die();
    std::fs::write(&ring, "METR").unwrap();
    let report = recovered(&path);
    assert!(report.is_complete() && !ring.exists());
    assert_eq!((report.last_seq, report.problems), (Seq(0), Vec::new()));
}

#[test]
fn test_what_died_with_a_deleted_ring_is_told_once() {
    let folder = memory_folder();
    let place = RingPlace::Folder(folder.path().into());
    let mut life = Life::begin(folder.path(), place.clone(), sound());
    life.log_point(1, 1.0);
    life.ring.unlink().unwrap();
    let start = RingStart { lsn: life.consumer.committed(), next_seq: Seq(1), unsealed_bytes: 64 };
    let options = RingOptions { capacity_bytes: 4096, place };
    (life.ring, life.producer, life.consumer) =
        Ring::create(&options, life.info.writer_id, start).unwrap();
    let (path, _) = life.die();
    let problems = recovered(&path).problems.join(" ");
    assert!(
        problems.contains("up to 64 bytes of points") && problems.contains("deleted"),
        "{problems}"
    );
    assert_eq!(recovered(&path).problems, [""; 0]);
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
fn test_a_copy_takes_no_ring_from_the_folder_that_it_is_a_copy_of() {
    let (data_dir, elsewhere) = (memory_folder(), memory_folder());
    let disk = FaultyDisk::sound();
    let place = RingPlace::Folder(data_dir.path().to_owned());
    let mut life = Life::begin(data_dir.path(), place, disk.clone());
    life.ring.set_folder(life.folder.path());
    (0..3).for_each(|step| life.log_point(1, f64::from(step)));
    life.seal().unwrap();
    life.log_point(1, 3.0);
    let (folder, logged) = life.die();
    let copy = elsewhere.path().join("000001");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    let mut lock = WriterLock::take(&copy, false).unwrap();
    let report = recover(&mut lock, &options(&disk)).unwrap();
    assert!(matches!(report.ring, RingOutcome::OutOfReach { .. }), "{:?}", report.ring);
    assert!(report.problems.concat().contains(folder.to_str().unwrap()), "{:?}", report.problems);
    let mut lock = WriterLock::take(&folder, false).unwrap();
    let report = recover(&mut lock, &options(&disk)).unwrap();
    assert!(matches!(report.ring, RingOutcome::Sealed { batch_count: 1 }), "{:?}", report.ring);
    assert_eq!(contents(&frames(&folder)), logged);
}
