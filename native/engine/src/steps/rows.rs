//! One environment's share of a call, and the runs that it falls into.

use super::episodes::RowEpisodes;
use crate::record::{BlockSegment, MAX_SEGMENT_POINTS};
use crate::types::{EnvNo, UNUSED};

/// Where a (metric, environment) has got to.
#[derive(Clone, Copy, Debug)]
pub(super) struct EnvSeries {
    /// This writer's last, which is its greatest too: it may not go back. −1: only seeded.
    pub rl_step: i64,
    /// `ENVIRONMENT_STEP`: the episode of the last step. EPISODE: the greatest. −1: none.
    pub episode: i64,
    /// `ENVIRONMENT_STEP`: the next step of `episode`.
    pub next_step: i64,
    /// Of this writer's greatest position, whose `rl_step` is the one above.
    pub greatest_episode: i64,
    pub greatest_step: i64,
    /// `ENVIRONMENT_STEP`: the greatest episode that steps left for another one, and the last step
    /// inside it.
    left: (i64, i64),
}

impl EnvSeries {
    pub const NEW: Self = Self {
        rl_step: UNUSED,
        episode: UNUSED,
        next_step: 0,
        greatest_episode: UNUSED,
        greatest_step: UNUSED,
        left: (UNUSED, UNUSED),
    };

    /// `ENVIRONMENT_STEP`: the greatest episode and the last step inside it, which need not be where
    /// the greatest `rl_step` is: episodes may go back.
    pub fn furthest_step(&self) -> (i64, i64) {
        self.left.max((self.episode, self.next_step - 1))
    }

    /// How many of `count` points from (`rl_step`, `episode`, `step`) on are rewound, `episode`
    /// being the coordinate that grows. Notes the greatest.
    pub fn pass_episodes(&mut self, rl_step: i64, first: i64, count: i64) -> i64 {
        if rl_step > self.rl_step {
            (self.rl_step, self.greatest_episode) = (rl_step, UNUSED);
        }
        let rewound = (self.greatest_episode - first + 1).clamp(0, count);
        self.greatest_episode = self.greatest_episode.max(first + count - 1);
        rewound
    }

    /// The same with `step` growing.
    #[inline]
    pub fn pass_steps(&mut self, rl_step: i64, episode: i64, first: i64, count: i64) -> i64 {
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

/// Where an environment has got to, over all metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct EnvSteps {
    pub rl_step: i64,
    pub episode: i64,
    /// What steps without an episode belong to.
    pub current: i64,
    /// The greatest episode with an EPISODE point.
    pub ended: i64,
}

impl EnvSteps {
    pub const NEW: Self = Self { rl_step: UNUSED, episode: UNUSED, current: 0, ended: UNUSED };

    pub fn end(&mut self, episode: i64) {
        self.ended = self.ended.max(episode);
        self.current = self.current.max(episode + 1);
    }
}

/// One environment's points of a call.
pub(super) struct Row<'a> {
    pub env: EnvNo,
    pub rl_step: i64,
    pub series: &'a mut EnvSeries,
    pub steps: &'a mut EnvSteps,
    pub out: &'a mut Vec<BlockSegment>,
}

impl Row<'_> {
    pub fn pass_episodes(&mut self, given: RowEpisodes<'_>, count: usize) {
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
    pub fn pass_steps(&mut self, given: RowEpisodes<'_>, count: usize) {
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
        let first = if self.series.episode == episode {
            self.series.next_step
        } else {
            self.series.left = self.series.furthest_step();
            0
        };
        let rewound = self.series.pass_steps(self.rl_step, episode, first, count);
        (self.series.episode, self.series.next_step) = (episode, first + count);
        self.steps.episode = self.steps.episode.max(episode);
        self.steps.current = episode;
        let run = Run { env: self.env, episode, step: first, episode_grows: false };
        run.emit(count, rewound, self.out);
    }
}

/// Consecutive points, where the next of them lies.
pub(super) struct Run {
    pub env: EnvNo,
    pub episode: i64,
    pub step: i64,
    pub episode_grows: bool,
}

impl Run {
    /// Splits exactly where points stop being rewound.
    #[inline]
    pub fn emit(self, count: i64, rewound: i64, out: &mut Vec<BlockSegment>) {
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

/// How many items from the first on grow by one each.
pub(super) fn consecutive(items: &[i64]) -> usize {
    1 + items.windows(2).take_while(|pair| pair[1] == pair[0].wrapping_add(1)).count()
}

/// How many items from the first on are the same. Whole chunks are compared without a branch an
/// item, because a row nearly always is one episode.
pub(super) fn equal(items: &[i64]) -> usize {
    const CHUNK: usize = 16;
    let first = items[0];
    let chunks = items
        .chunks_exact(CHUNK)
        .take_while(|chunk| chunk.iter().fold(0, |bits, item| bits | (item ^ first)) == 0)
        .count();
    let rest = &items[chunks * CHUNK..];
    chunks * CHUNK + rest.iter().take_while(|item| **item == first).count()
}
