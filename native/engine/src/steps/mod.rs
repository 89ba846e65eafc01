//! Which position each point gets, and whether it lies behind one its writer logged before.
//!
//! A **cursor** is the greatest position of a series or an environment, whoever logged it (cursors
//! of earlier writers are *seeded*); automatic steps go on from it, so they never overwrite. It has
//! the greatest `rl_step`, and the greatest episode with the greatest step inside that. A
//! point is **rewound** if it is not above the greatest position that *this* writer logged for its
//! series: a seed does not count.
//!
//! | scale | automatic position | cursor |
//! |---|---|---|
//! | `ML_STEP`, or any scale without an environment | the series' greatest + 1 | of the metric |
//! | EPISODE of an environment | the (metric, environment)'s greatest episode + 1 | of (metric, environment) |
//! | `ENVIRONMENT_STEP` of an environment | the episode's next step: it starts at 0 when the episode of (metric, environment) changes and goes on across `rl_step`s | of (metric, environment) |
//!
//! The *current episode* of an environment, which steps without an episode belong to, is the last
//! one that steps were logged in, else 0; an EPISODE point of episode k ends every episode up to k.
//!
//! Checking and assigning are apart: a call is checked whole before anything of it is assigned,
//! and assigning cannot fail. The state of a (metric, environment) is 56 bytes in pages that are
//! allocated when the first of their sixteen environments is used.

use crate::calls::{EnvCall, Steps};
use crate::error::InvalidArgument;
use crate::record::BlockSegment;
use crate::types::{
    EnvNo, MAX_ENVIRONMENT_STEP, MAX_EPISODE, MAX_ML_STEP, MAX_RL_STEP, MetricNo, Position, Scale,
    UNUSED,
};

mod episodes;
mod rows;

pub use episodes::Episodes;
use rows::{EnvSeries, EnvSteps, Row, Run, consecutive};

const PAGE_ENVS: usize = 16;

/// State of a metric.
#[derive(Debug)]
struct MetricSteps {
    scale: Scale,
    /// The greatest step of the series without an environment, seeds included; −1: none.
    cursor: i64,
    /// The greatest that this writer logged; −1: none.
    greatest: i64,
    /// By environment number.
    pages: Vec<Option<Box<[EnvSeries; PAGE_ENVS]>>>,
}

impl MetricSteps {
    fn env(&self, no: EnvNo) -> Option<&EnvSeries> {
        let at = no.0 as usize;
        Some(&self.pages.get(at / PAGE_ENVS)?.as_ref()?[at % PAGE_ENVS])
    }

    #[inline]
    fn env_mut(&mut self, no: EnvNo) -> &mut EnvSeries {
        let at = no.0 as usize;
        if !matches!(self.pages.get(at / PAGE_ENVS), Some(Some(_))) {
            self.add_page(at / PAGE_ENVS);
        }
        match &mut self.pages[at / PAGE_ENVS] {
            Some(page) => &mut page[at % PAGE_ENVS],
            None => unreachable!("the page was just added"),
        }
    }
}

impl MetricSteps {
    #[cold]
    fn add_page(&mut self, page: usize) {
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        self.pages[page].get_or_insert_with(|| Box::new([EnvSeries::NEW; PAGE_ENVS]));
    }
}

/// Cursors of everything one writer knows.
#[derive(Debug, Default)]
pub struct StepTable {
    /// Number − 1 is the index.
    metrics: Vec<MetricSteps>,
    envs: Vec<EnvSteps>,
}

/// Where an environment is: what its cursor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvCursor {
    pub rl_step: i64,
    pub episode: i64,
    pub ended_episode: i64,
}

impl StepTable {
    /// A metric got the next number.
    pub fn add_metric(&mut self, scale: Scale) {
        self.metrics.push(MetricSteps {
            scale,
            cursor: UNUSED,
            greatest: UNUSED,
            pages: Vec::new(),
        });
    }

    /// An environment got the next number.
    pub fn add_env(&mut self) {
        self.envs.push(EnvSteps::NEW);
    }

    pub fn metric_count(&self) -> usize {
        self.metrics.len()
    }

    pub fn env_count(&self) -> usize {
        self.envs.len()
    }

    #[inline]
    fn metric(&self, no: MetricNo) -> Result<&MetricSteps, InvalidArgument> {
        self.metrics.get((no.0 as usize).wrapping_sub(1)).ok_or_else(|| unknown_metric(no))
    }

    /// The metric's scale.
    ///
    /// # Errors
    ///
    /// A number that was never given out.
    pub fn scale(&self, no: MetricNo) -> Result<Scale, InvalidArgument> {
        Ok(self.metric(no)?.scale)
    }

    // ── One point without an environment: the hottest path ─────────────────────────────────────

    /// Whether a point may be assigned this step.
    ///
    /// # Errors
    ///
    /// A step outside the scale's range.
    #[inline]
    pub fn check_point(&self, no: MetricNo, step: Option<i64>) -> Result<(), InvalidArgument> {
        let metric = self.metric(no)?;
        let step = step.unwrap_or(metric.cursor + 1);
        if step < 0 || step > greatest_step(metric.scale) {
            return Err(step_out_of_range(metric.scale, step));
        }
        Ok(())
    }

    /// Checks and assigns: the step, and whether it is rewound.
    ///
    /// # Errors
    ///
    /// A step outside the scale's range.
    #[inline]
    pub fn pass_point(
        &mut self,
        no: MetricNo,
        step: Option<i64>,
    ) -> Result<(i64, bool), InvalidArgument> {
        let Some(metric) = self.metrics.get_mut((no.0 as usize).wrapping_sub(1)) else {
            return Err(unknown_metric(no));
        };
        let step = step.unwrap_or(metric.cursor + 1);
        if step < 0 || step > greatest_step(metric.scale) {
            return Err(step_out_of_range(metric.scale, step));
        }
        metric.cursor = metric.cursor.max(step);
        let rewound = step <= metric.greatest;
        metric.greatest = metric.greatest.max(step);
        Ok((step, rewound))
    }

    // ── Series without an environment ──────────────────────────────────────────────────────────

    /// Whether `count` points may be assigned these steps.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn check_series(
        &self,
        no: MetricNo,
        steps: Steps<'_>,
        count: usize,
    ) -> Result<(), InvalidArgument> {
        let metric = self.metric(no)?;
        let most = greatest_step(metric.scale);
        let first = match steps {
            Steps::Each(each) => {
                return match first_outside(each, most) {
                    Some(step) => Err(step_out_of_range(metric.scale, step)),
                    None => Ok(()),
                };
            }
            Steps::From(first) => first,
            Steps::Next => metric.cursor + 1,
        };
        let last = first.saturating_add(count as i64 - 1);
        if first < 0 {
            Err(step_out_of_range(metric.scale, first))
        } else if last > most {
            Err(step_out_of_range(metric.scale, last))
        } else {
            Ok(())
        }
    }

    /// Assigns what [`Self::check_series`] allowed.
    pub fn pass_series(
        &mut self,
        no: MetricNo,
        steps: Steps<'_>,
        count: usize,
        out: &mut Vec<BlockSegment>,
    ) {
        let metric = &mut self.metrics[no.0 as usize - 1];
        match steps {
            Steps::Next => metric.pass_run(metric.cursor + 1, count as i64, out),
            Steps::From(first) => metric.pass_run(first, count as i64, out),
            Steps::Each(each) => {
                let mut rest = each;
                while !rest.is_empty() {
                    let run = consecutive(rest);
                    metric.pass_run(rest[0], run as i64, out);
                    rest = &rest[run..];
                }
            }
        }
    }

    // ── Environments ───────────────────────────────────────────────────────────────────────────

    /// Whether the block, whose [`Episodes::check`] went well, may be assigned.
    ///
    /// # Errors
    ///
    /// An unknown number, an `rl_step` below the last of its (metric, environment), or an
    /// environment that automatic numbers have brought to its end.
    pub fn check_env_call(&self, call: &EnvCall<'_>) -> Result<(), InvalidArgument> {
        let metric = self.metric(call.metric)?;
        let is_episode = metric.scale == Scale::Episode;
        let most = if is_episode { MAX_EPISODE } else { MAX_ENVIRONMENT_STEP };
        let (count, automatic) = (call.per_env as i64, call.episodes.is_none());
        for env in call.envs {
            let Some(steps) = self.envs.get((env.0 as usize).wrapping_sub(1)) else {
                return Err(InvalidArgument::new("env_id", format!("unknown number {env}")));
            };
            let series = metric.env(*env).unwrap_or(&EnvSeries::NEW);
            if call.rl_step < series.rl_step {
                return Err(rl_step_went_back(call.rl_step, series.rl_step));
            }
            let first = if is_episode { series.episode + 1 } else { series.next_step };
            let is_over = |times: usize| {
                first + count * times as i64 - 1 > most && (automatic || !is_episode)
            };
            // An environment may be there several times; they are counted where it can matter.
            let is_over = is_over(call.envs.len())
                && is_over(call.envs.iter().filter(|other| *other == env).count());
            if is_over || (automatic && steps.current > MAX_EPISODE) {
                let message = format!("the environment's numbers end at {most}");
                return Err(InvalidArgument::new("episode", message));
            }
        }
        Ok(())
    }

    /// Assigns what [`Self::check_env_call`] allowed.
    pub fn pass_env_call(
        &mut self,
        call: &EnvCall<'_>,
        episodes: &Episodes<'_>,
        out: &mut Vec<BlockSegment>,
    ) {
        let metric = &mut self.metrics[call.metric.0 as usize - 1];
        let is_episode = metric.scale == Scale::Episode;
        out.reserve(call.envs.len());
        for (at, env) in call.envs.iter().enumerate() {
            let steps = &mut self.envs[env.0 as usize - 1];
            steps.rl_step = steps.rl_step.max(call.rl_step);
            let series = metric.env_mut(*env);
            let mut row = Row { env: *env, rl_step: call.rl_step, series, steps, out };
            let given = episodes.row(at, call.per_env);
            if is_episode {
                row.pass_episodes(given, call.per_env);
            } else {
                row.pass_steps(given, call.per_env);
            }
            // `pass_*` note a greater one only if there is a point above it.
            row.series.rl_step = call.rl_step;
        }
    }

    // ── Cursors ────────────────────────────────────────────────────────────────────────────────

    /// The cursor of a series that other writers logged. `env` is
    /// [`EnvNo::NONE`] for a series without one.
    pub fn seed_series(&mut self, no: MetricNo, env: EnvNo, position: Position) {
        let Some(metric) = self.metrics.get_mut((no.0 as usize).wrapping_sub(1)) else { return };
        if env == EnvNo::NONE {
            let step =
                if metric.scale == Scale::Episode { position.episode } else { position.step };
            metric.cursor = metric.cursor.max(step);
            return;
        }
        let is_episode = metric.scale == Scale::Episode;
        let series = metric.env_mut(env);
        if is_episode {
            series.episode = series.episode.max(position.episode);
        } else if series.rl_step == UNUSED
            && (position.episode, position.step + 1) > (series.episode, series.next_step)
        {
            // An own point that came before the seed has begun a numbering that must go on.
            (series.episode, series.next_step) = (position.episode, position.step + 1);
        }
    }

    /// Where other writers left an environment.
    pub fn seed_env(&mut self, env: EnvNo, cursor: EnvCursor) {
        let Some(steps) = self.envs.get_mut((env.0 as usize).wrapping_sub(1)) else { return };
        steps.rl_step = steps.rl_step.max(cursor.rl_step);
        steps.episode = steps.episode.max(cursor.episode);
        steps.current = steps.current.max(cursor.episode);
        if cursor.ended_episode > UNUSED {
            steps.end(cursor.ended_episode);
        }
    }

    /// The greatest step of a metric, over its environments; `None`: there is none.
    pub fn last_step(&self, no: MetricNo) -> Option<i64> {
        let metric = self.metric(no).ok()?;
        let of_env = |series: &EnvSeries| match metric.scale {
            Scale::Episode => series.episode,
            _ => series.next_step - 1,
        };
        let envs = metric.pages.iter().flatten().flat_map(|page| page.iter().map(of_env));
        envs.chain([metric.cursor]).max().filter(|step| *step > UNUSED)
    }

    /// Where an environment is.
    pub fn env_cursor(&self, env: EnvNo) -> Option<EnvCursor> {
        let steps = self.envs.get((env.0 as usize).checked_sub(1)?)?;
        let EnvSteps { rl_step, episode, ended, .. } = *steps;
        Some(EnvCursor { rl_step, episode, ended_episode: ended })
    }

    /// The cursor of each series that this writer logged to.
    pub fn own_series(&self) -> impl Iterator<Item = (MetricNo, EnvNo, Position)> + '_ {
        (1_u32..).zip(&self.metrics).flat_map(|(no, metric)| {
            let no = MetricNo(no);
            let alone = (metric.greatest > UNUSED)
                .then(|| (no, EnvNo::NONE, without_env(metric.scale, metric.greatest)));
            let envs = (0_u32..).zip(&metric.pages).flat_map(move |(at, page)| {
                page.iter().flat_map(move |page| {
                    (at * PAGE_ENVS as u32..).zip(page.iter()).filter_map(move |(env, series)| {
                        let position = own_position(metric.scale, series)?;
                        Some((no, EnvNo(env), position))
                    })
                })
            });
            alone.into_iter().chain(envs)
        })
    }

    /// Each environment that this writer logged to.
    pub fn own_envs(&self) -> impl Iterator<Item = (EnvNo, EnvCursor)> + '_ {
        let mut is_own = vec![false; self.envs.len()];
        for (_, env, _) in self.own_series().filter(|(_, env, _)| *env != EnvNo::NONE) {
            is_own[env.0 as usize - 1] = true;
        }
        let envs = (1_u32..).zip(&self.envs).zip(is_own).filter(|(_, is_own)| *is_own);
        envs.map(|((no, steps), _)| {
            let EnvSteps { rl_step, episode, ended, .. } = *steps;
            (EnvNo(no), EnvCursor { rl_step, episode, ended_episode: ended })
        })
    }
}

impl MetricSteps {
    fn pass_run(&mut self, first: i64, count: i64, out: &mut Vec<BlockSegment>) {
        let rewound = (self.greatest - first + 1).clamp(0, count);
        let last = first + count - 1;
        self.greatest = self.greatest.max(last);
        self.cursor = self.cursor.max(last);
        let Position { episode, step, .. } = without_env(self.scale, first);
        let episode_grows = self.scale == Scale::Episode;
        Run { env: EnvNo::NONE, episode, step, episode_grows }.emit(count, rewound, out);
    }
}

fn greatest_step(scale: Scale) -> i64 {
    match scale {
        Scale::MlStep => MAX_ML_STEP,
        Scale::Episode => MAX_EPISODE,
        Scale::EnvironmentStep => MAX_ENVIRONMENT_STEP,
    }
}

/// The position of a point without an environment.
fn without_env(scale: Scale, step: i64) -> Position {
    match scale {
        Scale::Episode => Position { episode: step, ..Position::NONE },
        Scale::MlStep | Scale::EnvironmentStep => Position { step, ..Position::NONE },
    }
}

fn own_position(scale: Scale, series: &EnvSeries) -> Option<Position> {
    (series.rl_step > UNUSED).then_some(match scale {
        // The cursor of episodes is the greatest number, whatever its `rl_step`.
        Scale::Episode => {
            Position { rl_step: series.rl_step, episode: series.episode, step: UNUSED }
        }
        // Likewise: the greatest step inside the greatest episode.
        Scale::MlStep | Scale::EnvironmentStep => {
            let (episode, step) = series.furthest_step();
            Position { rl_step: series.rl_step, episode, step }
        }
    })
}

/// The first item that is not 0 to `most`.
fn first_outside(items: &[i64], most: i64) -> Option<i64> {
    // Without a branch an item: the sign bit says it for all of them.
    if items.iter().fold(0, |bits, item| bits | item | most.wrapping_sub(*item)) >= 0 {
        return None;
    }
    items.iter().copied().find(|item| *item < 0 || *item > most)
}

#[cold]
fn unknown_metric(no: MetricNo) -> InvalidArgument {
    InvalidArgument::new("metric_name", format!("unknown number {no}"))
}

fn step_out_of_range(scale: Scale, step: i64) -> InvalidArgument {
    let message = format!("{step}; a {} step is 0 to {}", scale.name(), greatest_step(scale));
    InvalidArgument::new("step", message)
}

fn rl_step_went_back(rl_step: i64, last: i64) -> InvalidArgument {
    let message = format!(
        "{rl_step} is below {last}, the last one logged for this metric and environment: it may not go back"
    );
    InvalidArgument::new("rl_step", message)
}

fn check_rl_step(rl_step: i64) -> Result<(), InvalidArgument> {
    if (0..=MAX_RL_STEP).contains(&rl_step) {
        return Ok(());
    }
    Err(InvalidArgument::new("rl_step", format!("{rl_step}; 0 to {MAX_RL_STEP}")))
}
