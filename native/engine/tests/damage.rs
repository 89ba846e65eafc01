//! A dead writer's folder cut at every byte and with every bit flipped, through the whole path:
//! recovery, reading, decoding, delivery. What is not damaged arrives, the rest is told once, and
//! nothing else ever arrives.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::gate::Gate;
use common::{close, config, open};
use metrana_engine::attributes::{AttributeOperation, AttributeUpdate, AttributeValue};
use metrana_engine::batch::{PointColumns, decode_points};
use metrana_engine::calls::{EnvCall, Point, Values};
use metrana_engine::declarations::{Declaration, decode_declarations};
use metrana_engine::deliver::{DeadWriters, DeliveryOptions, OnEvent};
use metrana_engine::engine::Engine;
use metrana_engine::named_spool::NamedSpoolReader;
use metrana_engine::recovery::{RecoveryOptions, recover};
use metrana_engine::run_folder::{Liveness, RunFolder, WriterLock, write_acked};
use metrana_engine::seal::SealSettings;
use metrana_engine::sender::Cancel;
use metrana_engine::spool::{
    FrameHeader, FrameKind, SEGMENT_HEADER_BYTES, SpoolEvent, SpoolOptions, segment_path,
};
use metrana_engine::transport::memory::{MemoryServer, MemoryTransport};
use metrana_engine::types::{Compression, Scale, Seq};

/// Where its run goes: it is known what that server has, as it is not of the local one.
const OWN: &str = "https://own";

/// What a batch holds, as text: the names, steps and values of points, or the bytes of attributes.
type Contents = BTreeMap<u64, String>;

/// A dead writer's folder and ring, which are put back before each damage.
struct Writer {
    data_dir: common::Folder,
    run: PathBuf,
    folder: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Of the only segment.
    spool: Vec<u8>,
    frames: Vec<(FrameHeader, Range<usize>)>,
    contents: Contents,
}

impl Writer {
    fn closed() -> Self {
        let writer = Self::new(log_all, |engine, _| close(&engine));
        assert_eq!(writer.contents.len(), writer.last_seq() as usize);
        assert!(writer.last_seq() >= 5, "points, environments, attributes, a close record");
        writer
    }

    /// One that died; `rest`: with points in its ring that are in no batch.
    fn killed(rest: bool) -> Self {
        let writer = Self::new(log_all, |engine, disk| {
            if rest {
                disk.shut();
                log_points(&engine, "loss");
            }
            drop(engine);
        });
        assert_eq!(writer.contents.len(), writer.last_seq() as usize + usize::from(rest));
        writer
    }

    /// The same after its first batch; the rest needs no name of that.
    fn killed_early(rest: bool) -> Self {
        let log_one = |engine: &Engine| {
            log_points(engine, "loss");
            engine.flush(None, &mut || false).unwrap();
        };
        let writer = Self::new(log_one, |engine, disk| {
            if rest {
                disk.shut();
                log_points(&engine, "late");
            }
            drop(engine);
        });
        assert_eq!((writer.last_seq(), writer.contents.len()), (1, 1 + usize::from(rest)));
        writer
    }

    fn new(log: impl FnOnce(&Engine), die: impl FnOnce(Engine, &Gate)) -> Self {
        let data_dir = common::folder();
        let mut config = config(data_dir.path());
        OWN.clone_into(&mut config.run.destination);
        config.ring.capacity_bytes = 32 << 10;
        config.batch.max_age = Duration::from_secs(3600);
        let disk = Gate::default();
        config.spool.options.files = Arc::new(disk.clone());
        let engine = open(config);
        log(&engine);
        die(engine, &disk);
        let folder = common::writer_folder(data_dir.path(), 1);
        let run = folder.parent().unwrap().to_owned();
        let writers = || RunFolder::open(&run).unwrap().writers().unwrap();
        common::wait_until("its end", || writers()[0].liveness == Liveness::Dead);
        let spool = std::fs::read(segment_path(&folder, 1)).unwrap();
        let mut writer = Self {
            // The ring is in the data directory.
            files: files(data_dir.path()),
            frames: frames(&spool),
            contents: Contents::new(),
            spool,
            data_dir,
            run,
            folder,
        };
        writer.contents = writer.recover_and_read().0;
        writer
    }

    fn last_seq(&self) -> u64 {
        self.frames.last().unwrap().0.seq.0
    }

    /// The folder as it was, but for its spool.
    fn put_back(&self, spool: &[u8]) {
        std::fs::remove_dir_all(&self.run).unwrap();
        for (path, bytes) in &self.files {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::write(segment_path(&self.folder, 1), spool).unwrap();
    }

    /// The batches that can be read after recovery, and all that was told.
    fn recover_and_read(&self) -> (Contents, Vec<String>) {
        let mut lock = WriterLock::take(&self.folder, false).unwrap();
        let mut told = recover(&mut lock, &recovery_options()).unwrap().problems;
        let mut reader = NamedSpoolReader::open(&self.folder, Seq(1)).unwrap();
        reader.writer_has_ended();
        let mut found = Contents::new();
        let mut names = Names::default();
        while let Some(event) = reader.next_event().unwrap() {
            match event {
                SpoolEvent::Damage(damage) if damage.lost.is_some() => told.push(damage.message),
                SpoolEvent::Damage(_) => {}
                SpoolEvent::Frame(frame) if frame.kind == FrameKind::Declarations => {
                    names.declare(&frame.payload);
                }
                SpoolEvent::Frame(frame) => {
                    let shown = names.show(frame.kind, &frame.payload);
                    assert_eq!(found.insert(frame.seq.0, shown), None);
                }
            }
        }
        (found, told)
    }

    /// What a server has after a delivery, what was told, and what a second delivery told.
    fn deliver(&self) -> (Contents, [Vec<String>; 2]) {
        let server = MemoryServer::new();
        let told = [(); 2].map(|()| {
            let told = Arc::new(Mutex::new(Vec::new()));
            let heard = Arc::clone(&told);
            let on_event: OnEvent =
                Arc::new(move |event| heard.lock().unwrap().extend(event.problems()));
            let transport = Arc::new(MemoryTransport(Arc::clone(&server)));
            let dead = DeadWriters {
                data_dir: self.data_dir.path().to_owned(),
                of_destination: None,
                options: DeliveryOptions::new(transport, OWN),
                recovery: recovery_options(),
                force: false,
            };
            dead.deliver(&Cancel::never(), &on_event);
            std::mem::take(&mut *told.lock().unwrap())
        });
        let records = server.records();
        assert!(records.writers.len() <= 1);
        let mut contents = Contents::new();
        for writer in records.writers.values() {
            let mut names = Names::default();
            writer.declarations.iter().for_each(|payload| names.declare(payload));
            for (seq, batch) in &writer.batches {
                contents.insert(seq.0, names.show(batch.kind.into(), &batch.payload));
            }
        }
        (contents, told)
    }

    fn without(&self, lost: &[u64]) -> Contents {
        let mut left = self.contents.clone();
        left.retain(|seq, _| !lost.contains(seq));
        left
    }

    /// The batch whose frame a byte belongs to.
    fn batch_at(&self, byte: usize) -> Option<u64> {
        let frame = self.frames.iter().find(|(_, range)| range.contains(&byte))?;
        Some(frame.0.seq.0).filter(|seq| *seq > 0)
    }
}

/// The names that a writer declared.
#[derive(Default)]
struct Names {
    metrics: BTreeMap<u32, String>,
    envs: BTreeMap<u32, String>,
}

impl Names {
    fn declare(&mut self, payload: &[u8]) {
        for declaration in decode_declarations(payload).unwrap() {
            match declaration {
                Declaration::Metric { no, name, .. } => self.metrics.insert(no.0, name),
                Declaration::Environment { no, env_id } => self.envs.insert(no.0, env_id),
            };
        }
    }

    fn show(&self, kind: FrameKind, payload: &[u8]) -> String {
        if kind == FrameKind::Attributes {
            return format!("{payload:?}");
        }
        let mut columns = PointColumns::default();
        decode_points(payload, &mut columns).unwrap();
        let metrics: Vec<_> = columns.metric_no.iter().map(|no| &self.metrics[no]).collect();
        let envs: Vec<_> = columns.env_no.iter().map(|no| self.envs.get(no)).collect();
        assert!(envs.iter().zip(&columns.env_no).all(|(env, no)| env.is_some() == (*no != 0)));
        format!("{metrics:?} {envs:?} {columns:?}")
    }
}

fn log_all(engine: &Engine) {
    let flush = || engine.flush(None, &mut || false).unwrap();
    log_points(engine, "loss");
    flush();
    let operation =
        AttributeOperation::Set { path: "lr".to_owned(), value: AttributeValue::Float(0.1) };
    let update = AttributeUpdate { initial: false, operation };
    engine.log_attributes(&[update]).unwrap().settle(&mut || false).unwrap();
    flush();
    // Names that only the batches behind this place need.
    let reward = engine.metric("reward", Scale::EnvironmentStep, &[]).unwrap();
    let envs = [engine.env("e0").unwrap(), engine.env("e1").unwrap()];
    for rl_step in 0..2 {
        let call = EnvCall {
            metric: reward,
            rl_step,
            envs: &envs,
            per_env: 1,
            episodes: None,
            timestamps: None,
            values: Values::F32(&[1.0, 2.0]),
        };
        engine.log_env_steps(&call).unwrap().settle(&mut || false).unwrap();
        flush();
    }
}

fn log_points(engine: &Engine, name: &str) {
    let metric = engine.metric(name, Scale::MlStep, &[("split", "train")]).unwrap();
    for value in [0.5, 0.25, f64::NAN] {
        let timestamp_ms = Some(77);
        let point = Point { metric, step: None, timestamp_ms, value, distributed: false };
        engine.log_point(point).unwrap().settle(&mut || false).unwrap();
    }
}

fn recovery_options() -> RecoveryOptions {
    RecoveryOptions {
        spool: SpoolOptions::default(),
        seal: SealSettings { compression: Compression::None, payload_bytes: 1000 },
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    found
}

fn frames(spool: &[u8]) -> Vec<(FrameHeader, Range<usize>)> {
    let mut frames = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while at < spool.len() {
        let header = FrameHeader::decode(spool[at..at + 64].try_into().unwrap()).unwrap();
        let end = at + header.frame_len() as usize;
        frames.push((header, at..end));
        at = end;
    }
    frames
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn test_every_flipped_bit_of_a_spool_costs_at_most_its_batch() {
    let writer = Writer::closed();
    for bit in 0..writer.spool.len() * 8 {
        writer.put_back(&flipped(&writer.spool, bit));
        let (found, told) = writer.recover_and_read();
        let lost = Vec::from_iter(writer.batch_at(bit / 8));
        assert_eq!(found, writer.without(&lost), "bit {bit}");
        assert_eq!(told.len(), lost.len(), "bit {bit}: {told:?}");
    }
}

#[test]
fn test_a_flipped_bit_in_every_byte_of_a_killed_writers_spool_costs_at_most_its_batch() {
    for rest in [false, true] {
        let writer = Writer::killed(rest);
        for byte in 0..writer.spool.len() {
            writer.put_back(&flipped(&writer.spool, byte * 8 + byte % 8));
            let (found, told) = writer.recover_and_read();
            let lost = Vec::from_iter(writer.batch_at(byte));
            assert_eq!(found, writer.without(&lost), "byte {byte}");
            assert_eq!(told.len(), lost.len(), "byte {byte}: {told:?}");
        }
    }
}

#[test]
fn test_a_flipped_bit_in_every_byte_of_a_spool_is_delivered_around_and_told_once() {
    let writer = Writer::closed();
    for byte in 0..writer.spool.len() {
        writer.put_back(&flipped(&writer.spool, byte * 8 + byte % 8));
        let (found, [told, again]) = writer.deliver();
        let lost = Vec::from_iter(writer.batch_at(byte));
        assert_eq!(found, writer.without(&lost), "byte {byte}");
        assert_eq!(told.len(), lost.len(), "byte {byte}: {told:?}");
        for seq in lost {
            assert!(told[0].contains(&format!("batches {seq} to {seq} are lost")), "{told:?}");
        }
        assert_eq!(again, [""; 0], "byte {byte}");
        let is_writer = |path: &Path| path.join("writer.json").exists();
        assert!(!is_writer(&writer.folder), "byte {byte}");
    }
}

#[test]
fn test_the_only_batch_of_a_killed_writer_is_told_of_if_it_is_damaged_or_missing() {
    for rest in [false, true] {
        let writer = Writer::killed_early(rest);
        let check = |lost: &[u64], place: &str| {
            let (found, [told, again]) = writer.deliver();
            assert_eq!(found, writer.without(lost), "{place}");
            assert_eq!(told.len(), lost.len(), "{place}: {told:?}");
            for seq in lost {
                assert!(told[0].contains(&format!("batches {seq} to {seq} are lost")), "{told:?}");
            }
            assert_eq!(again, [""; 0], "{place}");
        };
        for byte in 0..writer.spool.len() {
            writer.put_back(&flipped(&writer.spool, byte * 8 + byte % 8));
            check(&Vec::from_iter(writer.batch_at(byte)), &format!("rest {rest}, byte {byte}"));
        }
        writer.put_back(&writer.spool);
        std::fs::remove_file(segment_path(&writer.folder, 1)).unwrap();
        check(&[1], &format!("rest {rest}, no segment"));
    }
}

#[test]
fn test_a_spool_cut_at_every_byte_is_delivered_up_to_there_and_told_once() {
    let writer = Writer::closed();
    let last = writer.last_seq();
    for end in 0..writer.spool.len() {
        writer.put_back(&writer.spool[..end]);
        let (found, [told, again]) = writer.deliver();
        let is_whole = |frame: &&(FrameHeader, Range<usize>)| frame.1.end <= end;
        let whole = writer.frames.iter().filter(is_whole).map(|(header, _)| header.seq.0);
        let first_lost = whole.max().unwrap_or(0) + 1;
        let missing: Vec<_> = (first_lost..=last).collect();
        assert_eq!(found, writer.without(&missing), "cut at {end}");
        assert_eq!(told.len(), 1, "cut at {end}: {told:?}");
        let sentence = format!("batches {first_lost} to {last} are lost");
        assert!(told[0].contains(&sentence), "cut at {end}: {told:?}");
        assert_eq!(again, [""; 0], "cut at {end}");
    }
}

#[test]
fn test_declarations_damaged_twice_cost_the_batches_that_need_them_and_their_bytes_are_kept() {
    let writer = Writer::closed();
    let mut spool = writer.spool.clone();
    let declares =
        |(header, _): &&(FrameHeader, Range<usize>)| header.kind == FrameKind::Declarations;
    // Both copies of those that the first batch needs; others follow.
    let first: Vec<_> = writer.frames.iter().take_while(declares).collect();
    assert_eq!(first.len(), 2);
    for (_, range) in first {
        spool[range.end - 1] ^= 1;
    }
    writer.put_back(&spool);
    let (found, [told, again]) = writer.deliver();
    let lost = [1];
    assert_eq!(found, writer.without(&lost));
    assert_eq!((told.len(), again.len()), (1, 0), "{told:?} {again:?}");
    assert!(told[0].contains("batches 1 to 1 are lost: batch 1 cannot be read"), "{told:?}");
    let names = std::fs::read_dir(&writer.run).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = names.filter(|path| path.extension().is_some()).collect();
    let kept = aside.iter().find(|path| path.to_string_lossy().ends_with(".unreadable")).unwrap();
    assert_eq!(std::fs::read(segment_path(kept, 1)).unwrap(), spool);
}

#[test]
fn test_a_damaged_writer_json_loses_nothing_in_silence() {
    let writer = Writer::closed();
    let path = writer.folder.join("writer.json");
    let whole = std::fs::read(&path).unwrap();
    let cuts = (0..whole.len()).map(|end| whole[..end].to_vec());
    let flips = (0..whole.len()).map(|byte| flipped(&whole, byte * 8 + byte % 8));
    for (at, damaged) in cuts.chain(flips).enumerate() {
        writer.put_back(&writer.spool);
        std::fs::write(&path, &damaged).unwrap();
        let (found, [told, _]) = writer.deliver();
        let is_kept = files(&writer.run).iter().any(|(_, bytes)| *bytes == writer.spool);
        let is_live_or_foreign = RunFolder::open(&writer.run).unwrap().writers().unwrap();
        let is_live_or_foreign =
            is_live_or_foreign.iter().any(|entry| entry.liveness != Liveness::Dead);
        let text = String::from_utf8_lossy(&damaged);
        // All of it is at the server, or its bytes are kept, and it was told or the status says so.
        assert!(found == writer.contents || is_kept, "damage {at}: {text}");
        assert!(
            found == writer.contents || is_live_or_foreign || !told.is_empty(),
            "damage {at}: {text}"
        );
        assert!(found.iter().all(|(seq, shown)| writer.contents.get(seq) == Some(shown)));
    }
}

#[test]
fn test_damaged_cursors_and_watermarks_cost_no_batch() {
    let writer = Writer::closed();
    let cursors = || RunFolder::open(&writer.run).unwrap().cursors();
    let (left, _) = cursors();
    assert!(!left.series.is_empty());
    // Damaged, a watermark counts as none.
    for (file, acked) in [("../cursors/000001", 2), ("acked", 0)] {
        writer.put_back(&writer.spool);
        write_acked(&writer.folder, Seq(2)).unwrap();
        let path = writer.folder.join(file);
        let whole = std::fs::read(&path).unwrap();
        let cuts = (0..whole.len()).map(|end| whole[..end].to_vec());
        let flips = (0..whole.len()).map(|byte| flipped(&whole, byte * 8 + byte % 8));
        for (at, damaged) in cuts.chain(flips).enumerate() {
            writer.put_back(&writer.spool);
            write_acked(&writer.folder, Seq(2)).unwrap();
            std::fs::write(&path, damaged).unwrap();
            let (found, told) = writer.deliver();
            let before: Vec<_> = (1..=acked).collect();
            assert_eq!(found, writer.without(&before), "{file}, damage {at}");
            assert_eq!(told, [const { Vec::<String>::new() }; 2], "{file}, damage {at}");
            let (kept, unreadable) = cursors();
            assert_eq!((kept, unreadable.len()), (left.clone(), 0), "{file}, damage {at}");
        }
    }
}
