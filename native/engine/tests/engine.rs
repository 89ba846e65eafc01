//! The engine whole, without a server: what is logged is in the spool.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod common;

use std::time::Duration;

use common::{close, config, contents, open, wait_until};
use metrana_engine::attributes::{
    AttributeOperation, AttributeUpdate, AttributeValue, CloseStatus,
};
use metrana_engine::calls::{EnvCall, Point, SeriesCall, Spread, Steps, Values};
use metrana_engine::config::ResumeStrategy;
use metrana_engine::counters::Kind;
use metrana_engine::engine::{Admission, Engine};
use metrana_engine::error::{FlushError, LogError, OpenError};
use metrana_engine::ring::RingPlace;
use metrana_engine::run_folder::{Watermark, write_acked};
use metrana_engine::types::{MetricNo, Scale, Seq};

fn point(metric: MetricNo, value: f64) -> Point {
    Point { metric, step: None, timestamp_ms: None, value, distributed: false }
}

fn log(engine: &Engine, point: Point) {
    engine.log_point(point).unwrap().settle(&mut || false).unwrap();
}

#[test]
fn test_what_a_follower_acknowledged_is_deleted_by_the_writer_that_lives() {
    let folder = common::folder();
    let mut options = config(folder.path());
    // A quarter of it is a segment.
    options.spool.max_bytes = Some(400_000);
    let engine = open(options);
    let metric = engine.metric("x", Scale::MlStep, &[]).unwrap();
    let before = spool_segments(&engine, metric);
    let writer = common::writer_folder(folder.path(), 1);
    // More than there is: what is not whole in the spool is not taken for delivered.
    write_acked(&writer, Seq(1 << 40)).unwrap();
    wait_until("a segment is deleted", || engine.status().spooled_bytes < before);
    assert_eq!(engine.status().pending_points, 0);
    assert_eq!(engine.last_step(metric), Some(engine.counters().sent.points() as i64 - 1));
    close(&engine);
}

#[test]
fn test_a_folder_that_is_made_anew_says_what_was_acknowledged() {
    let folder = common::folder();
    let mut options = config(folder.path());
    options.spool.max_bytes = Some(400_000);
    let engine = open(options);
    let before = spool_segments(&engine, engine.metric("x", Scale::MlStep, &[]).unwrap());
    let writer = common::writer_folder(folder.path(), 1);
    let acked = Seq(20);
    write_acked(&writer, acked).unwrap();
    wait_until("a segment is deleted", || engine.status().spooled_bytes < before);
    std::fs::remove_dir_all(writer.parent().unwrap()).unwrap();
    wait_until("the folder is back", || writer.join("writer.json").exists());
    assert_eq!(Watermark::read(&writer).unwrap(), Watermark::Known(acked));
    close(&engine);
}

/// Logs until the spool has several segments; returns its bytes.
fn spool_segments(engine: &Engine, metric: MetricNo) -> u64 {
    for at in 0..60 {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i * at).sqrt()).collect();
        let call = SeriesCall {
            metric,
            steps: Steps::Next,
            timestamps: None,
            values: Values::F64(&values),
            distributed: false,
        };
        engine.log_series(&[call]).unwrap().settle(&mut || false).unwrap();
        engine.flush(None, &mut || false).unwrap();
        if engine.status().spooled_bytes > 200_000 {
            break;
        }
    }
    let status = engine.status();
    assert!(status.spooled_bytes > 200_000, "{status:?}");
    status.spooled_bytes
}

#[test]
fn test_everything_logged_is_in_the_spool_after_close() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    let loss = engine.metric("loss", Scale::MlStep, &[("a", "b")]).unwrap();
    let reward = engine.metric("reward", Scale::EnvironmentStep, &[]).unwrap();
    let envs = [engine.env("e0").unwrap(), engine.env("e1").unwrap()];
    log(&engine, point(loss, 0.5));
    log(&engine, Point { step: Some(10), timestamp_ms: Some(77), ..point(loss, f64::NAN) });
    log(&engine, Point { step: Some(3), ..point(loss, 0.25) });
    log(&engine, point(loss, 0.125));
    let call = EnvCall {
        metric: reward,
        rl_step: 4,
        envs: &envs,
        per_env: 3,
        episodes: Some(Spread::Each(&[0, 0, 1, 5, 5, 5])),
        timestamps: Some(Spread::PerEnv(&[100, 200])),
        values: Values::F32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    };
    engine.log_env_steps(&call).unwrap().settle(&mut || false).unwrap();
    let update = AttributeUpdate {
        initial: true,
        operation: AttributeOperation::Set {
            path: "config/lr".to_owned(),
            value: AttributeValue::Float(0.1),
        },
    };
    engine.log_attributes(std::slice::from_ref(&update)).unwrap().settle(&mut || false).unwrap();
    assert_eq!(engine.last_step(loss), Some(11));
    assert_eq!(engine.env_cursor(envs[1]), (Some(4), Some(5)));
    close(&engine);
    let seen = contents(folder.path(), 1);
    assert_eq!(seen.problems, Vec::<String>::new());
    let of_loss: Vec<_> = seen.points.iter().filter(|seen| seen.metric == "loss").collect();
    assert_eq!(of_loss.iter().map(|seen| seen.step).collect::<Vec<_>>(), [0, 10, 3, 11]);
    assert_eq!(
        of_loss.iter().map(|seen| seen.rewound).collect::<Vec<_>>(),
        [false, false, true, false]
    );
    assert_eq!(of_loss[1].timestamp_ms, 77);
    assert!(of_loss[1].value.is_nan() && of_loss[1].env.is_none());
    let of_reward: Vec<_> = seen
        .points
        .iter()
        .filter(|seen| seen.metric == "reward")
        .map(|seen| {
            (seen.env.as_deref().unwrap(), seen.episode, seen.step, seen.timestamp_ms, seen.value)
        })
        .collect();
    let expected = [
        ("e0", 0, 0, 100, 1.0),
        ("e0", 0, 1, 100, 2.0),
        ("e0", 1, 0, 100, 3.0),
        ("e1", 5, 0, 200, 4.0),
        ("e1", 5, 1, 200, 5.0),
        ("e1", 5, 2, 200, 6.0),
    ];
    assert_eq!(of_reward, expected);
    assert_eq!(seen.updates[0], update);
    let last = &seen.updates.last().unwrap().operation;
    assert!(matches!(last, AttributeOperation::Close { status: CloseStatus::Finished, .. }));
    let counters = engine.counters();
    assert_eq!((counters.spooled.get(Kind::Float), counters.spooled.get(Kind::Rl)), (4, 6));
    assert_eq!(counters.pending, counters.added);
    assert_eq!(engine.log_point(point(loss, 1.0)).map(|_| ()), Err(LogError::Closed));
}

#[test]
fn test_a_refused_call_logs_nothing_and_changes_no_step() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let reward = engine.metric("reward", Scale::EnvironmentStep, &[]).unwrap();
    let envs = [engine.env("e0").unwrap(), engine.env("e1").unwrap()];
    let block = |envs, rl_step, values| EnvCall {
        metric: reward,
        rl_step,
        envs,
        per_env: 1,
        episodes: None,
        timestamps: None,
        values: Values::F32(values),
    };
    let refused = |result: Result<Admission<'_>, LogError>| match result {
        Err(LogError::Invalid(invalid)) => invalid.argument,
        other => panic!("{other:?}"),
    };
    engine.log_env_steps(&block(&envs[1..], 9, &[1.0])).unwrap().settle(&mut || false).unwrap();
    // The second environment is at rl_step 9.
    assert_eq!(refused(engine.log_env_steps(&block(&envs, 8, &[1.0, 2.0]))), "rl_step");
    assert_eq!(refused(engine.log_env_steps(&block(&envs, 9, &[1.0]))), "value");
    assert_eq!(refused(engine.log_episodes(&block(&envs, 9, &[1.0, 2.0]))), "metric_name");
    let good = SeriesCall {
        metric: loss,
        steps: Steps::Next,
        timestamps: None,
        values: Values::F64(&[1.0, 2.0]),
        distributed: false,
    };
    let calls = [
        ("step", SeriesCall { steps: Steps::Each(&[1]), ..good }),
        ("step", SeriesCall { steps: Steps::Each(&[1, -1]), ..good }),
        ("step", SeriesCall { distributed: true, ..good }),
        ("timestamp", SeriesCall { timestamps: Some(Spread::Each(&[1])), ..good }),
    ];
    for (argument, bad) in calls {
        assert_eq!(refused(engine.log_series(&[good, bad])), argument);
    }
    let bad = Point { step: Some(-1), ..point(loss, 1.0) };
    assert_eq!(refused(engine.log_points(&[point(loss, 1.0), bad])), "step");
    assert_eq!(engine.last_step(loss), None);
    assert_eq!(engine.env_cursor(envs[0]), (None, None));
    assert_eq!(engine.counters().added.points(), 1);
    close(&engine);
    assert_eq!(contents(folder.path(), 1).points.len(), 1);
}

#[test]
fn test_flush_returns_when_all_is_in_the_spool() {
    let folder = common::folder();
    let mut config = config(folder.path());
    config.batch.max_age = Duration::from_secs(3600);
    let engine = open(config);
    let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    for round in 1..=20 {
        log(&engine, point(loss, 1.0));
        engine.flush(None, &mut || false).unwrap();
        assert_eq!(engine.counters().spooled.points(), round);
    }
    // Nothing to do is done at once.
    engine.flush(Some(Duration::from_secs(10)), &mut || false).unwrap();
    close(&engine);
    assert_eq!(engine.flush(None, &mut || false), Err(FlushError::Closed));
}

#[test]
fn test_points_are_sealed_when_they_are_old_enough_without_being_asked_for() {
    let folder = common::folder();
    let mut config = config(folder.path());
    config.batch.max_age = Duration::from_millis(50);
    let engine = open(config);
    let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    log(&engine, point(loss, 1.0));
    wait_until("a batch", || engine.counters().spooled.points() == 1);
}

#[test]
fn test_an_engine_without_tmpfs_seals_every_few_milliseconds_and_says_so() {
    let folder = common::folder();
    let mut config = config(folder.path());
    config.ring.place = RingPlace::Memory;
    config.batch.max_age = Duration::from_secs(3600);
    let engine = open(config);
    let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    log(&engine, point(loss, 1.0));
    wait_until("a batch", || engine.counters().spooled.points() == 1);
    let status = engine.status();
    assert_eq!((status.ring, status.loss_window.is_zero()), ("memory", false));
    assert_eq!(status.problems.len(), 1);
    close(&engine);
    assert_eq!(contents(folder.path(), 1).points.len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn test_a_ring_that_somebody_deletes_is_replaced_without_losing_a_point() {
    let folder = common::folder();
    let engine = open(config(folder.path()));
    let ring = folder.path().join(format!("metrana-{}", engine.identity().writer_id));
    let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let env = engine.env("e").unwrap();
    let reward = engine.metric("reward", Scale::EnvironmentStep, &[]).unwrap();
    let mut count = 0;
    let mut log_some = || {
        for _ in 0..100 {
            log(&engine, point(loss, f64::from(count)));
            count += 1;
        }
        let call = EnvCall {
            metric: reward,
            rl_step: 0,
            envs: &[env],
            per_env: 1,
            episodes: None,
            timestamps: None,
            values: Values::F64(&[0.0]),
        };
        engine.log_env_steps(&call).unwrap().settle(&mut || false).unwrap();
    };
    for _ in 0..2 {
        log_some();
        std::fs::remove_file(&ring).unwrap();
        log_some();
        wait_until("a new ring", || ring.exists());
        log_some();
    }
    close(&engine);
    assert!(!ring.exists());
    let log = common::log_of(folder.path());
    assert_eq!(log.matches("WARN  the ring's file was deleted by somebody").count(), 1, "{log}");
    let seen = contents(folder.path(), 1);
    assert_eq!(seen.problems, Vec::<String>::new());
    let values: Vec<_> =
        seen.points.iter().filter(|seen| seen.metric == "loss").map(|seen| seen.value).collect();
    assert_eq!(values, (0..600).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn test_what_a_deleted_ring_held_is_sealed_at_once() {
    let folder = common::folder();
    let mut config = config(folder.path());
    config.batch.max_age = Duration::from_secs(3600);
    let engine = open(config);
    let ring = folder.path().join(format!("metrana-{}", engine.identity().writer_id));
    let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    for value in 0..100 {
        log(&engine, point(loss, f64::from(value)));
    }
    std::fs::remove_file(&ring).unwrap();
    wait_until("it is sealed", || contents(folder.path(), 1).points.len() == 100);
    wait_until("a new ring", || ring.exists());
    close(&engine);
}

#[test]
fn test_a_closed_run_goes_on_where_it_was_and_another_job_is_refused() {
    let folder = common::folder();
    let log_to = |engine: &Engine| {
        let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
        let last = engine.last_step(loss);
        log(engine, point(loss, 1.0));
        close(engine);
        close(engine);
        last
    };
    let first = open(config(folder.path()));
    assert!(first.identity().created);
    assert_eq!(log_to(&first), None);
    let second = open(config(folder.path()));
    assert!(!second.identity().created);
    assert_eq!(second.identity().run_id, first.identity().run_id);
    assert_eq!((second.identity().writer_number, log_to(&second)), (2, Some(0)));
    let mut other = config(folder.path());
    other.run.orchestration_id = "another job".to_owned();
    let error = Engine::open(other.clone(), &mut || false).unwrap_err();
    assert!(matches!(&error, OpenError::OrchestrationMismatch { ours, theirs, .. }
        if ours == "another job" && theirs == "job"));
    other.run.resume = ResumeStrategy::Allow;
    assert_eq!(log_to(&open(other)), Some(1));
    let mut by_id = config(folder.path());
    (by_id.run.run_name, by_id.run.run_id) = (None, Some(first.identity().run_id));
    assert_eq!(log_to(&open(by_id)), Some(2));
}

#[cfg(target_os = "linux")]
#[test]
fn test_an_engine_dropped_without_close_leaves_everything_to_the_next() {
    let folder = common::folder();
    let mut long = config(folder.path());
    long.batch.max_age = Duration::from_secs(3600);
    let engine = open(long);
    let loss = engine.metric("loss", Scale::MlStep, &[]).unwrap();
    let ring = folder.path().join(format!("metrana-{}", engine.identity().writer_id));
    log(&engine, point(loss, 1.0));
    drop(engine);
    wait_until("the writer to be recovered", || {
        let next = open(config(folder.path()));
        let loss = next.metric("loss", Scale::MlStep, &[]).unwrap();
        let found = next.last_step(loss);
        close(&next);
        found == Some(0) && !ring.exists()
    });
    assert_eq!(contents(folder.path(), 1).points.len(), 1);
}
