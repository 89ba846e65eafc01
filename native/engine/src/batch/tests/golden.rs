//! The bytes of version 1. If one of these tests fails, the version has to rise: batches of the old
//! one lie in spools.

use super::*;

fn bytes(pieces: &[&str]) -> Vec<u8> {
    let digits: Vec<u8> = pieces.concat().bytes().filter(|byte| *byte != b' ').collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// [`rich_batch`], uncompressed.
const RICH: &[&str] = &[
    "0100 02 00 08 06 04",
    // series: metric 1; metric 3 of environment 7, float64; metric 2, distributed; metric 4 of
    // environment 7, differences of float64.
    "01 10  02 00 07 0c  04 0e 03 02  01 0d 01 01  04 0e 03 12",
    // rl_step: −1, as often as the series has points; 4096 thrice; −1; 4096 thrice.
    "01 0d  01 00 06  82 40 00 02  81 40  82 40 00 02",
    // episode: −1; 2 thrice; −1; 2 to 4.
    "01 0a  01 00 06  06 00 02  05  06 02 02",
    // step: 0 to 4, back to 3, on to 4; 17 to 19; 10; −1 thrice.
    "01 0e  00 02 04 01 01 02 01  22 02 02  0d  15 00 02",
    // timestamp: 1,700,000,000,000 five times, 7 and 2 ms later; and the same again for the others.
    "01 13  80 a0 ab fe f9 62 00 04 0e 01 04 01  00 00 02  00  00 00 02",
    // rewound: five points that are not, two that are.
    "01 02  05 02",
    // ordinal of the series that repeats 3 and 4.
    "01 07  00 00 00 00 00 01 01",
    // float32, plain: 1 and a little, 0.5, −0 and 3, turned left by one bit.
    "01 08  7f 7f 7f 7f 7f 7e 00 80",
    "01 08  00 00 00 00 01 00 00 80",
    "01 08  00 40 80 c0 00 00 00 00",
    "01 08  00 00 00 00 00 00 01 00",
    // float64, plain: 0.1, 0.2, NaN.
    "01 03  7f 7f ff",
    "01 03  73 93 f0",
    "01 03  33 33 00",
    "01 03  33 33 00",
    "01 03  33 33 00",
    "01 03  33 33 00",
    "01 03  33 33 00",
    "01 03  34 34 00",
    // float64, differences: 0.001, then twice 4,611,686 units in the last place.
    "01 03  7e 00 00",
    "01 03  a0 00 00",
    "01 03  c4 00 00",
    "01 03  9b 00 00",
    "01 03  a5 00 00",
    "01 03  e3 8c 8c",
    "01 03  53 bc bc",
    "01 03  f8 cc cc",
];

/// Zeros at irregular times: timestamps as plain deltas, absent planes.
const IRREGULAR: &[&str] = &[
    "0100 02 00 00 06 01",
    "01 04  02 02 06 00",
    "00 00",
    "01 03  00 02 05",
    "03 06  00 06 04 08 02 08",
    "00 00",
    "00 00 00 00",
];

/// Steps 0 to 99 with value = step, as zstd 1.5.7 compresses it: to be read for ever; what newer
/// versions of zstd write may be shorter.
const COMPRESSED: &[&str] = &[
    "0100 02 00 64 00 01",
    "01 04  02 00 64 00",
    "00 00",
    "01 03  00 02 63",
    "01 08  80 a0 ab fe f9 62 00 63",
    "00 00",
    "02 64 1f  28b52ffd2064b5000060007f808081818181828384850410004869aeb34c0e",
    "01 64  00000080004080c00020406080a0c0e000102030405060708090a0b0c0d0e0f00008101820283038",
    "404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f80004080c1014181c2024282c3034383c",
    "4044484c5054585c6064686c7074787c8084888c",
    "00 00",
];

#[test]
fn points_have_the_documented_bytes() {
    assert_eq!(encode(&mut rich_batch(), Compression::None), bytes(RICH));
    let columns = decode(&bytes(RICH)).unwrap();
    assert_eq!(columns.metric_no, [1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 2, 4, 4, 4]);
    assert_eq!(columns.step, [0, 1, 2, 3, 4, 3, 4, 17, 18, 19, 10, -1, -1, -1]);
    assert_eq!(columns.value[7..9], [0.1, 0.2]);
    assert_eq!(columns.value[9].to_bits(), f64::NAN.to_bits());
}

#[test]
fn irregular_times_and_zeros_have_the_documented_bytes() {
    let mut encoder = PointsEncoder::new();
    let times = Timestamps::Each(&[0, 3, 5, 9, 10, 14]);
    encoder.push(key(1, 1), &ml_steps(0, 6), times, Values::F64(&[0.0; 6]), true).unwrap();
    assert_eq!(encode(&mut encoder, Compression::Zstd), bytes(IRREGULAR));
    let columns = decode(&bytes(IRREGULAR)).unwrap();
    assert_eq!(columns.timestamp_ms, [0, 3, 5, 9, 10, 14]);
    assert_eq!(columns.value, [0.0; 6]);
}

#[test]
fn an_empty_batch_has_the_documented_bytes() {
    let payload = encode(&mut PointsEncoder::new(), Compression::Zstd);
    assert_eq!(payload, bytes(&["0100 02 00 00 00 00", "00", "00 00 00", "00", "00", "00"]));
    assert!(decode(&payload).unwrap().is_empty());
}

#[test]
fn compressed_points_stay_readable() {
    let columns = decode(&bytes(COMPRESSED)).unwrap();
    let steps: Vec<i64> = (0..100).collect();
    assert_eq!(columns.step, steps);
    assert_eq!(columns.value, steps.iter().map(|step| *step as f64).collect::<Vec<_>>());
    assert_eq!(columns.timestamp_ms, vec![1_700_000_000_000; 100]);
}
