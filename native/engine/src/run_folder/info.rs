//! `run.json` and `writer.json`: who a run is, and who writes to it.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Liveness, RunFolderError};
use crate::platform::{self, Durability, LockFile};
use crate::ring;
use crate::spool::{SpoolFiles, replace_file};
use crate::transport::WriterIdentity;
use crate::types::{RunId, WriterId};

/// The version of both files.
pub const INFO_VERSION: u16 = 1;
/// The key of the checksum in `run.json`.
const CHECKSUM: &str = "crc32c";

/// `run.json`: written once by whoever creates the run, kept after delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// [`INFO_VERSION`].
    pub version: u16,
    /// Minted by the creator.
    #[serde(with = "hex")]
    pub run_id: RunId,
    /// `local` or the normalised URL.
    pub destination: String,
    pub workspace_name: String,
    pub project_name: String,
    pub run_name: String,
    pub experiment_name: String,
    /// Who may join without asking.
    pub orchestration_id: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Where it was created, if that machine has an id.
    pub machine_id: Option<String>,
}

/// `writer.json`: replaced whole when something in it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterInfo {
    /// [`INFO_VERSION`].
    pub version: u16,
    #[serde(with = "hex")]
    pub writer_id: WriterId,
    #[serde(with = "hex")]
    pub run_id: RunId,
    /// Its place in the run's folder, from 1.
    pub number: u32,
    /// Who the points of `log_distributed` are from; empty: the writer.
    pub logger_id: String,
    pub host: String,
    pub pid: u32,
    pub machine_id: Option<String>,
    pub boot_id: Option<String>,
    /// Its ring's file; none when the ring is anonymous memory.
    pub ring: Option<PathBuf>,
    /// Bytes of records the ring has room for; 0: it was about to be made, and is empty if it was.
    pub ring_capacity: u64,
    /// Which tmpfs the ring is on, so that a ring out of reach (another container's) is told from
    /// one that is gone.
    #[serde(default)]
    pub ring_device: Option<u64>,
    pub sender: SenderKind,
    pub client_version: String,
    /// Unix milliseconds.
    pub opened_at_ms: i64,
    pub options: WriterOptions,
    /// Set when nothing of the writer is left outside the spool but renderings, which lie in its folder.
    #[serde(default)]
    pub ended: Option<WriterEnd>,
    /// The last batch of a writer that has ended; it tells of a spool that was cut where a frame ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
    /// Up to which batch a writer that has ended was acknowledged; it tells what was lost from what
    /// its server had before it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<u64>,
}

/// What the server is told when the writer opens the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterOptions {
    pub experiment_name: String,
    pub create_project_if_missing: bool,
    /// `never` or `allow`.
    pub resume_strategy: String,
}

/// Who sends a living writer's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SenderKind {
    /// Nobody in its process: others may follow the spool.
    None,
    /// The writer itself.
    Grpc,
}

/// How a writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriterEnd {
    /// By `close()`.
    Closed,
    /// It died, and somebody sealed what its ring held, or found that nothing can be.
    Recovered,
}

impl WriterInfo {
    /// Why nobody will ever read the ring of this writer, which is dead; `None`: somebody may.
    pub fn ring_loss(&self) -> Option<String> {
        let Some(path) = self.ring.as_deref() else {
            return Some("it was memory of its process".to_owned());
        };
        let boot_id = platform::boot_id();
        if boot_id.is_some() && self.boot_id.is_some() && boot_id != self.boot_id {
            return Some("the machine was restarted".to_owned());
        }
        // No file by that name: deleted, if we look into the memory it was in.
        let here = path.parent().and_then(|folder| platform::device(folder).ok().flatten());
        let is_here = here.is_some() && here == self.ring_device;
        let is_deleted = is_here && path.try_exists().is_ok_and(|exists| !exists);
        is_deleted.then(|| format!("{} was deleted", path.display()))
    }

    /// Bytes of its ring that are in no spool; `None`: that cannot be told from here.
    pub fn ring_bytes(&self, liveness: Liveness) -> Option<u64> {
        let is_empty = self.ended.is_some() || self.ring_capacity == 0;
        if is_empty || (liveness == Liveness::Dead && self.ring_loss().is_some()) {
            return Some(0);
        }
        ring::unsealed_bytes(self.ring.as_deref()?, self.writer_id).ok()
    }

    /// A sentence for the user. In bytes: a point alone takes several times what one of an array
    /// does.
    pub fn about_ring(&self, what: &str, why: &str) -> String {
        let Self { writer_id, host, ring_capacity: bytes, .. } = self;
        format!(
            "ring of writer {writer_id} on host {host}, up to {bytes} bytes of points, {what}: {why}"
        )
    }
}

impl WriterIdentity {
    /// What a server is told of the writer with this `writer.json`.
    pub fn of(info: &WriterInfo, liveness: Liveness) -> Self {
        Self {
            writer_id: info.writer_id,
            number: info.number,
            logger_id: info.logger_id.clone(),
            host: info.host.clone(),
            pid: info.pid,
            client_version: info.client_version.clone(),
            opened_at_ms: info.opened_at_ms,
            dead: liveness == Liveness::Dead,
        }
    }
}

/// Reads one of the two files.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, RunFolderError> {
    let text = std::fs::read(path).map_err(RunFolderError::io("reading", path))?;
    parse(path, &text)
}

/// Reads `run.json`: with another id than it was written with, points would go to another run.
pub(super) fn read_run(path: &Path) -> Result<RunInfo, RunFolderError> {
    let text = std::fs::read(path).map_err(RunFolderError::io("reading", path))?;
    let run = parse(path, &text)?;
    let mut found: Map<String, Value> = parse(path, &text)?;
    // An older engine wrote none.
    let Some(written) = found.remove(CHECKSUM) else { return Ok(run) };
    if checksum(&found).is_ok_and(|checksum| written == checksum) {
        return Ok(run);
    }
    Err(RunFolderError::Unreadable {
        path: path.to_owned(),
        what: "its checksum is wrong".to_owned(),
    })
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, RunFolderError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u16,
    }
    let unreadable = |error: serde_json::Error| RunFolderError::Unreadable {
        path: path.to_owned(),
        what: error.to_string(),
    };
    // The version first: a newer file need not have the fields that follow.
    let Versioned { version } = serde_json::from_slice(text).map_err(unreadable)?;
    if version > INFO_VERSION {
        return Err(RunFolderError::Newer { path: path.to_owned(), version });
    }
    serde_json::from_slice(text).map_err(unreadable)
}

/// Replaces one of the two files.
pub(super) fn replace<T: Serialize>(
    path: &Path,
    info: &T,
    durability: Durability,
    files: &dyn SpoolFiles,
) -> Result<(), RunFolderError> {
    text(info)
        .and_then(|text| replace_file(files, path, durability, &text))
        .map_err(RunFolderError::io("writing", path))
}

/// Writes `run.json` if there is none, with a checksum of what it says; see [`create`].
pub(super) fn create_run(path: &Path, run: &RunInfo) -> io::Result<bool> {
    #[derive(Serialize)]
    struct Checked<'a> {
        #[serde(flatten)]
        run: &'a RunInfo,
        crc32c: String,
    }
    let crc32c = checksum(&serde_json::to_value(run)?)?;
    create(path, &Checked { run, crc32c })
}

/// Of a JSON object without spaces, its keys in order; eight hexadecimal digits.
fn checksum(object: &impl Serialize) -> serde_json::Result<String> {
    Ok(format!("{:08x}", crc32c::crc32c(&serde_json::to_vec(object)?)))
}

/// Writes one of the two files if there is none; `false`: there is. A reader never sees half of it
/// where the file system knows hard links.
pub(super) fn create<T: Serialize>(path: &Path, info: &T) -> io::Result<bool> {
    let text = text(info)?;
    let temporary = platform::temporary_path(path)?;
    let mut file = platform::private_file().write(true).create_new(true).open(&temporary)?;
    let linked = file
        .write_all(&text)
        .and_then(|()| file.sync_data())
        .and_then(|()| std::fs::hard_link(&temporary, path));
    // Whatever became of it, only the other name counts.
    let _ = std::fs::remove_file(&temporary);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) if has_no_links(&error) => create_directly(path, &text),
        Err(error) => Err(error),
    }
}

/// On file systems without hard links; readers wait for the rest.
fn create_directly(path: &Path, text: &[u8]) -> io::Result<bool> {
    let options = &mut platform::private_file();
    match LockFile::open(options.write(true).create_new(true), path) {
        Ok(file) => fill(&file, path, text),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file that was just created; `false`: somebody took it for a dead process's.
pub(super) fn fill(mut file: &File, path: &Path, text: &[u8]) -> io::Result<bool> {
    // Where there are no locks, whoever finds the file empty waits long enough.
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Ok(false);
    }
    let written = file.write_all(text).and_then(|()| file.sync_data());
    // Whoever has the lock may have deleted it before this one had it.
    let is_ours = platform::is_same_file(file, path)?;
    if written.is_err() && is_ours {
        // Half of it would be nobody's and stand in everybody's way.
        let _ = std::fs::remove_file(path);
    }
    written.map(|()| is_ours)
}

/// Deletes one of the two files if it is empty: its creator died before it wrote anything. `false`:
/// it is not empty, or is being filled.
pub(super) fn remove_empty(path: &Path) -> io::Result<bool> {
    let file = match LockFile::open(platform::private_file().read(true).write(true), path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    // Whoever deletes or fills it has its lock, so what is deleted is the file that was looked at.
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || file.metadata()?.len() > 0 {
        return Ok(false);
    }
    if platform::is_same_file(&file, path)? {
        std::fs::remove_file(path)?;
    }
    Ok(true)
}

fn has_no_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}

fn text<T: Serialize>(info: &T) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(info)?;
    text.push(b'\n');
    Ok(text)
}

/// Ids as 32 hexadecimal digits.
mod hex {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        id: &impl Display,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
