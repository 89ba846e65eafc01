//! Writer and reader together: what is written is read, whatever the disk and the bytes go through.

mod damage;
mod disk;
mod vanishing;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::faults::{Fault, FaultyDisk};
use super::*;
use crate::types::{BatchKind, EnvNo, Lsn, MetricNo, Seq, WriterId};

const ID: WriterId = WriterId([7; 16]);

/// Thousands of small files are written here: memory is faster than a disk and no different.
fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(crate::platform::shared_memory_folder().unwrap()).unwrap()
}

/// Declares number `n` as the two letters `mn` or `en`.
struct Source {
    most: u32,
}

impl DeclarationSource for Source {
    fn encode_declarations(
        &mut self,
        metrics: &[MetricNo],
        envs: &[EnvNo],
        out: &mut Vec<u8>,
    ) -> Result<(), UnknownNumber> {
        if let Some(no) = metrics.iter().find(|no| no.0 > self.most) {
            return Err(UnknownNumber::Metric(*no));
        }
        for no in metrics {
            out.extend_from_slice(format!("m{no} ").as_bytes());
        }
        for no in envs {
            out.extend_from_slice(format!("e{no} ").as_bytes());
        }
        Ok(())
    }
}

const SOURCE: Source = Source { most: 1000 };

fn options(segment_bytes: u64, disk: &FaultyDisk) -> SpoolOptions {
    SpoolOptions { segment_bytes, fsync: FsyncPolicy::Never, files: Arc::new(disk.clone()) }
}

fn uses(metrics: &[u32], envs: &[u32]) -> Numbers {
    Numbers {
        metrics: metrics.iter().copied().map(MetricNo).collect(),
        envs: envs.iter().copied().map(EnvNo).collect(),
    }
}

/// Batch `seq`: its payload, its numbers and its place follow from it.
fn append(writer: &mut SpoolWriter, seq: u64) -> Result<(), SpoolError> {
    append_and_tell(writer, seq).map(|appended| assert!(appended.sync_problem.is_none()))
}

fn append_and_tell(writer: &mut SpoolWriter, seq: u64) -> Result<Appended, SpoolError> {
    let uses = uses(&[seq as u32 % 5 + 1], &[seq as u32 % 3]);
    let batch = SealedBatch {
        kind: if seq.is_multiple_of(4) { BatchKind::Attributes } else { BatchKind::Points },
        urgent: seq.is_multiple_of(2),
        seq: Seq(seq),
        lsn_first: Lsn(seq * 8),
        lsn_last: Lsn(seq * 8 + 7),
        payload: &payload(seq),
        uses: &uses,
    };
    writer.append(&batch, &mut { SOURCE })
}

fn payload(seq: u64) -> Vec<u8> {
    (0..20 + seq % 50).map(|at| (at * 7 + seq) as u8).collect()
}

/// A spool of batches 1 to `last`.
fn spool(folder: &Path, last: u64, segment_bytes: u64) -> SpoolWriter {
    let mut writer = SpoolWriter::create(folder, ID, options(segment_bytes, &FaultyDisk::sound()));
    for seq in 1..=last {
        append(&mut writer, seq).unwrap();
    }
    writer
}

fn events(reader: &mut SpoolReader) -> Vec<SpoolEvent> {
    std::iter::from_fn(|| reader.next_event().unwrap()).collect()
}

fn all_events(folder: &Path) -> Vec<SpoolEvent> {
    let mut reader = SpoolReader::open(folder, Seq(1)).unwrap();
    reader.writer_has_ended();
    events(&mut reader)
}

/// The same of a spool of which the beginning may have been deleted.
fn all_events_left(folder: &Path) -> Vec<SpoolEvent> {
    let mut reader = SpoolReader::open_oldest(folder).unwrap();
    reader.writer_has_ended();
    events(&mut reader)
}

/// The batches among the events; each must be as it was written and declared before its use.
fn batches(events: &[SpoolEvent]) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut declared = String::new();
    for event in events {
        let SpoolEvent::Frame(frame) = event else { continue };
        if frame.kind == FrameKind::Declarations {
            assert_eq!(frame.seq, Seq(0));
            declared += std::str::from_utf8(&frame.payload).unwrap();
            continue;
        }
        let seq = frame.seq.0;
        assert_eq!(frame.payload, payload(seq));
        assert_eq!(frame.payload_crc32c, crc32c::crc32c(&frame.payload));
        assert_eq!(frame.kind == FrameKind::Attributes, seq.is_multiple_of(4));
        assert_eq!((frame.urgent, frame.lsn_last), (seq.is_multiple_of(2), Lsn(seq * 8 + 7)));
        assert!(declared.contains(&format!("m{} ", seq % 5 + 1)), "batch {seq}: {declared}");
        assert!(seq.is_multiple_of(3) || declared.contains(&format!("e{} ", seq % 3)));
        seqs.push(seq);
    }
    seqs
}

/// Batches that the events say are lost.
fn lost(events: &[SpoolEvent]) -> Vec<u64> {
    let ranges = events.iter().filter_map(|event| match event {
        SpoolEvent::Damage(damage) => damage.lost,
        SpoolEvent::Frame(_) => None,
    });
    ranges.flat_map(|(first, last)| first.0..=last.0).collect()
}

fn has_damage(events: &[SpoolEvent]) -> bool {
    events.iter().any(|event| matches!(event, SpoolEvent::Damage(_)))
}

// ── Writing and reading ─────────────────────────────────────────────────────────────────────────

#[test]
fn test_what_is_written_is_read_in_order_across_segments() {
    let folder = memory_folder();
    let writer = spool(folder.path(), 100, 1000);
    let segments = segment_numbers(folder.path()).unwrap();
    assert!(segments.len() > 10);
    let on_disk: u64 = segments
        .iter()
        .map(|number| segment_path(folder.path(), *number).metadata().unwrap().len())
        .sum();
    assert_eq!(writer.bytes(), on_disk);
    let events = all_events(folder.path());
    assert_eq!(batches(&events), (1..=100).collect::<Vec<_>>());
    assert!(!has_damage(&events));
}

#[test]
fn test_the_first_segment_of_a_spool_is_these_bytes() {
    let folder = memory_folder();
    let mut writer = SpoolWriter::create(folder.path(), ID, SpoolOptions::default());
    let uses = uses(&[2], &[]);
    let batch = SealedBatch {
        kind: BatchKind::Points,
        urgent: false,
        seq: Seq(1),
        lsn_first: Lsn(0),
        lsn_last: Lsn(31),
        payload: b"abc",
        uses: &uses,
    };
    let appended = writer.append(&batch, &mut { SOURCE }).unwrap();
    let bytes = std::fs::read(segment_path(folder.path(), 1)).unwrap();
    assert_eq!(appended.bytes, bytes.len() as u64);
    assert_eq!(bytes.len(), 64 + 2 * (64 + 3) + 64 + 3);
    let header = SegmentHeader::decode(bytes[..64].try_into().unwrap()).unwrap();
    assert_eq!((header.writer_id, header.number, header.first_seq), (ID, 1, Seq(1)));
    let declarations = FrameHeader::decode(bytes[64..128].try_into().unwrap()).unwrap();
    assert_eq!((declarations.kind, declarations.seq), (FrameKind::Declarations, Seq(0)));
    assert_eq!(&bytes[128..131], b"m2 ");
    assert_eq!(bytes[131..198], bytes[64..131], "declarations are there twice");
    let points = FrameHeader::decode(bytes[198..262].try_into().unwrap()).unwrap();
    assert_eq!((points.kind, points.seq, points.lsn_last), (FrameKind::Points, Seq(1), Lsn(31)));
    assert_eq!(&bytes[262..], b"abc");
}

#[test]
fn test_a_reader_may_begin_at_any_batch_and_gets_the_declarations() {
    let folder = memory_folder();
    let _writer = spool(folder.path(), 60, 1000);
    for from in 1..=61 {
        let mut reader = SpoolReader::open(folder.path(), Seq(from)).unwrap();
        let events = events(&mut reader);
        assert_eq!(batches(&events), (from..=60).collect::<Vec<_>>());
        assert!(!has_damage(&events));
    }
}

#[test]
fn test_a_reader_follows_a_live_spool_byte_by_byte() {
    let source = memory_folder();
    drop(spool(source.path(), 12, 600));
    let folder = memory_folder();
    let mut reader = SpoolReader::open(folder.path(), Seq(1)).unwrap();
    let mut seen = Vec::new();
    for number in segment_numbers(source.path()).unwrap() {
        let bytes = std::fs::read(segment_path(source.path(), number)).unwrap();
        for end in 0..=bytes.len() {
            std::fs::write(segment_path(folder.path(), number), &bytes[..end]).unwrap();
            seen.extend(events(&mut reader));
        }
    }
    assert_eq!(batches(&seen), (1..=12).collect::<Vec<_>>());
    assert!(!has_damage(&seen));
    reader.writer_has_ended();
    assert_eq!(events(&mut reader), []);
}

#[test]
fn test_acknowledged_segments_are_deleted_behind_a_reader() {
    let folder = memory_folder();
    let mut writer = spool(folder.path(), 40, 600);
    let mut reader = SpoolReader::open(folder.path(), Seq(1)).unwrap();
    let first = reader.next_event().unwrap().unwrap();
    let before = writer.bytes();
    assert!(!writer.has_acked_segments(Seq(0)));
    assert!(writer.has_acked_segments(Seq(30)));
    let freed = writer.delete_acked(Seq(30)).unwrap();
    assert_eq!(writer.bytes(), before - freed);
    let left = segment_numbers(folder.path()).unwrap();
    assert!(left[0] > 1);
    let mut seen = vec![first];
    seen.extend(events(&mut reader));
    assert!(!has_damage(&seen), "what was deleted was acknowledged: {seen:?}");
    assert!(batches(&seen).ends_with(&(31..=40).collect::<Vec<_>>()));
    // Whoever comes now begins with what is left.
    let late = all_events_left(folder.path());
    assert!(batches(&late).ends_with(&(31..=40).collect::<Vec<_>>()) && !has_damage(&late));
    // Unless nobody acknowledged it: then it is lost.
    let first = batches(&late)[0];
    let strict = all_events(folder.path());
    assert_eq!((batches(&strict), lost(&strict)), (batches(&late), (1..first).collect()));
    writer.delete_acked(Seq(40)).unwrap();
    assert_eq!(segment_numbers(folder.path()).unwrap(), left[left.len() - 1..]);
    append(&mut writer, 41).unwrap();
    assert!(batches(&all_events(folder.path())).ends_with(&[41]));
}

#[test]
fn test_a_declaration_outlives_the_segment_that_first_made_it() {
    let folder = memory_folder();
    let mut writer = SpoolWriter::create(folder.path(), ID, options(600, &FaultyDisk::sound()));
    // Declared by the ring, used by no batch yet.
    writer.declare(&uses(&[900], &[77]), Seq(1), &mut { SOURCE }).unwrap();
    writer.declare(&uses(&[900], &[77]), Seq(1), &mut { SOURCE }).unwrap();
    for seq in 1..=30 {
        append(&mut writer, seq).unwrap();
    }
    writer.delete_acked(Seq(30)).unwrap();
    let mut declared = String::new();
    summarize(folder.path(), ID, |payload| {
        declared += std::str::from_utf8(payload).unwrap();
    })
    .unwrap();
    assert!(declared.contains("m900 ") && declared.contains("e77 "), "{declared}");
}

#[test]
fn test_many_declarations_are_split_into_messages() {
    let folder = memory_folder();
    let mut writer = SpoolWriter::create(folder.path(), ID, SpoolOptions::default());
    let envs: Vec<_> = (1..=100_000).collect();
    writer.declare(&uses(&[1, 2], &envs), Seq(1), &mut { SOURCE }).unwrap();
    let mut declared = String::new();
    let mut count = 0;
    summarize(folder.path(), ID, |payload| {
        assert!(payload.len() <= 256 << 10);
        declared += std::str::from_utf8(payload).unwrap();
        count += 1;
    })
    .unwrap();
    assert!(count > 1);
    assert_eq!(declared.split(' ').count(), 100_003);
    assert!(declared.starts_with("m1 m2 e1 ") && declared.ends_with("e100000 "));
}

#[test]
fn test_a_number_that_nobody_knows_leaves_nothing_behind() {
    let folder = memory_folder();
    let mut writer = spool(folder.path(), 3, 10_000);
    let before = std::fs::read(segment_path(folder.path(), 1)).unwrap();
    let uses = uses(&[4000], &[]);
    let batch = SealedBatch {
        kind: BatchKind::Points,
        urgent: false,
        seq: Seq(4),
        lsn_first: Lsn(32),
        lsn_last: Lsn(39),
        payload: b"abc",
        uses: &uses,
    };
    let error = writer.append(&batch, &mut { SOURCE }).unwrap_err();
    assert!(matches!(error, SpoolError::UnknownNumber(UnknownNumber::Metric(MetricNo(4000)))));
    assert_eq!(std::fs::read(segment_path(folder.path(), 1)).unwrap(), before);
    append(&mut writer, 4).unwrap();
    assert_eq!(batches(&all_events(folder.path())), [1, 2, 3, 4]);
}

#[test]
fn test_summary_tells_what_recovery_rests_on() {
    let folder = memory_folder();
    drop(spool(folder.path(), 10, 600));
    let summary = summarize(folder.path(), ID, |_| {}).unwrap();
    assert_eq!((summary.first_seq, summary.last_seq), (Seq(1), Seq(10)));
    // Batches 4 and 8 are attributes.
    assert_eq!((summary.points_end, summary.attributes_end), (Lsn(88), Lsn(72)));
    assert_eq!(summary.end(BatchKind::Attributes), Lsn(72));
    assert_eq!(last_seq(folder.path(), ID).unwrap(), Seq(10));
    assert!(!is_empty(folder.path()).unwrap());
    let mut writer =
        SpoolWriter::resume(folder.path(), ID, options(600, &FaultyDisk::sound()), &summary);
    append(&mut writer, 11).unwrap();
    assert_eq!(batches(&all_events(folder.path())), (1..=11).collect::<Vec<_>>());
    assert_eq!(last_seq(folder.path(), WriterId([8; 16])).unwrap(), Seq(10), "the header's");
}

#[test]
fn test_fsync_is_as_the_policy_says() {
    let count = |fsync, then: &dyn Fn(&mut SpoolWriter)| {
        let folder = memory_folder();
        let disk = FaultyDisk::sound();
        let spool_options = SpoolOptions { fsync, ..options(10_000, &disk) };
        let mut writer = SpoolWriter::create(folder.path(), ID, spool_options);
        append(&mut writer, 1).unwrap();
        let before = disk.count();
        then(&mut writer);
        disk.count() - before
    };
    let sync_if_due = |writer: &mut SpoolWriter| writer.sync_if_due().unwrap();
    assert_eq!(count(FsyncPolicy::Never, &sync_if_due), 0);
    assert_eq!(count(FsyncPolicy::Interval(Duration::ZERO), &sync_if_due), 1);
    assert_eq!(count(FsyncPolicy::Interval(Duration::from_secs(3600)), &sync_if_due), 0);
    assert_eq!(count(FsyncPolicy::Always, &|writer| writer.sync().unwrap()), 0, "done already");
    assert_eq!(
        count(FsyncPolicy::Never, &|writer| {
            writer.sync().unwrap();
            writer.sync().unwrap();
        }),
        1
    );
}

#[test]
fn test_a_failed_fsync_is_told_and_the_batch_stays() {
    let folder = memory_folder();
    // create, header, sync of the folder, declarations (2, twice), batch (2), sync.
    let disk = FaultyDisk::new(9, Fault::DiesBefore);
    let spool_options = SpoolOptions { fsync: FsyncPolicy::Always, ..options(10_000, &disk) };
    let mut writer = SpoolWriter::create(folder.path(), ID, spool_options);
    let appended = append_and_tell(&mut writer, 1).unwrap();
    assert!(appended.sync_problem.is_some());
    assert_eq!(batches(&all_events(folder.path())), [1]);
}
