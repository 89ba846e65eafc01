//! Bytes that were cut, flipped or made up.

use proptest::prelude::*;

use super::*;

const DAMAGE_BATCHES: u64 = 6;

/// The bytes of a spool of two segments, and a folder to put damaged copies into.
fn two_segments() -> (Vec<Vec<u8>>, tempfile::TempDir) {
    let folder = memory_folder();
    drop(spool(folder.path(), DAMAGE_BATCHES, 1000));
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
fn test_a_damaged_copy_of_declarations_whose_twin_is_right_leaves_nothing_unread() {
    let folder = memory_folder();
    let mut writer = spool(folder.path(), 3, 10_000);
    // Used by no batch yet.
    for no in [901, 902] {
        writer.declare(&uses(&[no], &[]), Seq(4), &mut { SOURCE }).unwrap();
    }
    let path = segment_path(folder.path(), 1);
    let bytes = std::fs::read(&path).unwrap();
    let tail: Vec<_> = places(&bytes).into_iter().rev().take_while(|(seq, _)| *seq == 0).collect();
    assert_eq!(tail.len(), 4);
    let unread = |damaged: &[&std::ops::Range<usize>], at: usize| {
        let mut changed = bytes.clone();
        for range in damaged {
            changed[range.start + at] ^= 1;
        }
        std::fs::write(&path, changed).unwrap();
        let mut declared = String::new();
        let tell = |payload: &[u8]| declared += std::str::from_utf8(payload).unwrap();
        let unread = summarize(folder.path(), ID, tell).unwrap().unread.len();
        (unread, declared.contains("m901 ") && declared.contains("m902 "))
    };
    // In the header and in the payload.
    for at in [30, 65] {
        for (_, range) in &tail {
            assert_eq!(unread(&[range], at), (0, true));
        }
        for twins in tail.chunks(2) {
            let (unread, is_declared) = unread(&[&twins[0].1, &twins[1].1], at);
            assert!(unread > 0 && !is_declared);
        }
    }
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
