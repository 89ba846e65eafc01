//! Against a naive reference: a list of points, grouped and numbered by brute force.

use proptest::prelude::*;

use super::*;
use crate::types::{MAX_ENVIRONMENT_STEP, MAX_EPISODE, MAX_ML_STEP, MAX_RL_STEP};

/// One call of `push`.
#[derive(Clone, Debug)]
struct Call {
    key: SeriesKey,
    segment: Segment,
    times: Result<i64, Vec<i64>>,
    values: Result<Vec<f32>, Vec<f64>>,
    is_rl: bool,
}

impl Call {
    fn push(&self, encoder: &mut PointsEncoder) {
        let times = match &self.times {
            Ok(time) => Timestamps::All(*time),
            Err(times) => Timestamps::Each(times),
        };
        let values = match &self.values {
            Ok(values) => Values::F32(values),
            Err(values) => Values::F64(values),
        };
        encoder.push(self.key, &self.segment, times, values, self.is_rl).unwrap();
    }

    fn points(&self) -> impl Iterator<Item = Point> + '_ {
        (0..self.segment.count as usize).map(|index| {
            let mut at = self.segment.start;
            match self.segment.axis {
                Axis::Step => at.step += index as i64,
                Axis::Episode => at.episode += index as i64,
            }
            let time = match &self.times {
                Ok(time) => *time,
                Err(times) => times[index],
            };
            let bits = match &self.values {
                Ok(values) => values::widen(values[index].to_bits()),
                Err(values) => values[index].to_bits(),
            };
            Point { key: self.key, at, time, bits, rewound: self.segment.rewound, ordinal: 0 }
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Point {
    key: SeriesKey,
    at: Position,
    time: i64,
    bits: u64,
    rewound: bool,
    ordinal: u16,
}

/// What a batch of these calls must decode to.
fn reference(calls: &[Call]) -> Vec<Point> {
    let mut groups: Vec<(SeriesKey, Vec<Point>)> = Vec::new();
    for mut point in calls.iter().flat_map(Call::points) {
        let found = groups.iter().position(|(key, _)| *key == point.key);
        let index = found.unwrap_or(groups.len());
        if found.is_none() {
            groups.push((point.key, Vec::new()));
        }
        let points = &mut groups[index].1;
        point.ordinal = points.iter().filter(|before| before.at == point.at).count() as u16;
        points.push(point);
    }
    groups.into_iter().flat_map(|(_, points)| points).collect()
}

fn rows(columns: &PointColumns) -> Vec<Point> {
    let row = |index: usize| Point {
        key: SeriesKey {
            metric: MetricNo(columns.metric_no[index]),
            env: EnvNo(columns.env_no[index]),
            distributed: columns.distributed[index] == 1,
        },
        at: Position {
            rl_step: columns.rl_step[index],
            episode: columns.episode[index],
            step: columns.step[index],
        },
        time: columns.timestamp_ms[index],
        bits: columns.value[index].to_bits(),
        rewound: columns.rewound[index] == 1,
        ordinal: columns.ordinal[index],
    };
    (0..columns.len()).map(row).collect()
}

fn keys() -> impl Strategy<Value = SeriesKey> {
    let metric = prop_oneof![9 => 1..4_u32, 1 => 1..=u32::MAX];
    let env = prop_oneof![9 => 0..4_u32, 1 => any::<u32>()];
    (metric, env, prop::bool::weighted(0.1)).prop_map(|(metric, env, distributed)| SeriesKey {
        metric: MetricNo(metric),
        env: EnvNo(env),
        distributed,
    })
}

/// Mostly small, so that positions repeat; some at the end of what is allowed.
fn coordinate(max: i64) -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0..8_i64, 2 => Just(-1_i64), 1 => 0..=max, 1 => Just(max)]
}

fn segments() -> impl Strategy<Value = Segment> {
    let positions = (coordinate(MAX_RL_STEP), coordinate(MAX_EPISODE), coordinate(MAX_ML_STEP));
    (positions, any::<bool>(), 0..20_u32, any::<bool>()).prop_map(
        |((rl_step, episode, step), along_step, count, rewound)| {
            // A step is one of an episode, or stands alone.
            let (rl_step, step) = match (episode, step) {
                (UNUSED, UNUSED) => (rl_step, step),
                (UNUSED, _) => (UNUSED, step),
                _ => (rl_step, step.min(MAX_ENVIRONMENT_STEP)),
            };
            let max_step = if episode == UNUSED { MAX_ML_STEP } else { MAX_ENVIRONMENT_STEP };
            let axis = if along_step { Axis::Step } else { Axis::Episode };
            let (along, max) = if along_step { (step, max_step) } else { (episode, MAX_EPISODE) };
            let room = if along < 0 { 1 } else { (max - along + 1).min(20) as u32 };
            let start = Position { rl_step, episode, step };
            Segment { start, axis, count: count.min(room), rewound }
        },
    )
}

fn times(count: usize) -> impl Strategy<Value = Result<i64, Vec<i64>>> {
    let time = prop_oneof![4 => 0..50_i64, 1 => any::<i64>(), 1 => Just(i64::MIN)];
    let each = prop::collection::vec(time.clone(), count).prop_map(Err);
    prop_oneof![time.prop_map(Ok), each]
}

fn values(count: usize) -> impl Strategy<Value = Result<Vec<f32>, Vec<f64>>> {
    let float32 = prop_oneof![
        any::<u32>().prop_map(f32::from_bits),
        (0..3_u8).prop_map(f32::from),
        Just(-0.0),
        Just(f32::INFINITY),
    ];
    let float64 = prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<u32>().prop_map(|bits| f64::from(f32::from_bits(bits))),
        (0..3_u8).prop_map(f64::from),
        Just(-0.0),
        Just(f64::from_bits(0x7ff8_dead_beef_0001)),
        Just(f64::from_bits(0xfff0_0000_0000_0001)),
    ];
    prop_oneof![
        prop::collection::vec(float32, count).prop_map(Ok),
        prop::collection::vec(float64, count).prop_map(Err),
    ]
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = (keys(), segments(), any::<bool>()).prop_flat_map(|(key, segment, is_rl)| {
        let count = segment.count as usize;
        (times(count), values(count)).prop_map(move |(times, values)| Call {
            key,
            segment,
            times,
            values,
            is_rl,
        })
    });
    prop::collection::vec(call, 0..60)
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Zstd)]
}

proptest! {
    #[test]
    fn batches_decode_to_what_was_pushed(calls in calls(), compression in compression()) {
        let mut encoder = PointsEncoder::new();
        for call in &calls {
            call.push(&mut encoder);
        }
        let expected = reference(&calls);
        prop_assert_eq!(encoder.point_count(), expected.len());
        let bound = encoder.payload_bound();
        let mut payload = vec![1, 2, 3];
        let summary = encoder.encode(compression, &mut payload).unwrap();
        let payload = &payload[3..];
        prop_assert!(payload.len() <= bound, "{} > {bound}", payload.len());
        prop_assert!(encoder.is_empty());

        let mut columns = PointColumns::default();
        prop_assert_eq!(decode_points(payload, &mut columns), Ok(summary));
        prop_assert_eq!(rows(&columns), expected);
        let rl = calls.iter().filter(|call| call.is_rl).map(|call| u64::from(call.segment.count));
        prop_assert_eq!(summary.rl_points, rl.sum::<u64>());
        let info = peek(payload).unwrap();
        prop_assert_eq!(info.kind, BatchKind::Points);
        prop_assert_eq!(info.float_point_count, summary.float_points);
        prop_assert_eq!(info.rl_point_count, summary.rl_points);
    }
}

proptest! {
    // Each case is two or three batches.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn batches_do_not_depend_on_what_the_encoder_did_before(first in calls(), second in calls()) {
        let mut used = PointsEncoder::new();
        for call in &first {
            call.push(&mut used);
        }
        encode(&mut used, Compression::Zstd);
        for call in &second {
            call.push(&mut used);
        }
        let mut fresh = PointsEncoder::new();
        for call in &second {
            call.push(&mut fresh);
        }
        let payload = encode(&mut used, Compression::Zstd);
        prop_assert_eq!(&payload, &encode(&mut fresh, Compression::Zstd));

        let mut columns = PointColumns::default();
        let mut decoder = PointsDecoder::new();
        for _ in 0..2 {
            columns.truncate(0);
            decoder.decode(&payload, &mut columns).unwrap();
            prop_assert_eq!(rows(&columns), reference(&second));
        }
    }

    #[test]
    fn rolling_back_leaves_what_was_before_the_mark(
        kept in calls(),
        dropped in calls(),
        later in calls(),
    ) {
        let mut encoder = PointsEncoder::new();
        for call in &kept {
            call.push(&mut encoder);
        }
        let mark = encoder.mark();
        let bound = encoder.payload_bound();
        for call in &dropped {
            call.push(&mut encoder);
        }
        encoder.roll_back(&mark);
        prop_assert_eq!(encoder.payload_bound(), bound);
        for call in &later {
            call.push(&mut encoder);
        }
        let mut fresh = PointsEncoder::new();
        kept.iter().chain(&later).for_each(|call| call.push(&mut fresh));
        prop_assert_eq!(encoder.payload_bound(), fresh.payload_bound());
        prop_assert!(encoder.series().eq(fresh.series()));
        prop_assert_eq!(
            encode(&mut encoder, Compression::None),
            encode(&mut fresh, Compression::None)
        );
    }

    #[test]
    fn batches_append_to_columns(first in calls(), second in calls()) {
        let mut columns = PointColumns::default();
        for calls in [&first, &second] {
            let mut encoder = PointsEncoder::new();
            for call in calls {
                call.push(&mut encoder);
            }
            decode_points(&encode(&mut encoder, Compression::Zstd), &mut columns).unwrap();
        }
        let expected: Vec<_> = reference(&first).into_iter().chain(reference(&second)).collect();
        prop_assert_eq!(rows(&columns), expected);
    }
}

#[test]
fn values_widened_from_float32_are_stored_as_float32() {
    let values: Vec<f64> = (0..1000).map(|index| f64::from((index as f32).sin())).collect();
    let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    let mut encoder = PointsEncoder::new();
    let all = Timestamps::All(0);
    encoder.push(key(1, 0), &ml_steps(0, 1000), all, Values::F64(&values), false).unwrap();
    let from_float64 = encode(&mut encoder, Compression::None);
    encoder.push(key(1, 0), &ml_steps(0, 1000), all, Values::F32(&narrow), false).unwrap();
    assert_eq!(from_float64, encode(&mut encoder, Compression::None));
    assert!(from_float64.len() < 4100);
}

#[test]
fn walks_take_three_bytes_a_point() {
    // A linear congruential generator will do: the low bits of a walk are noise.
    let mut state = 1_u64;
    let mut value = 0.0_f64;
    let mut walk = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        value += (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
        value as f32
    };
    let mut encoder = PointsEncoder::new();
    for metric in 1..=20 {
        let values: Vec<f32> = (0..5000).map(|_| walk()).collect();
        let all = Timestamps::All(1_700_000_000_000);
        encoder.push(key(metric, 0), &ml_steps(0, 5000), all, Values::F32(&values), false).unwrap();
    }
    let payload = encode(&mut encoder, Compression::Zstd);
    assert!(payload.len() < 300_000, "{} bytes for 100,000 points", payload.len());
}
