//! The bytes of a file of cursors, as [`cursors`](super) draws them.

use std::collections::HashMap;
use std::path::Path;

use super::{CURSORS_VERSION, CursorSet, CursorsError, EnvironmentCursor, SeriesCursor};
use crate::types::{Position, Scale};

const MAGIC: [u8; 8] = *b"METRCURS";
const HEADER_BYTES: usize = 32;

impl CursorSet {
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
                listed.push(EnvironmentCursor::nowhere(env_id));
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
