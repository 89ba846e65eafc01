//! Writer and reader together: what is written is read, whatever the disk and the bytes go through.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

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
        metrics.iter().for_each(|no| out.extend_from_slice(format!("m{no} ").as_bytes()));
        envs.iter().for_each(|no| out.extend_from_slice(format!("e{no} ").as_bytes()));
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
fn append(writer: &mut SpoolWriter, seq: u64) -> Result<Appended, SpoolError> {
    let uses = uses(&[seq as u32 % 5 + 1], &[seq as u32 % 3]);
    let batch = SealedBatch {
        kind: if seq % 4 == 0 { BatchKind::Attributes } else { BatchKind::Points },
        urgent: seq % 2 == 0,
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
        assert_eq!(frame.kind == FrameKind::Attributes, seq % 4 == 0);
        assert_eq!((frame.urgent, frame.lsn_last), (seq % 2 == 0, Lsn(seq * 8 + 7)));
        assert!(declared.contains(&format!("m{} ", seq % 5 + 1)), "batch {seq}: {declared}");
        assert!(seq % 3 == 0 || declared.contains(&format!("e{} ", seq % 3)));
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
    assert_eq!(bytes.len(), 64 + 64 + 3 + 64 + 3);
    let header = SegmentHeader::decode(bytes[..64].try_into().unwrap()).unwrap();
    assert_eq!((header.writer_id, header.number, header.first_seq), (ID, 1, Seq(1)));
    let declarations = FrameHeader::decode(bytes[64..128].try_into().unwrap()).unwrap();
    assert_eq!((declarations.kind, declarations.seq), (FrameKind::Declarations, Seq(0)));
    assert_eq!(&bytes[128..131], b"m2 ");
    let points = FrameHeader::decode(bytes[131..195].try_into().unwrap()).unwrap();
    assert_eq!((points.kind, points.seq, points.lsn_last), (FrameKind::Points, Seq(1), Lsn(31)));
    assert_eq!(&bytes[195..], b"abc");
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
    assert!(batches(&all_events(folder.path())).ends_with(&(31..=40).collect::<Vec<_>>()));
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
    // create, header, sync of the folder, declarations (2), batch (2), sync.
    let disk = FaultyDisk::new(7, Fault::DiesBefore);
    let spool_options = SpoolOptions { fsync: FsyncPolicy::Always, ..options(10_000, &disk) };
    let mut writer = SpoolWriter::create(folder.path(), ID, spool_options);
    let appended = append(&mut writer, 1).unwrap();
    assert!(appended.sync_problem.is_some());
    assert_eq!(batches(&all_events(folder.path())), [1]);
}

// ── A disk that fails ───────────────────────────────────────────────────────────────────────────

const FAULT_BATCHES: u64 = 12;
const FAULT_SEGMENT: u64 = 500;

/// Writes all batches to a disk that fails at operation `at`, repeating what failed.
fn write_with(at: u64, fault: Fault) -> (tempfile::TempDir, FaultyDisk, u64) {
    let folder = memory_folder();
    let disk = FaultyDisk::new(at, fault);
    let mut writer = SpoolWriter::create(folder.path(), ID, options(FAULT_SEGMENT, &disk));
    let mut done = 0;
    let mut failures = 0;
    while done < FAULT_BATCHES && !disk.is_dead() {
        match append(&mut writer, done + 1) {
            Ok(_) => done += 1,
            Err(error) => {
                failures += 1;
                assert!(disk.is_dead() || error.is_out_of_space(), "{error}");
                if failures == 5 {
                    disk.repair();
                }
            }
        }
        assert!(failures < 10);
    }
    (folder, disk, done)
}

fn operation_count() -> u64 {
    write_with(u64::MAX, Fault::ShortWrite).1.count()
}

#[test]
fn test_every_operation_may_be_short_interrupted_or_out_of_space() {
    for fault in [Fault::ShortWrite, Fault::Interrupted, Fault::Full, Fault::FullFromHere] {
        for at in 0..operation_count() {
            let (folder, _, done) = write_with(at, fault);
            assert_eq!(done, FAULT_BATCHES);
            let events = all_events(folder.path());
            assert_eq!(
                batches(&events),
                (1..=FAULT_BATCHES).collect::<Vec<_>>(),
                "{fault:?} at {at}"
            );
            assert!(!has_damage(&events), "{fault:?} at {at}: {events:?}");
        }
    }
}

#[test]
fn test_the_process_may_die_at_every_operation() {
    for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
        for at in 0..operation_count() {
            let (folder, disk, done) = write_with(at, fault);
            assert!(disk.is_dead());
            let read = batches(&all_events(folder.path()));
            // The last append may have gone through without anybody knowing.
            assert!(
                read.len() as u64 == done || read.len() as u64 == done + 1,
                "{fault:?} at {at}"
            );
            assert_eq!(read, (1..=read.len() as u64).collect::<Vec<_>>());
            assert!(lost(&all_events(folder.path())).is_empty());
        }
    }
}

#[test]
fn test_acknowledged_segments_can_be_deleted_while_the_disk_is_full() {
    let folder = memory_folder();
    let disk = FaultyDisk::new(40, Fault::FullFromHere);
    let mut writer = SpoolWriter::create(folder.path(), ID, options(FAULT_SEGMENT, &disk));
    let mut done = 0;
    while append(&mut writer, done + 1).is_ok() {
        done += 1;
    }
    assert!(writer.delete_acked(Seq(done)).unwrap() > 0);
    disk.repair();
    append(&mut writer, done + 1).unwrap();
    assert_eq!(batches(&all_events(folder.path())).last(), Some(&(done + 1)));
}

// ── Bytes that are damaged ──────────────────────────────────────────────────────────────────────

const DAMAGE_BATCHES: u64 = 6;

/// The bytes of a spool of two segments, and a folder to put damaged copies into.
fn two_segments() -> (Vec<Vec<u8>>, tempfile::TempDir) {
    let folder = memory_folder();
    drop(spool(folder.path(), DAMAGE_BATCHES, 700));
    let numbers = segment_numbers(folder.path()).unwrap();
    assert_eq!(numbers.len(), 2);
    let bytes =
        numbers.iter().map(|number| std::fs::read(segment_path(folder.path(), *number)).unwrap());
    (bytes.collect(), folder)
}

/// Where the batches lie in a segment's bytes.
fn places(bytes: &[u8]) -> Vec<(u64, std::ops::Range<usize>)> {
    let mut at = SEGMENT_HEADER_BYTES;
    let mut places = Vec::new();
    while at < bytes.len() {
        let header = FrameHeader::decode(bytes[at..at + 64].try_into().unwrap()).unwrap();
        let end = at + header.frame_len() as usize;
        places.push((header.seq.0, at..end));
        at = end;
    }
    places
}

#[test]
fn test_a_segment_cut_at_every_byte_gives_every_whole_batch() {
    let (segments, folder) = two_segments();
    for (at, bytes) in segments.iter().enumerate() {
        let path = segment_path(folder.path(), at as u64 + 1);
        let others: Vec<_> = segments
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
            .flat_map(|(_, bytes)| places(bytes))
            .map(|(seq, _)| seq)
            .collect();
        for end in 0..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let cut = |range: &std::ops::Range<usize>| range.end > end;
            let whole: Vec<_> = places(bytes)
                .into_iter()
                .filter(|(_, range)| !cut(range))
                .map(|(seq, _)| seq)
                .collect();
            let mut expected: Vec<_> =
                whole.into_iter().chain(others.clone()).filter(|seq| *seq > 0).collect();
            expected.sort_unstable();
            let events = read_undeclared(folder.path());
            assert_eq!(seqs(&events), expected, "segment {at} cut at {end}");
            let is_border = end == SEGMENT_HEADER_BYTES
                || end == 0
                || places(bytes).iter().any(|(_, range)| range.end == end);
            // The last segment's missing end leaves no trace where a frame ends.
            if at == 0 && expected.len() < DAMAGE_BATCHES as usize {
                let missing: Vec<_> =
                    (1..=DAMAGE_BATCHES).filter(|seq| !expected.contains(seq)).collect();
                assert_eq!(lost(&events), missing, "segment {at} cut at {end}");
            } else if !is_border {
                assert!(has_damage(&events), "segment {at} cut at {end}");
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn test_every_flipped_bit_costs_at_most_its_batch_and_is_reported() {
    let (segments, folder) = two_segments();
    for (at, bytes) in segments.iter().enumerate() {
        let path = segment_path(folder.path(), at as u64 + 1);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).unwrap();
            let hit = places(bytes).into_iter().find(|(_, range)| range.contains(&(bit / 8)));
            let hit = hit.map_or(0, |(seq, _)| seq);
            let expected: Vec<_> = (1..=DAMAGE_BATCHES).filter(|seq| *seq != hit).collect();
            let events = read_undeclared(folder.path());
            assert_eq!(seqs(&events), expected, "segment {at}, bit {bit}");
            assert!(has_damage(&events), "segment {at}, bit {bit}");
            // How many batches a damaged header at the very end held, nothing tells.
            if hit > 0 && hit < DAMAGE_BATCHES {
                assert_eq!(lost(&events), [hit], "segment {at}, bit {bit}");
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

/// Like [`all_events`], for spools whose declarations may be damaged.
fn read_undeclared(folder: &Path) -> Vec<SpoolEvent> {
    let events = all_events(folder);
    for event in &events {
        if let SpoolEvent::Frame(frame) = event {
            assert_eq!(frame.payload_crc32c, crc32c::crc32c(&frame.payload));
        }
    }
    events
}

fn seqs(events: &[SpoolEvent]) -> Vec<u64> {
    let seqs = events.iter().filter_map(|event| match event {
        SpoolEvent::Frame(frame) => Some(frame.seq.0),
        SpoolEvent::Damage(_) => None,
    });
    seqs.filter(|seq| *seq > 0).collect()
}

#[test]
fn test_damage_at_the_end_of_a_live_spool_waits_for_what_follows() {
    let folder = memory_folder();
    let mut writer = spool(folder.path(), 3, 10_000);
    let path = segment_path(folder.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let place = places(&bytes).into_iter().find(|(seq, _)| *seq == 3).unwrap().1;
    bytes[place.end - 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut reader = SpoolReader::open(folder.path(), Seq(1)).unwrap();
    assert_eq!(batches(&events(&mut reader)), [1, 2]);
    append(&mut writer, 4).unwrap();
    let after = events(&mut reader);
    assert_eq!((seqs(&after), lost(&after)), (vec![4], vec![3]));
    let is_told = |event: &SpoolEvent| match event {
        SpoolEvent::Damage(damage) => damage.message.contains("damaged batch 3"),
        SpoolEvent::Frame(_) => false,
    };
    assert!(after.iter().any(is_told), "{after:?}");
}

#[test]
fn test_damage_at_the_very_end_is_reported_once_when_the_writer_has_ended() {
    let folder = memory_folder();
    drop(spool(folder.path(), 3, 10_000));
    let path = segment_path(folder.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut reader = SpoolReader::open(folder.path(), Seq(2)).unwrap();
    assert_eq!(seqs(&events(&mut reader)), [2]);
    reader.writer_has_ended();
    assert_eq!(lost(&events(&mut reader)), [3]);
    assert_eq!(events(&mut reader), []);
}

#[test]
fn test_a_missing_middle_segment_is_a_reported_loss() {
    let folder = memory_folder();
    drop(spool(folder.path(), 30, 600));
    std::fs::remove_file(segment_path(folder.path(), 3)).unwrap();
    let events = all_events(folder.path());
    let (read, lost) = (seqs(&events), lost(&events));
    assert!(!lost.is_empty());
    let mut all = [read, lost].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=30).collect::<Vec<_>>());
}

#[test]
fn test_frames_of_another_writer_are_damage() {
    let folder = memory_folder();
    drop(spool(folder.path(), 4, 10_000));
    let path = segment_path(folder.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let place = places(&bytes).into_iter().find(|(seq, _)| *seq == 2).unwrap().1;
    let mut header =
        FrameHeader::decode(bytes[place.start..place.start + 64].try_into().unwrap()).unwrap();
    header.writer_id = WriterId([9; 16]);
    bytes[place.start..place.start + 64].copy_from_slice(&header.encode());
    std::fs::write(&path, bytes).unwrap();
    let events = all_events(folder.path());
    assert_eq!((seqs(&events), lost(&events)), (vec![1, 3, 4], vec![2]));
}

#[test]
fn test_a_newer_frame_stops_the_reader_and_is_not_passed_over() {
    let folder = memory_folder();
    drop(spool(folder.path(), 4, 10_000));
    let path = segment_path(folder.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = places(&bytes).into_iter().find(|(seq, _)| *seq == 3).unwrap().1.start;
    for (field, value) in [(4, 2), (6, 77)] {
        let mut changed = bytes.clone();
        changed[at + field] = value;
        let crc = crc32c::crc32c(&changed[at..at + 60]);
        changed[at + 60..at + 64].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, changed).unwrap();
        let mut reader = SpoolReader::open(folder.path(), Seq(1)).unwrap();
        let mut read = Vec::new();
        let error = loop {
            match reader.next_event() {
                Ok(Some(event)) => read.push(event),
                Ok(None) => panic!("the reader passed over it"),
                Err(error) => break error,
            }
        };
        assert_eq!(seqs(&read), [1, 2]);
        assert!(error.to_string().contains("upgrade metrana"), "{error}");
        assert!(reader.next_event().is_err());
    }
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(SpoolReader::open(folder.path(), Seq(1)), Err(SpoolError::Newer { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any damage to any number of places: nothing wrong is given out, order holds, no panic.
    #[test]
    fn test_a_reader_survives_any_bytes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in any::<prop::sample::Index>(),
        from in 1u64..8,
    ) {
        let (segments, folder) = two_segments();
        let mut bytes = segments[0].clone();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        bytes.truncate(cut.index(bytes.len()));
        std::fs::write(segment_path(folder.path(), 1), bytes).unwrap();
        let mut reader = SpoolReader::open(folder.path(), Seq(from)).unwrap();
        let mut read = events(&mut reader);
        reader.writer_has_ended();
        read.extend(events(&mut reader));
        let found = seqs(&read);
        prop_assert!(found.is_sorted_by(|one, other| one < other));
        for event in &read {
            if let SpoolEvent::Frame(frame) = event && frame.kind != FrameKind::Declarations {
                prop_assert!(frame.seq.0 >= from);
                prop_assert_eq!(&frame.payload, &payload(frame.seq.0));
            }
        }
        prop_assert!(lost(&read).iter().all(|seq| !found.contains(seq)));
        // The second segment is sound.
        for (seq, _) in places(&segments[1]).iter().filter(|(seq, _)| *seq >= from) {
            prop_assert!(found.contains(seq));
        }
    }
}
