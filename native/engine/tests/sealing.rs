//! How much goes into one message.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod common;

use common::{close, config, contents, open};
use metrana_engine::calls::{EnvCall, Values};
use metrana_engine::config::BackpressureStrategy;
use metrana_engine::engine::Engine;
use metrana_engine::types::{Compression, EnvNo, MetricNo, Scale};

const ENVS: usize = 128;
const MESSAGE_BYTES: usize = 16 * 1024;

struct Rollout {
    engine: Engine,
    metric: MetricNo,
    envs: Vec<EnvNo>,
    rl_step: i64,
}

impl Rollout {
    fn new(data_dir: &std::path::Path) -> Self {
        let mut config = config(data_dir);
        config.batch.max_msg_size = MESSAGE_BYTES;
        config.batch.compression = Compression::Zstd;
        config.queue.strategy = BackpressureStrategy::Block;
        let engine = open(config);
        let metric = engine.metric("reward", Scale::EnvironmentStep, &[]).unwrap();
        let envs = (0..ENVS).map(|i| engine.env(&format!("e{i}")).unwrap()).collect();
        Self { engine, metric, envs, rl_step: 0 }
    }

    /// One step of every environment.
    fn step(&mut self, values: &[f64]) {
        let call = EnvCall {
            metric: self.metric,
            rl_step: self.rl_step,
            envs: &self.envs,
            per_env: 1,
            episodes: None,
            timestamps: None,
            values: Values::F64(values),
        };
        self.engine.log_env_steps(&call).unwrap().settle(&mut || false).unwrap();
        self.rl_step += 1;
    }
}

#[test]
fn test_a_message_is_filled_though_each_series_has_few_points_in_it() {
    const STEPS: i64 = 2000;
    let folder = common::folder();
    let mut rollout = Rollout::new(folder.path());
    while rollout.rl_step < STEPS {
        rollout.step(&[rollout.rl_step as f64; ENVS]);
    }
    close(&rollout.engine);
    let seen = contents(folder.path(), 1);
    assert_eq!(seen.points.len(), STEPS as usize * ENVS);
    assert!(seen.payload_bytes.iter().all(|bytes| *bytes <= MESSAGE_BYTES - 1024));
    // By what they may become at most, a message has room for a few steps.
    assert!(seen.payload_bytes.len() < STEPS as usize / 10, "{}", seen.payload_bytes.len());
}

#[test]
fn test_no_message_is_too_long_when_values_no_longer_compress_as_before() {
    const STEPS: i64 = 600;
    let folder = common::folder();
    let mut rollout = Rollout::new(folder.path());
    let mut random = 1_u64;
    while rollout.rl_step < STEPS {
        let compresses = rollout.rl_step / 100 % 2 == 0;
        let values: Vec<f64> = (0..ENVS)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if compresses { 1.0 } else { (random >> 11) as f64 }
            })
            .collect();
        rollout.step(&values);
    }
    close(&rollout.engine);
    let seen = contents(folder.path(), 1);
    assert!(seen.payload_bytes.iter().all(|bytes| *bytes <= MESSAGE_BYTES - 1024));
    for env in 0..ENVS {
        let id = format!("e{env}");
        let steps = seen.points.iter().filter(|p| p.env.as_deref() == Some(id.as_str()));
        assert!(steps.map(|point| point.rl_step).eq(0..STEPS), "{id}");
    }
    assert!(seen.problems.is_empty(), "{:?}", seen.problems);
}
