//! The ring's publication in every order of two threads that the memory model allows.
//!
//! Compiled and run with `--cfg loom` alone, see the Makefile. Records are whole blocks of
//! [`BLOCK_BYTES`], which is what the model tells apart, and the ring holds four of them.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use super::access::BLOCK_BYTES;
use super::*;

const CAPACITY_BYTES: u64 = 4 * BLOCK_BYTES;

/// Every order with at most so many switches between threads that nothing forces: nearly all faults
/// take one or two, and without a bound it would be hours.
const SWITCHES: usize = 2;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(SWITCHES);
    builder.check(model);
}

fn ring() -> (Ring, Producer, Consumer) {
    let options = RingOptions { capacity_bytes: CAPACITY_BYTES, place: RingPlace::Memory };
    Ring::create(&options, WriterId([7; 16]), RingStart::ORIGIN).unwrap()
}

/// Appends a record whose words are all `mark` after its header, once there is room.
fn put(producer: &mut Producer, mark: u64, blocks: u64) {
    while !try_put(producer, mark, blocks) {
        thread::yield_now();
    }
}

fn try_put(producer: &mut Producer, mark: u64, blocks: u64) -> bool {
    let bytes = blocks * BLOCK_BYTES;
    let Some(mut slot) = producer.reserve(bytes as usize) else { return false };
    slot.put_header(3, 0, bytes as u32);
    while slot.left() > 0 {
        slot.put_u64(mark);
    }
    producer.commit();
    true
}

/// Reads and releases all there is, and adds the marks of whole records to `found`.
fn drain(consumer: &mut Consumer, found: &mut Vec<u64>) {
    let (from, to) = (consumer.tail(), consumer.committed());
    let mut window = Vec::new();
    consumer.read(from, to, &mut window).unwrap();
    for record in records(&window, from) {
        let words = record.unwrap().words;
        assert!(words[1..].iter().all(|word| *word == words[1]), "a record is seen whole");
        found.push(words[1]);
    }
    consumer.release(to, Seq(found.len() as u64 + 1)).unwrap();
}

fn drain_until(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        drain(consumer, &mut found);
        thread::yield_now();
    }
    found
}

#[test]
fn test_records_are_whole_and_in_order_when_they_wrap_around() {
    check(|| {
        let (_ring, mut producer, mut consumer) = ring();
        let writing = thread::spawn(move || {
            // The third leaves the last block to padding, and waits for the first one's.
            for (mark, blocks) in [(1, 2), (2, 1), (3, 2)] {
                put(&mut producer, mark, blocks);
            }
        });
        assert_eq!(drain_until(&mut consumer, 3), [1, 2, 3]);
        writing.join().unwrap();
    });
}

#[test]
fn test_callers_under_one_lock_share_the_producer() {
    check(|| {
        let (_ring, producer, mut consumer) = ring();
        let producer = Arc::new(Mutex::new(producer));
        let callers: Vec<_> = [1, 2]
            .into_iter()
            .map(|mark| {
                let producer = Arc::clone(&producer);
                thread::spawn(move || assert!(try_put(&mut producer.lock().unwrap(), mark, 2)))
            })
            .collect();
        let mut found = Vec::new();
        drain(&mut consumer, &mut found);
        for caller in callers {
            caller.join().unwrap();
        }
        drain(&mut consumer, &mut found);
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
    });
}

#[test]
fn test_whoever_sees_a_tail_sees_its_seq_and_no_end_before_it() {
    check(|| {
        let (ring, mut producer, mut consumer) = ring();
        let watching = thread::spawn(move || {
            let tail = ring.tail();
            assert!(ring.next_seq().0 > tail.0 / BLOCK_BYTES, "the seq is stored before the tail");
            assert!(ring.used() <= CAPACITY_BYTES);
        });
        let writing = thread::spawn(move || {
            assert!(try_put(&mut producer, 1, 1));
            assert!(try_put(&mut producer, 2, 1));
        });
        drain(&mut consumer, &mut Vec::new());
        writing.join().unwrap();
        watching.join().unwrap();
    });
}
