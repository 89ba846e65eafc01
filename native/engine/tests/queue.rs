//! Backpressure: what happens when the spool cannot keep up, and that every point is accounted for.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::gate::Gate;
use common::{close, config, contents, open, wait_until};
use metrana_engine::attributes::{AttributeOperation, AttributeUpdate, AttributeValue};
use metrana_engine::calls::{EnvCall, Point, SeriesCall, Spread, Steps, Values};
use metrana_engine::config::{BackpressureStrategy, EngineConfig};
use metrana_engine::counters::{Counters, Kind, Tally};
use metrana_engine::engine::{Admission, Engine};
use metrana_engine::error::LogError;
use metrana_engine::types::{MetricNo, Scale};
use proptest::prelude::*;

/// A queue of `capacity` points in front of a disk behind a gate, which is shut.
fn behind_gate(
    data_dir: &Path,
    capacity: Option<u64>,
    strategy: BackpressureStrategy,
) -> (EngineConfig, Gate) {
    let gate = Gate::default();
    gate.shut();
    let mut config = config(data_dir);
    config.queue.capacity = capacity;
    config.queue.strategy = strategy;
    config.queue.enqueue_timeout = Duration::from_millis(20);
    config.spool.options.files = Arc::new(gate.clone());
    (config, gate)
}

/// A thread that still has something to write would make the folder anew behind its deletion.
fn end(engine: &Engine, gate: &Gate) {
    gate.open();
    close(engine);
}

fn array(metric: MetricNo, values: &[f64]) -> SeriesCall<'_> {
    let values = Values::F64(values);
    SeriesCall { metric, steps: Steps::Next, timestamps: None, values, distributed: false }
}

fn log(engine: &Engine, call: SeriesCall<'_>) -> Result<(), LogError> {
    engine.log_series(std::slice::from_ref(&call))?.settle(&mut || false)
}

fn check(counters: &Counters) {
    let Counters { added, enqueued, spooled, lost, unsealed, sent, dropped, pending, .. } =
        *counters;
    assert_eq!(added, sent + dropped + pending);
    assert_eq!(enqueued, spooled + lost + unsealed);
    for kind in 0..4 {
        assert!(spooled.0[kind] <= enqueued.0[kind] && enqueued.0[kind] <= added.0[kind]);
        assert!(sent.0[kind] <= spooled.0[kind]);
    }
}

#[test]
fn test_drop_new_drops_what_has_no_room_and_keeps_its_steps() {
    let folder = common::folder();
    let (config, gate) = behind_gate(folder.path(), Some(10), BackpressureStrategy::DropNew);
    let engine = open(config);
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let values: Vec<_> = (0..25).map(f64::from).collect();
    // Larger than the queue: it goes in chunks of which some are refused.
    log(&engine, array(metric, &values)).unwrap();
    let counters = engine.counters();
    check(&counters);
    let accepted = counters.enqueued.get(Kind::Float);
    assert!((7..=10).contains(&accepted), "{accepted}");
    assert_eq!(counters.dropped.get(Kind::Float), 25 - accepted);
    assert_eq!(engine.last_step(metric), Some(24));
    gate.open();
    engine.flush(None, &mut || false).unwrap();
    log(&engine, array(metric, &[100.0])).unwrap();
    close(&engine);
    let told = format!("WARN  the queue was full: {} points", 25 - accepted);
    assert!(common::log_of(folder.path()).contains(&told), "{}", common::log_of(folder.path()));
    let seen = contents(folder.path(), 1).points;
    assert_eq!(seen.len() as u64, accepted + 1);
    assert!(seen[..accepted as usize].iter().all(|seen| seen.step == seen.value as i64));
    assert_eq!(seen.last().map(|seen| (seen.step, seen.value)), Some((25, 100.0)));
}

#[test]
fn test_a_call_that_fits_the_queue_is_taken_whole_or_not_at_all() {
    let folder = common::folder();
    let (config, gate) = behind_gate(folder.path(), Some(10), BackpressureStrategy::DropNew);
    let engine = open(config);
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    log(&engine, array(metric, &[0.0; 6])).unwrap();
    log(&engine, array(metric, &[0.0; 6])).unwrap();
    let counters = engine.counters();
    assert_eq!((counters.enqueued.points(), counters.dropped.points()), (6, 6));
    log(&engine, array(metric, &[0.0; 4])).unwrap();
    assert_eq!(engine.counters().enqueued.points(), 10);
    end(&engine, &gate);
}

#[test]
fn test_raise_says_how_many_points_were_not_taken() {
    let folder = common::folder();
    let (config, gate) = behind_gate(folder.path(), Some(3), BackpressureStrategy::Raise);
    let engine = open(config);
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    log(&engine, array(metric, &[0.0; 3])).unwrap();
    let error = log(&engine, array(metric, &[0.0; 2])).unwrap_err();
    assert!(matches!(error, LogError::QueueFull { dropped: 2, .. }), "{error}");
    check(&engine.counters());
    assert_eq!(engine.counters().dropped.points(), 2);
    end(&engine, &gate);
}

#[test]
fn test_block_waits_for_room_and_loses_nothing() {
    let folder = common::folder();
    let (config, gate) = behind_gate(folder.path(), Some(10), BackpressureStrategy::Block);
    let engine = open(config);
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let values: Vec<_> = (0..1000).map(f64::from).collect();
    let mut looks = 0;
    let admission = engine.log_series(&[array(metric, &values)]).unwrap();
    admission
        .settle(&mut || {
            looks += 1;
            if looks == 3 {
                gate.open();
            }
            false
        })
        .unwrap();
    assert!(looks >= 3);
    close(&engine);
    let seen = contents(folder.path(), 1).points;
    assert_eq!(seen.iter().map(|seen| seen.value).collect::<Vec<_>>(), values);
    assert_eq!(engine.counters().dropped, Tally::default());
}

#[test]
fn test_an_interrupt_ends_the_wait_and_the_rest_counts_as_dropped() {
    let folder = common::folder();
    let (config, gate) = behind_gate(folder.path(), Some(4), BackpressureStrategy::Block);
    let engine = open(config);
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let admission = engine.log_series(&[array(metric, &[0.0; 100])]).unwrap();
    let error = admission.settle(&mut || true).unwrap_err();
    assert_eq!(error, LogError::Interrupted { dropped: 96 });
    assert_eq!(engine.counters().dropped.points(), 96);
    // Dropped without being settled: the same.
    let Admission::Full(remainder) = engine.log_series(&[array(metric, &[0.0; 2])]).unwrap() else {
        panic!("there was room");
    };
    check(&engine.counters());
    assert_eq!(engine.counters().pending.points(), 6);
    drop(remainder);
    assert_eq!(engine.counters().dropped.points(), 98);
    end(&engine, &gate);
}

#[test]
fn test_a_full_disk_is_reported_once_and_everything_arrives_when_it_has_room() {
    let folder = common::folder();
    let (mut config, gate) = behind_gate(folder.path(), None, BackpressureStrategy::DropNew);
    config.batch.max_age = Duration::from_millis(10);
    gate.open();
    let engine = open(config);
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let update = AttributeUpdate {
        initial: false,
        operation: AttributeOperation::Set { path: "a".into(), value: AttributeValue::Null },
    };
    for round in 0..6 {
        gate.shut();
        for i in 0..50 {
            log(&engine, array(metric, &[f64::from(round * 50 + i)])).unwrap();
        }
        engine
            .log_attributes(std::slice::from_ref(&update))
            .unwrap()
            .settle(&mut || false)
            .unwrap();
        let before = engine.counters().errors_reported;
        wait_until("a report", || engine.counters().errors_reported > before);
        gate.open();
        engine.flush(None, &mut || false).unwrap();
        assert_eq!(engine.counters().errors_reported, before + 1);
    }
    assert_eq!(engine.take_errors().len(), 6);
    close(&engine);
    check(&engine.counters());
    let seen = contents(folder.path(), 1);
    let values: Vec<_> = seen.points.iter().map(|seen| seen.value).collect();
    assert_eq!(values, (0..300).map(f64::from).collect::<Vec<_>>());
    assert_eq!(seen.updates.len(), 7);
}

#[test]
fn test_a_spool_at_its_limit_applies_backpressure() {
    let folder = common::folder();
    let mut config = config(folder.path());
    config.spool.max_bytes = Some(64 * 1024);
    config.queue.enqueue_timeout = Duration::from_millis(1);
    let engine = open(config);
    let metric = engine.metric("noise", Scale::MlStep, &[]).unwrap();
    let mut state = 1_u64;
    wait_until("points are dropped", || {
        let values: Vec<_> = (0..1000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                f64::from_bits(state >> 2)
            })
            .collect();
        log(&engine, array(metric, &values)).unwrap();
        let problems = engine.status().problems;
        problems.iter().any(|problem| problem.contains("spool_max_bytes"))
            && engine.counters().dropped.points() > 0
    });
    assert!(engine.status().spooled_bytes < 1 << 20);
    check(&engine.counters());
}

/// Its own, and that of every test which drops an engine without closing it.
#[test]
fn test_a_folder_is_gone_for_good_though_the_thread_of_a_dropped_engine_still_seals() {
    for _ in 0..20 {
        let folder = common::folder();
        let path = folder.path().to_owned();
        let mut config = config(&path);
        // The thread has them until it ends.
        let files = Arc::new(Gate::default());
        config.spool.options.files = Arc::clone(&files) as Arc<_>;
        let engine = open(config);
        let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
        // Enough to be at it for a while.
        log(&engine, array(metric, &vec![0.5; 50_000])).unwrap();
        drop(engine);
        drop(folder);
        wait_until("the thread has ended", || Arc::strong_count(&files) == 1);
        assert!(!path.exists());
    }
}

#[test]
fn test_threads_keep_their_own_order_and_share_the_steps() {
    const THREADS: usize = 4;
    const CALLS: usize = 2000;
    let folder = common::folder();
    let mut config = config(folder.path());
    config.queue.strategy = BackpressureStrategy::Block;
    let engine = open(config);
    let metric = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                check(&engine.counters());
            }
        });
        let loggers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let engine = &engine;
                scope.spawn(move || {
                    for call in 0..CALLS {
                        let value = (thread * CALLS + call) as f64;
                        let point = Point {
                            metric,
                            step: None,
                            timestamp_ms: None,
                            value,
                            distributed: false,
                        };
                        engine.log_point(point).unwrap().settle(&mut || false).unwrap();
                    }
                })
            })
            .collect();
        for logger in loggers {
            logger.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        looker.join().unwrap();
    });
    close(&engine);
    let seen = contents(folder.path(), 1).points;
    assert!(seen.iter().zip(0..).all(|(seen, step)| seen.step == step && !seen.rewound));
    for thread in 0..THREADS {
        let own = seen.iter().map(|seen| seen.value as usize).filter(|v| v / CALLS == thread);
        assert!(own.eq(thread * CALLS..(thread + 1) * CALLS));
    }
}

#[test]
fn test_a_block_larger_than_a_record_keeps_every_point_at_its_place() {
    let folder = common::folder();
    let mut config = config(folder.path());
    config.batch.max_msg_size = 16 * 1024;
    config.queue.strategy = BackpressureStrategy::Block;
    let engine = open(config);
    let metric = engine.metric("reward", Scale::EnvironmentStep, &[]).unwrap();
    let (envs, per_env) = (37, 211);
    let nos: Vec<_> = (0..envs).map(|i| engine.env(&format!("e{i}")).unwrap()).collect();
    let values: Vec<_> = (0..envs * per_env).map(|i| i as f32).collect();
    let episodes: Vec<_> = (0..envs * per_env).map(|i| (i % per_env / 50) as i64).collect();
    let rows: Vec<_> = (0..envs as i64).map(|i| 1000 + i).collect();
    let call = EnvCall {
        metric,
        rl_step: 5,
        envs: &nos,
        per_env,
        episodes: Some(Spread::Each(&episodes)),
        timestamps: Some(Spread::PerEnv(&rows)),
        values: Values::F32(&values),
    };
    engine.log_env_steps(&call).unwrap().settle(&mut || false).unwrap();
    close(&engine);
    let seen = contents(folder.path(), 1);
    assert!(seen.payload_bytes.iter().all(|bytes| *bytes <= 16 * 1024 - 1024));
    assert_eq!(seen.points.len(), envs * per_env);
    for point in &seen.points {
        let at = point.value as usize;
        let (env, column) = (at / per_env, at % per_env);
        assert_eq!(point.env.as_deref(), Some(format!("e{env}").as_str()));
        assert_eq!(point.timestamp_ms, rows[env]);
        let (episode, step) = ((column / 50) as i64, (column % 50) as i64);
        assert_eq!((point.rl_step, point.episode, point.step), (5, episode, step));
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Scalar,
    Array(usize),
    Block(usize),
    Attribute,
    Shut,
    Open,
    Flush,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => Just(Operation::Scalar),
        2 => (1..60_usize).prop_map(Operation::Array),
        2 => (1..9_usize).prop_map(Operation::Block),
        1 => Just(Operation::Attribute),
        1 => Just(Operation::Shut),
        1 => Just(Operation::Open),
        1 => Just(Operation::Flush),
    ]
}

struct Random<'a> {
    engine: &'a Engine,
    loss: MetricNo,
    reward: MetricNo,
    gate: &'a Gate,
    is_open: bool,
}

impl Random<'_> {
    fn run(&mut self, operation: &Operation, rl_step: i64) {
        let settled = match operation {
            Operation::Scalar => log(self.engine, array(self.loss, &[1.0])),
            Operation::Array(count) => log(self.engine, array(self.loss, &vec![1.0; *count])),
            Operation::Block(envs) => self.block(*envs, rl_step),
            Operation::Attribute => {
                let value = AttributeValue::Int("1".to_owned());
                let operation = AttributeOperation::Set { path: "p".to_owned(), value };
                let update = AttributeUpdate { initial: false, operation };
                self.engine.log_attributes(&[update]).and_then(|left| left.settle(&mut || false))
            }
            Operation::Shut => {
                self.gate.shut();
                self.is_open = false;
                Ok(())
            }
            Operation::Open => {
                self.gate.open();
                self.is_open = true;
                Ok(())
            }
            Operation::Flush if self.is_open => {
                self.engine.flush(None, &mut || false).unwrap();
                Ok(())
            }
            Operation::Flush => Ok(()),
        };
        settled.unwrap();
    }

    fn block(&self, envs: usize, rl_step: i64) -> Result<(), LogError> {
        let envs: Vec<_> = (0..envs).map(|i| self.engine.env(&format!("e{i}")).unwrap()).collect();
        let values = vec![0.5; envs.len() * 3];
        let call = EnvCall {
            metric: self.reward,
            rl_step,
            envs: &envs,
            per_env: 3,
            episodes: None,
            timestamps: None,
            values: Values::F32(&values),
        };
        self.engine.log_env_steps(&call)?.settle(&mut || false)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn test_counters_account_for_every_point_whatever_happens(
        operations in proptest::collection::vec(operation(), 1..60),
        capacity in 1..100_u64,
    ) {
        let folder = common::folder();
        let (mut config, gate) =
            behind_gate(folder.path(), Some(capacity), BackpressureStrategy::DropNew);
        config.queue.enqueue_timeout = Duration::from_millis(1);
        config.batch.max_age = Duration::from_millis(5);
        let engine = open(config);
        let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
        let reward = engine.metric("reward", Scale::EnvironmentStep, &[]).unwrap();
        let mut random = Random { engine: &engine, loss, reward, gate: &gate, is_open: false };
        for (rl_step, operation) in (0..).zip(&operations) {
            random.run(operation, rl_step);
            check(&engine.counters());
        }
        gate.open();
        close(&engine);
        let counters = engine.counters();
        check(&counters);
        prop_assert_eq!(counters.spooled, counters.enqueued);
        let seen = contents(folder.path(), 1);
        prop_assert_eq!(seen.points.len() as u64, counters.spooled.points());
        // The close record is nobody's attribute.
        prop_assert_eq!(seen.updates.len() as u64 - 1, counters.spooled.get(Kind::Attribute));
    }
}
