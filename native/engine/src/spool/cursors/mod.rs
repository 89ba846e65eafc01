//! Where a writer's series and environments stood, so that an offline resume goes on from there.
//!
//! One file a writer, replaced whole: before acknowledged segments are deleted, and at close.
//!
//! ```text
//! 0 magic "METRCURS"   8 version u16, 0 u16, 0 u32   16 body length u64   24 CRC32C of the body   28 CRC32C of bytes 0..28
//! 32 body:
//!    u32 environments, each  env_id, rl_step i64, episode i64, ended_episode i64
//!    u32 metrics, each       scale u8, name, u32 labels, (key, value)…
//!    u32 series, each        metric u32 (place above, from 0), env u32 (place above, from 1; 0: none),
//!                            rl_step i64, episode i64, step i64
//! ```
//!
//! Strings are `length u32, UTF-8`. −1 is an unused coordinate, as everywhere.

mod bytes;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{SpoolFiles, replace_file};
use crate::platform::Durability;
use crate::types::{Position, Scale, UNUSED};

/// The version of the layout above.
pub const CURSORS_VERSION: u16 = 1;

/// The greatest positions of a writer, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorSet {
    /// Of each series.
    pub series: Vec<SeriesCursor>,
    /// Of each environment.
    pub environments: Vec<EnvironmentCursor>,
}

/// The greatest position of a series, as [`Position::furthest`] merges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesCursor {
    /// The metric's name.
    pub name: String,
    /// The metric's scale.
    pub scale: Scale,
    /// The metric's labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// The environment, if the series has one.
    pub env_id: Option<String>,
    /// The position.
    pub position: Position,
}

/// Where an environment stands; −1: nowhere yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentCursor {
    /// Which one.
    pub env_id: String,
    /// The greatest `rl_step`.
    pub rl_step: i64,
    /// The greatest episode.
    pub episode: i64,
    /// The greatest episode that has an EPISODE point; later steps belong to the next.
    pub ended_episode: i64,
}

impl EnvironmentCursor {
    /// The cursor of an environment that nothing was logged for.
    pub fn nowhere(env_id: &str) -> Self {
        let env_id = env_id.to_owned();
        Self { env_id, rl_step: UNUSED, episode: UNUSED, ended_episode: UNUSED }
    }
}

/// Why a file of cursors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CursorsError {
    /// The system refused.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged: the steps it held are not known", .0.display())]
    Damaged(PathBuf),
    /// A newer engine wrote it.
    #[error(
        "{} has version {version}, and this metrana reads up to {CURSORS_VERSION}: upgrade metrana to read it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
}

impl CursorSet {
    /// Takes the greater of each position of this set and another.
    pub fn merge(&mut self, other: Self) {
        if self.series.is_empty() && self.environments.is_empty() {
            *self = other;
            return;
        }
        self.merge_series(other.series);
        self.merge_environments(other.environments);
    }

    fn merge_series(&mut self, others: Vec<SeriesCursor>) {
        type Key<'a> = (&'a str, Scale, &'a [(String, String)], Option<&'a str>);
        fn key(series: &SeriesCursor) -> Key<'_> {
            (&series.name, series.scale, &series.labels, series.env_id.as_deref())
        }
        let places: HashMap<_, _> =
            self.series.iter().enumerate().map(|(at, series)| (key(series), at)).collect();
        let found: Vec<_> = others.iter().map(|other| places.get(&key(other)).copied()).collect();
        for (other, place) in others.into_iter().zip(found) {
            match place.and_then(|at| self.series.get_mut(at)) {
                Some(ours) => ours.position = ours.position.furthest(other.position),
                None => self.series.push(other),
            }
        }
    }

    fn merge_environments(&mut self, others: Vec<EnvironmentCursor>) {
        let places: HashMap<_, _> = (self.environments.iter().enumerate())
            .map(|(at, environment)| (environment.env_id.as_str(), at))
            .collect();
        let found: Vec<_> =
            others.iter().map(|other| places.get(other.env_id.as_str()).copied()).collect();
        for (other, place) in others.into_iter().zip(found) {
            match place.and_then(|at| self.environments.get_mut(at)) {
                Some(ours) => {
                    ours.rl_step = ours.rl_step.max(other.rl_step);
                    ours.episode = ours.episode.max(other.episode);
                    ours.ended_episode = ours.ended_episode.max(other.ended_episode);
                }
                None => self.environments.push(other),
            }
        }
    }

    /// Replaces the file at `path` by this set, atomically. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the old file stays then.
    pub fn write(&self, path: &Path, files: &dyn SpoolFiles) -> Result<(), CursorsError> {
        let failed =
            |doing| move |source| CursorsError::Io { doing, path: path.to_owned(), source };
        replace_file(files, path, Durability::Durable, &self.encode()).map_err(failed("writing"))
    }

    /// Reads a file of cursors.
    ///
    /// # Errors
    ///
    /// When it is missing, damaged or of a newer version.
    pub fn read(path: &Path) -> Result<Self, CursorsError> {
        let bytes = std::fs::read(path).map_err(|source| CursorsError::Io {
            doing: "reading",
            path: path.to_owned(),
            source,
        })?;
        Self::decode(&bytes, path)
    }
}

#[cfg(test)]
mod tests;
