//! Which position each point gets, and whether it lies behind one its writer logged before.
//!
//! A **cursor** is the greatest position of a series or an environment, whoever logged it (cursors
//! of earlier writers are *seeded*); automatic steps go on from it, so they never overwrite. A
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
//! and assigning cannot fail. The state of a (metric, environment) is 40 bytes in pages that are
//! allocated when the first of their sixteen environments is used.

use crate::calls::{EnvCall, Spread, Steps};
use crate::error::InvalidArgument;
use crate::record::{BlockSegment, MAX_SEGMENT_POINTS};
use crate::types::{
    EnvNo, MAX_ENVIRONMENT_STEP, MAX_EPISODE, MAX_ML_STEP, MAX_RL_STEP, MetricNo, Position, Scale,
    UNUSED,
};

const PAGE_ENVS: usize = 16;

/// Where a (metric, environment) has got to.
#[derive(Clone, Copy, Debug)]
struct EnvSeries {
    /// This writer's last, which is its greatest too: it may not go back. −1: only seeded.
    rl_step: i64,
    /// `ENVIRONMENT_STEP`: the episode of the last step. EPISODE: the greatest. −1: none.
    episode: i64,
    /// `ENVIRONMENT_STEP`: the next step of `episode`.
    next_step: i64,
    /// Of this writer's greatest position, whose `rl_step` is the one above.
    greatest_episode: i64,
    greatest_step: i64,
}

impl EnvSeries {
    const NEW: Self = Self {
        rl_step: UNUSED,
        episode: UNUSED,
        next_step: 0,
        greatest_episode: UNUSED,
        greatest_step: UNUSED,
    };

    /// How many of `count` points from (`rl_step`, `episode`, `step`) on are rewound, `episode`
    /// being the coordinate that grows. Notes the greatest.
    fn pass_episodes(&mut self, rl_step: i64, first: i64, count: i64) -> i64 {
        if rl_step > self.rl_step {
            (self.rl_step, self.greatest_episode) = (rl_step, UNUSED);
        }
        let rewound = (self.greatest_episode - first + 1).clamp(0, count);
        self.greatest_episode = self.greatest_episode.max(first + count - 1);
        rewound
    }

    /// The same with `step` growing.
    #[inline]
    fn pass_steps(&mut self, rl_step: i64, episode: i64, first: i64, count: i64) -> i64 {
        let last = first + count - 1;
        if rl_step > self.rl_step || episode > self.greatest_episode {
            self.rl_step = rl_step;
            (self.greatest_episode, self.greatest_step) = (episode, last);
            return 0;
        }
        if episode < self.greatest_episode {
            return count;
        }
        let rewound = (self.greatest_step - first + 1).clamp(0, count);
        self.greatest_step = self.greatest_step.max(last);
        rewound
    }
}

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

/// Where an environment has got to, over all metrics.
#[derive(Clone, Copy, Debug)]
struct EnvSteps {
    rl_step: i64,
    episode: i64,
    /// What steps without an episode belong to.
    current: i64,
    /// The greatest episode with an EPISODE point.
    ended: i64,
}

impl EnvSteps {
    const NEW: Self = Self { rl_step: UNUSED, episode: UNUSED, current: 0, ended: UNUSED };

    fn end(&mut self, episode: i64) {
        self.ended = self.ended.max(episode);
        self.current = self.current.max(episode + 1);
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

    fn metric(&self, no: MetricNo) -> Result<&MetricSteps, InvalidArgument> {
        self.metrics
            .get((no.0 as usize).wrapping_sub(1))
            .ok_or_else(|| InvalidArgument::new("metric_name", format!("unknown number {no}")))
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
            return Err(InvalidArgument::new("metric_name", format!("unknown number {no}")));
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

    /// Whether the block, whose [`check_ranges`] went well, may be assigned.
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
            let is_over = first + count - 1 > most && (automatic || !is_episode);
            if is_over || (automatic && steps.current > MAX_EPISODE) {
                let message = format!("the environment's numbers end at {most}");
                return Err(InvalidArgument::new("episode", message));
            }
        }
        Ok(())
    }

    /// Assigns what [`Self::check_env_call`] allowed.
    pub fn pass_env_call(&mut self, call: &EnvCall<'_>, out: &mut Vec<BlockSegment>) {
        let metric = &mut self.metrics[call.metric.0 as usize - 1];
        let is_episode = metric.scale == Scale::Episode;
        out.reserve(call.envs.len());
        for (at, env) in call.envs.iter().enumerate() {
            let steps = &mut self.envs[env.0 as usize - 1];
            steps.rl_step = steps.rl_step.max(call.rl_step);
            let series = metric.env_mut(*env);
            let mut row = Row { env: *env, rl_step: call.rl_step, series, steps, out };
            let given = RowEpisodes::of(call, at);
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

    /// The greatest position of a series that another writer logged. `env` is
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

    /// The greatest position of each series that this writer logged to.
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

/// The episodes given for a row of a block.
#[derive(Clone, Copy)]
enum RowEpisodes<'a> {
    Automatic,
    First(i64),
    Each(&'a [i64]),
}

impl<'a> RowEpisodes<'a> {
    fn of(call: &EnvCall<'a>, row: usize) -> Self {
        match call.episodes {
            None => Self::Automatic,
            Some(Spread::All(episode)) => Self::First(episode),
            Some(Spread::PerEnv(each)) => Self::First(each[row]),
            Some(Spread::Each(each)) => Self::Each(&each[row * call.per_env..][..call.per_env]),
        }
    }
}

/// One environment's points of a call.
struct Row<'a> {
    env: EnvNo,
    rl_step: i64,
    series: &'a mut EnvSeries,
    steps: &'a mut EnvSteps,
    out: &'a mut Vec<BlockSegment>,
}

impl Row<'_> {
    fn pass_episodes(&mut self, given: RowEpisodes<'_>, count: usize) {
        match given {
            RowEpisodes::Automatic => self.episode_run(self.series.episode + 1, count),
            RowEpisodes::First(first) => self.episode_run(first, count),
            RowEpisodes::Each(mut rest) => {
                while !rest.is_empty() {
                    let run = consecutive(rest);
                    self.episode_run(rest[0], run);
                    rest = &rest[run..];
                }
            }
        }
    }

    #[inline]
    fn episode_run(&mut self, first: i64, count: usize) {
        let count = count as i64;
        let last = first + count - 1;
        let rewound = self.series.pass_episodes(self.rl_step, first, count);
        self.series.episode = self.series.episode.max(last);
        self.steps.episode = self.steps.episode.max(last);
        self.steps.end(last);
        let run = Run { env: self.env, episode: first, step: UNUSED, episode_grows: true };
        run.emit(count, rewound, self.out);
    }

    #[inline]
    fn pass_steps(&mut self, given: RowEpisodes<'_>, count: usize) {
        match given {
            RowEpisodes::Automatic => self.step_run(self.steps.current, count),
            RowEpisodes::First(episode) => self.step_run(episode, count),
            RowEpisodes::Each(mut rest) => {
                while !rest.is_empty() {
                    let run = equal(rest);
                    self.step_run(rest[0], run);
                    rest = &rest[run..];
                }
            }
        }
    }

    #[inline]
    fn step_run(&mut self, episode: i64, count: usize) {
        let count = count as i64;
        let first = if self.series.episode == episode { self.series.next_step } else { 0 };
        let rewound = self.series.pass_steps(self.rl_step, episode, first, count);
        (self.series.episode, self.series.next_step) = (episode, first + count);
        self.steps.episode = self.steps.episode.max(episode);
        self.steps.current = episode;
        let run = Run { env: self.env, episode, step: first, episode_grows: false };
        run.emit(count, rewound, self.out);
    }
}

/// Consecutive points, where the next of them lies.
struct Run {
    env: EnvNo,
    episode: i64,
    step: i64,
    episode_grows: bool,
}

impl Run {
    /// Splits exactly where points stop being rewound.
    #[inline]
    fn emit(self, count: i64, rewound: i64, out: &mut Vec<BlockSegment>) {
        if rewound == 0 && count <= MAX_SEGMENT_POINTS as i64 {
            out.push(BlockSegment::new(self.env, count as u32, false, self.episode, self.step));
        } else {
            self.emit_parts(count, rewound, out);
        }
    }

    #[cold]
    fn emit_parts(mut self, count: i64, rewound: i64, out: &mut Vec<BlockSegment>) {
        self.emit_part(rewound, true, out);
        self.emit_part(count - rewound, false, out);
    }

    fn emit_part(&mut self, mut count: i64, rewound: bool, out: &mut Vec<BlockSegment>) {
        while count > 0 {
            let part = count.min(MAX_SEGMENT_POINTS as i64);
            out.push(BlockSegment::new(self.env, part as u32, rewound, self.episode, self.step));
            if self.episode_grows {
                self.episode += part;
            } else {
                self.step += part;
            }
            count -= part;
        }
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
        Scale::MlStep | Scale::EnvironmentStep => Position {
            rl_step: series.rl_step,
            episode: series.greatest_episode,
            step: series.greatest_step,
        },
    })
}

/// How many items from the first on grow by one each.
fn consecutive(items: &[i64]) -> usize {
    1 + items.windows(2).take_while(|pair| pair[1] == pair[0].wrapping_add(1)).count()
}

/// How many items from the first on are the same. Whole chunks are compared without a branch an
/// item, because a row nearly always is one episode.
fn equal(items: &[i64]) -> usize {
    const CHUNK: usize = 16;
    let first = items[0];
    let chunks = items
        .chunks_exact(CHUNK)
        .take_while(|chunk| chunk.iter().fold(0, |bits, item| bits | (item ^ first)) == 0)
        .count();
    let rest = &items[chunks * CHUNK..];
    chunks * CHUNK + rest.iter().take_while(|item| **item == first).count()
}

/// The first item that is not 0 to `most`.
fn first_outside(items: &[i64], most: i64) -> Option<i64> {
    // Without a branch an item: the sign bit says it for all of them.
    if items.iter().fold(0, |bits, item| bits | item | most.wrapping_sub(*item)) >= 0 {
        return None;
    }
    items.iter().copied().find(|item| *item < 0 || *item > most)
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

/// Checks of a block that need no state, so that they are made outside the lock.
///
/// # Errors
///
/// An `rl_step` or an episode outside its range.
pub fn check_ranges(call: &EnvCall<'_>, scale: Scale) -> Result<(), InvalidArgument> {
    check_rl_step(call.rl_step)?;
    // The greatest that the first of a row may be.
    let most = match scale {
        Scale::Episode => MAX_EPISODE - (call.per_env as i64).max(1) + 1,
        Scale::MlStep | Scale::EnvironmentStep => MAX_EPISODE,
    };
    let outside = match call.episodes {
        None => None,
        Some(Spread::All(episode)) => first_outside(&[episode], most),
        Some(Spread::PerEnv(each)) => first_outside(each, most),
        Some(Spread::Each(each)) => first_outside(each, MAX_EPISODE),
    };
    match outside {
        None => Ok(()),
        Some(episode) => {
            Err(InvalidArgument::new("episode", format!("{episode}; 0 to {MAX_EPISODE}")))
        }
    }
}
