//! Mode `disabled`: every call is checked as the engine would check it, and nothing else happens.

use metrana_engine::calls::{EnvCall, Point, SeriesCall, Steps, Values};
use metrana_engine::error::InvalidArgument;
use metrana_engine::record::BlockSegment;
use metrana_engine::series::Registry;
use metrana_engine::steps::{Episodes, StepTable};
use metrana_engine::sync::Mutex;
use metrana_engine::types::{EnvNo, MetricNo, Scale};

/// The names and positions of a run that is logged nowhere.
#[derive(Default)]
pub struct Checker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    registry: Registry,
    steps: StepTable,
    segments: Vec<BlockSegment>,
}

impl Checker {
    pub fn metric(
        &self,
        name: &str,
        scale: Scale,
        labels: &[(&str, &str)],
    ) -> Result<MetricNo, InvalidArgument> {
        let State { registry, steps, .. } = &mut *self.state.lock();
        let number = registry.metric(name, scale, labels)?;
        if number.0 as usize > steps.metric_count() {
            steps.add_metric(scale);
        }
        Ok(number)
    }

    pub fn env(&self, env_id: &str) -> Result<EnvNo, InvalidArgument> {
        let State { registry, steps, .. } = &mut *self.state.lock();
        let number = registry.env(env_id)?;
        if number.0 as usize > steps.env_count() {
            steps.add_env();
        }
        Ok(number)
    }

    pub fn points(&self, points: &[Point]) -> Result<(), InvalidArgument> {
        let State { steps, .. } = &mut *self.state.lock();
        for point in points {
            steps.check_series(point.metric, point.step.map_or(Steps::Next, Steps::From), 1)?;
        }
        points.iter().try_for_each(|point| steps.pass_point(point.metric, point.step).map(drop))
    }

    pub fn series(&self, calls: &[SeriesCall<'_>]) -> Result<(), InvalidArgument> {
        let State { steps, segments, .. } = &mut *self.state.lock();
        let calls = || calls.iter().filter(|call| count(&call.values) > 0);
        for call in calls() {
            steps.check_series(call.metric, call.steps, count(&call.values))?;
        }
        for call in calls() {
            segments.clear();
            steps.pass_series(call.metric, call.steps, count(&call.values), segments);
        }
        Ok(())
    }

    pub fn env_call(&self, call: &EnvCall<'_>, scale: Scale) -> Result<(), InvalidArgument> {
        let episodes = Episodes::check(call, scale)?;
        let State { steps, segments, .. } = &mut *self.state.lock();
        if count(&call.values) > 0 {
            steps.check_env_call(call)?;
            segments.clear();
            steps.pass_env_call(call, &episodes, segments);
        }
        Ok(())
    }

    pub fn last_step(&self, metric: MetricNo) -> Option<i64> {
        self.state.lock().steps.last_step(metric)
    }

    pub fn env_cursor(&self, env: EnvNo) -> (Option<i64>, Option<i64>) {
        let cursor = self.state.lock().steps.env_cursor(env);
        let used = |coordinate: i64| (coordinate >= 0).then_some(coordinate);
        cursor.map_or((None, None), |cursor| (used(cursor.rl_step), used(cursor.episode)))
    }
}

fn count(values: &Values<'_>) -> usize {
    match values {
        Values::F32(values) => values.len(),
        Values::F64(values) => values.len(),
    }
}
