//! How fast batches are sealed and decoded, and how many bytes a point takes.
//!
//! `cargo bench -p metrana-engine --bench codec`: the table comes first, then criterion's times.

// A benchmark whose workload does not fit may stop.
#![allow(clippy::expect_used)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metrana_engine::batch::{
    Axis, PointColumns, PointsDecoder, PointsEncoder, Segment, SeriesKey, Timestamps, Values,
};
use metrana_engine::types::{Compression, EnvNo, MAX_BATCH_POINTS, MetricNo, Position};
use rustix::time::{ClockId, clock_gettime};

/// A small generator of our own, so that the numbers are the same on every machine.
struct Random(u64);

impl Random {
    /// Uniform in 0 … 1.
    fn uniform(&mut self) -> f64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// One call's worth of points of a series.
struct Call {
    key: SeriesKey,
    segment: Segment,
    time: i64,
}

/// Calls one after the other, with their values and times flat, as they lie in the ring.
#[derive(Default)]
struct Calls {
    list: Vec<Call>,
    f32s: Vec<f32>,
    f64s: Vec<f64>,
    times: Vec<i64>,
}

impl Calls {
    fn push_all(&self, encoder: &mut PointsEncoder) {
        let mut at = 0;
        for call in &self.list {
            let range = at..at + call.segment.count as usize;
            at = range.end;
            let times = match self.times.get(range.clone()) {
                Some(times) => Timestamps::Each(times),
                None => Timestamps::All(call.time),
            };
            let values = match self.f32s.get(range.clone()) {
                Some(values) => Values::F32(values),
                None => Values::F64(&self.f64s[range]),
            };
            encoder.push(call.key, &call.segment, times, values, false).expect("there is room");
        }
    }
}

fn key(metric: usize, env: usize) -> SeriesKey {
    let (metric, env) = (MetricNo(metric as u32 + 1), EnvNo(env as u32));
    SeriesKey { metric, env, distributed: false }
}

fn ml_steps(start: usize, count: usize) -> Segment {
    let start = Position { step: start as i64, ..Position::NONE };
    Segment { start, axis: Axis::Step, count: count as u32, rewound: false }
}

const START_MS: i64 = 1_790_000_000_000;

/// Blocks of what `next` makes of the value before, a call per block, series after series.
fn blocks_of(
    next: fn(&mut Random, f64) -> f64,
    [series, points, block]: [usize; 3],
    jittered: bool,
) -> Calls {
    let mut random = Random(1);
    let mut all = Calls::default();
    for series in 0..series {
        let (mut value, mut time) = (0.0, START_MS);
        for start in (0..points).step_by(block) {
            let count = block.min(points - start);
            for _ in 0..count {
                value = next(&mut random, value);
                all.f32s.push(value as f32);
                time += 1 + (random.uniform() * 5.0) as i64;
                if jittered {
                    all.times.push(time);
                }
            }
            let segment = ml_steps(start, count);
            all.list.push(Call { key: key(series, 0), segment, time: START_MS });
        }
    }
    all
}

/// Random walks.
fn blocks(series: usize, points: usize, block: usize, jittered: bool) -> Calls {
    blocks_of(|random, value| value + random.normal(), [series, points, block], jittered)
}

/// Scalars logged one by one, `metrics` of them each 3 ms, as Python floats.
fn scalars(metrics: usize, steps: usize, narrow: bool) -> Calls {
    let mut random = Random(2);
    let mut values = vec![0.0_f64; metrics];
    let mut time = START_MS as f64;
    let mut all = Calls::default();
    for step in 0..steps {
        time += 3.0 + 0.4 * random.normal();
        for (metric, value) in values.iter_mut().enumerate() {
            *value += random.normal();
            all.f64s.push(if narrow { f64::from(*value as f32) } else { *value });
            let (key, segment) = (key(metric, 0), ml_steps(step, 1));
            all.list.push(Call { key, segment, time: time as i64 });
        }
    }
    all
}

/// `envs` environments that step together: one reward each per `rl_step`, `value` draws it.
fn environments(envs: usize, rl_steps: usize, value: fn(&mut Random) -> f64) -> Calls {
    let mut random = Random(3);
    let mut at = vec![(0, 0); envs];
    let mut all = Calls::default();
    for update in 0..rl_steps {
        for (env, (episode, step)) in at.iter_mut().enumerate() {
            let rl_step = (update * envs) as i64;
            let start = Position { rl_step, episode: *episode, step: *step };
            let segment = Segment { start, axis: Axis::Step, count: 1, rewound: false };
            all.f32s.push(value(&mut random) as f32);
            let time = START_MS + 7 * update as i64;
            all.list.push(Call { key: key(0, env + 1), segment, time });
            *step += 1;
            if random.uniform() < 0.005 {
                (*episode, *step) = (*episode + 1, 0);
            }
        }
    }
    all
}

/// One reward in thirty steps.
fn sparse(random: &mut Random) -> f64 {
    f64::from(u8::from(random.uniform() < 1.0 / 30.0))
}

/// A loss with a tenth of noise.
fn noisy_loss(random: &mut Random, _: f64) -> f64 {
    0.3 * (1.0 + 0.1 * random.normal())
}

/// Episode returns: whole numbers that wander.
fn returns(random: &mut Random, before: f64) -> f64 {
    (before + 3.0 * random.normal()).clamp(9.0, 500.0).floor()
}

fn workloads() -> Vec<(&'static str, Calls)> {
    vec![
        ("blocks 200 x 5000", blocks(200, 5_000, 5_000, false)),
        ("blocks 200 x 5000, jittered ms", blocks(200, 5_000, 5_000, true)),
        ("blocks 200 x 50 x 100", blocks(200, 5_000, 100, false)),
        ("noise 200 x 5000", blocks_of(|random, _| random.normal(), [200, 5_000, 5_000], false)),
        ("noisy loss 200 x 5000", blocks_of(noisy_loss, [200, 5_000, 5_000], false)),
        ("returns 200 x 5000", blocks_of(returns, [200, 5_000, 5_000], false)),
        ("constant 200 x 5000", blocks_of(|_, _| 3e-4, [200, 5_000, 5_000], false)),
        ("many series 10000 x 5", blocks(10_000, 5, 5, false)),
        ("many series 10000 x 100", blocks(10_000, 100, 100, false)),
        ("scalars 10 x 20000 f32, 3 ms", scalars(10, 20_000, true)),
        ("scalars 10 x 20000 f64, 3 ms", scalars(10, 20_000, false)),
        ("environments 4096 x 1 x 60", environments(4_096, 60, Random::normal)),
        ("environments 4096 x 1 x 16", environments(4_096, 16, Random::normal)),
        ("environments 4096 x 1 x 1", environments(4_096, 1, Random::normal)),
        ("sparse rewards 4096 x 1 x 60", environments(4_096, 60, sparse)),
    ]
}

fn encode(encoder: &mut PointsEncoder, calls: &Calls, payload: &mut Vec<u8>) {
    payload.clear();
    calls.push_all(encoder);
    encoder.encode(Compression::Zstd, payload).expect("zstd works");
}

/// The fastest of a few rounds, in million points a second of processor time: what other processes
/// do shows less in it than in the clock's.
fn rate(points: usize, mut round: impl FnMut()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let start = now();
        round();
        best = best.min(now() - start);
    }
    points as f64 / best / 1e6
}

fn codec(criterion: &mut Criterion) {
    println!(
        "{:32} {:>9} {:>8} {:>11} {:>11}",
        "", "points", "B/point", "Mpt/s seal", "Mpt/s read"
    );
    for (name, calls) in workloads() {
        let (mut encoder, mut decoder) = (PointsEncoder::new(), PointsDecoder::new());
        let (mut payload, mut columns) = (Vec::new(), PointColumns::default());
        encode(&mut encoder, &calls, &mut payload);
        decoder.decode(&payload, &mut columns).expect("what was encoded decodes");
        let points = columns.len();
        assert!(points <= MAX_BATCH_POINTS);
        let bytes = payload.len() as f64 / points as f64;
        let mut scratch = Vec::new();
        let seal = rate(points, || encode(&mut encoder, &calls, &mut scratch));
        let read = rate(points, || {
            columns.truncate(0);
            decoder.decode(&payload, &mut columns).expect("what was encoded decodes");
        });
        println!("{name:32} {points:>9} {bytes:>8.3} {seal:>11.1} {read:>11.1}");

        let mut group = criterion.benchmark_group("codec");
        group.throughput(Throughput::Elements(points as u64)).sample_size(10);
        group.bench_function(BenchmarkId::new("seal", name), |bencher| {
            bencher.iter(|| encode(&mut encoder, black_box(&calls), &mut scratch));
        });
        group.bench_function(BenchmarkId::new("read", name), |bencher| {
            bencher.iter(|| {
                columns.truncate(0);
                decoder.decode(black_box(&payload), &mut columns)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
