//! Whole payloads: what goes in comes out, the bytes are the documented ones, and nothing a hostile
//! payload says makes the decoder panic or allocate beyond the limits.

mod golden;
mod hostile;
mod limits;
mod rendering;
mod round_trip;
mod rows;

use super::*;
use crate::types::{Compression, EnvNo, MetricNo, Position, UNUSED};

fn key(metric: u32, env: u32) -> SeriesKey {
    SeriesKey { metric: MetricNo(metric), env: EnvNo(env), distributed: false }
}

fn ml_steps(start: i64, count: u32) -> Segment {
    let start = Position { step: start, ..Position::NONE };
    Segment { start, axis: Axis::Step, count, rewound: false }
}

fn encode(encoder: &mut PointsEncoder, compression: Compression) -> Vec<u8> {
    let mut payload = Vec::new();
    encoder.encode(compression, &mut payload).unwrap();
    payload
}

fn decode(payload: &[u8]) -> Result<PointColumns, DecodeError> {
    let mut columns = PointColumns::default();
    decode_points(payload, &mut columns).map(|_| columns)
}

/// A batch that has something in every section.
fn rich_batch() -> PointsEncoder {
    let mut encoder = PointsEncoder::new();
    let smooth: Vec<f32> = (0..5).map(|index| 1.0 + index as f32 / 1024.0).collect();
    let all = Timestamps::All(1_700_000_000_000);
    encoder.push(key(1, 0), &ml_steps(0, 5), all, Values::F32(&smooth), false).unwrap();
    let again = Segment { rewound: true, ..ml_steps(3, 2) };
    let each = Timestamps::Each(&[1_700_000_000_007, 1_700_000_000_009]);
    encoder.push(key(1, 0), &again, each, Values::F32(&[0.5, -0.0]), false).unwrap();
    let start = Position { rl_step: 4096, episode: 2, step: 17 };
    let segment = Segment { start, axis: Axis::Step, count: 3, rewound: false };
    let distributed = SeriesKey { distributed: true, ..key(2, 0) };
    let wide = Values::F64(&[0.1, 0.2, f64::NAN]);
    encoder.push(key(3, 7), &segment, all, wide, true).unwrap();
    encoder.push(distributed, &ml_steps(10, 1), all, Values::F64(&[3.0]), false).unwrap();
    let start = Position { rl_step: 4096, episode: 2, step: UNUSED };
    let segment = Segment { start, axis: Axis::Episode, count: 3, rewound: false };
    let slow = Values::F64(&[1e-3, 1e-3 + 1e-12, 1e-3 + 2e-12]);
    encoder.push(key(4, 7), &segment, all, slow, true).unwrap();
    encoder
}
