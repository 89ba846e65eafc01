//! The episodes that a block was given, checked and brought to their shortest form.

use super::{check_rl_step, first_outside};
use crate::calls::{EnvCall, Spread};
use crate::error::InvalidArgument;
use crate::types::{MAX_EPISODE, Scale};

/// Episodes of a block, each in range.
#[derive(Debug)]
pub struct Episodes<'a>(Form<'a>);

#[derive(Debug)]
enum Form<'a> {
    Given(Option<Spread<'a>>),
    /// One for each environment, where all of its points were given the same.
    Rows(Vec<i64>),
}

/// The episodes of one environment.
#[derive(Clone, Copy)]
pub(super) enum RowEpisodes<'a> {
    Automatic,
    First(i64),
    Each(&'a [i64]),
}

impl<'a> Episodes<'a> {
    /// Makes the checks of a block that need no state, so that they are made outside the lock.
    ///
    /// # Errors
    ///
    /// An `rl_step` or an episode outside its range.
    pub fn check(call: &EnvCall<'a>, scale: Scale) -> Result<Self, InvalidArgument> {
        check_rl_step(call.rl_step)?;
        let is_episode = scale == Scale::Episode;
        // The greatest that the first of a row may be.
        let most =
            if is_episode { MAX_EPISODE - (call.per_env as i64).max(1) + 1 } else { MAX_EPISODE };
        let outside = match call.episodes {
            None => None,
            Some(Spread::All(episode)) => first_outside(&[episode], most),
            Some(Spread::PerEnv(each)) => first_outside(each, most),
            Some(Spread::Each(each)) => {
                let rows = if is_episode { None } else { one_of_each_row(each, call.per_env) };
                if let Some(rows) = rows {
                    match first_outside(&rows, most) {
                        None => return Ok(Self(Form::Rows(rows))),
                        outside => outside,
                    }
                } else {
                    first_outside(each, MAX_EPISODE)
                }
            }
        };
        match outside {
            None => Ok(Self(Form::Given(call.episodes))),
            Some(episode) => {
                Err(InvalidArgument::new("episode", format!("{episode}; 0 to {MAX_EPISODE}")))
            }
        }
    }

    pub(super) fn row(&self, row: usize, per_env: usize) -> RowEpisodes<'_> {
        match &self.0 {
            Form::Given(None) => RowEpisodes::Automatic,
            Form::Given(Some(Spread::All(episode))) => RowEpisodes::First(*episode),
            Form::Given(Some(Spread::PerEnv(each))) => RowEpisodes::First(each[row]),
            Form::Given(Some(Spread::Each(each))) => {
                RowEpisodes::Each(&each[row * per_env..][..per_env])
            }
            Form::Rows(each) => RowEpisodes::First(each[row]),
        }
    }
}

/// The first of each row, if all of a row are the same. Most steps of a block are, and are then
/// looked at once, by a comparison of memory, not again while the lock is held.
fn one_of_each_row(each: &[i64], per_env: usize) -> Option<Vec<i64>> {
    if per_env < 2 {
        return None;
    }
    let is_constant = |row: &[i64]| row[1..] == row[..row.len() - 1];
    each.chunks_exact(per_env).map(|row| is_constant(row).then(|| row[0])).collect()
}
