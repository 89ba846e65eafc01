//! `<rendering_id>.json`: what a rendering is.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;

use super::RenderingError;
use crate::batch::RenderingEnd;

/// The newest version that is read.
const VERSION: u64 = 1;
/// A sidecar has some hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What is known of a rendering without its video.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sidecar {
    /// Without size, checksum and number of frames.
    pub end: RenderingEnd,
    /// Of a finished one.
    pub frame_count: Option<u64>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Deserialize)]
struct Fields {
    env_id: String,
    episode: i64,
    rl_step: i64,
    part: u32,
    width: u32,
    height: u32,
    fps: f64,
    #[serde(default)]
    frame_count: Option<u64>,
}

impl Sidecar {
    pub fn read(path: &Path) -> Result<Self, RenderingError> {
        let malformed =
            |what: String| RenderingError::Malformed(format!("{}: {what}", path.display()));
        let text = match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(malformed("it is missing".to_owned()));
            }
            text => text.map_err(RenderingError::io("reading", path))?,
        };
        // The version first: a newer file need not have the fields that follow.
        let Versioned { version } =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if version > VERSION {
            return Err(RenderingError::Newer { path: path.to_owned(), version });
        }
        let fields: Fields =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        let end = RenderingEnd {
            env_id: fields.env_id,
            episode: fields.episode,
            rl_step: fields.rl_step,
            part: fields.part,
            width: fields.width,
            height: fields.height,
            fps: fields.fps,
            frame_count: 0,
            size: 0,
            sha256: [0; 32],
        };
        end.check().map_err(|what| malformed(what.to_owned()))?;
        Ok(Self { end, frame_count: fields.frame_count })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}
