//! The ring against a model, across wraps and crashes.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::spool::golden::hex;
use crate::types::{Lsn, Seq, WriterId};

const ID: WriterId = WriterId([7; 16]);

fn anonymous(capacity_bytes: u64) -> (Ring, Producer, Consumer) {
    let options = RingOptions { capacity_bytes, place: RingPlace::Memory };
    Ring::create(&options, ID, RingStart::ORIGIN).unwrap()
}

/// What is done to a ring's bytes.
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

/// A folder in the system's shared memory, deleted at the end.
fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(platform::shared_memory_folder().unwrap()).unwrap()
}

fn in_folder(folder: &Path, capacity_bytes: u64) -> (Ring, Producer, Consumer) {
    let options = RingOptions { capacity_bytes, place: RingPlace::Folder(folder.to_owned()) };
    Ring::create(&options, ID, RingStart::ORIGIN).unwrap()
}

/// Appends a record whose words are all `mark` after its header; `false`: no room.
fn put(producer: &mut Producer, mark: u64, bytes: usize) -> bool {
    let Some(mut slot) = producer.reserve(bytes) else { return false };
    slot.put_header(3, 0, bytes as u32);
    while slot.left() > 0 {
        slot.put_u64(mark);
    }
    true
}

fn drain(consumer: &mut Consumer) -> Vec<(u64, usize)> {
    let (from, to) = (consumer.tail(), consumer.committed());
    let mut window = Vec::new();
    consumer.read(from, to, &mut window).unwrap();
    let found = records(&window, from)
        .map(|record| {
            let record = record.unwrap();
            (record.words.get(1).copied().unwrap_or(0), record.words.len() * 8)
        })
        .collect();
    consumer.release(to, Seq(1)).unwrap();
    found
}

#[test]
fn test_ring_bytes_are_those_of_version_1() {
    let folder = memory_folder();
    let id = WriterId(*b"0123456789abcdef");
    let options =
        RingOptions { capacity_bytes: 4096, place: RingPlace::Folder(folder.path().into()) };
    let (ring, mut producer, mut consumer) = Ring::create(&options, id, RingStart::ORIGIN).unwrap();
    let mut slot = producer.reserve(POINT_BYTES).unwrap();
    slot.put_header(POINT, 3, 0x0102_0304);
    slot.put_i64(-1);
    slot.put_u64(5);
    slot.put_f64(1.0);
    producer.commit();
    producer.reserve(16).unwrap().fill();
    producer.commit();
    consumer.release(Lsn(32), Seq(9)).unwrap();
    let bytes = std::fs::read(ring.kind().path().unwrap()).unwrap();
    assert_eq!(bytes.len(), 8192);
    assert_eq!(
        hex(&bytes[..40]),
        concat!(
            "4d45545252494e47",                 // magic
            "0100",                             // version
            "0000",                             //
            "00100000",                         // header length
            "30313233343536373839616263646566", // writer_id
            "0010000000000000",                 // capacity
        )
    );
    assert_eq!(hex(&bytes[64..72]), "3000000000000000", "committed");
    assert_eq!(hex(&bytes[128..136]), "2000000000000000", "tail");
    assert_eq!(hex(&bytes[192..200]), "0900000000000000", "next_seq");
    assert_eq!(
        hex(&bytes[4096..4128]),
        concat!("0203000004030201", "ffffffffffffffff", "0500000000000000", "000000000000f03f")
    );
}

#[test]
fn test_ring_is_private_locked_and_named_by_its_writer() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = memory_folder();
    let (ring, producer, consumer) = in_folder(folder.path(), 4096);
    let path = ring.kind().path().unwrap().to_owned();
    assert_eq!(ring.kind().name(), "tmpfs");
    assert_eq!(path, folder.path().join(format!("metrana-{ID}")));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Ring::open_existing(&path, ID), Err(RingError::InUse(_))));
    drop((ring, producer, consumer));
    assert!(path.exists(), "what a writer drops is there for whoever recovers it");
    let (ring, _consumer) = Ring::open_existing(&path, ID).unwrap();
    ring.unlink().unwrap();
    ring.unlink().unwrap();
    assert!(!path.exists());
}

#[test]
fn test_a_second_ring_of_the_same_name_falls_back_to_memory() {
    let folder = memory_folder();
    let (first, ..) = in_folder(folder.path(), 4096);
    let (second, mut producer, mut consumer) = in_folder(folder.path(), 4096);
    let RingKind::Memory { reason } = second.kind() else { panic!("two rings share a file") };
    assert!(reason.contains("creating the ring"), "{reason}");
    assert_eq!(second.kind().name(), "memory");
    assert!(put(&mut producer, 1, 16));
    producer.commit();
    assert_eq!(drain(&mut consumer), [(1, 16)]);
    second.unlink().unwrap();
    assert!(first.kind().path().unwrap().exists());
}

#[test]
fn test_a_folder_that_is_not_memory_is_not_used() {
    let (ring, ..) = in_folder(Path::new("/proc"), 4096);
    let RingKind::Memory { reason } = ring.kind() else { panic!("a ring in /proc") };
    assert!(reason.contains("is not on tmpfs"), "{reason}");
}

#[test]
fn test_capacity_fits_what_is_free() {
    let mib = 1 << 20;
    assert_eq!(fitting_capacity(8 * mib, 64 * mib), 4 * mib);
    assert_eq!(fitting_capacity(8 * mib, 1 << 40), 8 * mib);
    assert_eq!(fitting_capacity(8 * mib, 2 * mib), mib);
    assert_eq!(fitting_capacity(5000, 1 << 40), 8192);
    assert_eq!(fitting_capacity(0, 0), 4096);
}

#[test]
fn test_records_are_seen_only_after_their_commit() {
    let (ring, mut producer, mut consumer) = anonymous(4096);
    assert!(put(&mut producer, 1, 32));
    assert!(put(&mut producer, 2, 16));
    assert_eq!((ring.used(), producer.used(), consumer.committed()), (0, 48, Lsn(0)));
    producer.rollback();
    assert!(put(&mut producer, 3, 24));
    producer.commit();
    assert_eq!(ring.used(), 24);
    assert_eq!(drain(&mut consumer), [(3, 24)]);
    assert_eq!(ring.used(), 0);
}

#[test]
fn test_the_longest_record_fits_an_empty_ring_at_every_offset() {
    let (_ring, mut producer, mut consumer) = anonymous(4096);
    let longest = producer.max_record_bytes();
    for _ in 0..4096 / 8 {
        assert!(put(&mut producer, 1, 8));
        producer.commit();
        drain(&mut consumer);
        assert!(put(&mut producer, 2, longest));
        producer.commit();
        assert_eq!(drain(&mut consumer), [(2, longest)]);
    }
}

#[test]
fn test_a_rollback_across_the_end_takes_the_padding_back() {
    let (_ring, mut producer, mut consumer) = anonymous(4096);
    assert!(put(&mut producer, 1, 4000));
    producer.commit();
    drain(&mut consumer);
    assert!(put(&mut producer, 2, 200));
    producer.rollback();
    assert_eq!(producer.head(), Lsn(4000));
    assert!(put(&mut producer, 3, 96));
    producer.commit();
    assert_eq!(drain(&mut consumer), [(3, 96)]);
}

#[test]
#[should_panic(expected = "longer than what was reserved")]
fn test_a_slot_cannot_be_overfilled() {
    let (_ring, mut producer, _consumer) = anonymous(4096);
    let mut slot = producer.reserve(16).unwrap();
    slot.put_f64s(&[1.0, 2.0, 3.0]);
}

#[test]
fn test_windows_outside_the_ring_are_refused() {
    let (_ring, mut producer, mut consumer) = anonymous(4096);
    assert!(put(&mut producer, 1, 64));
    producer.commit();
    let mut window = vec![1];
    assert!(consumer.read(Lsn(0), Lsn(72), &mut window).is_err());
    assert!(window.is_empty());
    assert!(consumer.read(Lsn(8), Lsn(0), &mut window).is_err());
    assert!(consumer.read(Lsn(4), Lsn(8), &mut window).is_err());
    consumer.release(Lsn(64), Seq(2)).unwrap();
    assert!(consumer.release(Lsn(0), Seq(2)).is_err());
    assert!(consumer.read(Lsn(0), Lsn(64), &mut window).is_err());
}

#[test]
fn test_a_ring_may_begin_anywhere_in_the_stream() {
    let options = RingOptions { capacity_bytes: 4096, place: RingPlace::Memory };
    let start = RingStart { lsn: Lsn(4096 * 5 + 4088), next_seq: Seq(12), unsealed_bytes: 0 };
    let (ring, mut producer, mut consumer) = Ring::create(&options, ID, start).unwrap();
    assert_eq!((ring.tail(), ring.committed(), ring.next_seq()), (start.lsn, start.lsn, Seq(12)));
    assert!(put(&mut producer, 1, 16));
    producer.commit();
    assert_eq!(drain(&mut consumer), [(1, 16)]);
}

#[test]
fn test_a_deleted_ring_is_noticed_and_not_deleted_twice() {
    let folder = memory_folder();
    let (ring, producer, consumer) = in_folder(folder.path(), 4096);
    assert!(!ring.is_unlinked());
    std::fs::remove_file(ring.kind().path().unwrap()).unwrap();
    assert!(ring.is_unlinked());
    let (new, ..) = in_folder(folder.path(), 4096);
    ring.unlink().unwrap();
    assert!(new.kind().path().unwrap().exists(), "the successor has the same name");
    drop((producer, consumer));
}

#[test]
fn test_files_that_are_no_rings_are_refused() {
    let folder = memory_folder();
    let path = {
        let (ring, mut producer, _consumer) = in_folder(folder.path(), 4096);
        assert!(put(&mut producer, 1, 64));
        producer.commit();
        ring.kind().path().unwrap().to_owned()
    };
    let whole = std::fs::read(&path).unwrap();
    let opened = |change: Change<'_>| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        Ring::open_existing(&path, ID).map(|(ring, _)| ring.used())
    };
    assert_eq!(opened(&|_| {}).unwrap(), 64);
    let newer = opened(&|bytes| bytes[8] = 2).unwrap_err();
    assert!(matches!(newer, RingError::Newer { version: 2, .. }));
    assert!(newer.to_string().contains("upgrade metrana"));
    let damages: [Change<'_>; 11] = [
        &|bytes| bytes[0] = 0,
        &|bytes| bytes[8] = 0,
        &|bytes| bytes[12] = 1,
        &|bytes| bytes[16] = 0,
        &|bytes| bytes[33] = 0,
        &|bytes| bytes[64] = 3,
        &|bytes| bytes[71] = 0x80,
        &|bytes| bytes[128] = 72,
        &|bytes| bytes[192] = 0,
        &|bytes| bytes.truncate(8000),
        &|bytes| bytes.truncate(4096),
    ];
    for (at, damage) in damages.into_iter().enumerate() {
        assert!(matches!(opened(damage), Err(RingError::Invalid { .. })), "damage {at}");
    }
    assert!(matches!(
        Ring::open_existing(&path.with_extension("x"), ID),
        Err(RingError::Io { doing: "opening", .. })
    ));
}

#[test]
fn test_records_end_at_the_first_that_is_not_whole() {
    for word in [0u64, 3, 12 << 32 | 3, 64 << 32 | 3] {
        let words = [16 << 32 | 3, 1, word, 0];
        let mut found = records(&words, Lsn(80));
        assert_eq!(found.next().unwrap().unwrap().lsn, Lsn(80));
        assert_eq!(found.next(), Some(Err(BadRecord { lsn: Lsn(96) })));
        assert_eq!(found.next(), None);
    }
}

/// The producer in one thread, the consumer in another: each record arrives once, whole, in order.
#[test]
fn test_two_threads_share_a_ring() {
    let (_ring, mut producer, mut consumer) = anonymous(4096);
    let writing = std::thread::spawn(move || {
        for mark in 0..20_000u64 {
            while !put(&mut producer, mark, 16 + (mark % 60) as usize * 8) {
                std::thread::yield_now();
            }
            producer.commit();
        }
    });
    let mut next = 0;
    while next < 20_000 {
        for (mark, bytes) in drain(&mut consumer) {
            assert_eq!((mark, bytes), (next, 16 + (next % 60) as usize * 8));
            next += 1;
        }
    }
    writing.join().unwrap();
}

#[derive(Clone, Debug)]
enum Operation {
    Put {
        bytes: usize,
    },
    Commit,
    Rollback,
    /// Read and release this share of what is there, in records.
    Drain {
        share: f64,
    },
    /// The process dies and somebody opens what is left.
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (1usize..40).prop_map(|words| Operation::Put { bytes: words * 8 }),
        1 => (1usize..260).prop_map(|words| Operation::Put { bytes: words * 8 }),
        4 => Just(Operation::Commit),
        1 => Just(Operation::Rollback),
        3 => (0.0..=1.0).prop_map(|share| Operation::Drain { share }),
        1 => Just(Operation::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_ring_behaves_as_its_model(operations in prop::collection::vec(operation(), 1..200)) {
        let folder = memory_folder();
        let (mut ring, mut producer, mut consumer) = in_folder(folder.path(), 4096);
        let mut committed: VecDeque<(u64, usize)> = VecDeque::new();
        let mut reserved: Vec<(u64, usize)> = Vec::new();
        let (mut mark, mut next_seq) = (0, 1);
        for operation in operations {
            match operation {
                Operation::Put { bytes } => {
                    mark += 1;
                    let is_empty = committed.is_empty() && reserved.is_empty();
                    // A record of one word has no room for its mark.
                    let shown = if bytes > 8 { mark } else { 0 };
                    if put(&mut producer, mark, bytes) {
                        reserved.push((shown, bytes));
                    } else {
                        prop_assert!(!is_empty || bytes > producer.max_record_bytes());
                    }
                }
                Operation::Commit => {
                    producer.commit();
                    committed.extend(reserved.drain(..));
                }
                Operation::Rollback => {
                    producer.rollback();
                    reserved.clear();
                }
                Operation::Drain { share } => {
                    let (from, to) = (consumer.tail(), consumer.committed());
                    let mut window = Vec::new();
                    consumer.read(from, to, &mut window).unwrap();
                    let found: Vec<_> = records(&window, from).map(Result::unwrap).collect();
                    prop_assert_eq!(found.len(), committed.len());
                    for (record, (mark, bytes)) in found.iter().zip(&committed) {
                        prop_assert_eq!(record.words.len() * 8, *bytes);
                        prop_assert!(record.words[1..].iter().all(|word| word == mark));
                    }
                    let count = (found.len() as f64 * share) as usize;
                    let end = found.get(count).map_or(to, |record| record.lsn);
                    next_seq += 1;
                    consumer.release(end, Seq(next_seq)).unwrap();
                    committed.drain(..count);
                }
                Operation::Reopen => {
                    let path = ring.kind().path().unwrap().to_owned();
                    reserved.clear();
                    drop((ring, producer, consumer));
                    let memory = Memory::open(&path, ID).unwrap();
                    (ring, producer, consumer) = Ring::split(memory, RingKind::Tmpfs { path });
                }
            }
            prop_assert_eq!(ring.next_seq(), Seq(next_seq));
            prop_assert!(ring.used() >= committed.iter().map(|(_, bytes)| *bytes as u64).sum());
            prop_assert!(producer.used() <= ring.capacity());
        }
    }
}

#[test]
fn test_dead_rings_are_found_with_what_they_say_of_themselves() {
    let folder = memory_folder();
    let (ring, mut producer, mut consumer) = in_folder(folder.path(), 4096);
    ring.set_folder(Path::new("/spool/é/000001"));
    std::fs::write(folder.path().join("metrana-of-somebody"), "no ring").unwrap();
    std::fs::write(path_in(folder.path(), WriterId([8; 16])), "damaged").unwrap();
    assert_eq!(dead_rings(folder.path(), |_, _| true).unwrap(), [], "its process lives");
    assert!(put(&mut producer, 1, 64));
    producer.commit();
    drain(&mut consumer);
    assert!(put(&mut producer, 2, 32));
    producer.commit();
    drop((ring, producer, consumer));
    let left = DeadRing {
        path: path_in(folder.path(), ID),
        writer_id: ID,
        folder: Some("/spool/é/000001".into()),
        bytes: 8192,
        unsealed_bytes: 32,
    };
    assert_eq!(dead_rings(folder.path(), |_, _| true).unwrap(), [left]);
    let is_wanted = |id, of: Option<&Path>| id != ID || of != Some(Path::new("/spool/é/000001"));
    assert_eq!(dead_rings(folder.path(), is_wanted).unwrap(), []);
}

#[test]
fn test_a_ring_in_use_is_measured_at_any_moment() {
    let folder = memory_folder();
    let (ring, mut producer, mut consumer) = in_folder(folder.path(), 4096);
    let path = ring.kind().path().unwrap();
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            let measured = (0..20_000).map(|_| unsealed_bytes(path, ID).unwrap());
            measured.max()
        });
        while !measuring.is_finished() {
            assert!(put(&mut producer, 1, 64));
            producer.commit();
            let end = consumer.committed();
            consumer.release(end, Seq(1)).unwrap();
        }
        assert!(measuring.join().unwrap() <= Some(4096));
    });
    drain(&mut consumer);
    assert!(put(&mut producer, 2, 32));
    producer.commit();
    assert_eq!(unsealed_bytes(path, ID).unwrap(), 32);
}

#[test]
fn test_a_folder_that_a_ring_has_no_room_for_is_left_out() {
    let folder = memory_folder();
    for (length, is_there) in [(0, false), (3578, true), (3579, true), (3580, false)] {
        let (ring, ..) = in_folder(folder.path(), 4096);
        let place = format!("/{}", "x".repeat(length)).split_off(usize::from(length == 0));
        ring.memory.set_folder(Path::new(&place));
        drop(ring);
        let found = dead_rings(folder.path(), |_, _| true).unwrap().remove(0);
        assert_eq!(found.folder, is_there.then(|| place.into()));
        std::fs::remove_file(found.path).unwrap();
    }
}

#[test]
fn test_a_folder_that_changes_is_read_whole_or_not_at_all() {
    const LONGEST: usize = 3000;
    let folder = memory_folder();
    let (ring, ..) = in_folder(folder.path(), 4096);
    // As whoever wonders what takes its room sees the ring of a writer that lives.
    let seen = Memory::look(&path_in(folder.path(), ID), ID).unwrap();
    // The letter tells the length, and no length comes twice.
    let place = |length: usize| char::from(b'a' + (length % 26) as u8).to_string().repeat(length);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            (1..=LONGEST).for_each(|length| ring.memory.set_folder(Path::new(&place(length))));
        });
        while !writing.is_finished() {
            if let Some(found) = seen.folder() {
                let found = found.to_str().unwrap();
                assert_eq!(found, place(found.len()));
            }
        }
    });
    assert_eq!(seen.folder(), Some(place(LONGEST).into()));
}
