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

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::platform::{self, Durability};
use crate::types::{Position, Scale, UNUSED};

/// The version of the layout above.
pub const CURSORS_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"METRCURS";
const HEADER_BYTES: usize = 32;

/// The greatest positions of a writer, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorSet {
    /// Of each series.
    pub series: Vec<SeriesCursor>,
    /// Of each environment.
    pub environments: Vec<EnvironmentCursor>,
}

/// The greatest position of a series.
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
                Some(ours) => ours.position = ours.position.max(other.position),
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

    /// The bytes of a file of cursors.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut environments = Places::default();
        let mut listed = self.environments.clone();
        for environment in &self.environments {
            environments.place(environment.env_id.as_str());
        }
        for env_id in self.series.iter().filter_map(|series| series.env_id.as_deref()) {
            if environments.place(env_id).is_new {
                let env_id = env_id.to_owned();
                let nowhere = UNUSED;
                listed.push(EnvironmentCursor {
                    env_id,
                    rl_step: nowhere,
                    episode: nowhere,
                    ended_episode: nowhere,
                });
            }
        }
        put_u32(&mut body, listed.len());
        for environment in &listed {
            put_str(&mut body, &environment.env_id);
            for at in [environment.rl_step, environment.episode, environment.ended_episode] {
                body.extend_from_slice(&at.to_le_bytes());
            }
        }
        self.encode_series(&mut environments, &mut body);
        let mut bytes = header(&body);
        bytes.extend_from_slice(&body);
        bytes
    }

    fn encode_series<'a>(&'a self, environments: &mut Places<&'a str>, body: &mut Vec<u8>) {
        let mut metrics = Places::default();
        let mut metric_bytes = Vec::new();
        let mut series_bytes = Vec::new();
        for series in &self.series {
            let metric = metrics.place((&series.name, series.scale, &series.labels));
            if metric.is_new {
                put_metric(&mut metric_bytes, series);
            }
            put_u32(&mut series_bytes, metric.at);
            let env = series.env_id.as_deref().map(|env_id| environments.place(env_id).at + 1);
            put_u32(&mut series_bytes, env.unwrap_or(0));
            let Position { rl_step, episode, step } = series.position;
            for at in [rl_step, episode, step] {
                series_bytes.extend_from_slice(&at.to_le_bytes());
            }
        }
        put_u32(body, metrics.0.len());
        body.extend_from_slice(&metric_bytes);
        put_u32(body, self.series.len());
        body.extend_from_slice(&series_bytes);
    }

    /// Reads what [`encode`](Self::encode) wrote; `path` is for the error.
    ///
    /// # Errors
    ///
    /// When the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, CursorsError> {
        let damaged = || CursorsError::Damaged(path.to_owned());
        let body = checked_body(bytes, path)?;
        let mut input = Input(body);
        let set = input.cursors().filter(|_| input.0.is_empty());
        set.ok_or_else(damaged)
    }

    /// Replaces the file at `path` by this set, atomically. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the old file stays then.
    pub fn write(&self, path: &Path) -> Result<(), CursorsError> {
        let failed =
            |doing| move |source| CursorsError::Io { doing, path: path.to_owned(), source };
        platform::replace_file(path, Durability::Durable, |file| file.write_all(&self.encode()))
            .map_err(failed("writing"))
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

/// Places in order of first appearance, from 0.
struct Places<K>(HashMap<K, usize>);

struct Place {
    at: usize,
    is_new: bool,
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: std::hash::Hash + Eq> Places<K> {
    fn place(&mut self, key: K) -> Place {
        let next = self.0.len();
        let at = *self.0.entry(key).or_insert(next);
        Place { at, is_new: at == next }
    }
}

fn header(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&CURSORS_VERSION.to_le_bytes());
    bytes.resize(16, 0);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn checked_body<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a [u8], CursorsError> {
    let damaged = || CursorsError::Damaged(path.to_owned());
    let (fixed, body) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
    let mut input = Input(&fixed[28..]);
    if fixed[..8] != MAGIC || input.u32() != Some(crc32c::crc32c(&fixed[..28])) {
        return Err(damaged());
    }
    let version = u16::from_le_bytes([fixed[8], fixed[9]]);
    if version > CURSORS_VERSION {
        return Err(CursorsError::Newer { path: path.to_owned(), version });
    }
    // The header's length and checksum, computed anew, must be those it has.
    if header(body) == fixed { Ok(body) } else { Err(damaged()) }
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&(number as u32).to_le_bytes());
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_metric(out: &mut Vec<u8>, series: &SeriesCursor) {
    out.push(series.scale as u8);
    put_str(out, &series.name);
    put_u32(out, series.labels.len());
    for (key, value) in &series.labels {
        put_str(out, key);
        put_str(out, value);
    }
}

type Metric = (String, Scale, Vec<(String, String)>);

/// What is left to decode; everything is `None` once it runs short.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.bytes(8)?.try_into().ok().map(i64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let count = self.u32()?;
        String::from_utf8(self.bytes(count as usize)?.to_vec()).ok()
    }

    /// A count and that many of something; nothing is allocated for a count that lies.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| item(self)).collect()
    }

    fn cursors(&mut self) -> Option<CursorSet> {
        let environments = self.list(Self::environment)?;
        let metrics = self.list(Self::metric)?;
        let series = self.list(|input| input.series(&metrics, &environments))?;
        Some(CursorSet { series, environments })
    }

    fn environment(&mut self) -> Option<EnvironmentCursor> {
        Some(EnvironmentCursor {
            env_id: self.text()?,
            rl_step: self.i64()?,
            episode: self.i64()?,
            ended_episode: self.i64()?,
        })
    }

    fn metric(&mut self) -> Option<Metric> {
        let scale = Scale::from_u8(*self.bytes(1)?.first()?)?;
        let name = self.text()?;
        let labels = self.list(|input| Some((input.text()?, input.text()?)))?;
        Some((name, scale, labels))
    }

    fn series(
        &mut self,
        metrics: &[Metric],
        environments: &[EnvironmentCursor],
    ) -> Option<SeriesCursor> {
        let (name, scale, labels) = metrics.get(self.u32()? as usize)?.clone();
        let env_id = match self.u32()? {
            0 => None,
            place => Some(environments.get(place as usize - 1)?.env_id.clone()),
        };
        let position = Position { rl_step: self.i64()?, episode: self.i64()?, step: self.i64()? };
        Some(SeriesCursor { name, scale, labels, env_id, position })
    }
}
