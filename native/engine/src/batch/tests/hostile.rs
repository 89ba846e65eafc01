//! Payloads nobody should send.

use proptest::prelude::*;

use super::varint::put_varint;
use super::*;
use crate::types::{MAX_ENVIRONMENT_STEP, MAX_EPISODE};

/// Decodes behind a point that is there already; it must still be there alone after an error.
fn decode_behind(payload: &[u8]) -> Result<PointColumns, DecodeError> {
    let mut encoder = PointsEncoder::new();
    let (one, all) = (Values::F32(&[1.0]), Timestamps::All(5));
    encoder.push(key(9, 9), &ml_steps(4, 1), all, one, false).unwrap();
    let before = decode(&encode(&mut encoder, Compression::None)).unwrap();
    let mut columns = before.clone();
    match decode_points(payload, &mut columns) {
        Ok(_) => Ok(columns),
        Err(error) => {
            assert_eq!(columns, before);
            Err(error)
        }
    }
}

fn payloads() -> [Vec<u8>; 3] {
    let mut long = PointsEncoder::new();
    let values: Vec<f32> = (0..300).map(|index| (index as f32).sqrt()).collect();
    let times: Vec<i64> = (0..300).map(|index| index * 3 + (index % 7)).collect();
    let (times, values) = (Timestamps::Each(&times), Values::F32(&values));
    long.push(key(1, 0), &ml_steps(0, 300), times, values, false).unwrap();
    [
        encode(&mut rich_batch(), Compression::None),
        encode(&mut rich_batch(), Compression::Zstd),
        encode(&mut long, Compression::Zstd),
    ]
}

#[test]
fn truncated_payloads_are_refused_at_every_byte() {
    for payload in payloads() {
        for length in 0..payload.len() {
            assert!(decode_behind(&payload[..length]).is_err(), "cut at {length}");
        }
        assert!(decode_behind(&[&payload[..], &[0]].concat()).is_err());
    }
}

#[test]
fn positions_that_a_store_would_take_for_others_are_refused() {
    let payload = |rl_step, episode, step| {
        let mut encoder = PointsEncoder::new();
        let start = Position { rl_step, episode, step };
        let segment = Segment { start, axis: Axis::Step, count: 1, rewound: false };
        let (one, all) = (Values::F32(&[1.0]), Timestamps::All(5));
        encoder.push(key(1, 1), &segment, all, one, false).unwrap();
        encode(&mut encoder, Compression::None)
    };
    for (rl_step, episode) in [(UNUSED, 0), (7, 0), (7, MAX_EPISODE)] {
        assert!(decode_behind(&payload(rl_step, episode, MAX_ENVIRONMENT_STEP)).is_ok());
        let error = decode_behind(&payload(rl_step, episode, MAX_ENVIRONMENT_STEP + 1));
        assert_eq!(error.unwrap_err(), DecodeError::Limit("a step of an episode"));
    }
    assert!(decode_behind(&payload(UNUSED, UNUSED, MAX_ENVIRONMENT_STEP + 1)).is_ok());
    let error = decode_behind(&payload(7, UNUSED, 0)).unwrap_err();
    assert!(error.to_string().contains("has no episode"), "{error}");
}

#[test]
fn flipped_bits_never_panic() {
    for payload in payloads() {
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(columns) = decode_behind(&flipped) {
                assert!(columns.len() <= crate::types::MAX_BATCH_POINTS + 1);
                assert_eq!(columns.ordinal.len(), columns.metric_no.len());
            }
        }
    }
}

#[test]
fn newer_versions_are_refused_with_what_to_do() {
    let mut payload = encode(&mut rich_batch(), Compression::None);
    payload[0] = 2;
    let error = decode(&payload).unwrap_err();
    assert_eq!(error, DecodeError::Version { found: 2, supported: 1 });
    assert!(error.to_string().contains("upgrade metrana"), "{error}");
    assert_eq!(peek(&payload), Err(error));
}

#[test]
fn unknown_kinds_flags_and_codecs_are_refused() {
    let payload = encode(&mut rich_batch(), Compression::None);
    let unknown = |index: usize, byte| {
        let mut payload = payload.clone();
        payload[index] = byte;
        match decode(&payload) {
            Err(DecodeError::Unknown { what, found }) if found == byte => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(unknown(2, 9), "kind of batch");
    assert_eq!(unknown(3, 1), "batch flags");
    // version, kind, flags, three counts of one byte: the first section's codec.
    assert_eq!(unknown(7, 77), "codec");
    // Its length, then the first entry: metric, environment, count, flags.
    assert_eq!(unknown(12, 0xff), "series flags");
    let mut attributes = payload;
    attributes[2] = BatchKind::Attributes as u8;
    assert!(matches!(decode(&attributes), Err(DecodeError::Malformed(_))));
}

/// A payload of one series with `points` points and nothing behind the series section.
fn header(points: u64) -> Vec<u8> {
    let mut payload = vec![1, 0, 2, 0];
    put_varint(&mut payload, points);
    put_varint(&mut payload, 0);
    payload.push(1);
    let mut entry = vec![2, 0];
    put_varint(&mut entry, points);
    entry.push(0);
    payload.push(section::RAW);
    put_varint(&mut payload, entry.len() as u64);
    payload.extend_from_slice(&entry);
    payload
}

#[test]
fn counts_above_the_limit_are_refused() {
    for points in [1_000_001, u64::MAX, 1 << 32] {
        assert_eq!(decode(&header(points)), Err(DecodeError::Limit("the point count")));
    }
    let mut both = vec![1, 0, 2, 0];
    put_varint(&mut both, u64::MAX);
    put_varint(&mut both, 1);
    assert_eq!(decode(&both), Err(DecodeError::Limit("the point count")));
}

#[test]
fn decompression_bombs_are_refused() {
    let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
    for claimed in [100 << 20, 13, u64::MAX] {
        let mut payload = header(1);
        payload.push(section::ZSTD);
        put_varint(&mut payload, claimed);
        put_varint(&mut payload, bomb.len() as u64);
        payload.extend_from_slice(&bomb);
        assert!(decode(&payload).is_err());
    }
}

#[test]
fn positions_beyond_their_limits_are_refused() {
    let with_step = |column: &[i64], points: u64| {
        let mut payload = header(points);
        payload.extend_from_slice(&[section::ABSENT, section::ABSENT, section::RAW]);
        let mut bytes = Vec::new();
        for number in column {
            varint::put_zigzag(&mut bytes, *number);
        }
        put_varint(&mut payload, bytes.len() as u64);
        payload.extend_from_slice(&bytes);
        decode(&payload).unwrap_err()
    };
    let limit = DecodeError::Limit("a position");
    assert_eq!(with_step(&[-2], 1), limit);
    assert_eq!(with_step(&[1 << 53], 1), limit);
    assert_eq!(with_step(&[i64::MAX], 1), limit);
    // Zigzag 4 is run length 4 written as a plain varint.
    assert_eq!(with_step(&[0, i64::MAX, -2], 5), limit);
    assert_eq!(with_step(&[0, -2, 1], 3), limit);
    assert!(matches!(with_step(&[0, 1, 3], 3), DecodeError::Malformed(_)));
    assert!(matches!(with_step(&[0, 1, 0], 3), DecodeError::Malformed(_)));
}

proptest! {
    #[test]
    fn noise_never_panics(mut noise in prop::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        if head {
            noise.splice(0..0, header(3));
        }
        let _ = decode_behind(&noise);
        let _ = peek(&noise);
    }

    #[test]
    fn changed_bytes_never_panic(
        which in 0..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut payload = payloads()[which].clone();
        for (index, byte) in changes {
            let index = index.index(payload.len());
            payload[index] = byte;
        }
        let _ = decode_behind(&payload);
    }
}
