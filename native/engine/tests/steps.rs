//! Step assignment against a model that logs one point at a time.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::HashMap;

use metrana_engine::calls::{EnvCall, Spread, Steps, Values};
use metrana_engine::record::BlockSegment;
use metrana_engine::steps::{EnvCursor, Episodes, StepTable};
use metrana_engine::types::{
    EnvNo, MAX_ENVIRONMENT_STEP, MAX_EPISODE, MetricNo, Position, Scale, UNUSED,
};
use proptest::prelude::*;
use proptest::sample::subsequence;

/// A metric of each kind that a call may name.
const LOSS: MetricNo = MetricNo(1);
const RETURN: MetricNo = MetricNo(2);
const REWARD: MetricNo = MetricNo(3);
const SECOND_REWARD: MetricNo = MetricNo(4);
const ENVS: u32 = 20;

fn table() -> StepTable {
    let mut table = StepTable::default();
    for scale in [Scale::MlStep, Scale::Episode, Scale::EnvironmentStep, Scale::EnvironmentStep] {
        table.add_metric(scale);
    }
    (0..ENVS).for_each(|_| table.add_env());
    table
}

/// Checked as the engine does it before it assigns.
fn episodes<'a>(call: &EnvCall<'a>) -> Episodes<'a> {
    let scale = if call.metric == RETURN { Scale::Episode } else { Scale::EnvironmentStep };
    Episodes::check(call, scale).unwrap()
}

/// A point and whether it is rewound.
type Placed = (EnvNo, Position, bool);

/// What the contract says, in the plainest form.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Greatest step or episode of a series, whoever logged it.
    cursor: HashMap<(MetricNo, EnvNo), i64>,
    /// Greatest position of a series that this writer logged.
    greatest: HashMap<(MetricNo, EnvNo), Position>,
    /// Greatest `rl_step` of a series, and the last step of its greatest episode.
    reached: HashMap<(MetricNo, EnvNo), (i64, (i64, i64))>,
    /// Episode and next step of an environment's series of steps.
    running: HashMap<(MetricNo, EnvNo), (i64, i64)>,
    current: HashMap<EnvNo, i64>,
    rl_step: HashMap<(MetricNo, EnvNo), i64>,
}

impl Model {
    fn place(&mut self, metric: MetricNo, env: EnvNo, position: Position) -> Placed {
        let greatest = self.greatest.entry((metric, env)).or_insert(Position::NONE);
        let rewound = position <= *greatest;
        *greatest = position.max(*greatest);
        let none = (UNUSED, (UNUSED, UNUSED));
        let (rl_step, last) = self.reached.entry((metric, env)).or_insert(none);
        *rl_step = position.rl_step.max(*rl_step);
        *last = (position.episode, position.step).max(*last);
        (env, position, rewound)
    }

    fn number(&mut self, metric: MetricNo, env: EnvNo, given: Option<i64>) -> i64 {
        let cursor = self.cursor.entry((metric, env)).or_insert(UNUSED);
        let number = given.unwrap_or(*cursor + 1);
        *cursor = number.max(*cursor);
        number
    }

    fn ml_point(&mut self, metric: MetricNo, step: Option<i64>) -> Placed {
        let step = self.number(metric, EnvNo::NONE, step);
        let position = if metric == RETURN {
            Position { episode: step, ..Position::NONE }
        } else {
            Position { step, ..Position::NONE }
        };
        self.place(metric, EnvNo::NONE, position)
    }

    fn episode_point(&mut self, env: EnvNo, rl_step: i64, episode: Option<i64>) -> Placed {
        let episode = self.number(RETURN, env, episode);
        let current = self.current.entry(env).or_insert(0);
        *current = (episode + 1).max(*current);
        self.rl_step.insert((RETURN, env), rl_step);
        self.place(RETURN, env, Position { rl_step, episode, step: UNUSED })
    }

    fn step_point(
        &mut self,
        metric: MetricNo,
        env: EnvNo,
        rl_step: i64,
        episode: Option<i64>,
    ) -> Placed {
        let current = self.current.entry(env).or_insert(0);
        let episode = episode.unwrap_or(*current);
        *current = episode;
        let running = self.running.entry((metric, env)).or_insert((episode, 0));
        if running.0 != episode {
            *running = (episode, 0);
        }
        let step = running.1;
        running.1 += 1;
        self.rl_step.insert((metric, env), rl_step);
        self.place(metric, env, Position { rl_step, episode, step })
    }

    fn allows(&self, call: &Call) -> bool {
        call.envs.iter().all(|env| {
            self.rl_step.get(&(call.metric, *env)).is_none_or(|last| call.rl_step >= *last)
        })
    }

    fn env_call(&mut self, call: &Call) -> Vec<Placed> {
        let mut placed = Vec::new();
        for (row, env) in call.envs.iter().enumerate() {
            for column in 0..call.per_env {
                let given = match &call.episodes {
                    Form::Automatic => None,
                    Form::All(episode) => Some(*episode),
                    Form::PerEnv(each) => Some(each[row]),
                    Form::Each(each) => Some(each[row * call.per_env + column]),
                };
                placed.push(if call.metric == RETURN {
                    // The first is given, the others of the row follow it.
                    let follows = match &call.episodes {
                        Form::Automatic | Form::Each(_) => 0,
                        Form::All(_) | Form::PerEnv(_) => column as i64,
                    };
                    self.episode_point(*env, call.rl_step, given.map(|first| first + follows))
                } else {
                    self.step_point(call.metric, *env, call.rl_step, given)
                });
            }
        }
        placed
    }
}

#[derive(Clone, Debug)]
enum Form {
    Automatic,
    All(i64),
    PerEnv(Vec<i64>),
    Each(Vec<i64>),
}

#[derive(Clone, Debug)]
struct Call {
    metric: MetricNo,
    rl_step: i64,
    envs: Vec<EnvNo>,
    per_env: usize,
    episodes: Form,
}

#[derive(Clone, Debug)]
enum Operation {
    Series { metric: MetricNo, count: usize, steps: Form },
    Env(Call),
}

/// Few numbers, so that positions repeat.
fn number() -> impl Strategy<Value = i64> {
    0..5_i64
}

/// Runs of the same and of consecutive numbers are what calls are made of.
fn numbers(count: usize) -> impl Strategy<Value = Vec<i64>> {
    let steps = prop_oneof![Just(0), Just(1), -3..4_i64];
    (number(), proptest::collection::vec(steps, count)).prop_map(|(first, steps)| {
        let mut at = first;
        steps
            .into_iter()
            .map(|step| {
                at = (at + step).max(0);
                at
            })
            .collect()
    })
}

fn series() -> impl Strategy<Value = Operation> {
    (prop_oneof![Just(LOSS), Just(RETURN)], 1..40_usize).prop_flat_map(|(metric, count)| {
        let steps = prop_oneof![
            Just(Form::Automatic),
            number().prop_map(Form::All),
            numbers(count).prop_map(Form::Each)
        ];
        steps.prop_map(move |steps| Operation::Series { metric, count, steps })
    })
}

fn env_call() -> impl Strategy<Value = Operation> {
    let metric = prop_oneof![Just(RETURN), Just(REWARD), Just(SECOND_REWARD)];
    // An environment may be named twice in a call.
    let once = subsequence((1..=ENVS).map(EnvNo).collect::<Vec<_>>(), 1..6);
    let twice = proptest::collection::vec((1..4_u32).prop_map(EnvNo), 1..5);
    (metric, prop_oneof![once, twice], 1..40_usize, 0..4_i64).prop_flat_map(
        |(metric, envs, per_env, rl_step)| {
            let episodes = prop_oneof![
                Just(Form::Automatic),
                number().prop_map(Form::All),
                numbers(envs.len()).prop_map(Form::PerEnv),
                numbers(envs.len() * per_env).prop_map(Form::Each)
            ];
            episodes.prop_map(move |episodes| {
                let envs = envs.clone();
                Operation::Env(Call { metric, rl_step, envs, per_env, episodes })
            })
        },
    )
}

fn expand(metric: MetricNo, rl_step: i64, segments: &[BlockSegment]) -> Vec<Placed> {
    let mut placed = Vec::new();
    for segment in segments {
        for i in 0..i64::from(segment.count()) {
            let (episode, step) = if metric == RETURN {
                (segment.episode + i, segment.step)
            } else {
                (segment.episode, segment.step + i)
            };
            placed.push((segment.env(), Position { rl_step, episode, step }, segment.rewound()));
        }
    }
    placed
}

fn run(table: &mut StepTable, model: &mut Model, operation: &Operation) {
    let mut segments = Vec::new();
    match operation {
        Operation::Series { metric, count, steps } => {
            let given = match steps {
                Form::Automatic | Form::PerEnv(_) => Steps::Next,
                Form::All(first) => Steps::From(*first),
                Form::Each(each) => Steps::Each(each),
            };
            table.check_series(*metric, given, *count).unwrap();
            table.pass_series(*metric, given, *count, &mut segments);
            let expected: Vec<_> = (0..*count)
                .map(|i| {
                    let step = match steps {
                        Form::Automatic | Form::PerEnv(_) => None,
                        Form::All(first) => Some(first + i as i64),
                        Form::Each(each) => Some(each[i]),
                    };
                    model.ml_point(*metric, step)
                })
                .collect();
            assert_eq!(expand(*metric, UNUSED, &segments), expected);
            assert_eq!(table.last_step(*metric), model_last_step(model, *metric));
        }
        Operation::Env(call) => {
            let values = vec![0.0; call.envs.len() * call.per_env];
            let given = EnvCall {
                metric: call.metric,
                rl_step: call.rl_step,
                envs: &call.envs,
                per_env: call.per_env,
                episodes: match &call.episodes {
                    Form::Automatic => None,
                    Form::All(episode) => Some(Spread::All(*episode)),
                    Form::PerEnv(each) => Some(Spread::PerEnv(each)),
                    Form::Each(each) => Some(Spread::Each(each)),
                },
                timestamps: None,
                values: Values::F64(&values),
            };
            let allowed = table.check_env_call(&given);
            assert_eq!(allowed.is_ok(), model.allows(call), "{allowed:?}");
            if allowed.is_ok() {
                table.pass_env_call(&given, &episodes(&given), &mut segments);
                let placed = expand(call.metric, call.rl_step, &segments);
                assert_eq!(placed, model.env_call(call));
            }
        }
    }
}

fn model_last_step(model: &Model, metric: MetricNo) -> Option<i64> {
    let numbers = model.cursor.iter().filter(|((found, _), _)| *found == metric);
    numbers.map(|(_, number)| *number).max()
}

proptest! {
    #[test]
    fn test_every_form_equals_a_loop_of_single_points(
        operations in proptest::collection::vec(prop_oneof![series(), env_call()], 1..60)
    ) {
        let (mut table, mut model) = (table(), Model::default());
        for operation in &operations {
            run(&mut table, &mut model, operation);
        }
        let mut own: Vec<_> = table.own_series().collect();
        own.sort_unstable();
        let mut expected: Vec<_> = model
            .reached
            .iter()
            .map(|(&(metric, env), &(rl_step, (episode, step)))| {
                (metric, env, Position { rl_step, episode, step })
            })
            .collect();
        expected.sort_unstable();
        prop_assert_eq!(own, expected);
    }
}

#[test]
fn test_steps_go_on_in_the_middle_of_an_episode_that_another_writer_began() {
    let mut table = table();
    let env = EnvNo(3);
    table.seed_series(REWARD, env, Position { rl_step: 90, episode: 7, step: 11 });
    table.seed_env(env, EnvCursor { rl_step: 90, episode: 7, ended_episode: 6 });
    let values = [0.0; 2];
    let mut segments = Vec::new();
    // Below the seed's rl_step: a resumed process may go back.
    let call = EnvCall {
        metric: REWARD,
        rl_step: 80,
        envs: &[env],
        per_env: 2,
        episodes: None,
        timestamps: None,
        values: Values::F64(&values),
    };
    table.check_env_call(&call).unwrap();
    table.pass_env_call(&call, &episodes(&call), &mut segments);
    assert_eq!(segments, [BlockSegment::new(env, 2, false, 7, 12)]);
    segments.clear();
    let other = EnvCall { metric: SECOND_REWARD, ..call };
    table.pass_env_call(&other, &episodes(&other), &mut segments);
    assert_eq!(segments, [BlockSegment::new(env, 2, false, 7, 0)]);
}

#[test]
fn test_an_episode_point_ends_the_episodes_up_to_it_and_no_later_one() {
    let mut table = table();
    let env = EnvNo(1);
    let call = |metric, episodes, rl_step| EnvCall {
        metric,
        rl_step,
        envs: &[EnvNo(1)],
        per_env: 1,
        episodes,
        timestamps: None,
        values: Values::F64(&[0.0]),
    };
    let mut episode_of = |metric, given| {
        let mut segments = Vec::new();
        let call = call(metric, given, 1);
        table.pass_env_call(&call, &episodes(&call), &mut segments);
        (segments[0].env() == env).then_some(segments[0].episode).unwrap()
    };
    assert_eq!(episode_of(REWARD, None), 0);
    assert_eq!(episode_of(RETURN, None), 0);
    assert_eq!(episode_of(REWARD, None), 1);
    assert_eq!(episode_of(REWARD, Some(Spread::All(7))), 7);
    assert_eq!(episode_of(RETURN, Some(Spread::All(3))), 3);
    assert_eq!(episode_of(REWARD, None), 7);
    assert_eq!(episode_of(RETURN, Some(Spread::All(7))), 7);
    assert_eq!(episode_of(REWARD, None), 8);
}

#[test]
fn test_a_seed_that_comes_late_raises_cursors_and_leaves_what_was_begun() {
    let mut table = table();
    assert_eq!(table.pass_point(LOSS, None), Ok((0, false)));
    table.seed_series(LOSS, EnvNo::NONE, Position { step: 99, ..Position::NONE });
    assert_eq!(table.pass_point(LOSS, None), Ok((100, false)));
    // Not above the seed, but above all that this writer logged.
    assert_eq!(table.pass_point(LOSS, Some(101)), Ok((101, false)));
    assert_eq!(table.pass_point(LOSS, Some(50)), Ok((50, true)));
}

#[test]
fn test_a_step_outside_its_range_is_refused_with_the_range() {
    let mut table = table();
    for step in [-1, i64::MIN, 1 << 53, i64::MAX] {
        let error = table.pass_point(LOSS, Some(step)).unwrap_err();
        assert_eq!(error.argument, "step");
        assert!(error.message.contains("9007199254740991"), "{error}");
        assert!(table.check_series(LOSS, Steps::Each(&[0, step]), 2).is_err());
        assert!(table.check_series(LOSS, Steps::From(step), 2).is_err());
    }
    assert!(table.check_series(LOSS, Steps::From((1 << 53) - 2), 3).is_err());
    assert_eq!(table.last_step(LOSS), None);
}

#[test]
fn test_an_environment_that_is_there_twice_does_not_pass_the_end() {
    let mut table = table();
    let envs = [EnvNo(1), EnvNo(1)];
    for (metric, most) in [(RETURN, MAX_EPISODE), (REWARD, MAX_ENVIRONMENT_STEP)] {
        let episode = if metric == RETURN { most - 2 } else { 0 };
        let step = if metric == RETURN { UNUSED } else { most - 2 };
        table.seed_series(metric, EnvNo(1), Position { rl_step: 0, episode, step });
        let values = [0.0; 4];
        let call = |envs, per_env: usize, count: usize| EnvCall {
            metric,
            rl_step: 0,
            envs,
            per_env,
            episodes: (metric == REWARD).then_some(Spread::All(0)),
            timestamps: None,
            values: Values::F64(&values[..count]),
        };
        table.check_env_call(&call(&envs[..1], 2, 2)).unwrap();
        table.check_env_call(&call(&envs, 1, 2)).unwrap();
        assert!(table.check_env_call(&call(&envs, 2, 4)).is_err());
    }
}
