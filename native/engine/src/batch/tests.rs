//! Whole payloads: what goes in comes out, and nothing else can come out.

use proptest::prelude::*;

use super::*;
use crate::types::{Compression, EnvNo, MetricNo, Position};

fn key(metric: u32, env: u32) -> SeriesKey {
    SeriesKey { metric: MetricNo(metric), env: EnvNo(env), distributed: false }
}

fn steps(start: i64, count: u32) -> Segment {
    let start = Position { step: start, ..Position::NONE };
    Segment { start, axis: Axis::Step, count, rewound: false }
}

#[test]
fn points_survive_when_series_alternate() {
    let mut encoder = PointsEncoder::new();
    for step in 0..100 {
        for metric in 1..=3 {
            let value = [f64::from(metric) + step as f64];
            encoder
                .push(
                    key(metric, 0),
                    &steps(step, 1),
                    Timestamps::All(step),
                    Values::F64(&value),
                    false,
                )
                .unwrap();
        }
    }
    let mut out = Vec::new();
    let summary = encoder.encode(Compression::Zstd, &mut out).unwrap();
    assert_eq!(summary.float_points, 300);
    let mut columns = PointColumns::default();
    decode_points(&out, &mut columns).unwrap();
    assert_eq!(columns.step, (0..100).cycle().take(300).collect::<Vec<_>>());
    assert_eq!(columns.value[100..103], [2.0, 3.0, 4.0]);
}
