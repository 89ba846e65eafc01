//! What a logging call hands to the engine: numbers and borrowed slices, names already resolved.

pub use crate::batch::Values;
use crate::types::{EnvNo, MetricNo};

/// One scalar for `log` or `log_distributed`.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub metric: MetricNo,
    /// `None`: the series' next.
    pub step: Option<i64>,
    /// Unix milliseconds; `None`: now.
    pub timestamp_ms: Option<i64>,
    pub value: f64,
    /// Logged by `log_distributed`: the step must be given.
    pub distributed: bool,
}

/// Steps of a [`SeriesCall`].
#[derive(Clone, Copy, Debug)]
pub enum Steps<'a> {
    /// The series' next ones.
    Next,
    /// The first point's; the others go on from it.
    From(i64),
    /// One per point.
    Each(&'a [i64]),
}

/// A scalar or `[T]` for `log` or `log_distributed`.
#[derive(Clone, Copy, Debug)]
pub struct SeriesCall<'a> {
    pub metric: MetricNo,
    pub steps: Steps<'a>,
    /// Unix milliseconds; `None`: now. Never [`Spread::PerEnv`].
    pub timestamps: Option<Spread<'a>>,
    pub values: Values<'a>,
    /// Logged by `log_distributed`: steps must be given.
    pub distributed: bool,
}

/// A number for every point of a call, broadcast as far as it was given.
#[derive(Clone, Copy, Debug)]
pub enum Spread<'a> {
    /// One for all.
    All(i64),
    /// Shape `(num_envs,)`.
    PerEnv(&'a [i64]),
    /// Shape of the values, row-major.
    Each(&'a [i64]),
}

/// A block of an RL metric for `log_episodes` or `log_env_steps`: shape `(num_envs, per_env)`,
/// row-major. A scalar is (1, 1), `[T]` of one environment (1, T), `[M]` of a list (M, 1).
#[derive(Clone, Copy, Debug)]
pub struct EnvCall<'a> {
    pub metric: MetricNo,
    pub rl_step: i64,
    pub envs: &'a [EnvNo],
    /// Points of each environment.
    pub per_env: usize,
    /// `log_env_steps`: the episode of each point; `None`: the environment's current one.
    /// `log_episodes`: `All` and `PerEnv` give the first, the row's others follow; `None`: the next.
    pub episodes: Option<Spread<'a>>,
    /// Unix milliseconds; `None`: now.
    pub timestamps: Option<Spread<'a>>,
    pub values: Values<'a>,
}
