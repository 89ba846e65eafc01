//! The engine whole, without a server: what is logged is in the spool.

mod common;

use std::time::Duration;

use common::{close, config, contents, open};
use metrana_engine::attributes::{
    AttributeOperation, AttributeUpdate, AttributeValue, CloseStatus,
};
use metrana_engine::calls::{EnvCall, Point, SeriesCall, Spread, Steps, Values};
use metrana_engine::config::BackpressureStrategy;
use metrana_engine::counters::Kind;
use metrana_engine::engine::Engine;
use metrana_engine::error::LogError;
use metrana_engine::types::{MetricNo, Scale};

fn point(metric: MetricNo, value: f64) -> Point {
    Point { metric, step: None, timestamp_ms: None, value, distributed: false }
}

fn log(engine: &Engine, point: Point) {
    engine.log_point(point).unwrap().settle(&mut || false).unwrap();
}

#[test]
fn test_everything_logged_is_in_the_spool_after_close() {
    let folder = tempfile::tempdir().unwrap();
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
