//! Full batches and callers' mistakes.

use super::*;
use crate::types::{MAX_BATCH_POINTS, MAX_EPISODE, MAX_ML_STEP, MAX_ORDINAL, MAX_RL_STEP};

const ALL: Timestamps<'_> = Timestamps::All(0);

#[test]
fn segments_are_refused_whole_when_the_batch_has_a_million_points() {
    let values = vec![0.0_f32; MAX_BATCH_POINTS];
    let mut encoder = PointsEncoder::new();
    let most = MAX_BATCH_POINTS as u32 - 1;
    let push = |encoder: &mut PointsEncoder, metric, count: u32| {
        let values = Values::F32(&values[..count as usize]);
        encoder.push(key(metric, 0), &ml_steps(0, count), ALL, values, false)
    };
    push(&mut encoder, 1, most).unwrap();
    assert!(push(&mut encoder, 2, 2).unwrap_err().is_full());
    assert_eq!(encoder.point_count(), most as usize);
    assert_eq!(encoder.series().collect::<Vec<_>>(), [key(1, 0)]);
    push(&mut encoder, 2, 1).unwrap();
    assert!(push(&mut encoder, 2, 1).unwrap_err().is_full());
    let columns = decode(&encode(&mut encoder, Compression::Zstd)).unwrap();
    assert_eq!(columns.len(), MAX_BATCH_POINTS);
    push(&mut encoder, 2, 2).unwrap();
}

#[test]
fn batches_end_before_a_position_repeats_too_often() {
    let mut encoder = PointsEncoder::new();
    let mut push = |value: u32| {
        let segment = Segment { rewound: value > 0, ..ml_steps(7, 1) };
        let values = [value as f32];
        let pushed = encoder.push(key(1, 0), &segment, ALL, Values::F32(&values), false);
        pushed.map_err(|error| error.is_full())
    };
    for value in 0..=u32::from(MAX_ORDINAL) {
        assert_eq!(push(value), Ok(()));
    }
    assert_eq!(push(0), Err(true));
    let columns = decode(&encode(&mut encoder, Compression::Zstd)).unwrap();
    assert_eq!(columns.ordinal, (0..=MAX_ORDINAL).collect::<Vec<_>>());
    assert_eq!(columns.value.last(), Some(&f64::from(MAX_ORDINAL)));
    // Other series are not affected, nor is the next batch.
    assert!(encoder.push(key(1, 0), &ml_steps(7, 1), ALL, Values::F32(&[0.0]), false).is_ok());
}

#[test]
fn going_back_over_a_range_repeats_each_position_once() {
    let mut encoder = PointsEncoder::new();
    let values = [0.0_f32; 4];
    encoder.push(key(1, 0), &ml_steps(0, 4), ALL, Values::F32(&values), false).unwrap();
    let again = Segment { rewound: true, ..ml_steps(2, 4) };
    encoder.push(key(1, 0), &again, ALL, Values::F32(&values), false).unwrap();
    let columns = decode(&encode(&mut encoder, Compression::None)).unwrap();
    assert_eq!(columns.ordinal, [0, 0, 0, 0, 1, 1, 0, 0]);
    assert_eq!(columns.rewound, [0, 0, 0, 0, 1, 1, 1, 1]);
}

#[test]
fn mistakes_are_refused_and_take_nothing() {
    let mut encoder = PointsEncoder::new();
    let one = Values::F32(&[1.0]);
    let at = |rl_step, episode, step| Position { rl_step, episode, step };
    let segment = |start, axis, count| Segment { start, axis, count, rewound: false };
    let error = encoder.push(key(1, 0), &ml_steps(0, 2), ALL, one, false).unwrap_err();
    assert!(matches!(error, EncodeError::Mismatch { count: 2, values: 1, timestamps: 2 }));
    let none = Timestamps::Each(&[]);
    let error = encoder.push(key(1, 0), &ml_steps(0, 1), none, one, false).unwrap_err();
    assert!(matches!(error, EncodeError::Mismatch { timestamps: 0, .. }));
    let two = Values::F32(&[1.0, 2.0]);
    for (segment, values) in [
        (ml_steps(-2, 1), one),
        (ml_steps(i64::MAX, 2), two),
        (ml_steps(MAX_ML_STEP, 2), two),
        (ml_steps(UNUSED, 2), two),
        (segment(at(MAX_RL_STEP + 1, 0, 0), Axis::Step, 1), one),
        (segment(at(0, MAX_EPISODE, -1), Axis::Episode, 2), two),
        (segment(at(0, -1, 0), Axis::Episode, 2), two),
    ] {
        let error = encoder.push(key(1, 0), &segment, ALL, values, false).unwrap_err();
        assert!(matches!(error, EncodeError::OutOfRange(_)), "{segment:?}: {error}");
        assert!(!error.is_full());
    }
    assert!(encoder.push(key(0, 0), &ml_steps(0, 1), ALL, one, false).is_err());
    assert!(encoder.is_empty());
    assert_eq!(encoder.series().count(), 0);
    assert!(encoder.push(key(1, 0), &ml_steps(0, 0), ALL, Values::F32(&[]), false).is_ok());
    assert!(encoder.is_empty());
}
