//! What logging costs, the engine whole: names resolved, ring in tmpfs, drain thread at work.
//!
//! Calls are timed in bursts that the ring holds, and sealed between the bursts: that is what a
//! training loop sees. "sustained" lets the ring fill and waits for room, so it is the throughput of
//! the drain thread that is measured there.
//!
//! `cargo bench -p metrana-engine --no-default-features`

#![allow(clippy::expect_used, reason = "a benchmark that cannot set itself up has failed")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use metrana_engine::attributes::CloseStatus;
use metrana_engine::calls::{EnvCall, Point, SeriesCall, Spread, Steps, Values};
use metrana_engine::config::{BackpressureStrategy, EngineConfig, RunConfig};
use metrana_engine::engine::Engine;
use metrana_engine::types::{EnvNo, MetricNo, Scale};

/// An offline engine in a folder that goes with it. Full means waiting, so nothing is dropped.
fn with_engine(run: impl FnOnce(&Engine)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut config = EngineConfig::offline(folder.path(), RunConfig::local("bench", "bench"));
    config.queue.strategy = BackpressureStrategy::Block;
    let engine = Engine::open(config, &mut || false).expect("an engine");
    run(&engine);
    engine
        .close(Duration::from_secs(60), CloseStatus::Finished, &mut || false)
        .expect("a closed engine");
}

/// Times calls that put `record_bytes` each into the ring, in bursts of an eighth of it.
fn burst(bench: &mut Bencher<'_>, engine: &Engine, record_bytes: usize, mut call: impl FnMut()) {
    let most = ((1 << 20) / record_bytes).max(1) as u64;
    bench.iter_custom(|mut calls| {
        let mut total = Duration::ZERO;
        while calls > 0 {
            let now = calls.min(most);
            engine.flush(None, &mut || false).expect("sealed");
            let begun = Instant::now();
            for _ in 0..now {
                call();
            }
            total += begun.elapsed();
            calls -= now;
        }
        total
    });
}

fn scalars(criterion: &mut Criterion) {
    with_engine(|engine| {
        let metric = engine.metric("loss", Scale::MlStep, &[]).expect("a metric");
        let point =
            Point { metric, step: None, timestamp_ms: None, value: 0.5, distributed: false };
        criterion.bench_function("scalar", |bench| {
            burst(bench, engine, 32, || log_point(engine, black_box(point)));
        });
        criterion.bench_function("scalar, step given", |bench| {
            let mut step = 1 << 40;
            burst(bench, engine, 32, || {
                step += 1;
                log_point(engine, black_box(Point { step: Some(step), ..point }));
            });
        });
        criterion.bench_function("scalar, sustained", |bench| {
            bench.iter(|| log_point(engine, black_box(point)));
        });
        let points: Vec<_> = (0..10)
            .map(|i| engine.metric(&format!("m{i}"), Scale::MlStep, &[]).expect("a metric"))
            .map(|metric| Point { metric, ..point })
            .collect();
        criterion.bench_function("mapping of 10", |bench| {
            burst(bench, engine, 320, || {
                let admission = engine.log_points(black_box(&points)).expect("valid");
                admission.settle(&mut || false).expect("room");
            });
        });
        criterion.bench_function("metric by name", |bench| {
            bench.iter(|| engine.metric(black_box("loss"), Scale::MlStep, &[]));
        });
    });
}

fn log_point(engine: &Engine, point: Point) {
    let admission = engine.log_point(point).expect("valid");
    admission.settle(&mut || false).expect("room");
}

fn arrays(criterion: &mut Criterion) {
    with_engine(|engine| {
        let metric = engine.metric("loss", Scale::MlStep, &[]).expect("a metric");
        let values = vec![0.5_f32; 1000];
        let mut group = criterion.benchmark_group("series");
        group.throughput(Throughput::Elements(1000));
        group.bench_function("[1000] f32", |bench| {
            burst(bench, engine, 4096, || {
                let call = SeriesCall {
                    metric,
                    steps: Steps::Next,
                    timestamps: None,
                    values: Values::F32(black_box(&values)),
                    distributed: false,
                };
                let admission = engine.log_series(&[call]).expect("valid");
                admission.settle(&mut || false).expect("room");
            });
        });
    });
}

/// Blocks of environment steps: `rl_step` rises from call to call.
fn blocks(criterion: &mut Criterion) {
    for (envs, steps, episodes) in
        [(8, 128, "one"), (8, 128, "each"), (64, 128, "one"), (4096, 1, "one"), (4096, 1, "each")]
    {
        with_engine(|engine| {
            let metric = engine.metric("reward", Scale::EnvironmentStep, &[]).expect("a metric");
            let env_nos: Vec<_> =
                (0..envs).map(|i| engine.env(&format!("env-{i}")).expect("an env")).collect();
            let block = Block { metric, env_nos, steps, values: vec![0.5; envs * steps] };
            let numbers = vec![3_i64; envs * steps];
            let spread = if episodes == "one" { Spread::All(3) } else { Spread::Each(&numbers) };
            let mut rl_step = 0;
            let mut group = criterion.benchmark_group("env steps f32");
            group.throughput(Throughput::Elements((envs * steps) as u64));
            group.bench_function(format!("{envs}x{steps}, episodes {episodes}"), |bench| {
                burst(bench, engine, 4 * envs * steps + 24 * envs, || {
                    rl_step += 1;
                    block.log(engine, rl_step, black_box(spread));
                });
            });
            group.bench_function(
                format!("{envs}x{steps}, episodes {episodes}, sustained"),
                |bench| {
                    bench.iter(|| {
                        rl_step += 1;
                        block.log(engine, rl_step, black_box(spread));
                    });
                },
            );
        });
    }
}

struct Block {
    metric: MetricNo,
    env_nos: Vec<EnvNo>,
    steps: usize,
    values: Vec<f32>,
}

impl Block {
    fn log(&self, engine: &Engine, rl_step: i64, episodes: Spread<'_>) {
        let call = EnvCall {
            metric: self.metric,
            rl_step,
            envs: &self.env_nos,
            per_env: self.steps,
            episodes: Some(episodes),
            timestamps: None,
            values: Values::F32(&self.values),
        };
        let admission = engine.log_env_steps(&call).expect("valid");
        admission.settle(&mut || false).expect("room");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default();
    targets = scalars, arrays, blocks
}
criterion_main!(benches);
